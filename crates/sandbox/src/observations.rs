//! Observations of the platform, for tests.

use actix_web::web::Bytes;
use jiff::Timestamp;
use serde_json::Value;

/// Observations of one kind that are kept per user. Later ones are only counted.
const KEPT: usize = 10_000;

/// All observations of one user.
#[derive(Debug, Clone, Default)]
pub struct UserObservations {
    /// User messages, in the order of arrival.
    pub messages: ObservationList<ReceivedFrame>,
    /// All other frames of the user: events, delivery acks, session ends, unreadable frames.
    pub others: ObservationList<ReceivedFrame>,
    /// Opened sockets.
    pub connects: ObservationList<ConnectObservation>,
    /// Ended sockets.
    pub closes: ObservationList<CloseObservation>,
    /// Responses to the user.
    pub delivered: ObservationList<DeliveryObservation>,
    /// Application pings.
    pub pings: usize,
    /// Web socket pings.
    pub ws_pings: usize,
    /// Grants.
    pub grants: usize,
    /// Content of the requests for a grant.
    pub grant_requests: ObservationList<GrantObservation>,
    /// `botInfo` of the calls of `rtm/start`.
    pub start_infos: ObservationList<Value>,
    /// Calls of `rtm/start` that were answered with a URL.
    pub starts: usize,
    /// Reads of the history.
    pub history_reads: usize,
    /// Uploaded files.
    pub files: ObservationList<FileObservation>,
}

/// A bounded list that keeps counting when it is full.
#[derive(Debug, Clone)]
pub struct ObservationList<T> {
    list: Vec<T>,
    count: usize,
}

impl<T> Default for ObservationList<T> {
    fn default() -> Self {
        Self { list: Vec::new(), count: 0 }
    }
}

impl<T> ObservationList<T> {
    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.list.len() < KEPT {
            self.list.push(item);
        }
    }

    /// Returns the number of all observations.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl<T> std::ops::Deref for ObservationList<T> {
    type Target = [T];

    /// Returns the first 10 000 observations.
    fn deref(&self) -> &[T] {
        &self.list
    }
}

/// A frame of a user.
#[derive(Debug, Clone)]
pub struct ReceivedFrame {
    /// Time of arrival.
    pub at: Timestamp,
    /// Number of the socket.
    pub socket: u64,
    /// Untouched `clientMessageId`; `null` if there is none.
    pub client_message_id: Value,
    /// `message.body`; empty if it is no text.
    pub text: String,
    /// Kind of the frame.
    pub kind: FrameKind,
    /// The whole frame; a string if it is not JSON.
    pub frame: Value,
}

/// A request for a grant that was answered with a token.
#[derive(Debug, Clone)]
pub struct GrantObservation {
    /// `botInfo`; `null` if the body is a form.
    pub bot_info: Value,
    /// Header of the assertion.
    pub header: Value,
    /// Claims of the assertion.
    pub claims: Value,
}

/// Kind of a client's frame (protocol.md 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A user's message.
    Message,
    /// A signal such as `typing`: `/bot.message` with an `event`.
    Signal,
    /// Confirmation that a response was delivered.
    DeliveryAck,
    /// Application ping.
    Ping,
    /// `/bot.closeConversationSession`
    CloseSession,
    /// `/bot.clientEvent`
    ClientEvent,
    /// Other JSON.
    Other,
    /// No JSON.
    Unreadable,
}

impl FrameKind {
    /// Returns the name in `/sandbox/heard`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Signal => "signal",
            Self::DeliveryAck => "ack",
            Self::Ping => "ping",
            Self::CloseSession => "closeSession",
            Self::ClientEvent => "clientEvent",
            Self::Other => "other",
            Self::Unreadable => "unreadable",
        }
    }
}

/// An opened socket.
#[derive(Debug, Clone)]
pub struct ConnectObservation {
    /// Time of the connect.
    pub at: Timestamp,
    /// Number of the socket, unique in this sandbox.
    pub socket: u64,
    /// The parameter `ConnectionMode`.
    pub mode: Option<String>,
    /// Whether `isReconnect=true` was in the query.
    pub is_reconnect: bool,
    /// The whole query string.
    pub query: String,
    /// The header `Origin`, which browsers send.
    pub origin: Option<String>,
}

/// An ended socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseObservation {
    /// Time of the end.
    pub at: Timestamp,
    /// Number of the socket.
    pub socket: u64,
    /// Reason of the end.
    pub ending: SocketEnd,
}

/// Reason why a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The client sent a close frame with this code, or without one.
    ByClient(Option<u16>),
    /// The platform sent a close frame with this code, or without one.
    ByPlatform(Option<u16>),
    /// The client's end of the TCP connection is gone.
    Lost,
    /// The platform cut the TCP connection.
    Cut,
}

/// An uploaded file.
#[derive(Debug, Clone)]
pub struct FileObservation {
    /// Time of the answer with its id.
    pub at: Timestamp,
    /// Its `fileId`.
    pub id: String,
    /// The field `filename`.
    pub name: String,
    /// The field `fileExtension`.
    pub extension: String,
    /// The field `fileContext`.
    pub context: String,
    /// Number of its chunks; `None` if it came as a whole.
    pub chunks: Option<usize>,
    /// Its bytes.
    pub content: Bytes,
}

impl SocketEnd {
    /// Returns the name in `/sandbox/heard`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ByClient(_) => "client",
            Self::ByPlatform(_) => "platform",
            Self::Lost => "lost",
            Self::Cut => "cut",
        }
    }

    /// Returns the code of the close frame, if it had one.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::ByClient(code) | Self::ByPlatform(code) => code,
            Self::Lost | Self::Cut => None,
        }
    }
}

/// A response to a user.
#[derive(Debug, Clone)]
pub struct DeliveryObservation {
    /// Time of the response.
    pub at: Timestamp,
    /// Its `messageId`.
    pub message_id: String,
    /// Its text, if it has one.
    pub text: String,
    /// Numbers of the sockets that got it; empty if it is in the history only.
    pub sockets: Vec<u64>,
}

/// Counts over all users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlatformTotals {
    /// Requests for a grant, failed ones included.
    pub grants: u64,
    /// Requests to `rtm/start`, failed ones included.
    pub starts: u64,
    /// Requests for an upgrade, refused ones included.
    pub upgrades: u64,
    /// Requests to the history.
    pub history_reads: u64,
    /// Requests for uploads, failed ones included.
    pub file_calls: u64,
    /// User messages.
    pub messages: u64,
    /// Responses.
    pub responses: u64,
    /// Open sockets.
    pub open_sockets: u64,
}
