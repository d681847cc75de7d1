//! The inputs and effects of the machine.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::{AcceptedMessage, Message, MessageId, ReplyChunk, Timestamp, UserSignal};
use crate::rhythm::TurnObservation;
use crate::rtm::{ConnectMode, DeliveryMarks, HistoryPage, IncomingFrame, OutgoingSignal};
use crate::store::{ConversationSnapshot, ConversationWrite};

/// An event for the machine.
#[derive(Debug)]
pub enum Input {
    /// The store accepted a message for this conversation.
    Accepted(Arc<AcceptedMessage>),
    /// The store is asked to accept a message and mark it as sent, as [`super::Machine::may_send_at_accept`] allowed.
    /// `SentAtAccept` or `NotSentAtAccept` follows.
    SendAtAcceptPending,
    /// The store accepted that message and marked it as sent.
    SentAtAccept(Arc<AcceptedMessage>),
    /// The store did not mark that message as sent. If it was accepted, `Accepted` follows.
    NotSentAtAccept,
    /// The lane may hold an unknown message and is to be read.
    Woken,
    /// The lane of the store, as the answer to [`Effect::ReadLane`].
    Lane(Box<ConversationSnapshot>),
    /// The write in flight is stored.
    Stored {
        /// The write marks or ends a message that is not open in the store any more.
        lost: bool,
    },
    /// The store did not answer, so the write in flight may or may not be stored.
    WriteUnknown,
    /// The store refused the write in flight, because it lacks the write before it or has later ones.
    OutOfStep,
    /// Whether the lease of the partition is valid; it counts as valid before the first of these. The next input
    /// follows at once, and only then the machine acts on it.
    Lease(bool),
    /// The first byte of the message of [`Effect::Send`] is written next. Earlier frames do not answer it.
    Writing,
    /// The message of [`Effect::Send`] was not sent, because the lease was not valid.
    Withheld,
    /// The connect succeeded, and the socket is open.
    Connected,
    /// The connect failed.
    ConnectFailed(ConnectFailure),
    /// The platform sent a frame.
    Frame(IncomingFrame),
    /// The platform answered without a frame (web socket ping or pong).
    PeerAlive,
    /// The socket is closed.
    Lost(SocketLoss),
    /// A page of history, as the answer to [`Effect::ReadHistory`].
    History(Result<HistoryPage, HistoryFailure>),
    /// The time of [`super::Machine::wake_at`] has come, or another reason to check the state.
    Tick,
    /// The user's window signals something to the platform.
    Signal(UserSignal),
    /// The machine finishes the open turn, begins no other and closes the link.
    Drain,
    /// The machine writes its last changes and rests. It does nothing else from here on.
    Stop,
}

/// Why no socket could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectFailure {
    /// A permanent refusal: wrong credentials or an unknown bot. It holds the words of the platform, cut and without
    /// secrets.
    Rejected(Box<str>),
    /// A temporary failure.
    Unavailable {
        /// The reason, for callers.
        words: Box<str>,
        /// The wait that the platform asks for.
        retry_after: Option<Duration>,
    },
    /// The lease was not valid, so the connect was not tried or was given up.
    Withheld,
}

/// Why history could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFailure {
    /// A later read may succeed.
    Temporary,
    /// Every read fails.
    Permanent,
}

/// The end of a socket by its close code, as a client sees it (RFC 6455 7.4.1). The code 1005 is a close without a
/// code. The code 1006 is a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLoss {
    /// The code.
    pub code: u16,
}

impl SocketLoss {
    /// The connection broke, or the bridge gave it up.
    pub const GONE: Self = Self { code: 1006 };
}

/// An action that the driver performs, in the order of the effects.
#[derive(Debug)]
pub enum Effect {
    /// Write to the store, and answer with `Stored`, `WriteUnknown` or `OutOfStep`. The same write may be repeated
    /// after `WriteUnknown`.
    Write(Arc<ConversationWrite>),
    /// Read the lane, and answer with `Lane` after any time.
    ReadLane,
    /// Open a socket if the lease is valid, and answer with `Connected` or `ConnectFailed`. No socket is open before.
    Connect(SocketRequest),
    /// Send this message over the open socket if the lease is valid, else answer with `Withheld`. `Writing` precedes
    /// the first byte, and a failure is a `Lost`. Without `Writing` no byte was sent. The send is void if the machine
    /// does not want it any more ([`super::Machine::is_sending`]). A message that ends the session sends that instead
    /// of a text.
    Send(Arc<AcceptedMessage>),
    /// Send this signal over the open socket, if the lease is valid.
    Signal(OutgoingSignal),
    /// Acknowledge the delivery of the response with these marks in the same way.
    Acknowledge(DeliveryMarks),
    /// Ping the platform, as frame and as web socket ping.
    Ping,
    /// Close the socket with this code. No `Lost` follows.
    Close(u16),
    /// Drop the socket or the running connect. No answer follows.
    Abandon(AbandonReason),
    /// Read history behind this message of the platform, or the newest page, and answer with `History`.
    ReadHistory(Option<Box<str>>),
    /// Tell the waiters that the end of the message is stored.
    Complete {
        /// The message.
        message: Message,
        /// When the message became the head of its lane.
        head_at: Timestamp,
    },
    /// Tell the waiters that the store lost the message, or its end.
    ReportLoss(MessageId),
    /// Count that the store lost confirmed writes. The known ones are written again.
    Reconciled,
    /// Learn from a finished turn.
    Learn(Box<TurnObservation>),
    /// Count a reply outside the open turn.
    OutOfTurn(OutOfTurnReply),
    /// Count a time of the platform that is far from the present.
    FarOffTime,
    /// Publish a piece of a streamed reply to live readers. It may come before the write of the reply, never after
    /// it.
    Chunk(Arc<ReplyChunk>),
    /// Publish a frame that the journal does not keep to live readers.
    Platform(Arc<RawValue>),
    /// Have the store delete the conversation, which then leaves memory. No answer follows.
    Erase,
    /// Let the conversation leave memory: it has no open message, no write in flight and no socket.
    Rest,
}

impl Effect {
    /// Returns the effect that learns from this turn.
    pub(super) fn learn(turn: TurnObservation) -> Self {
        Self::Learn(Box::new(turn))
    }
}

/// A socket to open.
#[derive(Debug, Clone)]
pub struct SocketRequest {
    /// The effect on the platform's session.
    pub mode: ConnectMode,
    /// The first message that waits for the socket, if there is one.
    pub opener: Option<Arc<AcceptedMessage>>,
    /// The message whose custom data and tags the platform and the bot get. It is the opener, or an ended message.
    pub context: Option<MessageId>,
}

/// Why a socket or a running connect is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonReason {
    /// The peer does not answer.
    Silent,
    /// The link has no use any more.
    Unwanted,
    /// The store is unavailable, and as many changes wait for it as may wait.
    Backlog,
    /// The store knows more of the conversation than this owner, which restarts from it.
    StoreAhead,
}

/// A reply outside an open turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfTurnReply {
    /// It belongs to the turn that ended last.
    Late,
    /// It belongs to no turn.
    Unsolicited,
    /// It was journaled before.
    Duplicate,
}
