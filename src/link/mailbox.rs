//! How a shard speaks to its conversations: a queue between two tasks of one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::domain::{AcceptedMessage, Timestamp};

/// What a shard tells a conversation.
#[derive(Debug)]
pub enum Mail {
    /// The store accepted this message.
    Accepted(Arc<AcceptedMessage>),
    /// There may be messages that nobody told of.
    Woken,
    /// The lease became sure, or unsure: [`super::Host::may_act`] answers otherwise than before.
    Look,
    /// Finish the open turn, start nothing more, close.
    Drain,
    /// Close now; what is open goes over as recorded.
    Stop,
}

/// A conversation's queue. It holds no memory while it is empty, and it is bounded by what fills it: accepted
/// messages by the lane's limit, the rest is kept once.
#[derive(Debug, Default)]
pub struct Mailbox {
    accepted: RefCell<VecDeque<Arc<AcceptedMessage>>>,
    woken: Cell<bool>,
    look: Cell<bool>,
    drain: Cell<bool>,
    stop: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    idle_since: Cell<Option<Timestamp>>,
    open: Cell<u32>,
}

impl Mailbox {
    /// Puts something in.
    pub fn post(&self, mail: Mail) {
        match mail {
            Mail::Accepted(message) => self.accepted.borrow_mut().push_back(message),
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
        self.accepted.borrow().is_empty() && !self.woken.get()
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

    /// Notes how many messages have not ended.
    pub fn set_open(&self, open: usize) {
        self.open.set(u32::try_from(open).unwrap_or(u32::MAX));
    }
}
