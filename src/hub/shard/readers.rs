//! How a shard tells those who read live, and goes on being told itself.
//!
//! A reader is known here before its first page is read. What the shard's own conversations append it tells at once;
//! what others append it is hinted at, for as long as it says every now and then that somebody still reads. Then all
//! are told to look as well, so that whatever was lost on the way is read by then.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use super::observers::Told;
use super::part::Part;
use super::{Shard, spawn};
use crate::domain::{ConversationId, Partition, ReplyChunk};
use crate::hub::observer::Publisher;
use crate::store::{Hint, Incarnation};

/// Every so many sweeps, which come once a second, each observed conversation is renewed: three times within
/// [`crate::store::OBSERVED`].
const RENEWAL: usize = 20;
/// Conversations that are renewed in one call.
const BATCH: usize = 500;

/// What a shard did for its readers.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    sweeps: Cell<usize>,
    /// The misses that all were told to look for.
    misses: Cell<u64>,
    /// What this shard added to the gauges that all shards share.
    readers: Cell<i64>,
    conversations: Cell<i64>,
}

impl Shard {
    /// Somebody begins to read here; `known` is answered when he is told from now on. While the replica goes away
    /// nobody begins.
    pub(super) fn observe(
        &self,
        conversation: ConversationId,
        teller: Publisher,
        known: oneshot::Sender<()>,
    ) {
        if self.setup.leases.is_refusing() || self.stopping.get() {
            return;
        }
        if let Some(part) = self.part(Partition::of(&conversation)) {
            part.observers.borrow_mut().add(conversation, teller);
            // Who has gone is swept.
            known.send(()).ok();
        }
    }

    /// The conversation has new entries, perhaps.
    pub(super) fn look_into(&self, conversation: &ConversationId) {
        if let Some(part) = self.part(Partition::of(conversation)) {
            self.count_looks(part.observers.borrow_mut().look(conversation));
        }
    }

    /// A piece of a reply came, of a conversation of ours or of another replica.
    pub(super) fn tell_piece(&self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) {
        if let Some(part) = self.part(Partition::of(conversation)) {
            let told = part.observers.borrow_mut().chunk(conversation, chunk);
            let metrics = &self.setup.metrics.subscribers;
            metrics.chunks.inc_by(told.told);
            metrics.slow.inc_by(told.slow);
        }
    }

    /// A piece of a reply came, of a conversation of ours: tells the other replicas where somebody reads it.
    pub(super) fn relay_piece(&self, conversation: &ConversationId, chunk: &Arc<ReplyChunk>) {
        let Some(part) = self.part(Partition::of(conversation)) else { return };
        for replica in part.observers.borrow().elsewhere(conversation, Instant::now()) {
            self.relay.send(replica, Hint::Chunk(conversation.clone(), Arc::clone(chunk)));
        }
    }

    /// Somebody reads the conversation at another replica.
    pub(super) fn note_observer(&self, conversation: ConversationId, by: Incarnation) {
        if let Some(part) = self.part(Partition::of(&conversation)) {
            part.observers.borrow_mut().note(conversation, by, Instant::now());
        }
    }

    /// Has all readers of a partition look: hints may have been lost.
    pub(super) fn look_all(&self, partition: Partition) {
        if let Some(part) = self.part(partition) {
            self.count_looks(part.observers.borrow().look_all());
        }
    }

    /// Once a second: forgets who has gone, has all look where hints may have been lost, and renews some.
    pub(super) fn tend_readers(self: &Rc<Self>) {
        let now = Instant::now();
        let (mut readers, mut conversations) = (0, 0);
        for part in &self.parts {
            let mut observers = part.observers.borrow_mut();
            observers.sweep(now);
            readers += observers.readers();
            conversations += observers.conversations().len();
        }
        self.count_readers(readers, conversations);
        let misses = self.setup.leases.misses();
        if misses != self.rounds.misses.replace(misses) {
            for part in &self.parts {
                self.count_looks(part.observers.borrow().look_all());
            }
        }
        // Some of the partitions each time, so that all readers never read at once.
        let sweeps = self.rounds.sweeps.get().wrapping_add(1);
        self.rounds.sweeps.set(sweeps);
        let due = self.parts.iter().skip(sweeps % RENEWAL).step_by(RENEWAL);
        let due: Vec<_> =
            due.filter(|part| part.observers.borrow().conversations().len() > 0).map(Rc::clone).collect();
        if !due.is_empty() {
            let shard = Rc::clone(self);
            spawn(async move { shard.renew_readers(&due).await });
        }
    }

    /// Says that somebody still reads, then has all look: what came in between was not hinted at, perhaps.
    async fn renew_readers(&self, parts: &[Rc<Part>]) {
        let mut conversations = Vec::new();
        for part in parts {
            conversations.extend(part.observers.borrow().conversations().cloned());
        }
        let me = self.setup.leases.incarnation();
        for batch in conversations.chunks(BATCH) {
            if let Err(error) = self.setup.store.observe(batch, me).await {
                debug!(%error, "what is read here could not be renewed; it will be in the next round");
            }
        }
        for part in parts {
            self.count_looks(part.observers.borrow().look_all());
        }
    }

    /// Lets all readers go: the replica goes away, and they find another.
    pub(super) fn dismiss_readers(&self) {
        for part in &self.parts {
            part.observers.borrow_mut().dismiss();
        }
        self.count_readers(0, 0);
    }

    fn count_looks(&self, told: Told) {
        self.setup.metrics.subscribers.wakeups.inc_by(told.told);
    }

    fn count_readers(&self, readers: usize, conversations: usize) {
        let wide = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.setup.metrics.subscribers;
        let (readers, conversations) = (wide(readers), wide(conversations));
        metrics.count.add(readers - self.rounds.readers.replace(readers));
        metrics.conversations.add(conversations - self.rounds.conversations.replace(conversations));
    }
}
