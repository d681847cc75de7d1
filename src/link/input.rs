//! The machine's two vocabularies: what it is told and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AcceptedMessage, Message, MessageId, ReplyChunk, Timestamp};
use crate::rtm::{ConnectMode, HistoryPage, IncomingFrame};
use crate::store::{ConversationSnapshot, ConversationWrite};

/// What happened.
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
    /// There may be messages that nobody told of: the lane is to be read.
    Woken,
    /// The lane as it stands, the answer to [`Effect::ReadLane`].
    Lane(Box<ConversationSnapshot>),
    /// The write in flight is carried out.
    Stored {
        /// A message that it marked as sent, or ended, is not open in the store any more.
        lost: bool,
    },
    /// The store did not answer: the write in flight may or may not be carried out.
    Unknown,
    /// The write in flight is refused: the store does not have the one before it, or has later ones.
    OutOfStep,
    /// Whether the lease of the partition is surely ours; until this comes it counts as sure. Nothing is done
    /// about it before the next input, which has to follow at once.
    Lease(bool),
    /// The message of [`Effect::Send`] stayed here, because the lease was not sure: no byte went out.
    Withheld,
    /// The connect succeeded: the socket is open.
    Connected,
    /// The connect failed.
    ConnectFailed(ConnectFailure),
    /// The platform said something.
    Frame(IncomingFrame),
    /// The platform showed that it lives, without saying anything (web socket ping or pong).
    Heard,
    /// The socket is gone.
    Lost(SocketLoss),
    /// A page of history, the answer to [`Effect::ReadHistory`].
    History(Result<HistoryPage, HistoryFailure>),
    /// The time that [`super::Machine::wake_at`] named has come, or it is worth a look for another reason.
    Tick,
    /// Start nothing more; finish the open turn, then close.
    Drain,
    /// Write what the store does not know yet and rest; nothing else is done from here on.
    Stop,
}

/// Why no socket could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Refused for good: credentials, unknown bot. The platform's own words, cut and without secrets.
    Rejected(Box<str>),
    /// Not now. The words say what failed; the time is the platform's own wish, where it gave one.
    Unavailable {
        /// What failed, for the caller.
        words: Box<str>,
        /// How long the platform asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It was not tried, or given up: the lease of the partition was not sure.
    Withheld,
}

/// Why history could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFailure {
    /// It may work later.
    Now,
    /// It will not work.
    ForGood,
}

/// How a socket ended: the close code as a client sees it (RFC 6455 7.4.1: 1005 is a close without code, 1006
/// a connection that just went).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketLoss {
    /// The code.
    pub code: u16,
}

impl SocketLoss {
    /// The connection went without a word, or we gave it up.
    pub const GONE: Self = Self { code: 1006 };
}

/// What is to be done. Effects are carried out in the order in which they come.
#[derive(Debug)]
pub enum Effect {
    /// Write to the store; answer with `Stored`, `Unknown` or `OutOfStep`. The same write may come again after
    /// `Unknown`.
    Write(Arc<ConversationWrite>),
    /// Read the lane; answer with `Lane`, however long it takes.
    ReadLane,
    /// Open a socket, if the lease is sure; answer with `Connected` or `ConnectFailed`. There is none open when
    /// this comes.
    Connect(ConnectMode),
    /// Send this message over the open socket, if the lease is sure: else answer with `Withheld`. A failure is a
    /// `Lost`. Of one that is to end the session, that is what goes out.
    Send(Arc<AcceptedMessage>),
    /// Ping the platform, as frame and as web socket ping.
    Ping,
    /// Close the socket with this code, in good order. No `Lost` follows.
    Close(u16),
    /// Let go of the socket, or of the connect under way. No answer follows.
    Abandon(AbandonReason),
    /// Read history forward from this message of the platform, or the newest page where there is none; answer
    /// with `History`.
    ReadHistory(Option<Box<str>>),
    /// The message's end is stored: tell whoever waits for it.
    Tell {
        /// The message.
        message: Message,
        /// When it became the head of its lane.
        head_at: Timestamp,
    },
    /// The store lost the message, or how it ended: whoever waits for it reads that.
    Forget(MessageId),
    /// The store lost writes that it had confirmed; what is still known of them is written again. Told for those
    /// who count, as is the next.
    Rebased,
    /// A reply arrived that ends no turn.
    Aside(OutOfTurnReply),
    /// A piece of a streamed reply came: for whoever reads live. It may come before the write that tells of the
    /// reply, never behind it.
    Chunk(Arc<ReplyChunk>),
    /// Nothing is open, nothing is in flight, no socket is held: the conversation may leave memory.
    Rest,
}

/// Why a socket, or a connect under way, is let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonReason {
    /// Nobody answers on it.
    Silent,
    /// Nobody wants it any more.
    Unwanted,
    /// The store is away, and what came over the socket since is as much as may wait for it.
    Backlog,
    /// The store knows more of the conversation than we do: it is begun anew.
    Anew,
}

/// A reply outside an open turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfTurnReply {
    /// It belongs to the turn that just ended.
    Late,
    /// It belongs to no turn.
    Unsolicited,
    /// It was there before.
    Duplicate,
}
