//! The state of one partition in its shard: the ownership, and the conversations in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::subscriber_table::SubscriberTable;
use crate::domain::{ConversationId, LinkState, MessageId, Partition, Timestamp};
use crate::link::{Input, Mailbox};
use crate::store::{Fence, Ownership};

/// One partition of a shard.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) partition: Partition,
    /// The shard's ownership; it follows the lease table.
    pub(super) ownership: Cell<Ownership>,
    /// The validity of the lease that the conversations were last told.
    pub(super) told_lease_valid: Cell<bool>,
    /// The local and remote subscribers of its conversations. They are served even if another replica owns the partition.
    pub(super) subscribers: RefCell<SubscriberTable>,
    /// Whether its handoff has begun, before its drain.
    pub(super) handing_off: Cell<bool>,
    /// Whether the next sweep looks for open messages, because a hint may be missing.
    pub(super) look_wanted: Cell<bool>,
    /// The messages that this owner had the store mark as sent at their accept, and did not write to a socket yet. Only
    /// the owner knows, also if it forgets the conversation.
    pub(super) unsent: RefCell<RecentMessages>,
    /// The messages that were erased with their conversation. A late hint at one of them must not have it sent.
    pub(super) erased: RefCell<RecentMessages>,
    /// The open conversations whose bot this replica does not know, at the last look.
    pub(super) unknown_bots: Cell<i64>,
    active: RefCell<HashMap<ConversationId, ActiveConversation>>,
    /// Signals that the last conversation has left.
    empty: Notify,
}

/// The newest messages with a property that only their owner knows.
#[derive(Debug, Default)]
pub(super) struct RecentMessages(Vec<MessageId>);

impl RecentMessages {
    /// The most messages. An unsent one whose accept was lost stays if the store did not take it.
    const CAPACITY: usize = 1024;

    pub(super) fn insert(&mut self, id: MessageId) {
        if self.0.len() == Self::CAPACITY {
            self.0.remove(0);
        }
        self.0.push(id);
    }

    pub(super) fn remove(&mut self, id: MessageId) {
        self.0.retain(|unsent| *unsent != id);
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.0.contains(&id)
    }
}

/// A conversation in memory.
#[derive(Debug)]
struct ActiveConversation {
    mailbox: Rc<Mailbox>,
    task: AbortHandle,
}

impl PartitionState {
    pub(super) fn new(partition: Partition) -> Rc<Self> {
        Rc::new(Self {
            partition,
            ownership: Cell::default(),
            told_lease_valid: Cell::new(false),
            subscribers: RefCell::default(),
            handing_off: Cell::new(false),
            look_wanted: Cell::new(false),
            unsent: RefCell::default(),
            erased: RefCell::default(),
            unknown_bots: Cell::new(0),
            active: RefCell::default(),
            empty: Notify::new(),
        })
    }

    /// Returns the fence under which conversations may start.
    pub(super) fn active_fence(&self) -> Option<Fence> {
        self.ownership.get().active()
    }

    /// Returns the fence of the partition, draining or not.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.ownership.get().fence()
    }

    pub(super) fn enter(&self, conversation: ConversationId, mailbox: Rc<Mailbox>, task: AbortHandle) {
        self.active.borrow_mut().insert(conversation, ActiveConversation { mailbox, task });
    }

    pub(super) fn leave(&self, conversation: &ConversationId) {
        let left = self.active.borrow_mut().remove(conversation);
        if left.is_some() && self.is_empty() {
            self.active.borrow_mut().shrink_to_fit();
            self.empty.notify_waiters();
        }
    }

    pub(super) fn mailbox(&self, conversation: &ConversationId) -> Option<Rc<Mailbox>> {
        self.active.borrow().get(conversation).map(|active| Rc::clone(&active.mailbox))
    }

    pub(super) fn mailboxes(&self) -> Vec<Rc<Mailbox>> {
        self.active.borrow().values().map(|active| Rc::clone(&active.mailbox)).collect()
    }

    /// Returns the conversations that have a socket or are about to have one.
    pub(super) fn linked(&self) -> Vec<ConversationId> {
        let is_linked = |active: &ActiveConversation| {
            matches!(active.mailbox.connection().state, LinkState::Connecting | LinkState::Ready)
        };
        let active = self.active.borrow();
        active.iter().filter(|(_, active)| is_linked(active)).map(|(id, _)| id.clone()).collect()
    }

    /// Returns the number of open messages.
    pub(super) fn open(&self) -> i64 {
        self.active.borrow().values().map(|active| i64::from(active.mailbox.open())).sum()
    }

    /// Returns the time at which the oldest open message was accepted.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.active.borrow().values().filter_map(|active| active.mailbox.oldest()).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.borrow().is_empty()
    }

    /// Posts mail to every conversation.
    pub(super) fn post_all(&self, mail: fn() -> Input) {
        for active in self.active.borrow().values() {
            active.mailbox.post(mail());
        }
    }

    /// Returns when no conversation is in memory.
    pub(super) async fn emptied(&self) {
        loop {
            let empty = self.empty.notified();
            if self.is_empty() {
                return;
            }
            empty.await;
        }
    }

    /// Stops every conversation, and aborts those that have not left after `patience`. No socket is open when it
    /// returns. Returns the number of aborted conversations.
    pub(super) async fn stop(&self, patience: Duration) -> usize {
        self.post_all(|| Input::Stop);
        if timeout(patience, self.emptied()).await.is_ok() {
            return 0;
        }
        let aborted = self.active.borrow().len();
        for active in self.active.borrow().values() {
            active.task.abort();
        }
        self.emptied().await;
        aborted
    }
}
