//! The state of a conversation and of its connection, in the terms of api.md section 2.

use serde::Serialize;

use super::Timestamp;

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// No socket, and no need for one.
    #[default]
    Cold,
    /// A connect is under way.
    Connecting,
    /// A socket is open.
    Ready,
    /// The backoff before the next connect runs.
    BackingOff,
    /// The platform blocks connects.
    Blocked,
    /// The socket closes after the running turn.
    Draining,
}

impl LinkState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Cold, Self::Connecting, Self::Ready, Self::BackingOff, Self::Blocked, Self::Draining];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::BackingOff => "backingOff",
            Self::Blocked => "blocked",
            Self::Draining => "draining",
        }
    }
}

/// The status of a conversation's connection to the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// The state of the link.
    pub state: LinkState,
    /// The time of the last change of the state, if known.
    pub since: Option<Timestamp>,
    /// The reason why the link is not ready, without secrets. Empty if the link is ready or has no obstacle.
    pub reason: Option<Box<str>>,
    /// The time of the next connect, if one is planned.
    pub retry_at: Option<Timestamp>,
}

/// The current state of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationState {
    /// Its connection.
    pub connection: ConnectionStatus,
    /// The platform's id of the running session, if the platform gave one.
    pub session_id: Option<Box<str>>,
    /// The position of the newest journal entry; 0 for an empty journal.
    pub last_seq: u64,
    /// The number of messages that have not ended.
    pub open_messages: u64,
    /// The time of the last write, if the conversation exists.
    pub last_activity_at: Option<Timestamp>,
}
