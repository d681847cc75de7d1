//! The signals of a shard to the subscribers of its conversations.
//!
//! A subscriber is known here before its first page is read. Entries of the shard's own conversations are published at
//! once. Entries of other replicas arrive as hints, for as long as this replica renews its interest. Every renewal has all
//! subscribers look too, so that they also read entries whose hints were lost.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use super::partition_state::PartitionState;
use super::subscriber_table::PublishCount;
use super::{Shard, spawn};
use crate::domain::{ConversationId, Partition, ReplyChunk};
use crate::hub::subscription::Publisher;
use crate::store::{Hint, Incarnation};

/// Sweeps between two renewals of a conversation. A sweep takes place once a second, so there are three renewals within
/// [`crate::store::OBSERVED`].
const RENEWAL: usize = 20;
/// Conversations that one call renews.
const BATCH: usize = 500;

/// The state of the renewals.
#[derive(Debug, Default)]
pub(super) struct RenewalState {
    sweeps: Cell<usize>,
    /// The resync generation of the last look of all subscribers.
    resync_generation: Cell<u64>,
    /// This shard's part of the gauges that all shards share.
    subscribers: Cell<i64>,
    conversations: Cell<i64>,
}

impl Shard {
    /// Adds a subscriber, and answers `subscribed` when signals go to it. A replica that shuts down adds none.
    pub(super) fn subscribe(
        &self,
        conversation: ConversationId,
        publisher: Publisher,
        subscribed: oneshot::Sender<()>,
    ) {
        if self.setup.leases.is_refusing() || self.stopping.get() {
            return;
        }
        if let Some(part) = self.partition(Partition::of(&conversation)) {
            part.subscribers.borrow_mut().add(conversation, publisher);
            // The next sweep removes a subscriber that has gone.
            subscribed.send(()).ok();
        }
    }

    /// Has the subscribers of a conversation look for new entries.
    pub(super) fn publish_look(&self, conversation: &ConversationId) {
        if let Some(part) = self.partition(Partition::of(conversation)) {
            self.count_looks(part.subscribers.borrow_mut().look(conversation));
        }
    }

    /// Sends a chunk of a reply to the local subscribers, even if another replica owns the conversation.
    pub(super) fn publish_chunk(&self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) {
        if let Some(part) = self.partition(Partition::of(conversation)) {
            let count = part.subscribers.borrow_mut().chunk(conversation, chunk);
            let metrics = &self.setup.metrics.subscribers;
            metrics.chunks.inc_by(count.reached);
            metrics.slow.inc_by(count.closed);
        }
    }

    /// Forwards a chunk of an own conversation to the other replicas with subscribers.
    pub(super) fn forward_chunk(&self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) {
        self.forward_live(conversation, || Hint::Chunk(conversation.clone(), Arc::clone(chunk)));
    }

    /// Sends a frame that the journal does not keep to the local subscribers.
    pub(super) fn publish_platform(&self, conversation: &ConversationId, frame: &Arc<RawValue>) {
        if let Some(part) = self.partition(Partition::of(conversation)) {
            part.subscribers.borrow_mut().platform(conversation, frame);
        }
    }

    /// Forwards a signal of an own conversation to the other replicas with subscribers.
    fn forward_live(&self, conversation: &ConversationId, hint: impl Fn() -> Hint) {
        let Some(part) = self.partition(Partition::of(conversation)) else { return };
        for replica in part.subscribers.borrow().remote_replicas(conversation, Instant::now()) {
            self.hint_sender.send(replica, hint());
        }
    }

    /// Forwards such a frame of an own conversation to the other replicas with subscribers.
    pub(super) fn forward_platform(&self, conversation: &ConversationId, frame: &Arc<RawValue>) {
        self.forward_live(conversation, || Hint::Platform(conversation.clone(), Arc::clone(frame)));
    }

    /// Notes that another replica has subscribers of the conversation.
    pub(super) fn note_remote_subscriber(&self, conversation: ConversationId, by: Incarnation) {
        if let Some(part) = self.partition(Partition::of(&conversation)) {
            part.subscribers.borrow_mut().note_remote(conversation, by, Instant::now());
        }
    }

    /// Has all subscribers of a partition look, because hints may be lost.
    pub(super) fn publish_look_to_all(&self, partition: Partition) {
        if let Some(part) = self.partition(partition) {
            self.count_looks(part.subscribers.borrow().look_all());
        }
    }

    /// Removes closed subscriptions, has all subscribers look after lost hints, and renews some conversations. The sweep
    /// calls it once a second.
    pub(super) fn maintain_subscriptions(self: &Rc<Self>) {
        let now = Instant::now();
        let (mut subscribers, mut conversations) = (0, 0);
        for part in &self.partitions {
            let mut table = part.subscribers.borrow_mut();
            table.sweep(now);
            subscribers += table.subscribers();
            conversations += table.conversations().len();
        }
        self.report_subscribers(subscribers, conversations);
        let generation = self.setup.leases.resync_generation();
        if generation != self.renewals.resync_generation.replace(generation) {
            for part in &self.partitions {
                self.count_looks(part.subscribers.borrow().look_all());
            }
        }
        // Each sweep renews some of the partitions, so that all subscribers never read at once.
        let sweeps = self.renewals.sweeps.get().wrapping_add(1);
        self.renewals.sweeps.set(sweeps);
        let due = self.partitions.iter().skip(sweeps % RENEWAL).step_by(RENEWAL);
        let due: Vec<_> =
            due.filter(|part| part.subscribers.borrow().conversations().len() > 0).map(Rc::clone).collect();
        if !due.is_empty() {
            let shard = Rc::clone(self);
            spawn(async move { shard.renew_subscriptions(&due).await });
        }
    }

    /// Renews this replica's interest in the conversations, then has all subscribers look: entries in between may have
    /// come without a hint.
    async fn renew_subscriptions(&self, parts: &[Rc<PartitionState>]) {
        let mut conversations = Vec::new();
        for part in parts {
            conversations.extend(part.subscribers.borrow().conversations().cloned());
        }
        let me = self.setup.leases.incarnation();
        for batch in conversations.chunks(BATCH) {
            if let Err(error) = self.setup.store.observe(batch, me).await {
                debug!(%error, "subscriptions could not be renewed; the next renewal includes them");
            }
        }
        for part in parts {
            self.count_looks(part.subscribers.borrow().look_all());
        }
    }

    /// Closes all subscriptions; subscribers continue at another replica.
    pub(super) fn close_subscriptions(&self) {
        for part in &self.partitions {
            part.subscribers.borrow_mut().close_all();
        }
        self.report_subscribers(0, 0);
    }

    fn count_looks(&self, count: PublishCount) {
        self.setup.metrics.subscribers.wakeups.inc_by(count.reached);
    }

    fn report_subscribers(&self, subscribers: usize, conversations: usize) {
        let wide = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.setup.metrics.subscribers;
        let (subscribers, conversations) = (wide(subscribers), wide(conversations));
        metrics.count.add(subscribers - self.renewals.subscribers.replace(subscribers));
        metrics.conversations.add(conversations - self.renewals.conversations.replace(conversations));
    }
}
