//! The queue between a shard and one of its conversations. Both are tasks of one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::input::Input;
use crate::domain::{ConnectionStatus, Timestamp};

/// The queue of a conversation's inputs. It holds no memory while it is empty. Its length is bounded: accepted messages
/// by the lane's limit, signals by their own, and every other input stands in it once.
#[derive(Debug, Default)]
pub struct Mailbox {
    queue: RefCell<VecDeque<Input>>,
    send_at_accept: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    idle_since: Cell<Option<Timestamp>>,
    open: Cell<u32>,
    oldest: Cell<Option<Timestamp>>,
    caller: RefCell<Option<Arc<str>>>,
    connection: RefCell<ConnectionStatus>,
}

impl Mailbox {
    /// Queues an input by its priority and wakes the conversation.
    pub fn post(&self, input: Input) {
        let mut queue = self.queue.borrow_mut();
        let is_signal = |input: &Input| matches!(input, Input::Signal(_));
        if is_signal(&input) && queue.iter().filter(|queued| is_signal(queued)).count() == MAX_SIGNALS {
            return;
        }
        let rank = priority(&input);
        let behind = queue.partition_point(|queued| priority(queued) <= rank);
        match behind.checked_sub(1).and_then(|last| queue.get_mut(last)) {
            Some(last) if rank != ACCEPTED && priority(last) == rank => *last = input,
            _ => queue.insert(behind, input),
        }
        drop(queue);
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Takes the next input, or has the reader woken when there is one.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Input> {
        let mut queue = self.queue.borrow_mut();
        let Some(input) = queue.pop_front() else {
            self.reader.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        if queue.is_empty() {
            *queue = VecDeque::new();
        }
        Poll::Ready(input)
    }

    /// Waits for [`Input::Stop`] and takes it out. Other inputs stay.
    pub async fn stopped(&self) {
        std::future::poll_fn(|cx| {
            let mut queue = self.queue.borrow_mut();
            if queue.pop_front_if(|input| matches!(input, Input::Stop)).is_some() {
                return Poll::Ready(());
            }
            self.reader.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Returns whether no input waits that the conversation has to act on.
    pub fn is_empty(&self) -> bool {
        !self
            .queue
            .borrow()
            .iter()
            .any(|input| matches!(input, Input::Accepted(_) | Input::SentAtAccept(_) | Input::Woken))
    }

    /// Returns whether a message may be sent at its accept. The permission is used up by this call.
    pub fn take_send_at_accept(&self) -> bool {
        self.send_at_accept.take()
    }

    /// Notes whether a message may be sent at its accept.
    pub fn set_send_at_accept(&self, may_send: bool) {
        self.send_at_accept.set(may_send);
    }

    /// Removes a drain. The conversation was restarted, so it is drained already.
    pub fn forget_drain(&self) {
        self.queue.borrow_mut().retain(|input| !matches!(input, Input::Drain));
    }

    /// Removes all inputs but a stop, because the conversation is loaded anew. The store has the messages of the others.
    pub fn begin_anew(&self) {
        self.queue.borrow_mut().retain(|input| matches!(input, Input::Stop));
    }

    /// Returns since when the conversation has no open message.
    pub fn idle_since(&self) -> Option<Timestamp> {
        self.idle_since.get()
    }

    /// Notes since when the conversation has no open message.
    pub fn set_idle_since(&self, since: Option<Timestamp>) {
        self.idle_since.set(since);
    }

    /// Returns the number of messages that have not ended.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// Returns when the oldest open message was accepted.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.oldest.get()
    }

    /// Notes the number of open messages, and when the oldest of them was accepted.
    pub fn set_open(&self, open: usize, oldest: Option<Timestamp>) {
        self.open.set(u32::try_from(open).unwrap_or(u32::MAX));
        self.oldest.set(oldest);
    }

    /// Returns the caller of the oldest open message, if callers share the bridge.
    pub fn caller(&self) -> Option<Arc<str>> {
        self.caller.borrow().clone()
    }

    /// Notes the caller of the oldest open message.
    pub fn set_caller(&self, caller: Option<&Arc<str>>) {
        if self.caller.borrow().as_ref() != caller {
            self.caller.replace(caller.cloned());
        }
    }

    /// Returns the state of the connection.
    pub fn connection(&self) -> ConnectionStatus {
        self.connection.borrow().clone()
    }

    /// Notes the state of the connection.
    pub fn set_connection(&self, connection: ConnectionStatus) {
        self.connection.replace(connection);
    }
}

/// The rank of accepted messages, and of signals between them.
const ACCEPTED: u8 = 5;

/// Signals that may wait. Further ones are dropped.
const MAX_SIGNALS: usize = 8;

/// Returns the rank of an input in the queue; the lowest is taken first. A lease check precedes every input that may
/// send, and new work comes after the messages that are accepted already.
const fn priority(input: &Input) -> u8 {
    match input {
        Input::Stop => 0,
        Input::Tick => 1,
        Input::SendAtAcceptPending => 2,
        Input::SentAtAccept(_) => 3,
        Input::NotSentAtAccept => 4,
        Input::Drain => 6,
        Input::Woken => 7,
        // The shard posts no further input.
        _ => ACCEPTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{SignalKind, UserSignal};

    fn drained(mailbox: &Mailbox) -> Vec<Input> {
        let cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match mailbox.poll(&cx) {
            Poll::Ready(input) => Some(input),
            Poll::Pending => None,
        })
        .collect()
    }

    #[test]
    fn mailbox_of_a_new_begin_keeps_a_stop_only() {
        let mailbox = Mailbox::default();
        for input in [Input::Woken, Input::Drain, Input::Stop, Input::NotSentAtAccept] {
            mailbox.post(input);
        }
        mailbox.begin_anew();
        assert!(mailbox.is_empty() && matches!(*drained(&mailbox), [Input::Stop]));
    }

    #[test]
    fn signals_keep_their_place_up_to_a_limit() {
        let mailbox = Mailbox::default();
        let signal = |kind| Input::Signal(UserSignal { kind, message_id: None });
        mailbox.post(signal(SignalKind::Typing));
        mailbox.post(signal(SignalKind::StopTyping));
        mailbox.post(Input::Woken);
        for _ in 0..2 * MAX_SIGNALS {
            mailbox.post(signal(SignalKind::Read));
        }
        let taken = drained(&mailbox);
        let kinds: Vec<_> = taken
            .iter()
            .filter_map(|input| if let Input::Signal(signal) = input { Some(signal.kind) } else { None })
            .collect();
        assert_eq!(kinds[..3], [SignalKind::Typing, SignalKind::StopTyping, SignalKind::Read]);
        assert_eq!((kinds.len(), taken.len()), (MAX_SIGNALS, MAX_SIGNALS + 1));
    }

    #[test]
    fn inputs_posted_twice_are_taken_once_by_priority() {
        let mailbox = Mailbox::default();
        for _ in 0..2 {
            for input in [
                Input::Woken,
                Input::Drain,
                Input::NotSentAtAccept,
                Input::SendAtAcceptPending,
                Input::Tick,
                Input::Stop,
            ] {
                mailbox.post(input);
            }
        }
        let taken = drained(&mailbox);
        assert!(
            matches!(
                &*taken,
                [
                    Input::Stop,
                    Input::Tick,
                    Input::SendAtAcceptPending,
                    Input::NotSentAtAccept,
                    Input::Drain,
                    Input::Woken
                ]
            ),
            "{taken:?}"
        );
        assert_eq!(mailbox.queue.borrow().capacity(), 0, "an empty mailbox holds no memory");
    }
}
