//! What the platform says, in our words: the result of reading one frame.
//!
//! The link decides on these and never on a frame's JSON. Reading is lenient (protocol.md 7): whatever cannot
//! be understood becomes [`IncomingFrame::Unknown`] or [`IncomingFrame::Malformed`], never an error.

use serde_json::value::RawValue;

use crate::domain::Timestamp;

/// One frame of the platform, understood.
#[derive(Debug, Clone)]
pub enum IncomingFrame {
    /// The platform received a frame of ours. `reply_to` is the id it names, where it names one; numbers,
    /// floats and strings of digits all count (protocol.md 6.1).
    Ack {
        /// The `clientMessageId` it acknowledges.
        reply_to: Option<u64>,
    },
    /// The bot, or a human agent, says something.
    Response(Box<BotResponse>),
    /// The connection is ready (`bot_active`).
    Active {
        /// The platform's session, where it names one.
        session_id: Option<Box<str>>,
        /// Whether it says that the session from before is still active (`recentSessionInfo.isActive`).
        session_continues: bool,
    },
    /// A session began.
    SessionStart {
        /// The platform's session, where it names one.
        session_id: Option<Box<str>>,
        /// The frame, untouched.
        event: Box<RawValue>,
    },
    /// The session is over; the frame untouched.
    SessionEnd(Box<RawValue>),
    /// The bot waits at an entity, confirmation or standard response node.
    WaitingForInput,
    /// A human agent took over (`agent_session_start`, or `agent_connected` among `events`); the frame untouched.
    AgentStart(Box<RawValue>),
    /// The bot has the conversation back (`agent_session_end`, `agent_disconnected`); the frame untouched.
    AgentEnd(Box<RawValue>),
    /// A human agent types, or stopped: up to one for each key, and nothing follows from it.
    Typing,
    /// Another session of the same user said something; the frame untouched.
    UserMessage(Box<RawValue>),
    /// The answer to our ping.
    Pong,
    /// A known event that changes nothing for a turn, worth a place in the journal; the frame untouched.
    Platform(Box<RawValue>),
    /// A frame of a type that no source names; the frame untouched.
    Unknown(Box<RawValue>),
    /// Not JSON, not an object, or without a usable type.
    Malformed,
}

/// A `bot_response`.
#[derive(Debug, Clone)]
pub struct BotResponse {
    /// The platform's id of it (`ms-…`); old platforms give none.
    pub message_id: Option<Box<str>>,
    /// The best plain text (protocol.md 7.3). Of a streamed frame, its piece.
    pub text: Box<str>,
    /// Whether a human agent says it.
    pub agent: bool,
    /// The platform's time of it.
    pub created_on: Option<Timestamp>,
    /// Whether it is one frame of a stream (protocol.md 7.4).
    pub stream: Option<StreamInfo>,
    /// Whether it announces that more will follow (template `wait_for_response`).
    pub more_follows: bool,
    /// The `clientMessageId` that it carries: the bot says which message it answers (protocol.md 6.1). Nobody looked
    /// whether it is one of ours.
    pub echoes: Option<u64>,
    /// The platform's session, where it names one.
    pub session_id: Option<Box<str>>,
    /// The frame, untouched.
    pub event: Box<RawValue>,
}

/// What a streamed frame says about its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Whether it is the last of the stream.
    pub last: bool,
    /// The whole text, where the last frame carries it.
    pub complete: Option<Box<str>>,
}

impl IncomingFrame {
    /// Its word in metrics; a closed set.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "ack",
            Self::Response(response) if response.stream.is_some() => "stream",
            Self::Response(_) => "bot_response",
            Self::Active { .. } => "bot_active",
            Self::SessionStart { .. } => "session_start",
            Self::SessionEnd(_) => "session_end",
            Self::WaitingForInput => "waiting_for_user_input",
            Self::AgentStart(_) => "agent_session_start",
            Self::AgentEnd(_) => "agent_session_end",
            Self::Typing => "typing",
            Self::UserMessage(_) => "user_message",
            Self::Pong => "pong",
            Self::Platform(_) => "platform",
            Self::Unknown(_) => "unknown",
            Self::Malformed => "malformed",
        }
    }

    /// Every word of [`IncomingFrame::kind`].
    pub const KINDS: [&str; 15] = [
        "ack",
        "stream",
        "bot_response",
        "bot_active",
        "session_start",
        "session_end",
        "waiting_for_user_input",
        "agent_session_start",
        "agent_session_end",
        "typing",
        "user_message",
        "pong",
        "platform",
        "unknown",
        "malformed",
    ];
}
