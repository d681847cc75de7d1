//! What the platform does in answer to a message, or out of the blue: one thing after the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::faults::{Endpoint, Fault};

/// One thing that the platform does. A list of them is performed in order; lists of different messages run
/// side by side, so that late answers can cross the next message.
#[derive(Debug, Clone)]
pub enum Step {
    /// Acknowledges the message, its id unchanged.
    Ack,
    /// Acknowledges without `replyto`, as client events are.
    AckWithoutReplyTo,
    /// Acknowledges with this as `replyto`: a number, a float, a string, another message's.
    AckAs(Value),
    /// Waits.
    Wait(Duration),
    /// Waits until the gate opens.
    Until(Gate),
    /// Says a text.
    Say(String),
    /// Sends a `bot_response` with this as its `message` array; [`message_elements`](super::message_elements) makes elements.
    Message(Vec<Value>),
    /// Sends a `bot_response` with these fields over the usual ones; a `null` removes one.
    Response(Value),
    /// Sends this frame as it is.
    Frame(Value),
    /// Sends this text as it is, JSON or not.
    Raw(String),
    /// Sends this as a binary frame.
    Binary(Vec<u8>),
    /// Sends an event of this type, such as `agent_session_start` or one that nobody knows.
    Event(String),
    /// Sends an event of this type with these fields over the usual ones; a `null` removes one.
    EventWith(String, Value),
    /// Sends `waiting_for_user_input`.
    WaitingForInput,
    /// Streams a text (protocol.md 7.4).
    Stream {
        /// The pieces.
        chunks: Vec<String>,
        /// Between two pieces.
        gap: Duration,
        /// How it ends.
        end: StreamEnd,
    },
    /// A human agent takes over: `agent_session_start` and `events` `agent_connected`.
    AgentStart,
    /// The agent types and says a text.
    AgentSay(String),
    /// The agent leaves.
    AgentEnd,
    /// Ends the session: `session_end`.
    EndSession,
    /// Says a text that no socket gets: it is in the history only.
    OnlyHistory(String),
    /// Forgets what was said so far: the history begins anew, and the ids of earlier messages mean nothing to it.
    Forget,
    /// Closes with this code.
    Close(u16),
    /// Closes with a close frame that has no code: what the client sees as 1005.
    CloseWithoutCode,
    /// Drops the TCP connection without a close frame: what the client sees as 1006.
    Drop(Cut),
    /// Stops reading and answering, without closing anything.
    Hang,
    /// Makes all tokens expire.
    ExpireTokens,
    /// Plans a fault for the next requests.
    Fault(Endpoint, usize, Fault),
}

/// How a connection ends without a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In order: FIN.
    Fin,
    /// In anger: RST. Needs [`Options::resets`](super::Options::resets), else it is a FIN.
    Reset,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Its last piece says `endChunk`.
    Marked,
    /// Its last piece says `endChunk` and carries the whole as `completeResponse`.
    Complete,
    /// It does not.
    Missing,
}

/// Keeps a step waiting until a test lets it pass.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate that is shut.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.close();
    }

    pub(super) async fn passed(&self) {
        // Nobody adds permits: the only way through is that the semaphore is closed.
        let _closed = self.0.acquire().await;
    }
}

impl Step {
    /// The usual answer: an ack and a text.
    pub fn reply(text: impl Into<String>) -> Vec<Self> {
        vec![Self::Ack, Self::Say(text.into())]
    }

    /// Whether performing it takes time of the clock.
    pub(super) fn takes_time(&self) -> bool {
        match self {
            Self::Wait(span) => !span.is_zero(),
            Self::Stream { gap, .. } => !gap.is_zero(),
            Self::Until(_) => true,
            _ => false,
        }
    }
}
