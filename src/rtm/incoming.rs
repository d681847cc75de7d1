//! Frames of the platform as the link sees them: the result of decoding.
//!
//! The link decides on these types, never on a frame's JSON. Decoding is lenient (protocol.md 7): an unreadable frame
//! becomes [`IncomingFrame::Unknown`] or [`IncomingFrame::Malformed`], never an error.

use serde_json::value::RawValue;

use crate::domain::{ReplyChoice, ReplyMedia, Timestamp};

/// One decoded frame of the platform.
#[derive(Debug, Clone)]
pub enum IncomingFrame {
    /// The platform received a frame of ours.
    Ack {
        /// The acknowledged `clientMessageId`, if the ack names one. Numbers, floats and strings of digits all count
        /// (protocol.md 6.1).
        reply_to: Option<u64>,
    },
    /// The bot or a human agent speaks.
    Response(Box<BotResponse>),
    /// The connection is ready (`bot_active`).
    Active {
        /// The platform's session, if the frame names one.
        session_id: Option<Box<str>>,
        /// Whether the previous session is still active (`recentSessionInfo.isActive`).
        session_continues: bool,
    },
    /// A session began.
    SessionStart {
        /// The platform's session, if the frame names one.
        session_id: Option<Box<str>>,
        /// Untouched frame.
        event: Box<RawValue>,
    },
    /// The session is over. Holds the untouched frame.
    SessionEnd(Box<RawValue>),
    /// The bot waits at an entity, confirmation or standard response node.
    WaitingForInput,
    /// A human agent took over (`agent_session_start`, or `agent_connected` or `agent_session_active` among
    /// `events`). Holds the untouched frame.
    AgentStart(Box<RawValue>),
    /// The bot has the conversation back (`agent_session_end`, `agent_disconnected`, `agent_session_inactive`).
    /// Holds the untouched frame.
    AgentEnd(Box<RawValue>),
    /// A human agent types or stopped typing. Up to one frame comes for each key, so the journal does not keep it. Holds
    /// the untouched frame.
    Typing(Box<RawValue>),
    /// Another socket of the same user sent a message. Holds the untouched frame.
    UserMessage(Box<RawValue>),
    /// The platform answered our ping.
    Pong,
    /// A known event that changes no turn but belongs into the journal. Holds the untouched frame.
    Platform(Box<RawValue>),
    /// A frame of a type that no source names. Holds the untouched frame.
    Unknown(Box<RawValue>),
    /// The frame is not JSON, not an object, or has no usable type.
    Malformed,
}

/// A `bot_response`.
#[derive(Debug, Clone)]
pub struct BotResponse {
    /// The platform's id (`ms-…`). Old platforms give none.
    pub message_id: Option<Box<str>>,
    /// The text that the user would read. For a streamed frame, its piece.
    pub text: Box<str>,
    /// The answers that the bot offers.
    pub choices: Box<[ReplyChoice]>,
    /// The media of the response.
    pub media: Box<[ReplyMedia]>,
    /// Whether the frame carries nothing for a person: no text, no template and no file. It is no reply then.
    pub is_blank: bool,
    /// Whether a human agent speaks.
    pub agent: bool,
    /// The platform's time of the response.
    pub created_on: Option<Timestamp>,
    /// Stream of the frame, if it is part of one (protocol.md 7.4).
    pub stream: Option<StreamInfo>,
    /// Whether the bot announces another response (template `wait_for_response`).
    pub more_follows: bool,
    /// The `clientMessageId` that the bot returned: the message that it answers (protocol.md 6.1). It may belong to
    /// another client.
    pub correlation_id: Option<u64>,
    /// The platform's session, if the frame names one.
    pub session_id: Option<Box<str>>,
    /// Untouched frame.
    pub event: Box<RawValue>,
}

/// Position of a frame in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Whether it is the last frame of the stream.
    pub last: bool,
    /// The whole text, if the last frame carries it.
    pub complete: Option<Box<str>>,
}

impl IncomingFrame {
    /// Returns the name for metrics, from a closed set.
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
            Self::Typing(_) => "typing",
            Self::UserMessage(_) => "user_message",
            Self::Pong => "pong",
            Self::Platform(_) => "platform",
            Self::Unknown(_) => "unknown",
            Self::Malformed => "malformed",
        }
    }

    /// All names that [`IncomingFrame::kind`] returns.
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
