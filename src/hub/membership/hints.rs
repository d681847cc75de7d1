//! The hints of other replicas, and the check that hints arrive.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::MembershipWorker;
use crate::domain::{ConversationId, Partition};
use crate::hub::shard::ShardCommand;
use crate::store::{Hint, HintStream, OutboxEvent};

/// The timeout of an echo. A heartbeat that has not come back by then means that hints are lost.
pub(super) const ECHO: Duration = Duration::from_secs(1);
/// Pending echoes that are remembered. More are not needed to notice a missing echo.
const ECHOES: usize = 64;

impl MembershipWorker {
    pub(super) async fn listen(&self, mut hints: HintStream) {
        loop {
            let hint = hints.next().await;
            #[cfg(test)]
            if self.leases().faults.deaf.load(std::sync::atomic::Ordering::Acquire) {
                continue;
            }
            self.setup.metrics.hint_received(kind(&hint));
            self.on_hint(hint);
        }
    }

    fn on_hint(&self, hint: Hint) {
        match hint {
            Hint::Accepted(ref message) => {
                self.forward_or_resync(Partition::of(&message.new.conversation), hint);
            }
            Hint::Ended(ref message) => {
                self.forward_or_resync(Partition::of(&message.accepted.new.conversation), hint);
            }
            Hint::Woken(ref conversation)
            | Hint::EndedLarge { ref conversation, .. }
            | Hint::Erased(ref conversation, _)
            | Hint::Appended(ref conversation) => {
                self.forward_or_resync(Partition::of(conversation), hint);
            }
            Hint::Chunk(ref conversation, _)
            | Hint::Platform(ref conversation, _)
            | Hint::Signal(ref conversation, _)
            | Hint::Observed(ref conversation, _)
            | Hint::Asked { ref conversation, .. } => {
                self.forward(self.leases().shard(Partition::of(conversation)), hint);
            }
            Hint::AskedList { conversations, by, number } => {
                let mut of_shards: BTreeMap<usize, Vec<ConversationId>> = BTreeMap::new();
                for conversation in conversations {
                    let shard = self.leases().shard(Partition::of(&conversation));
                    of_shards.entry(shard).or_default().push(conversation);
                }
                for (shard, conversations) in of_shards {
                    self.forward(shard, Hint::AskedList { conversations, by, number });
                }
            }
            Hint::UserErased(_) => {
                for shard in 0..self.setup.shards.len() {
                    self.forward(shard, hint.clone());
                }
            }
            Hint::Answered(number, _) | Hint::AnsweredList(number, _) => {
                // The remainder of the number is the shard that asked.
                let shards = u64::try_from(self.setup.shards.len()).unwrap_or(u64::MAX);
                let asked = number.checked_rem(shards).and_then(|shard| usize::try_from(shard).ok());
                if let Some(shard) = asked {
                    self.forward(shard, hint);
                }
            }
            Hint::Redelivered(partition) => {
                if self.leases().ownership(partition).fence().is_some() {
                    self.setup.outbox_events.tell_now(OutboxEvent::Redelivered(partition));
                }
            }
            Hint::Fleet => self.leases().heartbeat_now.notify_one(),
            Hint::Echo(number) => self.echoes.borrow_mut().retain(|(sent, _)| *sent > number),
            Hint::Subscribed => {
                self.setup.outbox_events.tell_now(OutboxEvent::Missed);
                self.leases().request_resync();
                self.leases().heartbeat_now.notify_one();
            }
        }
    }

    /// Forwards a hint to the shard of a partition. A shard with a full queue reads the store instead.
    fn forward_or_resync(&self, partition: Partition, hint: Hint) {
        if !self.forward(self.leases().shard(partition), hint) {
            self.leases().request_resync();
        }
    }

    /// Forwards a hint to a shard, and returns `false` if its queue is full. Some hints may then be lost without a resync:
    /// chunks are never stored, notes of remote subscribers are renewed, and a status query times out.
    fn forward(&self, shard: usize, hint: Hint) -> bool {
        self.setup
            .shards
            .get(shard)
            .is_none_or(|shard| shard.commands.try_send(ShardCommand::Hint(hint)).is_ok())
    }

    pub(super) fn remember_echo(&self, number: u64) {
        let mut echoes = self.echoes.borrow_mut();
        if echoes.len() < ECHOES {
            echoes.push_back((number, Instant::now()));
        }
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.echoes.borrow().front().is_some_and(|(_, sent)| sent.elapsed() >= ECHO)
    }
}

const fn kind(hint: &Hint) -> &'static str {
    match hint {
        Hint::Accepted(_) => "accepted",
        Hint::Woken(_) => "woken",
        Hint::Ended(_) => "ended",
        Hint::EndedLarge { .. } => "ended_large",
        Hint::Erased(..) => "erased",
        Hint::UserErased(_) => "user_erased",
        Hint::Appended(_) => "appended",
        Hint::Chunk(..) => "chunk",
        Hint::Platform(..) => "platform",
        Hint::Signal(..) => "signal",
        Hint::Observed(..) => "observed",
        Hint::Asked { .. } => "asked",
        Hint::Answered(..) => "answered",
        Hint::AskedList { .. } => "asked_list",
        Hint::AnsweredList(..) => "answered_list",
        Hint::Redelivered(_) => "redelivered",
        Hint::Fleet => "fleet",
        Hint::Echo(_) => "echo",
        Hint::Subscribed => "subscribed",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::worker;
    use super::*;
    use crate::hub::lease_table::LeaseTable;
    use crate::store::{Fence, Incarnation, outbox_events};

    #[tokio::test]
    async fn webhook_worker_gets_redeliveries_of_own_partitions_only() {
        let me = Incarnation(1);
        let leases = Arc::new(LeaseTable::new(me, Duration::from_secs(10), 1));
        let (sender, mut events) = outbox_events();
        let mut worker = worker(&leases);
        worker.setup.outbox_events = sender;
        let (ours, others) = (Partition::from_byte(3), Partition::from_byte(4));
        leases.claimed(ours, Fence { incarnation: me, epoch: 5 }, Instant::now());
        for hint in [Hint::Redelivered(others), Hint::Redelivered(ours), Hint::Subscribed] {
            worker.on_hint(hint);
        }
        drop(worker);
        assert!(
            matches!(events.next().await, Some(OutboxEvent::Redelivered(partition)) if partition == ours)
        );
        assert!(matches!(events.next().await, Some(OutboxEvent::Missed)));
        assert!(events.next().await.is_none(), "the owner attempts deliveries of other partitions");
    }
}
