//! Steps of the platform: its actions after a message, or unsolicited.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::faults::{Endpoint, Fault};

/// One action of the platform. The steps of one list run in order. Lists of different messages run in parallel, so
/// late answers can cross the next message.
#[derive(Debug, Clone)]
pub enum Step {
    /// Acknowledges the message with its unchanged id.
    Ack,
    /// Acknowledges without `replyto`, as for client events.
    AckWithoutReplyTo,
    /// Acknowledges with this `replyto`: a number, a float, a string or another message's id.
    AckAs(Value),
    /// Waits for a span.
    Wait(Duration),
    /// Waits until the gate opens.
    Until(Gate),
    /// Sends a text.
    Say(String),
    /// Sends a `bot_response` with this `message` array; see [`message_elements`](super::message_elements).
    Message(Vec<Value>),
    /// Sends a `bot_response`. These fields replace the usual ones; a `null` removes one.
    Response(Value),
    /// Sends this frame unchanged.
    Frame(Value),
    /// Sends this text unchanged, JSON or not.
    Raw(String),
    /// Sends this as a binary frame.
    Binary(Vec<u8>),
    /// Sends an event of this type, such as `agent_session_start` or an unknown one.
    Event(String),
    /// Sends an event of this type. These fields replace the usual ones; a `null` removes one.
    EventWith(String, Value),
    /// Sends `waiting_for_user_input`.
    WaitingForInput,
    /// Streams a text (protocol.md 7.4).
    Stream {
        /// The pieces.
        chunks: Vec<String>,
        /// Delay between two pieces.
        gap: Duration,
        /// End of the stream.
        end: StreamEndMarker,
    },
    /// Hands the conversation to a human agent: `agent_session_start` and `events` `agent_connected`.
    AgentStart,
    /// Sends the agent's typing events and a text.
    AgentSay(String),
    /// Reports messages as delivered to the agent or read (`message_delivered`, `message_read`).
    AgentReceipt(ReceiptKind, ReceiptScope),
    /// Gives the conversation back to the bot.
    AgentEnd,
    /// Ends the session with `session_end`.
    EndSession,
    /// Puts a text into the history only.
    OnlyHistory(String),
    /// Empties the history. It does not know the ids of earlier messages from then on.
    Forget,
    /// Closes with this code.
    Close(u16),
    /// Closes with a close frame without a code, which a client sees as 1005.
    CloseWithoutCode,
    /// Drops the TCP connection without a close frame, which a client sees as 1006.
    Drop(CutMode),
    /// Stops reading and answering without closing.
    Hang,
    /// Expires all tokens.
    ExpireTokens,
    /// Plans a fault for the next requests.
    Fault(Endpoint, usize, Fault),
}

/// Kind of an agent's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptKind {
    /// `message_delivered`
    Delivered,
    /// `message_read`
    Read,
}

/// Messages of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptScope {
    /// The message that the steps answer, by its number.
    Answered,
    /// `"all"`: each message so far.
    All,
}

/// End of a connection without a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutMode {
    /// Orderly, by FIN.
    Fin,
    /// By RST. Needs [`SandboxOptions::resets`](super::SandboxOptions::resets); without it this is a FIN.
    Reset,
}

/// End of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum StreamEndMarker {
    /// The last piece has `endChunk`.
    Marked,
    /// The last piece has `endChunk` and the whole text as `completeResponse`.
    #[default]
    Complete,
    /// No piece marks the end.
    Missing,
    /// After the pieces, the whole text comes as a plain frame with the same id.
    Plain,
}

/// Holds a step back until a test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// Returns a closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Opens the gate for good.
    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn passed(&self) {
        // The semaphore never gets a permit, so only its closing lets a step pass.
        let _closed = self.0.acquire().await;
    }
}

impl Step {
    /// Returns the usual answer: an ack and a text.
    pub fn reply(text: impl Into<String>) -> Vec<Self> {
        vec![Self::Ack, Self::Say(text.into())]
    }

    /// Returns whether the step may wait.
    pub(super) fn takes_time(&self) -> bool {
        match self {
            Self::Wait(span) => !span.is_zero(),
            Self::Stream { gap, .. } => !gap.is_zero(),
            Self::Until(_) | Self::AgentSay(_) => true,
            _ => false,
        }
    }
}
