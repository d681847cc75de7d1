//! The dispatcher attempts the due deliveries of this replica's partitions.
//!
//! ```text
//!  shards ── OutboxEvent ──► worker ◄────────────► scheduler (pure): which attempt is next?
//!                             │ ▲
//!                             │ └── WorkEvent: the end of an operation
//!                             ▼
//!                    read, begin, attempt, finish: concurrent futures
//!                             │
//!                             ├──► store
//!                             └──► receivers
//! ```
//!
//! It has a thread of its own, so that DNS lookups and signatures do not delay a conversation. A crash of the thread
//! loses no delivery, because the outbox in the store keeps deliveries and running attempts.

mod in_flight;
mod shared_state;
mod stats;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::error;

use self::stats::DispatcherStats;
use self::worker::DeliveryWorker;
use super::attempt::attempt;
use super::endpoint_board::EndpointBoard;
use super::sender::{DeliverySender, SenderSetupError};
use super::target_table::TargetTable;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::runtime;
use crate::store::{ClaimedDelivery, OutboxEventReceiver, Store, StoreError};

/// The interval at which the end of the thread is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The reason why the dispatcher did not start.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherStartError {
    /// The thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The sender could not be set up.
    #[error(transparent)]
    Setup(#[from] SenderSetupError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A metric was declared wrongly.
    #[error("a metric is declared wrongly")]
    Metrics(#[from] prometheus::Error),
    /// The thread ended during its setup.
    #[error("a thread ended while it was set up")]
    Died,
}

/// The parts of the configuration that an attempt needs.
struct AttemptTools {
    sender: DeliverySender,
    targets: TargetTable,
}

impl AttemptTools {
    fn new(config: &Config) -> Result<Self, SenderSetupError> {
        Ok(Self { sender: DeliverySender::new(&config.webhooks)?, targets: TargetTable::new(config)? })
    }
}

/// The tools of the current configuration.
struct CurrentTools {
    tools: RefCell<Rc<AttemptTools>>,
    changes: RefCell<watch::Receiver<Arc<Config>>>,
}

impl CurrentTools {
    fn new(config: &Config, changes: watch::Receiver<Arc<Config>>) -> Result<Self, SenderSetupError> {
        let tools = RefCell::new(Rc::new(AttemptTools::new(config)?));
        Ok(Self { tools, changes: RefCell::new(changes) })
    }

    /// Returns the tools, new ones after a reload.
    fn get(&self) -> Rc<AttemptTools> {
        let mut changes = self.changes.borrow_mut();
        if changes.has_changed().unwrap_or_default() {
            let config = Arc::clone(&changes.borrow_and_update());
            match AttemptTools::new(&config) {
                Ok(tools) => *self.tools.borrow_mut() = Rc::new(tools),
                Err(error) => error!(%error, "changed receivers cannot be used; the former ones stay"),
            }
        }
        Rc::clone(&self.tools.borrow())
    }
}

#[derive(Debug)]
enum DispatcherCommand {
    /// Notify the sender when every due delivery was attempted.
    NotifyIdle(oneshot::Sender<()>),
    /// Cancel the attempts in flight, then end. The thread ends at this time at the latest.
    Stop(Instant),
}

/// The handle of the dispatcher's thread. The thread ends when the handle is dropped.
#[derive(Debug)]
pub struct Dispatcher {
    commands: mpsc::Sender<DispatcherCommand>,
    /// The configuration of the receivers.
    receivers: watch::Sender<Arc<Config>>,
    thread: JoinHandle<()>,
}

impl Dispatcher {
    /// Starts the thread. It attempts the deliveries of the partitions that `events` assigns. The store must answer.
    ///
    /// # Errors
    /// [`DispatcherStartError`]; then no thread runs.
    pub async fn start(
        config: &Arc<Config>,
        store: Store,
        metrics: &Arc<Metrics>,
        events: OutboxEventReceiver,
    ) -> Result<Self, DispatcherStartError> {
        let (receivers, receivers_changed) = watch::channel(Arc::clone(config));
        let (config, metrics) = (Arc::clone(config), Arc::clone(metrics));
        let (commands, inbox) = mpsc::channel(1);
        let (ready, started) = oneshot::channel::<Result<(), DispatcherStartError>>();
        let thread = runtime::local_thread("webhook", async move || {
            let worker: Result<_, DispatcherStartError> = async {
                let tools = CurrentTools::new(&config, receivers_changed)?;
                let send = async move |claimed: &ClaimedDelivery| {
                    let tools = tools.get();
                    attempt(&tools.sender, &tools.targets, claimed).await
                };
                let stats = DispatcherStats::new(&config, metrics)?;
                let now = store.now().await?;
                let board = EndpointBoard::new(&config, &store.endpoint_states().await?);
                stats.endpoints(&board);
                Ok(DeliveryWorker::new(&config.webhooks, store, now, stats, board, send))
            }
            .await;
            match worker {
                Ok(worker) => {
                    ready.send(Ok(())).ok();
                    worker.run(events, inbox).await;
                }
                Err(error) => {
                    ready.send(Err(error)).ok();
                }
            }
        })
        .map_err(DispatcherStartError::Thread)?;
        started.await.map_err(|_| DispatcherStartError::Died)??;
        Ok(Self { commands, receivers, thread })
    }

    /// Returns the handle that changes the receivers.
    pub fn receivers(&self) -> ReceiverReload {
        ReceiverReload(self.receivers.clone())
    }
}

/// A handle that changes the receivers of deliveries.
#[derive(Debug, Clone)]
pub struct ReceiverReload(watch::Sender<Arc<Config>>);

impl ReceiverReload {
    /// Checks whether the receivers of a changed configuration can be used.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub fn check(&self, config: &Config) -> Result<(), SenderSetupError> {
        TargetTable::new(config)?;
        crate::tls::client(config.webhooks.ca.as_deref()).map_err(SenderSetupError::Tls)?;
        Ok(())
    }

    /// Uses the receivers, secrets and authorities of a changed configuration for further attempts.
    pub fn replace(&self, config: Arc<Config>) {
        self.0.send_replace(config);
    }
}

impl Dispatcher {
    /// Waits until the thread has ended without a command. It panicked, and deliveries stop.
    pub async fn died(&self) {
        self.commands.closed().await;
    }

    /// Waits until every due delivery was attempted. Only a store without another replica needs that.
    pub async fn idle(&self) {
        let (done, idle) = oneshot::channel();
        if self.commands.send(DispatcherCommand::NotifyIdle(done)).await.is_ok() {
            idle.await.ok();
        }
    }

    /// Cancels the attempts in flight, reports them to the store, and ends the thread. A thread that still runs at `by`
    /// is abandoned.
    pub async fn stop(self, by: Instant) {
        let ended = async {
            self.commands.send(DispatcherCommand::Stop(by)).await.ok();
            while !self.thread.is_finished() {
                sleep(POLL_INTERVAL).await;
            }
        };
        if timeout_at(by + POLL_INTERVAL * 10, ended).await.is_err() {
            error!("the dispatcher did not end in time");
        } else if self.thread.join().is_err() {
            error!("the dispatcher panicked; this is a bug");
        }
    }
}

#[cfg(test)]
mod tests;
