//! How a shard speaks to its conversations: a queue between two tasks of one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::input::Input;
use crate::domain::{AcceptedMessage, ConnectionStatus, Timestamp};

/// What a shard tells a conversation.
#[derive(Debug)]
pub enum Mail {
    /// The store accepted this message.
    Accepted(Arc<AcceptedMessage>),
    /// A message is on its way into the store that counts as sent from its acceptance on; it comes after
    /// [`Mailbox::take_invitation`] alone, and `Sent` or `NotSent` comes behind it.
    Invited,
    /// It is accepted, and counts as sent.
    Sent(Arc<AcceptedMessage>),
    /// It does not count as sent, if it is accepted at all.
    NotSent,
    /// There may be messages that nobody told of.
    Woken,
    /// The lease became sure, or unsure: [`super::ConversationHost::may_act`] answers otherwise than before.
    Look,
    /// Finish the open turn, start nothing more, close.
    Drain,
    /// Close now; what is open goes over as recorded.
    Stop,
}

impl Mail {
    /// What it is to the machine; none where the conversation is to be stopped.
    pub(crate) fn input(self) -> Option<Input> {
        Some(match self {
            Self::Accepted(message) => Input::Accepted(message),
            Self::Invited => Input::Invited,
            Self::Sent(message) => Input::Sent(message),
            Self::NotSent => Input::NotSent,
            Self::Woken => Input::Woken,
            // Every step looks at the lease.
            Self::Look => Input::Tick,
            Self::Drain => Input::Drain,
            Self::Stop => return None,
        })
    }
}

/// A conversation's queue. It holds no memory while it is empty, and it is bounded by what fills it: accepted
/// messages by the lane's limit, the rest is kept once.
#[derive(Debug, Default)]
pub struct Mailbox {
    accepted: RefCell<VecDeque<Arc<AcceptedMessage>>>,
    invites: Cell<bool>,
    invited: Cell<bool>,
    sent: RefCell<Option<Arc<AcceptedMessage>>>,
    not_sent: Cell<bool>,
    woken: Cell<bool>,
    look: Cell<bool>,
    drain: Cell<bool>,
    stop: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    idle_since: Cell<Option<Timestamp>>,
    open: Cell<u32>,
    oldest: Cell<Option<Timestamp>>,
    connection: RefCell<ConnectionStatus>,
}

impl Mailbox {
    /// Puts something in.
    pub fn post(&self, mail: Mail) {
        match mail {
            Mail::Accepted(message) => self.accepted.borrow_mut().push_back(message),
            Mail::Invited => self.invited.set(true),
            Mail::Sent(message) => _ = self.sent.replace(Some(message)),
            Mail::NotSent => self.not_sent.set(true),
            Mail::Woken => self.woken.set(true),
            Mail::Look => self.look.set(true),
            Mail::Drain => self.drain.set(true),
            Mail::Stop => self.stop.set(true),
        }
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes the next thing out, or has the reader woken when there is one.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Mail> {
        if self.stop.take() {
            return Poll::Ready(Mail::Stop);
        }
        if self.look.take() {
            return Poll::Ready(Mail::Look);
        }
        if self.invited.take() {
            return Poll::Ready(Mail::Invited);
        }
        if let Some(message) = self.sent.take() {
            return Poll::Ready(Mail::Sent(message));
        }
        if self.not_sent.take() {
            return Poll::Ready(Mail::NotSent);
        }
        let mut accepted = self.accepted.borrow_mut();
        if let Some(message) = accepted.pop_front() {
            if accepted.is_empty() {
                *accepted = VecDeque::new();
            }
            return Poll::Ready(Mail::Accepted(message));
        }
        if self.drain.take() {
            return Poll::Ready(Mail::Drain);
        }
        if self.woken.take() {
            return Poll::Ready(Mail::Woken);
        }
        if self.look.take() {
            return Poll::Ready(Mail::Look);
        }
        self.reader.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Comes back when [`Mail::Stop`] is in it, and takes it out.
    pub async fn stopped(&self) {
        std::future::poll_fn(|cx| {
            if self.stop.take() {
                return Poll::Ready(());
            }
            self.reader.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Whether nothing is in it that a conversation has to act on.
    pub fn is_empty(&self) -> bool {
        self.accepted.borrow().is_empty() && self.sent.borrow().is_none() && !self.woken.get()
    }

    /// Whether a message that is accepted now would go out at once; nobody else is told so until the conversation
    /// says it again.
    pub fn take_invitation(&self) -> bool {
        self.invites.take()
    }

    /// Notes whether a message that is accepted now would go out at once.
    pub fn set_invites(&self, invites: bool) {
        self.invites.set(invites);
    }

    /// The conversation begins anew: what it was told to drain before, it has drained.
    pub fn forget_drain(&self) {
        self.drain.set(false);
    }

    /// Since when the conversation has nothing open; none while it has.
    pub fn idle_since(&self) -> Option<Timestamp> {
        self.idle_since.get()
    }

    /// Notes since when the conversation has nothing open.
    pub fn set_idle_since(&self, since: Option<Timestamp>) {
        self.idle_since.set(since);
    }

    /// How many messages have not ended.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// When the oldest message was accepted that has not ended; none without one.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.oldest.get()
    }

    /// Notes how many messages have not ended, and when the oldest of them was accepted.
    pub fn set_open(&self, open: usize, oldest: Option<Timestamp>) {
        self.open.set(u32::try_from(open).unwrap_or(u32::MAX));
        self.oldest.set(oldest);
    }

    /// How the conversation's connection stands.
    pub fn connection(&self) -> ConnectionStatus {
        self.connection.borrow().clone()
    }

    /// Notes how the connection stands.
    pub fn set_connection(&self, connection: ConnectionStatus) {
        self.connection.replace(connection);
    }
}
