//! The dispatcher: delivers what is due, of the partitions that are this replica's.
//!
//! ```text
//!  shards ── News ──► desk ◄────────────► agenda (pure): whose turn is it?
//!                      │ ▲
//!                      │ └── what came of it
//!                      ▼
//!             read, begin, attempt, finish: many at a time, each waits by itself
//!                      │
//!                      ├──► store
//!                      └──► receivers
//! ```
//!
//! It has a thread of its own, so that neither names that are looked up nor bodies that are signed hold up a
//! conversation. What is lost with it is lost to nobody: the outbox is in the store, and says what was being attempted.

mod in_flight;
mod stats;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::error;

use self::stats::DispatcherStats;
use self::worker::DeliveryWorker;
use super::attempt::attempt;
use super::sender::{DeliverySender, SenderSetupError};
use super::target_table::TargetTable;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::runtime;
use crate::store::{ClaimedDelivery, OutboxEventReceiver, Store, StoreError};

/// How often a thread that is about to end is looked after; nothing tells of a thread's end.
const MOMENT: Duration = Duration::from_millis(5);

/// Why there is no dispatcher.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherStartError {
    /// Its thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// It could not be set up.
    #[error(transparent)]
    Setup(#[from] SenderSetupError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A metric was declared wrongly.
    #[error("a metric is declared wrongly")]
    Metrics(#[from] prometheus::Error),
    /// Its thread ended while it was set up.
    #[error("a thread ended while it was set up")]
    Died,
}

/// What its thread is told.
#[derive(Debug)]
enum DispatcherCommand {
    /// Answer when all that is due was attempted.
    Calm(oneshot::Sender<()>),
    /// Break off what is in flight and end, at the latest then.
    Stop(Instant),
}

/// The dispatcher's thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Dispatcher {
    orders: mpsc::Sender<DispatcherCommand>,
    thread: JoinHandle<()>,
}

impl Dispatcher {
    /// Starts the thread. The store must answer. It does what it is told of partitions.
    ///
    /// # Errors
    /// [`DispatcherStartError`]; nothing runs then.
    pub async fn start(
        config: &Arc<Config>,
        store: Store,
        metrics: &Arc<Metrics>,
        listening: OutboxEventReceiver,
    ) -> Result<Self, DispatcherStartError> {
        let (config, metrics) = (Arc::clone(config), Arc::clone(metrics));
        let (orders, inbox) = mpsc::channel(1);
        let (ready, started) = oneshot::channel::<Result<(), DispatcherStartError>>();
        let thread = runtime::shard_thread("webhook", async move || {
            let opened: Result<_, DispatcherStartError> = async {
                let (sender, targets) = (DeliverySender::new(&config.webhooks)?, TargetTable::new(&config)?);
                let send = async move |taken: &ClaimedDelivery| attempt(&sender, &targets, taken).await;
                let tally = DispatcherStats::new(&config, metrics)?;
                let now = store.now().await?;
                Ok(DeliveryWorker::new(&config.webhooks, store, now, tally, send))
            }
            .await;
            match opened {
                Ok(desk) => {
                    ready.send(Ok(())).ok();
                    desk.run(listening, inbox).await;
                }
                Err(error) => {
                    ready.send(Err(error)).ok();
                }
            }
        })
        .map_err(DispatcherStartError::Thread)?;
        started.await.map_err(|_| DispatcherStartError::Died)??;
        Ok(Self { orders, thread })
    }

    /// Comes back when the thread has ended without having been told to: it panicked, and nothing is delivered.
    pub async fn died(&self) {
        self.orders.closed().await;
    }

    /// Comes back when each delivery that is due was attempted, where nobody will take over what is left.
    pub async fn calm(&self) {
        let (done, calm) = oneshot::channel();
        if self.orders.send(DispatcherCommand::Calm(done)).await.is_ok() {
            calm.await.ok();
        }
    }

    /// Breaks off what is in flight, tells the store, and ends the thread. One that has not ended `by` then is left
    /// behind.
    pub async fn stop(self, by: Instant) {
        let ended = async {
            self.orders.send(DispatcherCommand::Stop(by)).await.ok();
            while !self.thread.is_finished() {
                sleep(MOMENT).await;
            }
        };
        if timeout_at(by + MOMENT * 10, ended).await.is_err() {
            error!("the dispatcher did not end in time");
        } else if self.thread.join().is_err() {
            error!("the dispatcher panicked; this is a bug");
        }
    }
}

#[cfg(test)]
mod tests;
