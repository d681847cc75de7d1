//! Where a conversation stands, in the words of api.md section 2.

use serde::{Serialize, Serializer};

use super::Timestamp;

/// Where the link stands, in the words of api.md section 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// No socket, and none wanted.
    #[default]
    Cold,
    /// A connect is under way.
    Connecting,
    /// A socket is open.
    Ready,
    /// The next connect waits for its time.
    BackingOff,
    /// The platform must be left alone.
    Blocked,
    /// The last turn is awaited, then the socket is closed.
    Draining,
}

impl LinkState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Cold, Self::Connecting, Self::Ready, Self::BackingOff, Self::Blocked, Self::Draining];

    /// Its word in the API.
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

impl Serialize for LinkState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A conversation's connection to the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// Where it stands.
    pub state: LinkState,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
    /// Why it is not ready, in words without secrets; none where it is, or where nothing stands in its way.
    pub reason: Option<Box<str>>,
    /// When the next connect may be tried, where it waits for that.
    pub retry_at: Option<Timestamp>,
}

/// A conversation as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationState {
    /// Its connection.
    pub connection: ConnectionStatus,
    /// The platform's id of the running session, where it told one.
    pub session_id: Option<Box<str>>,
    /// The place of the newest entry of the journal; 0 where there is none.
    pub last_seq: u64,
    /// How many messages have not ended.
    pub open_messages: u64,
    /// When something was last written of it; none for a conversation that nobody knows.
    pub last_activity_at: Option<Timestamp>,
}
