//! One shard: a thread with the conversations, sockets and waiters of its partitions.
//!
//! awc's web sockets stay on the thread that made them. All of a conversation is therefore here: its task, its socket and
//! its waiters. Requests of the same thread call the shard directly. Other threads reach it through one bounded queue.
//! The lease table tells it which partitions this replica owns. Waiters are here even if another replica owns the
//! partition.
//!
//! * [`ownership`] activates, drains and revokes partitions.
//! * [`activation`] brings conversations into memory and removes them.
//! * [`accept`] has the store accept messages.
//! * [`resync`] reads from the store the changes whose hints were lost.
//! * [`publishing`] serves the subscribers of conversations.
//! * [`status_query`] finds out the status of a conversation.
//! * [`uploads`] sends files of callers to the platform.
//!
//! The shard does not know what a conversation does; that is the task of `link`.

mod accept;
mod activation;
mod conversation_host;
mod handoff;
mod head_deadline;
mod hint_sender;
mod list_query;
mod ownership;
mod partition_state;
mod publishing;
mod resync;
mod status_query;
mod subscriber_table;
mod uploads;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use prometheus::IntGauge;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tracing::warn;

pub(crate) use self::accept::AcceptCommand;
pub(crate) use self::list_query::ListQuery;
use self::partition_state::PartitionState;
pub(crate) use self::status_query::StatusQuery;
use super::connect_limiter::ConnectLimiter;
use super::lease_table::LeaseTable;
use super::rhythms::BotRhythms;
use super::subscription::Publisher;
use super::waiters::{CompletionSender, WaiterTable};
use crate::config::BotConfig;
use crate::domain::{AcceptedMessage, BotName, ConversationId, MessageId, Partition, Timestamp, UserSignal};
use crate::link::{Grant, Input, PlatformConnector, StoreClock};
use crate::metrics::{BotMetrics, Metrics, StoreMetrics};
use crate::store::{self, Hint, Ownership, Store};

/// The timeout of a stop: a second for the last writes, a second for the peers, and a margin. A store that is away uses
/// up the first.
const STOP: Duration = Duration::from_millis(2250);

/// Commands that a shard takes in one round. Conversations of its thread wait meanwhile, and each of them is a task of its
/// own. Few commands a round would starve the callers on other threads.
const ROUND: usize = 1024;

/// A request to a shard.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Has the store accept a message.
    Accept(Box<AcceptCommand>),
    /// Registers a waiter for the end of a message, which may not be in the store yet.
    Wait { conversation: ConversationId, id: MessageId, waiter: CompletionSender },
    /// The message of a waiter is in the store.
    Stored(MessageId),
    /// Adds a subscriber; `subscribed` is answered when signals go to it.
    Subscribe { conversation: ConversationId, publisher: Publisher, subscribed: oneshot::Sender<()> },
    /// Asks for the status of a conversation.
    Query(StatusQuery),
    /// Asks for the status of many conversations.
    QueryList(ListQuery),
    /// Passes a signal of a user on to its conversation.
    Signal(ConversationId, UserSignal),
    /// A hint of another replica.
    Hint(Hint),
    /// Answers when no message is open any more.
    Drain { done: oneshot::Sender<()> },
    /// Closes everything and ends the thread.
    Stop,
}

/// The parts of a shard that are made on another thread.
pub(crate) struct ShardSetup {
    pub(crate) index: usize,
    pub(crate) store: Store,
    pub(crate) bots: Vec<Arc<BotConfig>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bot_metrics: HashMap<BotName, Arc<BotMetrics>>,
    pub(crate) write_metrics: StoreMetrics,
    /// The number of waiting commands.
    pub(crate) queue_length: IntGauge,
    pub(crate) leases: Arc<LeaseTable>,
    /// The number of conversations above which idle ones are evicted.
    pub(crate) capacity: usize,
    /// The number of conversations with open messages; the admission of messages reads it.
    pub(crate) busy: Arc<AtomicUsize>,
    /// Events for the webhook worker.
    pub(crate) outbox_events: store::OutboxEventSender,
    pub(crate) rhythms: Arc<BotRhythms>,
}

thread_local! {
    /// The shard that runs on this thread.
    static LOCAL_SHARD: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// Clears [`LOCAL_SHARD`] when the shard stops, or when its thread drops it.
struct LocalShardGuard;

impl Drop for LocalShardGuard {
    fn drop(&mut self) {
        LOCAL_SHARD.take();
    }
}

pub(crate) struct Shard {
    setup: ShardSetup,
    clock: StoreClock,
    connector: PlatformConnector,
    connect_limiter: ConnectLimiter,
    /// The shard's partitions, by [`Partition::index`] divided by the number of shards.
    partitions: Vec<Rc<PartitionState>>,
    /// The number of conversations in memory.
    active: Cell<usize>,
    waiters: RefCell<WaiterTable>,
    /// Signals that a conversation has left or become idle.
    idle: Notify,
    /// Held while many conversations are brought into memory at once.
    activation_permit: Mutex<()>,
    stopping: Cell<bool>,
    /// Held by the partition whose connects are being reserved.
    handoff_turn: Mutex<()>,
    /// Signals that the partitions were compared with the lease table.
    ownership_synced: Notify,
    resync: resync::ResyncState,
    renewals: publishing::RenewalState,
    queries: status_query::PendingQueries,
    hint_sender: Rc<hint_sender::HintSender>,
    upload_grants: uploads::UploadGrants<Grant>,
}

impl Shard {
    pub(crate) fn new(setup: ShardSetup, connector: PlatformConnector, now: Timestamp) -> Rc<Self> {
        let partitions = Partition::all().filter(|partition| setup.leases.shard(*partition) == setup.index);
        Rc::new(Self {
            partitions: partitions.map(PartitionState::new).collect(),
            connect_limiter: ConnectLimiter::new(&setup.bots),
            hint_sender: hint_sender::HintSender::new(setup.store.clone()),
            setup,
            clock: StoreClock::new(now),
            connector,
            active: Cell::new(0),
            waiters: RefCell::default(),
            idle: Notify::new(),
            activation_permit: Mutex::default(),
            stopping: Cell::new(false),
            handoff_turn: Mutex::default(),
            ownership_synced: Notify::new(),
            resync: resync::ResyncState::default(),
            renewals: publishing::RenewalState::default(),
            queries: status_query::PendingQueries::default(),
            upload_grants: uploads::UploadGrants::default(),
        })
    }

    /// Runs until [`ShardCommand::Stop`], or until all senders of commands are dropped. Returns `false` after a panic. The
    /// sockets are closed in any case, so the partitions may be released.
    pub(crate) async fn run(self: Rc<Self>, commands: mpsc::Receiver<ShardCommand>) -> bool {
        let worked = AssertUnwindSafe(self.work(commands)).catch_unwind().await;
        self.stop().await;
        worked.is_ok()
    }

    async fn work(self: &Rc<Self>, mut commands: mpsc::Receiver<ShardCommand>) {
        LOCAL_SHARD.set(Some(Rc::clone(self)));
        // Callers that are still in the queue at the end, and later ones, read the store.
        let _local = LocalShardGuard;
        let mut sweep = interval(Duration::from_secs(1));
        let mut lease_check = interval((self.setup.leases.ttl() / 12).min(Duration::from_secs(1)));
        let mut round = Vec::new();
        loop {
            tokio::select! {
                count = commands.recv_many(&mut round, ROUND) => {
                    let stops = round.drain(..).any(|command| {
                        let stop = matches!(command, ShardCommand::Stop);
                        self.on_command(command);
                        stop
                    });
                    if stops || count == 0 {
                        break;
                    }
                }
                () = self.setup.leases.changed(self.setup.index) => self.sync_ownership(),
                _ = lease_check.tick() => self.sync_ownership(),
                _ = sweep.tick() => {
                    self.setup.queue_length.set(i64::try_from(commands.len()).unwrap_or(i64::MAX));
                    self.sweep();
                }
            }
        }
    }

    /// Returns the shard with this index if it runs on this thread. Its commands then need no queue.
    pub(crate) fn local(leases: &Arc<LeaseTable>, index: usize) -> Option<Rc<Self>> {
        Self::of_this_thread(leases).filter(|shard| shard.setup.index == index)
    }

    /// Returns the shard that runs on this thread.
    pub(crate) fn of_this_thread(leases: &Arc<LeaseTable>) -> Option<Rc<Self>> {
        LOCAL_SHARD.with_borrow(Option::clone).filter(|shard| Arc::ptr_eq(&shard.setup.leases, leases))
    }

    pub(crate) fn on_command(self: &Rc<Self>, command: ShardCommand) {
        match command {
            ShardCommand::Accept(accept) => self.accept(*accept),
            ShardCommand::Wait { conversation, id, waiter } => {
                if self.waiters.borrow_mut().add(conversation.clone(), id, waiter) {
                    self.resync_message_soon(conversation, id);
                }
            }
            ShardCommand::Stored(id) => self.waiters.borrow_mut().set_stored(id),
            ShardCommand::Subscribe { conversation, publisher, subscribed } => {
                self.subscribe(conversation, publisher, subscribed);
            }
            ShardCommand::Query(query) => self.query_status(query),
            ShardCommand::QueryList(query) => self.query_list(query),
            ShardCommand::Signal(conversation, signal) => self.signal(&conversation, signal),
            ShardCommand::Hint(hint) => self.on_hint(hint),
            ShardCommand::Drain { done } => {
                let shard = Rc::clone(self);
                spawn(async move {
                    while shard.setup.busy.load(Ordering::Relaxed) > 0 {
                        shard.idle.notified().await;
                    }
                    done.send(()).ok();
                });
            }
            ShardCommand::Stop => {}
        }
    }

    fn on_hint(self: &Rc<Self>, hint: Hint) {
        match hint {
            Hint::Accepted(message) => self.on_accepted(message),
            Hint::Woken(conversation) => self.wake(conversation),
            Hint::Ended(message) => self.waiters.borrow_mut().complete(message),
            Hint::EndedLarge { conversation, id } => self.resync_message_soon(conversation, id),
            Hint::Erased(_, id) => self.waiters.borrow_mut().complete_erased(id),
            Hint::UserErased(conversation) => self.upload_grants.erase(&conversation),
            Hint::Appended(conversation) => self.publish_look(&conversation),
            Hint::Chunk(conversation, chunk) => self.publish_chunk(&conversation, &chunk),
            Hint::Platform(conversation, frame) => self.publish_platform(&conversation, &frame),
            Hint::Observed(conversation, by) => self.note_remote_subscriber(conversation, by),
            Hint::Signal(conversation, signal) => self.signal(&conversation, signal),
            Hint::Asked { conversation, by, number } => self.answer_query(&conversation, by, number),
            Hint::Answered(number, connection) => self.on_query_answer(number, *connection),
            Hint::AskedList { conversations, by, number } => self.answer_list(conversations, by, number),
            Hint::AnsweredList(number, answer) => self.on_list_answer(number, answer),
            // The membership thread acts on these itself.
            Hint::Redelivered(_) | Hint::Fleet | Hint::Echo(_) | Hint::Subscribed => {}
        }
    }

    /// Passes an accepted message to its conversation. If another replica owns the partition, the message is only
    /// recorded as stored.
    fn on_accepted(self: &Rc<Self>, message: Arc<AcceptedMessage>) {
        self.waiters.borrow_mut().set_stored(message.id);
        let conversation = &message.new.conversation;
        let Some(part) = self.active_partition(conversation) else { return };
        if part.erased.borrow().contains(message.id) {
            return;
        }
        match part.mailbox(conversation) {
            Some(mailbox) => mailbox.post(Input::Accepted(message)),
            None => self.start(part, conversation.clone()),
        }
    }

    /// Has the conversation read its lane, because it may have messages without a hint.
    fn wake(self: &Rc<Self>, conversation: ConversationId) {
        let Some(part) = self.active_partition(&conversation) else { return };
        match part.mailbox(&conversation) {
            Some(mailbox) => mailbox.post(Input::Woken),
            None => self.start(part, conversation),
        }
    }

    /// Passes a signal on to its conversation. One without a socket has no use for it.
    fn signal(&self, conversation: &ConversationId, signal: UserSignal) {
        let part = self.partition(Partition::of(conversation));
        if let Some(mailbox) = part.and_then(|part| part.mailbox(conversation)) {
            mailbox.post(Input::Signal(signal));
        }
    }

    /// Returns the partition of a conversation if this shard works for it.
    fn active_partition(&self, conversation: &ConversationId) -> Option<&Rc<PartitionState>> {
        self.partition(Partition::of(conversation)).filter(|part| part.active_fence().is_some())
    }

    fn partition(&self, partition: Partition) -> Option<&Rc<PartitionState>> {
        let part = self.partitions.get(partition.index() / self.setup.leases.shards());
        part.filter(|part| part.partition == partition)
    }

    async fn stop(&self) {
        self.stopping.set(true);
        self.waiters.borrow_mut().clear();
        self.close_subscriptions();
        let aborted: usize =
            join_all(self.partitions.iter().map(|part| part.stop(STOP))).await.into_iter().sum();
        if aborted > 0 {
            warn!(aborted, "conversations did not stop in time; their sockets are cut");
        }
        for part in &self.partitions {
            if let Some(fence) = part.ownership.replace(Ownership::None).fence() {
                self.setup.leases.set_drained(part.partition, fence);
            }
        }
        self.clear_gauges();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a shard's tasks start")]
fn spawn(task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(task)
}

#[cfg(test)]
mod tests;
