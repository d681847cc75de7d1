//! One thread's connections to Redis, and their recovery.
//!
//! All operations of a thread share one multiplexed connection. If it is lost, one attempt at a time opens another,
//! and all operations share that attempt. An operation that gives up does not end it for the others.
//!
//! ```text
//! Down ─ wanted, after the backoff ─► Connecting ─ opened ─► Up ─ lost ─► Down
//!   ▲                                     └─ failed ─┐
//!   └────────────────────────────────────────────────┘
//! ```
//!
//! A write that replicas of the store must confirm has a connection of its own, from a pool. `WAIT` would hold up all
//! other commands on a shared one.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleResult};
use deadpool_redis::redis::{ErrorKind, RedisError, RedisResult};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use tokio::time::{Instant, sleep_until, timeout};

use super::connector::{RedisConnection, RedisConnector};
use super::error_policy::{ErrorPolicy, for_log, policy};
use crate::domain::Backoff;
use crate::store::StoreRefusal;

/// The longest delay after a refused password or right.
const LOGIN_BACKOFF: Duration = Duration::from_secs(5);
/// The age at which the loss of a connection starts the backoff anew.
const LASTING: Duration = Duration::from_secs(1);
/// The limit of connections of a thread that wait for replicas of the store.
const WAITING_MAX: usize = 16;

/// The reason why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectRefusal {
    pub(super) refusal: StoreRefusal,
    /// Whether it lasts longer than a few seconds.
    pub(super) lasting: bool,
    /// The error, for the log.
    pub(super) what: Arc<str>,
}

type ConnectResult = Result<RedisConnection, ConnectRefusal>;

/// One thread's connections.
pub(super) struct ThreadConnection {
    connector: Arc<RedisConnector>,
    state: RefCell<ConnectionState>,
    waiting: OnceCell<managed::Pool<Opener>>,
}

enum ConnectionState {
    Down {
        backoff: Backoff,
        /// The earliest time of the next attempt.
        until: Instant,
        /// The error to return until then, if it is lasting.
        closed: Option<ConnectRefusal>,
    },
    Connecting {
        number: u64,
        backoff: Backoff,
        attempt: Shared<LocalBoxFuture<'static, ConnectResult>>,
    },
    Up {
        number: u64,
        backoff: Backoff,
        link: RedisConnection,
        since: Instant,
        heard: Instant,
    },
}

impl ThreadConnection {
    pub(super) fn new(connector: Arc<RedisConnector>) -> Self {
        let state =
            ConnectionState::Down { backoff: reconnect_backoff(), until: Instant::now(), closed: None };
        Self { connector, state: RefCell::new(state), waiting: OnceCell::new() }
    }

    /// Returns the connection and its number, for [`ThreadConnection::drop_connection`]. It waits for one attempt at most.
    pub(super) async fn link(&self) -> Result<(RedisConnection, u64), ConnectRefusal> {
        let (attempt, number) = match self.current() {
            Ok(link) => return Ok(link),
            Err(Some(attempt)) => attempt,
            Err(None) => self.attempt()?,
        };
        let opened = attempt.await;
        self.settle(number, &opened);
        opened.map(|link| (link, number))
    }

    #[expect(clippy::type_complexity, reason = "said once, here")]
    fn current(
        &self,
    ) -> Result<(RedisConnection, u64), Option<(Shared<LocalBoxFuture<'static, ConnectResult>>, u64)>> {
        match &*self.state.borrow() {
            ConnectionState::Up { link, number, .. } => Ok((link.clone(), *number)),
            ConnectionState::Connecting { attempt, number, .. } => Err(Some((attempt.clone(), *number))),
            ConnectionState::Down { .. } => Err(None),
        }
    }

    fn attempt(&self) -> Result<(Shared<LocalBoxFuture<'static, ConnectResult>>, u64), ConnectRefusal> {
        let mut state = self.state.borrow_mut();
        let (backoff, until) = match &*state {
            ConnectionState::Down { closed: Some(closed), until, .. } if Instant::now() < *until => {
                return Err(closed.clone());
            }
            ConnectionState::Down { backoff, until, .. } => (*backoff, *until),
            ConnectionState::Connecting { backoff, .. } | ConnectionState::Up { backoff, .. } => {
                (*backoff, Instant::now())
            }
        };
        let number = fastrand::u64(..);
        let attempt = open(Arc::clone(&self.connector), until).boxed_local().shared();
        *state = ConnectionState::Connecting { number, backoff, attempt: attempt.clone() };
        Ok((attempt, number))
    }

    /// Records the end of an attempt; the first operation that sees it does so.
    fn settle(&self, attempted: u64, opened: &ConnectResult) {
        let mut state = self.state.borrow_mut();
        let ConnectionState::Connecting { number, backoff, .. } = &*state else { return };
        if *number != attempted {
            return;
        }
        let now = Instant::now();
        *state = match opened {
            Ok(link) => ConnectionState::Up {
                number: attempted,
                backoff: *backoff,
                link: link.clone(),
                since: now,
                heard: now,
            },
            Err(closed) => {
                let mut backoff = *backoff;
                let until = now + closed.pause(&mut backoff);
                let closed = closed.lasting.then(|| closed.clone());
                ConnectionState::Down { backoff, until, closed }
            }
        };
    }

    /// Notes an answer over this connection.
    pub(super) fn note_answer(&self, over: u64) {
        if let ConnectionState::Up { number, heard, .. } = &mut *self.state.borrow_mut()
            && *number == over
        {
            *heard = Instant::now();
        }
    }

    /// Returns whether this connection has been silent since then.
    pub(super) fn silent_since(&self, over: u64, then: Instant) -> bool {
        matches!(&*self.state.borrow(), ConnectionState::Up { number, heard, .. } if *number == over && *heard <= then)
    }

    /// Drops this connection, unless another has replaced it. Returns whether it did.
    pub(super) fn drop_connection(&self, lost: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let ConnectionState::Up { number, backoff, since, .. } = &*state else { return false };
        if *number != lost {
            return false;
        }
        let now = Instant::now();
        let mut backoff = *backoff;
        let mut until = now;
        if now - *since >= LASTING {
            backoff.reset();
        } else {
            until += backoff.next(fastrand::f64());
        }
        *state = ConnectionState::Down { backoff, until, closed: None };
        true
    }

    /// Returns a connection for one write that waits for replicas of the store.
    pub(super) async fn dedicated(&self) -> RedisResult<managed::Object<Opener>> {
        let pool = if let Some(pool) = self.waiting.get() {
            pool
        } else {
            let pool = managed::Pool::builder(Opener(Arc::clone(&self.connector)))
                .max_size(WAITING_MAX)
                .build()
                .map_err(|_| (ErrorKind::InvalidClientConfig, "the pool cannot be made"))?;
            self.waiting.get_or_init(|| pool)
        };
        pool.get().await.map_err(|error| match error {
            managed::PoolError::Backend(error) => error,
            _ => (ErrorKind::Io, "no connection of the pool").into(),
        })
    }

    /// Drops the idle connections of the pool: one loss means that all are lost.
    pub(super) fn drop_idle(&self) {
        if let Some(pool) = self.waiting.get() {
            pool.retain(|_, _| false);
        }
    }
}

async fn open(connector: Arc<RedisConnector>, until: Instant) -> ConnectResult {
    sleep_until(until).await;
    let opened = match timeout(connector.timeout(), connector.open()).await {
        Ok(opened) => opened,
        Err(_) => Err((ErrorKind::Io, "no connection in time").into()),
    };
    opened.map_err(|error| ConnectRefusal::from(&error))
}

impl From<&RedisError> for ConnectRefusal {
    fn from(error: &RedisError) -> Self {
        let (refusal, lasting) = match policy(error) {
            ErrorPolicy::Refuse(refusal) => (refusal, true),
            ErrorPolicy::Wait(refusal) | ErrorPolicy::Reconnect { refusal, .. } => (refusal, false),
            ErrorPolicy::Text => (StoreRefusal::Unexpected, false),
        };
        Self { refusal, lasting, what: for_log(error).into() }
    }
}

impl ConnectRefusal {
    /// Counts the failure and returns the delay before the next attempt.
    pub(super) fn pause(&self, backoff: &mut Backoff) -> Duration {
        let draw = fastrand::f64();
        let delay = backoff.next(draw);
        if self.lasting { LOGIN_BACKOFF.mul_f64(draw) } else { delay }
    }
}

/// Returns the backoff between attempts to reach Redis.
pub(super) const fn reconnect_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(1))
}

/// The manager that opens the connections of the pool.
#[derive(Debug)]
pub(super) struct Opener(Arc<RedisConnector>);

impl managed::Manager for Opener {
    type Type = RedisConnection;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<RedisConnection> {
        self.0.open().await
    }

    /// Accepts a connection without a check. The write detects a dead one and is repeated.
    async fn recycle(&self, _: &mut RedisConnection, _: &Metrics) -> RecycleResult<RedisError> {
        Ok(())
    }
}
