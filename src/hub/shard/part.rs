//! What a shard holds of one partition: under which fence, and which conversations are in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::observers::Observers;
use crate::domain::{ConversationId, Partition, Timestamp};
use crate::link::{Input, Mailbox};
use crate::store::Fence;

/// One partition of a shard.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Partition,
    /// What the shard works under; none where it does not work for the partition.
    pub(super) fence: Cell<Option<Fence>>,
    /// Nothing is begun any more.
    pub(super) draining: Cell<bool>,
    /// Conversations of an earlier fence are still leaving.
    pub(super) clearing: Cell<bool>,
    /// Whether the lease was sure when the conversations were told last.
    pub(super) sure: Cell<bool>,
    /// Who reads its conversations live, whoever owns it.
    pub(super) observers: RefCell<Observers>,
    live: RefCell<HashMap<ConversationId, Life>>,
    /// Told when the last conversation has left.
    empty: Notify,
}

/// A conversation in memory.
#[derive(Debug)]
struct Life {
    mailbox: Rc<Mailbox>,
    task: AbortHandle,
}

impl Part {
    pub(super) fn new(partition: Partition) -> Rc<Self> {
        Rc::new(Self {
            partition,
            fence: Cell::new(None),
            draining: Cell::new(false),
            clearing: Cell::new(false),
            sure: Cell::new(false),
            observers: RefCell::default(),
            live: RefCell::default(),
            empty: Notify::new(),
        })
    }

    /// The fence under which conversations may start.
    pub(super) fn works(&self) -> Option<Fence> {
        self.fence.get().filter(|_| !self.draining.get() && !self.clearing.get())
    }

    pub(super) fn enter(&self, conversation: ConversationId, mailbox: Rc<Mailbox>, task: AbortHandle) {
        self.live.borrow_mut().insert(conversation, Life { mailbox, task });
    }

    pub(super) fn leave(&self, conversation: &ConversationId) {
        let left = self.live.borrow_mut().remove(conversation);
        if left.is_some() && self.is_empty() {
            self.live.borrow_mut().shrink_to_fit();
            self.empty.notify_waiters();
        }
    }

    pub(super) fn mailbox(&self, conversation: &ConversationId) -> Option<Rc<Mailbox>> {
        self.live.borrow().get(conversation).map(|life| Rc::clone(&life.mailbox))
    }

    pub(super) fn mailboxes(&self) -> Vec<Rc<Mailbox>> {
        self.live.borrow().values().map(|life| Rc::clone(&life.mailbox)).collect()
    }

    /// How many messages of its conversations have not ended.
    pub(super) fn open(&self) -> i64 {
        self.live.borrow().values().map(|life| i64::from(life.mailbox.open())).sum()
    }

    /// When the oldest of them was accepted.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.live.borrow().values().filter_map(|life| life.mailbox.oldest()).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.borrow().is_empty()
    }

    /// Tells every conversation.
    pub(super) fn tell(&self, input: fn() -> Input) {
        for life in self.live.borrow().values() {
            life.mailbox.post(input());
        }
    }

    /// Comes back when no conversation is in memory.
    pub(super) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.is_empty() {
                return;
            }
            empty.await;
        }
    }

    /// Stops every conversation; what has not left after `patience` is cut. When this comes back no socket is
    /// open. Returns how many were cut.
    pub(super) async fn stop(&self, patience: Duration) -> usize {
        self.tell(|| Input::Stop);
        if timeout(patience, self.emptied()).await.is_ok() {
            return 0;
        }
        let cut = self.live.borrow().len();
        for life in self.live.borrow().values() {
            life.task.abort();
        }
        self.emptied().await;
        cut
    }
}
