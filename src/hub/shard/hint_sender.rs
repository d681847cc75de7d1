//! The hints of a shard to other replicas: chunks of streamed replies, and answers to status queries.
//!
//! Both may be lost, so the queue is short and a full queue drops new hints. One task sends them in order, several at a
//! time, and ends when the queue is empty.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::spawn;
use crate::store::{Hint, Incarnation, Store};

/// The capacity of the queue.
const QUEUE: usize = 1024;
/// Hints that are sent at the same time.
const SENDING: usize = 64;

/// The queue of hints.
#[derive(Debug)]
pub(super) struct HintSender {
    store: Store,
    waiting: RefCell<VecDeque<(Incarnation, Hint)>>,
    sending: Cell<bool>,
}

impl HintSender {
    pub(super) fn new(store: Store) -> Rc<Self> {
        Rc::new(Self { store, waiting: RefCell::default(), sending: Cell::new(false) })
    }

    /// Queues a hint, or drops it if the queue is full.
    pub(super) fn send(self: &Rc<Self>, to: Incarnation, hint: Hint) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= QUEUE {
            return;
        }
        waiting.push_back((to, hint));
        if !self.sending.replace(true) {
            let sender = Rc::clone(self);
            spawn(async move { sender.run().await });
        }
    }

    async fn run(&self) {
        loop {
            let next = std::iter::from_fn(|| self.waiting.borrow_mut().pop_front());
            stream::iter(next)
                .for_each_concurrent(SENDING, async |(to, hint)| {
                    if let Err(error) = self.store.hint(to, &hint).await {
                        debug!(%error, "a hint could not be sent");
                    }
                })
                .await;
            if self.waiting.borrow().is_empty() {
                self.waiting.borrow_mut().shrink_to(0);
                self.sending.set(false);
                return;
            }
        }
    }
}
