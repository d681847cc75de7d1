//! What of a conversation must survive a move to another replica.

use super::{MessageId, Timestamp, Window};

/// The turn that ended last: late replies are joined to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastTurn {
    /// Its message.
    pub message: MessageId,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// The conversation's record. Its owner writes it whole with every write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The place of the newest entry of the journal; 0 where there is none.
    pub seq: u64,
    /// The number of the owner's last write; a repeated number is not carried out twice.
    pub write: u64,
    /// When the platform last showed that our session lives. None before the first connect and after the
    /// session's end: then the next connect may bring a welcome.
    pub connected_at: Option<Timestamp>,
    /// The message whose wish for a new session was carried out, so that a take-over does not start one again.
    pub session_done: Option<MessageId>,
    /// The platform's id of the newest reply: history is read forward from it.
    pub last_platform_message: Option<Box<str>>,
    /// The platform's id of the running session, where it told one.
    pub session_id: Option<Box<str>>,
    /// The turn that ended last.
    pub last_turn: Option<LastTurn>,
    /// Whether a human agent has the conversation.
    pub agent: bool,
    /// Until when the platform must be left alone after a close with 1008.
    pub blocked_until: Option<Timestamp>,
    /// The user's sends of the last minute.
    pub sends: Window,
}
