//! The hub: where HTTP hands over a message and waits for its end.
//!
//! It knows which shard holds a conversation, what the replica can take on, and how it ends. A [`Hub`] is a
//! bundle of channels: cloned freely, used from every HTTP worker, without a lock between them. It does not know
//! HTTP and not the platform.

mod budget;
mod partition;
mod shard;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, warn};

use self::budget::ConnectBudget;
use self::partition::Leases;
use self::shard::{Command, Setup, Shard};
use crate::config::Config;
use crate::domain::{AcceptedMessage, ConversationId, Message, MessageId, Partition};
use crate::link::{Connector, SetupError};
use crate::metrics::Metrics;
use crate::runtime;
use crate::store::{Accept, AcceptError, Accepted, Incarnation, Store, StoreError};

pub use crate::link::{FRAMES_IN, FRAMES_OUT};

/// Commands that may wait for a shard; more wait in the requests that bring them.
const QUEUE: usize = 1024;

/// How often a thread that is about to end is looked after; nothing tells of a thread's end.
const MOMENT: Duration = Duration::from_millis(5);

/// A message as it stood when the wait was over.
#[derive(Debug, Clone)]
pub struct Posted {
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
pub enum StartError {
    /// A shard's thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// A shard could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A metric was declared wrongly.
    #[error("a metric is declared wrongly")]
    Metrics(#[source] prometheus::Error),
    /// A shard ended while it was set up.
    #[error("a shard ended while it was set up")]
    Died,
}

/// A handle to all shards. Cheap to clone; shared by every HTTP worker.
#[derive(Clone, Debug)]
pub struct Hub {
    store: Store,
    incarnation: Incarnation,
    shards: Arc<[Lane]>,
    draining: Arc<AtomicBool>,
    max_busy: usize,
}

/// What is known of a shard from outside.
#[derive(Debug)]
struct Lane {
    commands: mpsc::Sender<Command>,
    busy: Arc<AtomicUsize>,
}

/// The shards' threads; whoever holds this ends them.
#[derive(Debug)]
pub struct Shards {
    hub: Hub,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Starts the shards and waits until each owns its partitions.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: &Config, store: Store, metrics: &Arc<Metrics>) -> Result<Shards, StartError> {
        let count = config.server.threads.div_ceil(2);
        let budget = Arc::new(ConnectBudget::default());
        let incarnation = Incarnation(fastrand::u64(..));
        let bot_metrics: HashMap<_, _> = config
            .bots
            .iter()
            .map(|bot| Ok((bot.name.clone(), metrics.bot(&bot.name)?)))
            .collect::<Result<_, _>>()
            .map_err(StartError::Metrics)?;
        let mut lanes = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for index in 0..count {
            let partitions = Partition::all().filter(move |partition| partition.index() % count == index);
            let busy = Arc::new(AtomicUsize::new(0));
            let setup = Setup {
                store: store.clone(),
                bots: config.bots.clone(),
                metrics: Arc::clone(metrics),
                bot_metrics: bot_metrics.clone(),
                write_metrics: metrics.store("write").map_err(StartError::Metrics)?,
                queue: metrics.shard(index).map_err(StartError::Metrics)?,
                budget: Arc::clone(&budget),
                leases: Leases::new(incarnation, config.cluster.lease_ttl, partitions),
                room: config.server.max_sockets.div_ceil(count),
                busy: Arc::clone(&busy),
            };
            let (commands, inbox) = mpsc::channel(QUEUE);
            let (ready, started) = oneshot::channel();
            let thread = runtime::shard_thread(&format!("shard-{index}"), async move || {
                match open_shard(setup).await {
                    Ok(shard) => {
                        ready.send(Ok(())).ok();
                        shard.run(inbox).await;
                    }
                    Err(error) => {
                        ready.send(Err(error)).ok();
                    }
                }
            })
            .map_err(StartError::Thread)?;
            started.await.map_err(|_| StartError::Died)??;
            threads.push(thread);
            lanes.push(Lane { commands, busy });
        }
        let hub = Self {
            store,
            incarnation,
            shards: lanes.into(),
            draining: Arc::default(),
            max_busy: config.server.max_sockets,
        };
        Ok(Shards { hub, threads })
    }

    /// A hub that is going away and has no shards.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        let store = Store::memory(crate::store::MemoryLimits::new(0, Duration::ZERO));
        Self {
            store,
            incarnation: Incarnation(0),
            shards: [].into(),
            draining: Arc::new(AtomicBool::new(true)),
            max_busy: 0,
        }
    }

    /// Accepts a message and waits for its end, `wait` at most; without one it returns as soon as the message
    /// is durable.
    ///
    /// # Errors
    /// [`HubError`]; only [`HubError::Lost`] and [`HubError::Store`] can come after the message was accepted.
    pub async fn post(&self, accept: Accept, wait: Option<Duration>) -> Result<Posted, HubError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(HubError::Draining);
        }
        if self.shards.iter().map(|shard| shard.busy.load(Ordering::Relaxed)).sum::<usize>() >= self.max_busy
        {
            return Err(HubError::Overloaded("every socket it may hold is in a turn"));
        }
        match self.store.accept(accept).await? {
            Accepted::New(message) => {
                let message = self.deliver(message, wait).await?;
                Ok(Posted { message, replayed: false })
            }
            Accepted::Replayed(message) => {
                let message = match wait {
                    Some(wait) if !message.progress.has_ended() => {
                        let conversation = &message.accepted.new.conversation;
                        self.watch(conversation, message.accepted.id, wait).await?.ok_or(HubError::Lost)?
                    }
                    _ => message,
                };
                Ok(Posted { message, replayed: true })
            }
        }
    }

    /// A message as it stands, or when it ends within `wait`. None where there is no such message.
    ///
    /// # Errors
    /// [`HubError::Store`]; [`HubError::Lost`] where it was there when the wait began.
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        wait: Option<Duration>,
    ) -> Result<Option<Message>, HubError> {
        let message = self.store.message(conversation, id, None).await?;
        match (message, wait) {
            (Some(message), Some(wait)) if !message.progress.has_ended() => {
                self.watch(conversation, id, wait).await?.map(Some).ok_or(HubError::Lost)
            }
            (message, _) => Ok(message),
        }
    }

    /// This replica's life.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether this replica is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Hands an accepted message to its shard, and waits for its end.
    async fn deliver(
        &self,
        accepted: Arc<AcceptedMessage>,
        wait: Option<Duration>,
    ) -> Result<Message, HubError> {
        let Some(wait) = wait else {
            self.command(
                &accepted.new.conversation,
                Command::Accepted { message: Arc::clone(&accepted), waiter: None },
            )
            .await;
            return Ok(Message { accepted, progress: crate::domain::Progress::default() });
        };
        let (waiter, told) = oneshot::channel();
        let command = Command::Accepted { message: Arc::clone(&accepted), waiter: Some(waiter) };
        self.command(&accepted.new.conversation, command).await;
        match timeout(wait, told).await {
            Ok(Ok(message)) => Ok(message),
            // Time is up, or the shard let its waiters go.
            Ok(Err(_)) | Err(_) => {
                self.store.message(&accepted.new.conversation, accepted.id, None).await?.ok_or(HubError::Lost)
            }
        }
    }

    /// Waits for the end of a message that is known to be open, then says how it stands.
    async fn watch(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        wait: Duration,
    ) -> Result<Option<Message>, HubError> {
        let (waiter, told) = oneshot::channel();
        self.command(conversation, Command::Watch { conversation: conversation.clone(), id, waiter }).await;
        match timeout(wait, told).await {
            Ok(Ok(message)) => Ok(Some(message)),
            Ok(Err(_)) | Err(_) => Ok(self.store.message(conversation, id, None).await?),
        }
    }

    async fn command(&self, conversation: &ConversationId, command: Command) {
        let index = Partition::of(conversation).index() % self.shards.len();
        if let Some(shard) = self.shards.get(index)
            && shard.commands.send(command).await.is_err()
            && !self.is_draining()
        {
            // The message is in the store; who waits for it reads it there.
            warn!("a shard has ended; a message waits in the store");
        }
    }
}

impl Shards {
    /// The handle for those who post and wait.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// From now on nothing is accepted.
    pub fn refuse(&self) {
        self.hub.draining.store(true, Ordering::Relaxed);
    }

    /// Comes back when nothing is open any more.
    pub async fn calm(&self) {
        for shard in &*self.hub.shards {
            let (done, calm) = oneshot::channel();
            if shard.commands.send(Command::Drain { done }).await.is_ok() {
                calm.await.ok();
            }
        }
    }

    /// Comes back when a shard has ended without having been told to: it panicked, and what it held hangs.
    pub async fn died(&self) {
        let ends = self.hub.shards.iter().map(|shard| Box::pin(shard.commands.closed()));
        select_all(ends).await;
    }

    /// Lets all waiters read for themselves, closes all sockets, gives the partitions back and ends the threads.
    /// A shard that has not ended `by` then is left behind.
    pub async fn stop(self, by: Instant) {
        let ended = async {
            for shard in &*self.hub.shards {
                shard.commands.send(Command::Stop).await.ok();
            }
            for thread in &self.threads {
                while !thread.is_finished() {
                    sleep(MOMENT).await;
                }
            }
        };
        if timeout_at(by, ended).await.is_err() {
            error!("a shard did not end in time");
        }
        for thread in self.threads.into_iter().filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                error!("a shard's thread panicked; this is a bug");
            }
        }
    }
}

async fn open_shard(setup: Setup) -> Result<std::rc::Rc<Shard>, StartError> {
    let connector = Connector::new(&setup.bots)?;
    let now = setup.store.now().await?;
    setup.leases.keep(&setup.store).await;
    Ok(Shard::new(setup, connector, now))
}

#[cfg(test)]
mod tests;
