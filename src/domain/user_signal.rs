//! Signals of a user's window to the platform: the user types, or has seen a message (protocol.md 6.3).

use serde::{Deserialize, Serialize};

/// A signal. It is sent once at most, and never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSignal {
    /// The kind.
    #[serde(rename = "t")]
    pub kind: SignalKind,
    /// The platform's id of the message that the user has got or read.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<Box<str>>,
}

/// The kind of a signal, by its name in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignalKind {
    /// The user types.
    Typing,
    /// The user has stopped typing.
    StopTyping,
    /// A message was shown to the user.
    Delivered,
    /// The user has read a message.
    Read,
    /// The user closes the conversation with a human agent.
    CloseAgentChat,
}
