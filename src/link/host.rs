//! What a conversation needs of the shard it lives on.

use std::future::Future;
use std::sync::Arc;

use super::mailbox::Mailbox;
use crate::config::BotConfig;
use crate::domain::{ConversationId, Message, MessageId, Partition, ReplyChunk, Timestamp};
use crate::metrics::{BotMetrics, StoreMetrics};
use crate::rtm::PlatformConnector;
use crate::store::{Fence, Incarnation, Store, StoreClock};

/// What a conversation needs of the shard it lives on.
pub trait ConversationHost: 'static {
    /// The store.
    fn store(&self) -> &Store;
    /// The store's time.
    fn clock(&self) -> &StoreClock;
    /// Opens sockets.
    fn connector(&self) -> &PlatformConnector;
    /// Comes back when the bot's connect budget allows one more, sooner for a conversation with open messages.
    fn connect_permit(&self, bot: &BotConfig, mailbox: &Mailbox) -> impl Future<Output = ()>;
    /// The same for a read of history that nobody waits for: it lets those pass whose caller waits.
    fn history_permit(&self, bot: &BotConfig) -> impl Future<Output = ()>;
    /// Whether the lease of the partition is surely ours at this moment: only then may be sent and connected.
    fn may_act(&self, partition: Partition) -> bool;
    /// The store lost the message, or how it ended: whoever waits for it reads that.
    fn forget(&self, id: MessageId);
    /// The message's end is stored: tells whoever waits for it.
    fn tell(&self, message: Message);
    /// The store confirmed a write with entries for the journal: tells whoever reads it.
    fn appended(&self, conversation: &ConversationId);
    /// The store confirmed a write with deliveries to this target: tells whoever attempts them.
    fn due(&self, fence: Fence, conversation: &ConversationId, target: &str);
    /// A piece of a streamed reply came: tells whoever reads live.
    fn chunk(&self, conversation: &ConversationId, chunk: Arc<ReplyChunk>);
    /// The conversation is opened, and somebody reads it live at these replicas.
    fn observed(&self, conversation: &ConversationId, at: Vec<Incarnation>);
    /// The conversation has nothing open since then, or has something open again.
    fn idle(&self, mailbox: &Mailbox, since: Option<Timestamp>);
    /// What the bot's links count.
    fn bot_metrics(&self, bot: &BotConfig) -> Option<Arc<BotMetrics>>;
    /// What writes count.
    fn write_metrics(&self) -> &StoreMetrics;
}
