//! What a shard reads from the store because hints may be lost: who waits, and what is open.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::hold::hold;
use super::{Shard, spawn};
use crate::domain::{ConversationId, MessageId, Partition, Timestamp};
use crate::store::{Fence, Store};

/// Reads that are under way at the same time.
const READS: usize = 128;
/// Every so many sweeps the time of heads whose bot is not known here begins anew.
const HOLDS: u32 = 5;

/// What a shard has read, and is reading.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The misses that waiters were read again for.
    misses: Cell<u64>,
    reading: Cell<bool>,
    sweeping: Cell<bool>,
    sweeps: Cell<u32>,
    /// What this shard added to the gauges that all shards share.
    strangers: Cell<i64>,
    open: Cell<i64>,
}

impl Shard {
    /// Reads a message that is waited for, in case its end was told before somebody waited.
    pub(super) async fn read(&self, conversation: ConversationId, id: MessageId) {
        let stored = self.watch.borrow().is_stored(id);
        let watcher = Some(self.setup.leases.incarnation());
        match self.setup.store.message(&conversation, id, watcher).await {
            Ok(Some(message)) if message.progress.has_ended() => self.watch.borrow_mut().tell(message),
            Ok(None) if stored => {
                if self.watch.borrow_mut().lose(id) {
                    self.setup.metrics.fleet.messages_lost.inc();
                }
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// The same, while other things go on.
    pub(super) fn read_soon(self: &Rc<Self>, conversation: ConversationId, id: MessageId) {
        let shard = Rc::clone(self);
        spawn(async move { shard.read(conversation, id).await });
    }

    async fn read_all(&self, waits: Vec<(ConversationId, MessageId)>) {
        stream::iter(waits)
            .for_each_concurrent(READS, |(conversation, id)| self.read(conversation, id))
            .await;
    }

    /// Reads all who wait in a partition that changed hands: the end may have come between two owners. Who reads live
    /// looks for himself.
    pub(super) async fn read_partition(&self, partition: Partition) {
        self.look_all(partition);
        let waits = self.watch.borrow().stored(Some(partition));
        self.read_all(waits).await;
    }

    /// Reads all who wait, where hints may have been lost since that was done last.
    pub(super) fn read_missed(self: &Rc<Self>) {
        let misses = self.setup.leases.misses();
        if misses == self.looks.misses.get() || self.looks.reading.replace(true) {
            return;
        }
        self.looks.misses.set(misses);
        let shard = Rc::clone(self);
        spawn(async move {
            let waits = shard.watch.borrow().stored(None);
            let count = u64::try_from(waits.len()).unwrap_or(u64::MAX);
            shard.setup.metrics.fleet.wait_resyncs.inc_by(count);
            shard.read_all(waits).await;
            shard.looks.reading.set(false);
        });
    }

    /// Looks for open messages that no hint told of. A store that is slow is not asked again before it answered.
    pub(super) fn sweep(self: &Rc<Self>) {
        self.watch.borrow_mut().sweep();
        self.tend_readers();
        self.count_open();
        if self.looks.sweeping.replace(true) {
            return;
        }
        let shard = Rc::clone(self);
        spawn(async move {
            shard.read_ready().await;
            shard.looks.sweeping.set(false);
        });
    }

    async fn read_ready(self: &Rc<Self>) {
        let sweeps = self.looks.sweeps.get().wrapping_add(1);
        self.looks.sweeps.set(sweeps);
        let owned = self.parts.iter().filter_map(|part| Some((part, part.works()?)));
        let asked = owned.map(async |(part, fence)| {
            (part, fence, self.setup.store.ready(part.partition, fence, false).await)
        });
        let mut strangers = Vec::new();
        for (part, fence, ready) in join_all(asked).await {
            match ready {
                Ok(ready) => {
                    let (known, unknown): (Vec<_>, Vec<_>) =
                        ready.into_iter().partition(|conversation| self.bot(conversation).is_some());
                    strangers.extend(unknown.into_iter().map(|conversation| (fence, conversation)));
                    self.start_all(part, fence, known).await;
                }
                Err(error) if error.is_passing() => {}
                Err(_) => self.setup.leases.doubt(part.partition, fence),
            }
        }
        let count = i64::try_from(strangers.len()).unwrap_or(i64::MAX);
        let before = self.looks.strangers.replace(count);
        self.setup.metrics.fleet.conversations_with_unknown_bot.add(count - before);
        if sweeps.is_multiple_of(HOLDS) {
            self.hold_strangers(strangers).await;
        }
    }

    /// A bot that this replica does not know yet may be known to the next owner: its messages wait for that, and
    /// their deadlines too.
    async fn hold_strangers(&self, strangers: Vec<(Fence, ConversationId)>) {
        const NEVER: Timestamp = Timestamp::from_millis(u64::MAX);
        stream::iter(strangers)
            .for_each_concurrent(16, async |(fence, conversation)| {
                if let Err(error) = hold(&self.setup.store, fence, &conversation, NEVER).await {
                    debug!(bot = %conversation.bot, %error, "a head's time could not be stopped");
                }
            })
            .await;
    }

    /// Takes what this shard added out of the gauges that all shards share.
    pub(super) fn count_nothing(&self) {
        let metrics = &self.setup.metrics;
        metrics.fleet.conversations_with_unknown_bot.sub(self.looks.strangers.take());
        metrics.open_messages.sub(self.looks.open.take());
        metrics.oldest_open_message.set_age(self.setup.index, None);
    }

    /// The memory store counts for itself, but does not know which message is the oldest.
    fn count_open(&self) {
        let oldest = self.parts.iter().filter_map(|part| part.oldest()).min();
        let age = oldest.map(|accepted_at| self.clock.now().since(accepted_at));
        self.setup.metrics.oldest_open_message.set_age(self.setup.index, age);
        if matches!(self.setup.store, Store::Redis(_)) {
            let open = self.parts.iter().map(|part| part.open()).sum();
            let before = self.looks.open.replace(open);
            self.setup.metrics.open_messages.add(open - before);
        }
    }
}
