//! The services of a shard for its conversations.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::value::RawValue;

use super::super::connect_limiter::ConnectDemand;
use super::Shard;
use crate::config::BotConfig;
use crate::domain::{ConversationId, Message, MessageId, NewDelivery, Partition, ReplyChunk, Timestamp};
use crate::link::{ConversationHost, Mailbox, PlatformConnector, StoreClock};
use crate::metrics::{BotMetrics, StoreMetrics};
use crate::rhythm::SharedRhythm;
use crate::store::{Fence, Incarnation, OutboxEvent, QueueId, Store};

impl ConversationHost for Shard {
    fn store(&self) -> &Store {
        &self.setup.store
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    fn connector(&self) -> &PlatformConnector {
        &self.connector
    }

    async fn connect_permit(&self, bot: &BotConfig, conversation: &ConversationId, mailbox: &Mailbox) {
        #[cfg(test)]
        crate::hub::tests::panic_if_armed(bot);
        let (store, clock) = (&self.setup.store, &self.clock);
        let demand = || ConnectDemand { is_open: mailbox.open() > 0, caller: mailbox.caller() };
        self.connect_limiter.acquire(store, clock, bot, Some(conversation), demand).await;
    }

    async fn history_permit(&self, bot: &BotConfig) {
        self.connect_limiter.acquire(&self.setup.store, &self.clock, bot, None, ConnectDemand::default).await;
    }

    fn may_act(&self, partition: Partition) -> bool {
        // The fence of the shard counts too: the replica may have claimed the partition again while conversations of an
        // earlier fence are leaving.
        let Some(part) = self.partition(partition) else { return false };
        let valid = part.fence().is_some_and(|fence| self.setup.leases.is_lease_valid(partition, fence));
        if !valid {
            // An action is withheld. The conversations are told when the lease is valid again, however soon that is.
            part.told_lease_valid.set(false);
        }
        valid
    }

    fn writing(&self, conversation: &ConversationId, id: MessageId) {
        if let Some(part) = self.partition(Partition::of(conversation)) {
            part.unsent.borrow_mut().remove(id);
        }
    }

    fn is_unsent(&self, conversation: &ConversationId, id: MessageId) -> bool {
        self.partition(Partition::of(conversation)).is_some_and(|part| part.unsent.borrow().contains(id))
    }

    fn report_loss(&self, id: MessageId) {
        self.waiters.borrow_mut().complete_lost(id);
        self.setup.metrics.fleet.messages_lost.inc();
    }

    fn complete(&self, message: Message) {
        self.writing(&message.accepted.new.conversation, message.accepted.id);
        self.waiters.borrow_mut().complete(message);
    }

    fn erased(&self, conversation: &ConversationId, messages: &[MessageId]) {
        for &id in messages {
            self.writing(conversation, id);
            if let Some(part) = self.partition(Partition::of(conversation)) {
                part.erased.borrow_mut().insert(id);
            }
            self.waiters.borrow_mut().complete_erased(id);
        }
    }

    fn appended(&self, conversation: &ConversationId) {
        self.publish_look(conversation);
    }

    fn due(&self, fence: Fence, queue: QueueId, delivery: &NewDelivery) {
        let (partition, target) = (delivery.id.partition(), delivery.target.clone());
        self.setup.outbox_events.tell_now(OutboxEvent::Due { partition, fence, queue, target });
    }

    fn chunk(&self, conversation: &ConversationId, chunk: Arc<ReplyChunk>) {
        self.publish_chunk(conversation, &chunk);
        self.forward_chunk(conversation, &chunk);
    }

    fn platform(&self, conversation: &ConversationId, frame: &Arc<RawValue>) {
        self.publish_platform(conversation, frame);
        self.forward_platform(conversation, frame);
    }

    fn observed(&self, conversation: &ConversationId, at: Vec<Incarnation>) {
        let me = self.setup.leases.incarnation();
        for replica in at.into_iter().filter(|&replica| replica != me) {
            self.note_remote_subscriber(conversation.clone(), replica);
        }
    }

    fn idle(&self, mailbox: &Mailbox, since: Option<Timestamp>) {
        match (mailbox.idle_since(), since) {
            (None, Some(_)) => {
                self.setup.busy.fetch_sub(1, Ordering::Relaxed);
                self.idle.notify_waiters();
            }
            (Some(_), None) => {
                self.setup.busy.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        mailbox.set_idle_since(since);
    }

    fn rhythm(&self, bot: &BotConfig) -> Option<Arc<SharedRhythm>> {
        self.setup.rhythms.get(&bot.name).map(Arc::clone)
    }

    fn bot_metrics(&self, bot: &BotConfig) -> Option<Arc<BotMetrics>> {
        self.setup.bot_metrics.get(&bot.name).map(Arc::clone)
    }

    fn write_metrics(&self) -> &StoreMetrics {
        &self.setup.write_metrics
    }
}
