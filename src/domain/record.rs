//! What of a conversation must survive a move to another replica.

use std::collections::VecDeque;

use super::{AcceptedMessage, Callback, MessageId, RateWindow, Sha256, Timestamp, TraceId};

/// An id of the platform's, cut to what it is known again by: 64 bits of its SHA-256, the same in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of an id.
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(id);
        Self(digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte)))
    }

    /// The fingerprint of these bits, as [`Fingerprint::bits`] gave them.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The newest replies, by the fingerprints of their ids. A platform repeats frames after a reconnect (protocol.md
/// 5.6), and the owner may have changed since it sent them first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentReplies(VecDeque<Fingerprint>);

impl RecentReplies {
    /// What is repeated was on its way as the socket went: a few.
    const KEPT: usize = 16;
    /// While history is to be read from an earlier message, all since it are kept, within reason.
    pub(crate) const MOST: usize = 128;

    /// Adds the newest, and lets the oldest go where there are 16; `repairing` keeps 128.
    pub fn push(&mut self, reply: Fingerprint, repairing: bool) {
        let most = if repairing { Self::MOST } else { Self::KEPT };
        let over = (self.0.len() + 1).saturating_sub(most);
        self.0.drain(..over);
        self.0.push_back(reply);
    }

    /// The fingerprints, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Fingerprint> {
        self.0.iter().copied()
    }
}

impl FromIterator<Fingerprint> for RecentReplies {
    fn from_iter<I: IntoIterator<Item = Fingerprint>>(replies: I) -> Self {
        let mut recent = Self::default();
        replies.into_iter().for_each(|reply| recent.push(reply, true));
        recent
    }
}

/// The turn that ended last: late replies are joined to it, and told where its end was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTurn {
    /// Its message.
    pub message: MessageId,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What a bot that says what it answers says of its replies; none where an earlier version kept the record.
    pub client_message_id: Option<u64>,
    /// Where its message's caller wanted it told.
    pub callback: Option<Callback>,
    /// The trace that its message was posted in.
    pub trace: TraceId,
}

impl LastTurn {
    /// The turn of this message, which ended then.
    pub fn of(message: &AcceptedMessage, ended_at: Timestamp) -> Self {
        Self {
            message: message.id,
            ended_at,
            client_message_id: Some(message.client_message_id),
            callback: message.new.callback.clone(),
            trace: message.new.trace,
        }
    }

    /// Whether the bot says that it answers its message.
    pub fn is_echoed(&self, id: Option<u64>) -> bool {
        id.is_some() && id == self.client_message_id
    }
}

/// The conversation's record. Its owner writes it whole with every write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationRecord {
    /// Which journal it is: the time of what it began with, or of the last loss that was noticed, in milliseconds.
    /// Places of journals with other epochs mean nothing here.
    pub epoch: u64,
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
    /// The platform's time of that reply, or of one before it where it told none: history is not read from before
    /// then, whoever was connected since.
    pub said_at: Option<Timestamp>,
    /// The newest replies, so that a repeat of one is known.
    pub recent: RecentReplies,
    /// The platform's id of the running session, where it told one.
    pub session_id: Option<Box<str>>,
    /// The turn that ended last.
    pub last_turn: Option<LastTurn>,
    /// Whether a human agent has the conversation.
    pub agent: bool,
    /// Until when the platform must be left alone after a close with 1008.
    pub blocked_until: Option<Timestamp>,
    /// The user's sends of the last minute.
    pub sends: RateWindow,
}

impl ConversationRecord {
    /// Numbers the write that begins now: above the last one, and at least the time in milliseconds. So no number
    /// is ever used twice, not even where the store or an owner forgot the last ones, and a write that was long on
    /// its way is never taken for another.
    pub fn number_write(&mut self, now: Timestamp) {
        self.begin_journal(now);
        self.write = now.as_millis().max(self.write + 1);
    }

    /// Gives the journal its epoch, where this is what it begins with: what is appended is known by epoch and place.
    pub fn begin_journal(&mut self, now: Timestamp) {
        if self.epoch == 0 {
            self.epoch = now.as_millis();
        }
    }

    /// The journal is another one from now on: what readers have read of it may not be what is kept.
    pub fn renew_epoch(&mut self, now: Timestamp) {
        self.epoch = now.as_millis().max(self.epoch + 1);
    }
}
