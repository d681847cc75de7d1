//! The machine's two vocabularies: what it is told and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{AcceptedMessage, Message, Timestamp};
use crate::rtm::{ConnectMode, HistoryPage, Incoming};
use crate::store::{Open, Write};

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The store accepted a message for this conversation.
    Accepted(Arc<AcceptedMessage>),
    /// There may be messages that nobody told of: the lane is to be read.
    Woken,
    /// The lane as it stands, the answer to [`Effect::ReadLane`].
    Lane(Box<Open>),
    /// The write in flight is carried out.
    Stored,
    /// The store did not answer: the write in flight may or may not be carried out.
    Unknown,
    /// The connect succeeded: the socket is open.
    Connected,
    /// The connect failed.
    ConnectFailed(ConnectFailure),
    /// The platform said something.
    Frame(Incoming),
    /// The platform showed that it lives, without saying anything (web socket ping or pong).
    Heard,
    /// The socket is gone.
    Lost(Loss),
    /// A page of history, the answer to [`Effect::ReadHistory`].
    History(Result<HistoryPage, HistoryFailure>),
    /// The time that [`super::Machine::wake_at`] named has come, or it is worth a look for another reason.
    Tick,
    /// Start nothing more; finish the open turn, then close.
    Drain,
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
pub struct Loss {
    /// The code.
    pub code: u16,
}

impl Loss {
    /// The connection went without a word, or we gave it up.
    pub const GONE: Self = Self { code: 1006 };
}

/// What is to be done. Effects are carried out in the order in which they come.
#[derive(Debug)]
pub enum Effect {
    /// Write to the store; answer with `Stored` or `Unknown`. The same write may come again after `Unknown`.
    Write(Arc<Write>),
    /// Read the lane; answer with `Lane`, however long it takes.
    ReadLane,
    /// Open a socket; answer with `Connected` or `ConnectFailed`. There is none open when this comes.
    Connect(ConnectMode),
    /// Send this message over the open socket. A failure is a `Lost`.
    Send(Arc<AcceptedMessage>),
    /// Ping the platform, as frame and as web socket ping.
    Ping,
    /// Close the socket with this code, in good order. No `Lost` follows.
    Close(u16),
    /// Let go of the socket, because nobody answers on it, or of the connect under way, because nobody wants it
    /// any more. No answer follows.
    Abandon,
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
    /// A reply arrived that ends no turn; told for those who count.
    Aside(Aside),
    /// Nothing is open, nothing is in flight, no socket is held: the conversation may leave memory.
    Rest,
}

/// A reply outside an open turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It belongs to the turn that just ended.
    Late,
    /// It belongs to no turn.
    Unsolicited,
    /// It was there before.
    Duplicate,
}
