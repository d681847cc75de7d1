//! The hints of one replica, on a connection of its own.
//!
//! It comes back by itself, for ever; [`Hint::Subscribed`] tells each time that what came before may have been
//! missed. It says the same where hints came faster than they were taken: the queue is bounded, and a hint is never
//! worth holding up the connection for. A connection that has died without a word is found out by a `PING` a second.
//! That the right server is at the other end is not known here; the replica's own echo tells that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::{Cmd, Msg, PushInfo, RedisResult};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::connect::RedisConnector;
use super::hint;
use super::line::{Closed, reconnect_backoff};
use super::refusal::for_log;
use crate::domain::Backoff;
use crate::store::{Hint, Incarnation};

/// Hints that wait to be taken.
const QUEUE: usize = 256;
/// Between two looks at whether the connection still lives.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The hints of one replica.
pub struct HintListener {
    connector: Arc<RedisConnector>,
    own: String,
    fleet: String,
    /// The longest that an answer may take.
    patience: Duration,
    state: State,
    backoff: Backoff,
    /// Which of a cluster's nodes is tried next.
    turn: usize,
}

/// Both are kept between calls, so that one that is given up half-way loses nothing.
enum State {
    Coming(BoxFuture<'static, RedisResult<HintSubscription>>),
    Up(HintSubscription),
}

struct HintSubscription {
    connection: MultiplexedConnection,
    messages: mpsc::Receiver<Msg>,
    /// Whether the queue was full when something came.
    missed: Arc<AtomicBool>,
    /// Whether it lives, after a while.
    check: BoxFuture<'static, bool>,
}

impl fmt::Debug for HintListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("own", &self.own).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl HintListener {
    /// Listens to what is meant for this replica and for all; `patience` is the longest that the server may take to
    /// answer.
    pub(super) fn new(
        connector: Arc<RedisConnector>,
        prefix: &str,
        incarnation: Incarnation,
        patience: Duration,
    ) -> Self {
        let own = format!("{prefix}:replica:{incarnation}");
        let fleet = format!("{prefix}:fleet");
        // Replicas of the bridge spread over the nodes of a cluster.
        let turn = fastrand::usize(..);
        let state = State::Coming(futures_util::future::pending().boxed());
        let mut listener =
            Self { connector, own, fleet, patience, state, backoff: reconnect_backoff(), turn };
        listener.come(Duration::ZERO);
        listener
    }

    /// The next hint. Safe to be given up: nothing is lost by it.
    pub async fn next(&mut self) -> Hint {
        loop {
            match &mut self.state {
                State::Coming(coming) => match coming.await {
                    Ok(subscription) => {
                        if self.backoff.failures() > 1 {
                            tracing::info!("listening to other replicas again");
                        }
                        self.backoff.reset();
                        self.state = State::Up(subscription);
                        return Hint::Subscribed;
                    }
                    Err(error) => {
                        let delay = Closed::from(&error).pause(&mut self.backoff);
                        if self.backoff.failures() == 2 {
                            tracing::warn!(error = for_log(&error), "cannot listen to other replicas");
                        }
                        self.come(delay);
                    }
                },
                State::Up(subscription) => {
                    if subscription.missed.swap(false, Ordering::Relaxed) {
                        return Hint::Subscribed;
                    }
                    let message = tokio::select! {
                        biased;
                        message = subscription.messages.recv() => message,
                        alive = &mut subscription.check => {
                            if alive {
                                subscription.check = check(subscription.connection.clone(), self.patience);
                                continue;
                            }
                            None
                        }
                    };
                    let Some(message) = message else {
                        let delay = self.backoff.next(fastrand::f64());
                        self.come(delay);
                        continue;
                    };
                    if let Some(hint) = self.read(&message) {
                        return hint;
                    }
                }
            }
        }
    }

    fn read(&self, message: &Msg) -> Option<Hint> {
        if message.get_channel_name() == self.fleet {
            return Some(Hint::Fleet);
        }
        let hint = hint::decode(message.get_payload_bytes());
        if hint.is_none() {
            tracing::debug!(
                bytes = message.get_payload_bytes().len(),
                "a hint that this version does not know"
            );
        }
        hint
    }

    fn come(&mut self, after: Duration) {
        self.turn = self.turn.wrapping_add(1);
        let (connector, turn, patience) = (Arc::clone(&self.connector), self.turn, self.patience);
        let channels = [self.own.clone(), self.fleet.clone()];
        self.state = State::Coming(
            async move {
                sleep(after).await;
                match timeout(patience, subscribe(connector, turn, channels, patience)).await {
                    Ok(subscribed) => subscribed,
                    Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                }
            }
            .boxed(),
        );
    }
}

async fn subscribe(
    connector: Arc<RedisConnector>,
    turn: usize,
    channels: [String; 2],
    patience: Duration,
) -> RedisResult<HintSubscription> {
    let (sender, messages) = mpsc::channel(QUEUE);
    let missed = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&missed);
    let options = connector.patience().set_push_sender(move |push: PushInfo| {
        let Some(message) = Msg::from_push_info(push) else { return Ok(()) };
        sender.try_send(message).map_err(|_| noted.store(true, Ordering::Relaxed))
    });
    let mut connection = connector.open_one(turn, options).await?;
    connection.subscribe(&channels).await?;
    let check = check(connection.clone(), patience);
    Ok(HintSubscription { connection, messages, missed, check })
}

/// Whether it still answers, after a while.
fn check(mut connection: MultiplexedConnection, patience: Duration) -> BoxFuture<'static, bool> {
    async move {
        sleep(CHECK_EVERY).await;
        let ping = Cmd::ping();
        matches!(timeout(patience, connection.req_packed_command(&ping)).await, Ok(Ok(_)))
    }
    .boxed()
}
