//! The hub: where HTTP hands over a message and waits for its end.
//!
//! Any replica takes any request. A shard of its own has the store accept the message. Where the partition is the
//! replica's, that shard goes on with it; else the store hints at it to the owner, and the end comes back as a hint.
//! Whoever waits is known here before the store is asked, so no end falls between asking and waiting, whoever owns the
//! partition meanwhile:
//!
//! ```text
//!  own partition:    shard: register, accept (watched) ──► … ──► told
//!  another's:        shard: register, accept (watched) ──► owner … ──► hint ──► told
//!  GET, long poll:   shard: register ──► read (watched) ──► … ──► told
//!  events:           shard: observe ──► read (observed) ──► … ──► look ──► read …
//! ```
//!
//! A [`Hub`] is a bundle of channels: cloned freely, used from every HTTP worker, without a lock between them. It
//! does not know HTTP and not the platform.

mod budget;
mod keeper;
mod lease;
mod observer;
mod partition;
mod shard;
mod shards;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use self::lease::Leases;
use self::shard::{Command, Post, Question};
use crate::domain::{
    ConversationId, ConversationState, Delivery, DeliveryId, JournalPage, Message, MessageId,
    MessageProgress, Partition, ReadStart,
};
use crate::link::ConnectorSetupError;
use crate::metrics::FleetMetrics;
use crate::store::{
    AcceptError, AcceptRequest, AcceptResult, DeliveryPage, DeliveryQuery, Incarnation, RedeliverResult,
    Store, StoreError,
};

pub use self::observer::Subscription;
pub use self::partition::{Contact, Deal, Standing, Step, Tenure, View, decide};
pub use self::shards::Shards;
pub use crate::link::{FRAMES_IN, FRAMES_OUT};

/// How long a command may wait for a place in a shard's queue. After that a message is refused, and what is in the
/// store already is left to be found there.
const PATIENCE: Duration = Duration::from_secs(1);

/// A message as it stood when the wait was over.
#[derive(Debug, Clone)]
pub struct PostResult {
    /// The message.
    pub message: Message,
    /// Whether it was accepted earlier, under the same idempotency key.
    pub replayed: bool,
}

/// Why the hub could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The replica is going away; nothing was accepted.
    #[error("this replica is shutting down")]
    Draining,
    /// The replica is at its limit; nothing was accepted.
    #[error("this replica is at its limit: {0}")]
    Overloaded(&'static str),
    /// The message was refused.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store lost the message that was waited for.
    #[error("the store lost the message")]
    Lost,
}

/// Why the hub could not start.
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
    /// A metric was declared wrongly.
    #[error("a metric is declared wrongly")]
    Metrics(#[source] prometheus::Error),
    /// A thread ended while it was set up.
    #[error("a thread ended while it was set up")]
    Died,
    /// The store answered, but no round of claims came to an end.
    #[error("the store did not let the replica join the fleet within {0:?}; the log says why")]
    Silent(Duration),
}

/// A handle to all shards. Cheap to clone; shared by every HTTP worker.
#[derive(Clone, Debug)]
pub struct Hub {
    store: Store,
    leases: Arc<Leases>,
    lanes: Arc<[Lane]>,
    metrics: FleetMetrics,
    /// Requests that wait for an end.
    waits: Arc<AtomicUsize>,
    max_busy: usize,
}

/// What is known of a shard from outside.
#[derive(Debug)]
struct Lane {
    commands: mpsc::Sender<Command>,
    busy: Arc<AtomicUsize>,
}

/// What a wait is told: the message at its end, or that the store lost it.
type Told = oneshot::Receiver<Option<Message>>;

/// A request that waits, counted for as long as it does.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(waits: &Arc<AtomicUsize>) -> Self {
        waits.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waits))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// A hub that is going away and has no shards, before this store.
    #[cfg(test)]
    pub(crate) fn closed(store: Store) -> Self {
        let words = crate::metrics::LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
        let metrics = crate::metrics::Metrics::new(words).map(|metrics| metrics.fleet).unwrap();
        let leases = Leases::new(Incarnation(0), Duration::ZERO, 0);
        leases.refuse();
        Self {
            store,
            leases: Arc::new(leases),
            lanes: [].into(),
            metrics,
            waits: Arc::default(),
            max_busy: 0,
        }
    }

    /// Accepts a message and waits for its end, `wait` at most; without one it returns as soon as the message
    /// is durable.
    ///
    /// # Errors
    /// [`HubError`]; only [`HubError::Lost`] and [`HubError::Store`] can come after the message was accepted.
    pub async fn post(&self, accept: AcceptRequest, wait: Option<Duration>) -> Result<PostResult, HubError> {
        if self.is_draining() {
            return Err(HubError::Draining);
        }
        if self.lanes.iter().map(|lane| lane.busy.load(Ordering::Relaxed)).sum::<usize>() >= self.max_busy {
            return Err(HubError::Overloaded("every socket it may hold is in a turn"));
        }
        let (conversation, id) = (accept.message.conversation.clone(), accept.id);
        let _waiting = wait.map(|_| Waiting::begin(&self.waits));
        let (answer, accepted) = oneshot::channel();
        let (waiter, told) = oneshot::channel();
        let waiter = wait.map(|_| waiter);
        self.hand_over(&conversation, Command::Post(Box::new(Post { accept, waiter, answer }))).await?;
        if let Some(wait) = wait {
            match timeout(wait, told).await {
                Ok(Ok(Some(message))) => return Ok(PostResult { message, replayed: false }),
                // The shard has counted it.
                Ok(Ok(None)) => return Err(HubError::Lost),
                // Time is up, or no message came of it.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        // A shard that ends lets go of what is on its way: whether the store took it, nobody knows.
        let accepted = accepted.await.map_err(|_| StoreError::Unknown(PATIENCE))??;
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
                        message.ok_or_else(|| self.lost())?
                    }
                    _ => message,
                };
                Ok(PostResult { message, replayed: true })
            }
        }
    }

    /// A message as it stands, or when it ends within `wait`. None where there is no such message. While the
    /// replica is going away, it is told as it stands.
    ///
    /// # Errors
    /// [`HubError::Store`]; [`HubError::Lost`] where it was there when the wait began.
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        wait: Option<Duration>,
    ) -> Result<Option<Message>, HubError> {
        // A replica that goes away begins no wait: it would hold the end up.
        let Some(wait) = wait.filter(|_| !self.is_draining()) else {
            return Ok(self.store.message(conversation, id, None).await?);
        };
        let _waiting = Waiting::begin(&self.waits);
        let told = self.register(conversation, id).await;
        match self.store.message(conversation, id, Some(self.incarnation())).await? {
            Some(message) if !message.progress.has_ended() => {
                self.command(conversation, Command::Stored(id)).await;
                self.end(conversation, id, told, wait).await.map(Some)
            }
            message => Ok(message),
        }
    }

    /// Has news of a conversation told to a reader from now on. Read pages with `observed` behind this, so that no
    /// entry falls between a page and the news of the next. How many may observe at a time is the caller's to bound:
    /// one who waits takes some hundred bytes here.
    ///
    /// # Errors
    /// [`HubError::Draining`], [`HubError::Overloaded`].
    pub async fn observe(&self, conversation: &ConversationId) -> Result<Subscription, HubError> {
        if self.is_draining() {
            return Err(HubError::Draining);
        }
        let (teller, observer) = observer::observer();
        let (known, seated) = oneshot::channel();
        let conversation_too = conversation.clone();
        let command = Command::Observe { conversation: conversation_too, teller, known };
        self.hand_over(conversation, command).await?;
        match timeout(PATIENCE, seated).await {
            Ok(Ok(())) => Ok(observer),
            // The shard lets nobody begin, or has ended.
            Ok(Err(_)) => Err(HubError::Draining),
            Err(_) => Err(HubError::Overloaded("it is too busy for one more reader")),
        }
    }

    /// Some of a conversation's journal; see [`StoreConfig::page`]. `observed` says that an [`HintSubscription`] of the conversation
    /// reads it, here: then this replica is hinted at what comes behind the page.
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

    /// How a conversation stands; its connection as its owner says, which has a second to answer. Where it does not,
    /// or there is none, the store's word stands, with a reason that says so.
    ///
    /// # Errors
    /// [`HubError::Store`], [`HubError::Overloaded`]; [`HubError::Draining`] where the shards have ended.
    pub async fn state(&self, conversation: &ConversationId) -> Result<ConversationState, HubError> {
        let (answer, told) = oneshot::channel();
        let question = Question { conversation: conversation.clone(), answer };
        self.hand_over(conversation, Command::Ask(question)).await?;
        told.await.map_err(|_| HubError::Draining)?
    }

    /// A delivery as it stands; see [`StoreConfig::delivery`].
    ///
    /// # Errors
    /// As [`StoreConfig::delivery`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.store.delivery(id).await
    }

    /// Deliveries, newest first; see [`StoreConfig::deliveries`].
    ///
    /// # Errors
    /// As [`StoreConfig::deliveries`].
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.store.deliveries(query).await
    }

    /// Has a delivery made again, by whoever owns its partition; see [`StoreConfig::redeliver`].
    ///
    /// # Errors
    /// As [`StoreConfig::redeliver`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<RedeliverResult, StoreError> {
        self.store.redeliver(id).await
    }

    /// This replica's life.
    pub fn incarnation(&self) -> Incarnation {
        self.leases.incarnation()
    }

    /// Whether this replica is going away.
    pub fn is_draining(&self) -> bool {
        self.leases.is_refusing()
    }

    /// Has the end of a message told from now on. It may not be in the store yet.
    async fn register(&self, conversation: &ConversationId, id: MessageId) -> Told {
        let (waiter, told) = oneshot::channel();
        self.command(conversation, Command::Watch { conversation: conversation.clone(), id, waiter }).await;
        told
    }

    /// Waits for the end of a message that is in the store, then says how it stands.
    async fn end(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        told: Told,
        wait: Duration,
    ) -> Result<Message, HubError> {
        match timeout(wait, told).await {
            Ok(Ok(Some(message))) => Ok(message),
            // The shard has counted it.
            Ok(Ok(None)) => Err(HubError::Lost),
            // Time is up, or the shard let its waiters go.
            Ok(Err(_)) | Err(_) => self.reread(conversation, id).await,
        }
    }

    /// A message that is in the store, as it stands.
    async fn reread(&self, conversation: &ConversationId, id: MessageId) -> Result<Message, HubError> {
        self.store.message(conversation, id, None).await?.ok_or_else(|| self.lost())
    }

    fn lost(&self) -> HubError {
        self.metrics.messages_lost.inc();
        HubError::Lost
    }

    /// Gives a shard what only it can do.
    async fn hand_over(&self, conversation: &ConversationId, command: Command) -> Result<(), HubError> {
        let lane =
            self.lanes.get(self.leases.shard(Partition::of(conversation))).ok_or(HubError::Draining)?;
        match timeout(PATIENCE, lane.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(HubError::Draining),
            Err(_) => Err(HubError::Overloaded("its queue of requests is full")),
        }
    }

    /// Tells a shard, if it can take it in time. What it is told of is in the store: it finds that without.
    async fn command(&self, conversation: &ConversationId, command: Command) {
        let Some(lane) = self.lanes.get(self.leases.shard(Partition::of(conversation))) else { return };
        match timeout(PATIENCE, lane.commands.send(command)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) if self.is_draining() => {}
            Ok(Err(_)) => warn!("a shard has ended; a message waits in the store"),
            Err(_) => warn!("a shard is overloaded; a message waits in the store"),
        }
    }
}

#[cfg(test)]
mod tests;
