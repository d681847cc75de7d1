//! What the platform saw, for tests to look at.

use jiff::Timestamp;
use serde_json::Value;

/// Observations of one kind that are kept per user; later ones are counted only.
const KEPT: usize = 10_000;

/// All that was observed of one user.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The user messages, in the order in which they came.
    pub messages: Kept<Heard>,
    /// Everything else that came from the user: events, delivery acks, session ends, unreadable frames.
    pub others: Kept<Heard>,
    /// The sockets that were opened.
    pub connects: Kept<Connected>,
    /// The sockets that are gone.
    pub closes: Kept<Closed>,
    /// What was said to the user.
    pub delivered: Kept<Delivered>,
    /// Application pings.
    pub pings: usize,
    /// Web socket pings.
    pub ws_pings: usize,
    /// Grants.
    pub grants: usize,
    /// `rtm/start`s that were answered with a URL.
    pub starts: usize,
    /// Reads of the history.
    pub history_reads: usize,
}

/// A bounded list that still counts when it is full.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    list: Vec<T>,
    count: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { list: Vec::new(), count: 0 }
    }
}

impl<T> Kept<T> {
    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.list.len() < KEPT {
            self.list.push(item);
        }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl<T> std::ops::Deref for Kept<T> {
    type Target = [T];

    /// The first 10 000 of them.
    fn deref(&self) -> &[T] {
        &self.list
    }
}

/// A frame that came from a user.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When.
    pub at: Timestamp,
    /// On which socket.
    pub socket: u64,
    /// Its `clientMessageId`, as it was; `null` where there is none.
    pub client_message_id: Value,
    /// `message.body`; empty where it is no text.
    pub text: String,
    /// The whole frame; a string where it is not JSON.
    pub frame: Value,
}

/// A socket that was opened.
#[derive(Debug, Clone)]
pub struct Connected {
    /// When.
    pub at: Timestamp,
    /// Its number, unique in this sandbox.
    pub socket: u64,
    /// The parameter `ConnectionMode`.
    pub mode: Option<String>,
    /// Whether `isReconnect=true` was said.
    pub is_reconnect: bool,
    /// The whole query string.
    pub query: String,
}

/// A socket that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// When.
    pub at: Timestamp,
    /// Its number.
    pub socket: u64,
    /// Why.
    pub how: Ending,
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client sent a close frame with this code, or with none.
    ByClient(Option<u16>),
    /// The platform sent a close frame with this code, or with none.
    ByPlatform(Option<u16>),
    /// The client's end of the TCP connection is gone.
    Lost,
    /// The platform cut the TCP connection.
    Cut,
}

/// A response that was said to a user.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// When.
    pub at: Timestamp,
    /// Its `messageId`.
    pub message_id: String,
    /// Its text, where it is one.
    pub text: String,
    /// The sockets that got it; none where it is in the history only.
    pub sockets: Vec<u64>,
}

/// What was counted over all users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests for a grant, the failed ones too.
    pub grants: u64,
    /// Requests to `rtm/start`, the failed ones too.
    pub starts: u64,
    /// Upgrades that were asked for, the refused ones too.
    pub upgrades: u64,
    /// Requests to the history.
    pub history_reads: u64,
    /// User messages.
    pub messages: u64,
    /// Responses that were said.
    pub responses: u64,
    /// Sockets that are open now.
    pub open_sockets: u64,
}
