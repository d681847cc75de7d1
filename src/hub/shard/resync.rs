//! The resync: a shard reads from the store the ends and open messages whose hints may be lost.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::head_deadline::restart_head_deadline;
use super::partition_state::PartitionState;
use super::{Shard, spawn};
use crate::domain::{ConversationId, MessageId, Partition, Timestamp};
use crate::store::{Fence, Store};

/// Reads that run at the same time.
const MAX_READS: usize = 128;
/// Sweeps between two restarts of the deadlines of unknown bots.
const RESTARTS: u32 = 5;

/// The state of the resyncs.
#[derive(Debug, Default)]
pub(super) struct ResyncState {
    /// The generation of the last resync of all waiters.
    generation: Cell<u64>,
    /// The generation of the last look into all partitions.
    looked: Cell<u64>,
    running: Cell<bool>,
    sweeping: Cell<bool>,
    sweeps: Cell<u32>,
    /// This shard's part of the gauges that all shards share.
    unknown_bots: Cell<i64>,
    open: Cell<i64>,
}

impl Shard {
    /// Reads the message of a waiter, because its end may have come before the waiter.
    pub(super) async fn resync_message(&self, conversation: ConversationId, id: MessageId) {
        let stored = self.waiters.borrow().is_stored(id);
        let watcher = Some(self.setup.leases.incarnation());
        match self.setup.store.message(&conversation, id, watcher).await {
            Ok(Some(message)) if message.progress.has_ended() => self.waiters.borrow_mut().complete(message),
            Ok(None) if stored => {
                if self.waiters.borrow_mut().complete_lost(id) {
                    self.setup.metrics.fleet.messages_lost.inc();
                }
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Reads the message of a waiter in a task of its own.
    pub(super) fn resync_message_soon(self: &Rc<Self>, conversation: ConversationId, id: MessageId) {
        let shard = Rc::clone(self);
        spawn(async move { shard.resync_message(conversation, id).await });
    }

    async fn resync_messages(&self, waits: Vec<(ConversationId, MessageId)>) {
        stream::iter(waits)
            .for_each_concurrent(MAX_READS, |(conversation, id)| self.resync_message(conversation, id))
            .await;
    }

    /// Reads the messages of all waiters of a partition after a handoff or failover, because ends may have come between the
    /// two owners. Subscribers read by themselves.
    pub(super) async fn resync_partition(&self, partition: Partition) {
        self.publish_look_to_all(partition);
        let waits = self.waiters.borrow().stored_messages(Some(partition));
        self.resync_messages(waits).await;
    }

    /// Reads the messages of all waiters if a resync was requested since the last one.
    pub(super) fn resync_if_requested(self: &Rc<Self>) {
        let generation = self.setup.leases.resync_generation();
        if generation == self.resync.generation.get() || self.resync.running.replace(true) {
            return;
        }
        self.resync.generation.set(generation);
        let shard = Rc::clone(self);
        spawn(async move {
            let waits = shard.waiters.borrow().stored_messages(None);
            let count = u64::try_from(waits.len()).unwrap_or(u64::MAX);
            shard.setup.metrics.fleet.wait_resyncs.inc_by(count);
            shard.resync_messages(waits).await;
            shard.resync.running.set(false);
        });
    }

    /// Looks for open messages whose hints were lost. It does not ask the store again before the last answer.
    pub(super) fn sweep(self: &Rc<Self>) {
        self.waiters.borrow_mut().sweep();
        self.maintain_subscriptions();
        self.report_open();
        if self.resync.sweeping.replace(true) {
            return;
        }
        let shard = Rc::clone(self);
        spawn(async move {
            shard.start_ready().await;
            shard.resync.sweeping.set(false);
        });
    }

    async fn start_ready(self: &Rc<Self>) {
        let sweeps = self.resync.sweeps.get().wrapping_add(1);
        self.resync.sweeps.set(sweeps);
        let generation = self.setup.leases.resync_generation();
        let all = generation != self.resync.looked.replace(generation);
        let owned = self.partitions.iter().filter_map(|part| Some((part, part.active_fence()?)));
        let asked = owned.map(async |(part, fence)| {
            let rested = self.setup.store.rest(part.partition, fence).await;
            let looks = all || part.look_wanted.take() || self.is_look_due(part, sweeps);
            let ready = match rested {
                Ok(()) if looks => self.setup.store.ready(part.partition, fence, false).await.map(Some),
                rested => rested.map(|()| None),
            };
            (part, fence, ready)
        });
        let mut unknown_bots = Vec::new();
        for (part, fence, ready) in join_all(asked).await {
            match ready {
                Ok(Some(ready)) => {
                    let (known, unknown): (Vec<_>, Vec<_>) =
                        ready.into_iter().partition(|conversation| self.bot(conversation).is_some());
                    part.unknown_bots.set(i64::try_from(unknown.len()).unwrap_or(i64::MAX));
                    // Their deadlines are restarted often.
                    if !unknown.is_empty() {
                        part.look_wanted.set(true);
                    }
                    unknown_bots.extend(unknown.into_iter().map(|conversation| (fence, conversation)));
                    self.start_all(part, fence, known).await;
                }
                Ok(None) => {}
                Err(error) if error.is_passing() => part.look_wanted.set(true),
                Err(_) => self.setup.leases.suspect(part.partition, fence),
            }
        }
        let owned = self.partitions.iter().filter(|part| part.active_fence().is_some());
        let count = owned.map(|part| part.unknown_bots.get()).sum::<i64>();
        let before = self.resync.unknown_bots.replace(count);
        self.setup.metrics.fleet.conversations_with_unknown_bot.add(count - before);
        if sweeps.is_multiple_of(RESTARTS) {
            self.restart_unknown_bots(unknown_bots).await;
        }
    }

    /// Returns whether a sweep looks into this partition although no hint is known to be missing. The looks of all
    /// partitions are spread evenly.
    fn is_look_due(&self, part: &PartitionState, sweeps: u32) -> bool {
        let turn = u32::try_from(part.partition.index()).unwrap_or_default();
        sweeps.wrapping_add(turn).is_multiple_of(self.setup.store.look_interval())
    }

    /// Restarts the deadlines of heads whose bot this replica does not know. The next owner may know the bot, so its
    /// messages wait.
    async fn restart_unknown_bots(&self, heads: Vec<(Fence, ConversationId)>) {
        const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);
        stream::iter(heads)
            .for_each_concurrent(16, async |(fence, conversation)| {
                let restarted = restart_head_deadline(&self.setup.store, fence, &conversation, NEVER).await;
                if let Err(error) = restarted {
                    debug!(bot = %conversation.bot(), %error, "the deadline of a queued message was not restarted");
                }
            })
            .await;
    }

    /// Takes this shard's part out of the gauges that all shards share.
    pub(super) fn clear_gauges(&self) {
        let metrics = &self.setup.metrics;
        metrics.fleet.conversations_with_unknown_bot.sub(self.resync.unknown_bots.take());
        metrics.open_messages.sub(self.resync.open.take());
        metrics.oldest_open_message.set_age(self.setup.index, None);
    }

    /// Reports the open messages and the age of the oldest. The memory store reports the number itself.
    fn report_open(&self) {
        let oldest = self.partitions.iter().filter_map(|part| part.oldest()).min();
        let age = oldest.map(|accepted_at| self.clock.now().since(accepted_at));
        self.setup.metrics.oldest_open_message.set_age(self.setup.index, age);
        if matches!(self.setup.store, Store::Redis(_)) {
            let open = self.partitions.iter().map(|part| part.open()).sum();
            let before = self.resync.open.replace(open);
            self.setup.metrics.open_messages.add(open - before);
        }
    }
}
