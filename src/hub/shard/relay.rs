//! What a shard hints at to other replicas: pieces of streamed replies, and answers.
//!
//! Both may be lost, so the line is short and nothing waits for it: what finds it full is dropped. One task sends while
//! there is something to send, in the order in which it came, several at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::spawn;
use crate::store::{Hint, Incarnation, Store};

/// Hints that may wait.
const WAITING: usize = 1024;
/// Hints that are on their way at the same time.
const SENDING: usize = 64;

/// The line.
#[derive(Debug)]
pub(super) struct Relay {
    store: Store,
    waiting: RefCell<VecDeque<(Incarnation, Hint)>>,
    sending: Cell<bool>,
}

impl Relay {
    pub(super) fn new(store: Store) -> Rc<Self> {
        Rc::new(Self { store, waiting: RefCell::default(), sending: Cell::new(false) })
    }

    /// Hints at something as soon as its turn comes, unless too much waits.
    pub(super) fn send(self: &Rc<Self>, to: Incarnation, hint: Hint) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING {
            return;
        }
        waiting.push_back((to, hint));
        if !self.sending.replace(true) {
            let relay = Rc::clone(self);
            spawn(async move { relay.run().await });
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
