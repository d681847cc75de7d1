//! The services that a shard offers its conversations.

use std::future::Future;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::mailbox::Mailbox;
use crate::config::BotConfig;
use crate::domain::{ConversationId, Message, MessageId, NewDelivery, Partition, ReplyChunk, Timestamp};
use crate::metrics::{BotMetrics, StoreMetrics};
use crate::rhythm::SharedRhythm;
use crate::rtm::PlatformConnector;
use crate::store::{Fence, Incarnation, QueueId, Store, StoreClock};

/// The services that a shard offers its conversations.
pub trait ConversationHost: 'static {
    /// Returns the store.
    fn store(&self) -> &Store;
    /// Returns the store's clock.
    fn clock(&self) -> &StoreClock;
    /// Returns the connector, which opens sockets.
    fn connector(&self) -> &PlatformConnector;
    /// Waits until the bot's connect budget allows one more connect. A conversation with open messages comes first.
    fn connect_permit(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        mailbox: &Mailbox,
    ) -> impl Future<Output = ()>;
    /// Waits likewise for a background read of history. Connects of waiting callers come first.
    fn history_permit(&self, bot: &BotConfig) -> impl Future<Output = ()>;
    /// Returns whether the lease of the partition is valid now. Without it the conversation neither sends nor
    /// connects.
    fn may_act(&self, partition: Partition) -> bool;
    /// Notes that the first byte of the message is written next.
    fn writing(&self, conversation: &ConversationId, id: MessageId);
    /// Returns whether this owner had the store mark the message as sent, and has not written a byte of it.
    fn is_unsent(&self, conversation: &ConversationId, id: MessageId) -> bool;
    /// Tells the waiters that the store lost the message, or its end.
    fn report_loss(&self, id: MessageId);
    /// Tells the waiters that the end of the message is stored.
    fn complete(&self, message: Message);
    /// Tells the waiters that these messages were erased with the conversation.
    fn erased(&self, conversation: &ConversationId, messages: &[MessageId]);
    /// Tells live readers that the store confirmed journal entries.
    fn appended(&self, conversation: &ConversationId);
    /// Tells the webhook dispatcher that the store confirmed a delivery in this queue.
    fn due(&self, fence: Fence, queue: QueueId, delivery: &NewDelivery);
    /// Publishes a piece of a streamed reply to live readers.
    fn chunk(&self, conversation: &ConversationId, chunk: Arc<ReplyChunk>);
    /// Publishes a frame that the journal does not keep to live readers.
    fn platform(&self, conversation: &ConversationId, frame: &Arc<RawValue>);
    /// Notes that these replicas read the conversation live. Called when it comes into memory.
    fn observed(&self, conversation: &ConversationId, at: Vec<Incarnation>);
    /// Notes since when the conversation has no open message, if it has none.
    fn idle(&self, mailbox: &Mailbox, since: Option<Timestamp>);
    /// Returns the rhythm of the bot, if it is learned.
    fn rhythm(&self, bot: &BotConfig) -> Option<Arc<SharedRhythm>>;
    /// Returns the metrics of the bot's links.
    fn bot_metrics(&self, bot: &BotConfig) -> Option<Arc<BotMetrics>>;
    /// Returns the metrics of writes.
    fn write_metrics(&self) -> &StoreMetrics;
}
