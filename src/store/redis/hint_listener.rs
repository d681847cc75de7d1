//! The subscription to a replica's hints, on a connection of its own.
//!
//! It reconnects for ever. [`Hint::Subscribed`] says each time that earlier hints may have been missed. It also comes
//! if hints arrived faster than they were taken: the queue is bounded, and a hint must not hold up the connection. A
//! `PING` each second detects a dead connection. The replica's own echo proves that the right server is at the other
//! end.

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

use super::connector::RedisConnector;
use super::error_policy::for_log;
use super::hint_codec;
use super::owner_cache::OwnerCache;
use super::thread_connection::{ConnectRefusal, reconnect_backoff};
use crate::domain::Backoff;
use crate::store::{Hint, Incarnation};

/// The limit of waiting hints.
const QUEUE: usize = 256;
/// The interval of the checks of the connection.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The listener for the hints of one replica.
pub struct HintListener {
    connector: Arc<RedisConnector>,
    own: String,
    fleet: String,
    /// The timeout of an answer.
    answer_timeout: Duration,
    cache: Arc<OwnerCache>,
    /// Whether Redis refused the last attempt to listen.
    deafened: Arc<AtomicBool>,
    state: ListenerState,
    backoff: Backoff,
    /// The node of a cluster to try next.
    turn: usize,
}

/// The state is kept between calls, so a dropped call loses nothing.
enum ListenerState {
    Connecting(BoxFuture<'static, RedisResult<HintSubscription>>),
    Up(HintSubscription),
}

struct HintSubscription {
    connection: MultiplexedConnection,
    messages: mpsc::Receiver<Msg>,
    /// Whether the queue was full when a hint arrived.
    missed: Arc<AtomicBool>,
    /// The next check of the connection.
    check: BoxFuture<'static, bool>,
}

impl fmt::Debug for HintListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("own", &self.own).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl HintListener {
    /// Listens to the channel of this replica and to the channel of all. `answer_timeout` is the timeout of an answer. The
    /// cache learns of changes at other replicas, and `deafened` shows whether Redis refuses the subscription.
    pub(super) fn new(
        connector: Arc<RedisConnector>,
        prefix: &str,
        incarnation: Incarnation,
        answer_timeout: Duration,
        cache: Arc<OwnerCache>,
        deafened: Arc<AtomicBool>,
    ) -> Self {
        let own = format!("{prefix}:replica:{incarnation}");
        let fleet = format!("{prefix}:fleet");
        // The replicas of the bridge spread over the nodes of a cluster.
        let turn = fastrand::usize(..);
        let state = ListenerState::Connecting(futures_util::future::pending().boxed());
        let backoff = reconnect_backoff();
        let mut listener =
            Self { connector, own, fleet, answer_timeout, cache, deafened, state, backoff, turn };
        listener.reconnect(Duration::ZERO);
        listener
    }

    /// Waits for the next hint. A dropped call loses nothing.
    pub async fn next(&mut self) -> Hint {
        loop {
            match &mut self.state {
                ListenerState::Connecting(coming) => match coming.await {
                    Ok(subscription) => {
                        if self.backoff.failures() > 1 {
                            tracing::info!("listening to other replicas again");
                        }
                        self.backoff.reset();
                        self.deafened.store(false, Ordering::Relaxed);
                        self.state = ListenerState::Up(subscription);
                        return Hint::Subscribed;
                    }
                    Err(error) => {
                        let refusal = ConnectRefusal::from(&error);
                        self.deafened.store(refusal.lasting, Ordering::Relaxed);
                        let delay = refusal.pause(&mut self.backoff);
                        if self.backoff.failures() == 2 {
                            tracing::warn!(error = for_log(&error), "cannot listen to other replicas");
                        }
                        self.reconnect(delay);
                    }
                },
                ListenerState::Up(subscription) => {
                    if subscription.missed.swap(false, Ordering::Relaxed) {
                        return Hint::Subscribed;
                    }
                    let message = tokio::select! {
                        biased;
                        message = subscription.messages.recv() => message,
                        alive = &mut subscription.check => {
                            if alive {
                                subscription.check = check(subscription.connection.clone(), self.answer_timeout);
                                continue;
                            }
                            None
                        }
                    };
                    let Some(message) = message else {
                        let delay = self.backoff.next(fastrand::f64());
                        self.reconnect(delay);
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
        let Some((hint, accept)) = hint_codec::decode(message.get_payload_bytes()) else {
            tracing::debug!(bytes = message.get_payload_bytes().len(), "an unreadable hint");
            return None;
        };
        match (&hint, accept) {
            (Hint::Accepted(accepted), Some(accept)) => {
                self.cache.accepted_by_script(accepted, false, accept);
            }
            (Hint::Woken(conversation) | Hint::Observed(conversation, _), _) => {
                self.cache.forget(conversation);
            }
            _ => {}
        }
        Some(hint)
    }

    fn reconnect(&mut self, after: Duration) {
        self.turn = self.turn.wrapping_add(1);
        let (connector, turn, answer_timeout) = (Arc::clone(&self.connector), self.turn, self.answer_timeout);
        let channels = [self.own.clone(), self.fleet.clone()];
        self.state = ListenerState::Connecting(
            async move {
                sleep(after).await;
                match timeout(answer_timeout, subscribe(connector, turn, channels, answer_timeout)).await {
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
    answer_timeout: Duration,
) -> RedisResult<HintSubscription> {
    let (sender, messages) = mpsc::channel(QUEUE);
    let missed = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&missed);
    let options = connector.connection_options().set_push_sender(move |push: PushInfo| {
        let Some(message) = Msg::from_push_info(push) else { return Ok(()) };
        sender.try_send(message).map_err(|_| noted.store(true, Ordering::Relaxed))
    });
    let mut connection = connector.open_one(turn, options).await?;
    connection.subscribe(&channels).await?;
    let check = check(connection.clone(), answer_timeout);
    Ok(HintSubscription { connection, messages, missed, check })
}

/// Checks after a while that the connection still answers.
fn check(mut connection: MultiplexedConnection, answer_timeout: Duration) -> BoxFuture<'static, bool> {
    async move {
        sleep(CHECK_EVERY).await;
        let ping = Cmd::ping();
        matches!(timeout(answer_timeout, connection.req_packed_command(&ping)).await, Ok(Ok(_)))
    }
    .boxed()
}
