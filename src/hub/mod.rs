//! The hub: it accepts messages from HTTP and waits for their ends.
//!
//! Any replica takes any request. One of its own shards has the store accept the message. If the replica owns the
//! partition, that shard continues with the message. Otherwise the store sends a hint to the owner, and the end comes back
//! as a hint. A waiter is registered here before the store is asked. No end is therefore missed between the two, even if
//! the owner changes:
//!
//! ```text
//!  own partition:    shard: register, accept (watched) ──► … ──► complete
//!  another's:        shard: register, accept (watched) ──► owner … ──► hint ──► complete
//!  GET, long poll:   shard: register ──► read (watched) ──► … ──► complete
//!  events:           shard: subscribe ──► read (observed) ──► … ──► look ──► read …
//! ```
//!
//! A [`Hub`] is a set of channels. Every thread uses it, without a lock between them. A command for the shard of the same
//! thread goes there without a channel. The hub does not know HTTP or the platform.

mod connect_limiter;
mod conversation_list;
mod endpoints;
mod erasure;
mod lease_table;
mod membership;
mod open_message_shares;
mod rebalance;
mod rhythms;
mod shard;
mod shared_callers;
mod signals;
mod subscription;
mod threads;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use self::lease_table::LeaseTable;
use self::open_message_shares::OpenMessageShares;
use self::rhythms::BotRhythms;
use self::shard::{AcceptCommand, Shard, ShardCommand, StatusQuery};
use self::waiters::{Completion, CompletionReceiver};
use crate::domain::{
    ConversationId, ConversationState, Delivery, DeliveryId, JournalPage, Message, MessageId,
    MessageProgress, Partition, ReadStart,
};
use crate::link::ConnectorSetupError;
use crate::metrics::FleetMetrics;
use crate::store::{
    AcceptError, AcceptRequest, AcceptResult, DeliveryPage, DeliveryQuery, Incarnation, RedeliverResult,
    ReplicaIdentity, Store, StoreError,
};

pub use self::conversation_list::ListedConversation;
pub use self::open_message_shares::sharing_callers;
pub use self::rebalance::{
    Assignment, ClusterView, PartitionStatus, RebalanceAction, StoreContact, plan_rebalance,
};
pub use self::subscription::Subscription;
pub use self::threads::HubThreads;
pub use crate::link::{
    FRAMES_IN, FRAMES_OUT, HistoryExcerpt, StepFailure, UPLOAD_CHUNK_BYTES, UploadFailure, UploadStep,
};

/// The timeout of a command for a place in a shard's queue. A new message is then refused. A stored message waits for the
/// next sweep.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// A message at the end of the wait.
#[derive(Debug, Clone)]
pub struct PostResult {
    /// The message.
    pub message: Message,
    /// Whether an earlier request with the same idempotency key was accepted.
    pub replayed: bool,
}

/// The failure of a request to the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The replica is shutting down and accepted no message.
    #[error("this replica is shutting down")]
    Draining,
    /// The replica is at its limit and accepted no message.
    #[error("this replica is at its limit: {0}")]
    Overloaded(&'static str),
    /// The caller has as many open messages as it may have. No message was accepted.
    #[error("the caller has {0} open messages")]
    CallerLimit(usize),
    /// The message was refused.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lost the message.
    #[error("the store lost the message")]
    Lost,
    /// The message was erased with its conversation.
    #[error("the message was erased with its conversation")]
    Erased,
    /// No replica owns the conversation at the moment.
    #[error("no replica owns the conversation")]
    Unowned,
}

/// The failure to start the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubStartError {
    /// A shard's thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// A shard could not be set up.
    #[error(transparent)]
    Setup(#[from] ConnectorSetupError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The declaration of a metric is invalid.
    #[error("the declaration of a metric is invalid")]
    Metrics(#[source] prometheus::Error),
    /// A thread ended during its setup.
    #[error("a thread ended during its setup")]
    Died,
    /// The store answered, but the first claims did not finish in time.
    #[error("the store did not let the replica join the fleet within {0:?}; the log says why")]
    Silent(Duration),
}

/// A handle to all shards. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    store: Store,
    leases: Arc<LeaseTable>,
    shards: Arc<[ShardHandle]>,
    metrics: FleetMetrics,
    /// The live replicas at the last heartbeat.
    fleet: watch::Receiver<Arc<[ReplicaIdentity]>>,
    /// The number of requests that wait for an end.
    waits: Arc<AtomicUsize>,
    max_busy: usize,
    shares: Arc<OpenMessageShares>,
    rhythms: Arc<BotRhythms>,
}

/// The side of a shard that other threads use.
#[derive(Debug)]
struct ShardHandle {
    commands: mpsc::Sender<ShardCommand>,
    busy: Arc<AtomicUsize>,
}

/// Counts a waiting request until it is dropped.
struct WaitGuard(Arc<AtomicUsize>);

impl WaitGuard {
    fn begin(waits: &Arc<AtomicUsize>) -> Self {
        waits.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waits))
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// Returns a hub that is shutting down and has no shards.
    #[cfg(test)]
    pub(crate) fn closed(store: Store) -> Self {
        let config = crate::config::Config::dev(url::Url::parse("http://127.0.0.1:1").unwrap());
        let words = crate::metrics::LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
        let metrics = crate::metrics::Metrics::new(words).map(|metrics| metrics.fleet).unwrap();
        let leases = LeaseTable::new(Incarnation(0), Duration::ZERO, 0);
        leases.refuse();
        Self {
            store,
            leases: Arc::new(leases),
            shards: [].into(),
            metrics,
            fleet: watch::channel(Arc::default()).1,
            waits: Arc::default(),
            max_busy: 0,
            rhythms: Arc::default(),
            shares: Arc::new(OpenMessageShares::new(&config)),
        }
    }

    /// Accepts a message and waits for its end, `wait` at most. Without a wait it returns as soon as the message is durable.
    ///
    /// # Errors
    /// [`HubError`]; an accepted message can only fail with [`HubError::Lost`], [`HubError::Erased`] or
    /// [`HubError::Store`].
    pub async fn post(
        &self,
        mut accept: AcceptRequest,
        wait: Option<Duration>,
    ) -> Result<PostResult, HubError> {
        if self.is_draining() {
            return Err(HubError::Draining);
        }
        if self.shards.iter().map(|shard| shard.busy.load(Ordering::Relaxed)).sum::<usize>() >= self.max_busy
        {
            return Err(HubError::Overloaded("every socket it may hold is in a turn"));
        }
        let places = self.shares.acquire(&accept.message)?;
        // The end of the message gives its places back, also if no caller waits for it.
        accept.watched |= places.is_some();
        let (conversation, id) = (accept.message.conversation.clone(), accept.id);
        let _wait_guard = wait.map(|_| WaitGuard::begin(&self.waits));
        let (answer, accepted) = oneshot::channel();
        let (waiter, completion) = oneshot::channel();
        let waiter = wait.map(|_| waiter);
        let command = ShardCommand::Accept(Box::new(AcceptCommand { accept, waiter, places, answer }));
        self.send_command(&conversation, command).await?;
        if let Some(wait) = wait {
            match timeout(wait, completion).await {
                Ok(Ok(Completion::Ended(message))) => return Ok(PostResult { message, replayed: false }),
                // The shard has counted the loss.
                Ok(Ok(Completion::Lost)) => return Err(HubError::Lost),
                Ok(Ok(Completion::Erased)) => return Err(HubError::Erased),
                // The wait timed out, or the accept failed.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        // A shard that ends drops its pending accepts, with an unknown result.
        let accepted = accepted.await.map_err(|_| StoreError::Unknown(COMMAND_TIMEOUT))??;
        match accepted {
            AcceptResult::New(accepted) | AcceptResult::SentAtAccept(accepted) => {
                let message = match wait {
                    Some(_) => self.reread(&conversation, id).await?,
                    None => Message { accepted, progress: MessageProgress::default() },
                };
                Ok(PostResult { message, replayed: false })
            }
            AcceptResult::Replayed(message) => {
                let message = match wait {
                    Some(wait) if !message.progress.has_ended() => {
                        let message = self.message(&conversation, message.accepted.id, Some(wait)).await?;
                        message.ok_or_else(|| self.count_lost())?
                    }
                    _ => message,
                };
                Ok(PostResult { message, replayed: true })
            }
        }
    }

    /// Returns a message at its end or after `wait`, and `None` for an unknown message. A replica that shuts down does not
    /// wait.
    ///
    /// # Errors
    /// [`HubError::Store`]; [`HubError::Lost`] or [`HubError::Erased`] if the message disappeared during the wait.
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        wait: Option<Duration>,
    ) -> Result<Option<Message>, HubError> {
        // A new wait would delay a shutdown.
        let Some(wait) = wait.filter(|_| !self.is_draining()) else {
            return Ok(self.store.message(conversation, id, None).await?);
        };
        let _wait_guard = WaitGuard::begin(&self.waits);
        let completion = self.register_waiter(conversation, id).await;
        match self.store.message(conversation, id, Some(self.incarnation())).await? {
            Some(message) if !message.progress.has_ended() => {
                self.notify_shard(conversation, ShardCommand::Stored(id)).await;
                self.wait_for_end(conversation, id, completion, wait).await.map(Some)
            }
            message => Ok(message),
        }
    }

    /// Subscribes to the live signals of a conversation. Read pages with `observed` after this call, so that no entry is
    /// missed between a page and the first signal. The caller limits the number of subscriptions; each takes about a
    /// hundred bytes.
    ///
    /// # Errors
    /// [`HubError::Draining`], [`HubError::Overloaded`].
    pub async fn subscribe(&self, conversation: &ConversationId) -> Result<Subscription, HubError> {
        if self.is_draining() {
            return Err(HubError::Draining);
        }
        let (publisher, subscription) = subscription::subscription();
        let (subscribed, confirmed) = oneshot::channel();
        let command = ShardCommand::Subscribe { conversation: conversation.clone(), publisher, subscribed };
        self.send_command(conversation, command).await?;
        match timeout(COMMAND_TIMEOUT, confirmed).await {
            Ok(Ok(())) => Ok(subscription),
            // The shard accepts no subscription, or has ended.
            Ok(Err(_)) => Err(HubError::Draining),
            Err(_) => Err(HubError::Overloaded("it is too busy for one more subscriber")),
        }
    }

    /// Returns a page of a conversation's journal; see [`Store::page`]. `observed` says that a [`Subscription`] of this
    /// replica reads it: the store then sends hints at later entries.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub async fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observed: bool,
    ) -> Result<JournalPage, HubError> {
        let me = observed.then(|| self.incarnation());
        Ok(self.store.page(conversation, after, limit, me).await?)
    }

    /// Returns the state of a conversation. The owner has a second to report the connection. Without its answer, the
    /// connection comes from the store, with a reason that says so.
    ///
    /// # Errors
    /// [`HubError::Store`], [`HubError::Overloaded`]; [`HubError::Draining`] if the shards have ended.
    pub async fn state(&self, conversation: &ConversationId) -> Result<ConversationState, HubError> {
        let (answer, status) = oneshot::channel();
        let query = StatusQuery { conversation: conversation.clone(), answer };
        self.send_command(conversation, ShardCommand::Query(query)).await?;
        status.await.map_err(|_| HubError::Draining)?
    }

    /// Returns a delivery; see [`Store::delivery`].
    ///
    /// # Errors
    /// The errors of [`Store::delivery`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.store.delivery(id).await
    }

    /// Returns deliveries, newest first; see [`Store::deliveries`].
    ///
    /// # Errors
    /// The errors of [`Store::deliveries`].
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.store.deliveries(query).await
    }

    /// Has the owner of the partition attempt a delivery again; see [`Store::redeliver`].
    ///
    /// # Errors
    /// The errors of [`Store::redeliver`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<RedeliverResult, StoreError> {
        self.store.redeliver(id).await
    }

    /// Returns the incarnation of this replica.
    pub fn incarnation(&self) -> Incarnation {
        self.leases.incarnation()
    }

    /// Returns whether this replica has once had its share of the partitions since its start.
    pub fn is_settled(&self) -> bool {
        self.leases.is_settled()
    }

    /// Returns whether this replica is shutting down.
    pub fn is_draining(&self) -> bool {
        self.leases.is_refusing()
    }

    /// Registers a waiter for the end of a message, which may not be in the store yet.
    async fn register_waiter(&self, conversation: &ConversationId, id: MessageId) -> CompletionReceiver {
        let (waiter, completion) = oneshot::channel();
        let command = ShardCommand::Wait { conversation: conversation.clone(), id, waiter };
        self.notify_shard(conversation, command).await;
        completion
    }

    /// Returns a stored message at its end or after `wait`.
    async fn wait_for_end(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        completion: CompletionReceiver,
        wait: Duration,
    ) -> Result<Message, HubError> {
        match timeout(wait, completion).await {
            Ok(Ok(Completion::Ended(message))) => Ok(message),
            // The shard has counted the loss.
            Ok(Ok(Completion::Lost)) => Err(HubError::Lost),
            Ok(Ok(Completion::Erased)) => Err(HubError::Erased),
            // The wait timed out, or the shard stopped.
            Ok(Err(_)) | Err(_) => self.reread(conversation, id).await,
        }
    }

    /// Returns a message that is in the store.
    async fn reread(&self, conversation: &ConversationId, id: MessageId) -> Result<Message, HubError> {
        self.store.message(conversation, id, None).await?.ok_or_else(|| self.count_lost())
    }

    fn count_lost(&self) -> HubError {
        self.metrics.messages_lost.inc();
        HubError::Lost
    }

    /// Sends a command to the shard of a conversation.
    async fn send_command(
        &self,
        conversation: &ConversationId,
        command: ShardCommand,
    ) -> Result<(), HubError> {
        self.send_to_shard(self.leases.shard(Partition::of(conversation)), command).await
    }

    async fn send_to_shard(&self, index: usize, command: ShardCommand) -> Result<(), HubError> {
        if let Some(shard) = Shard::local(&self.leases, index) {
            shard.on_command(command);
            return Ok(());
        }
        let shard = self.shards.get(index).ok_or(HubError::Draining)?;
        match timeout(COMMAND_TIMEOUT, shard.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(HubError::Draining),
            Err(_) => Err(HubError::Overloaded("its queue of requests is full")),
        }
    }

    /// Sends a command that may be lost: the message is in the store, and the shard finds it there.
    async fn notify_shard(&self, conversation: &ConversationId, command: ShardCommand) {
        match self.send_command(conversation, command).await {
            Ok(()) => {}
            Err(HubError::Draining) if self.is_draining() => {}
            Err(error) => warn!(%error, "a shard got no command; a message waits in the store"),
        }
    }
}

#[cfg(test)]
mod tests;
