//! One thread's connections to Redis, and how they are come by again.
//!
//! Everybody on the thread shares one multiplexed connection. Where it is gone, one attempt at a time is made to
//! open another, and all who wait share that attempt; whoever gives up waiting does not end it for the others.
//!
//! ```text
//! Down ─ wanted, after the backoff ─► Coming ─ opened ─► Up ─ lost ─► Down
//!   ▲                                   └─ failed ─┐
//!   └──────────────────────────────────────────────┘
//! ```
//!
//! Writes that are to be confirmed by replicas of the store have connections of their own, from a pool: `WAIT`
//! holds up whatever comes behind it.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleResult};
use deadpool_redis::redis::{ErrorKind, RedisError, RedisResult};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::{Link, RedisConnector};
use super::refusal::{Policy, for_log, policy};
use crate::domain::Backoff;
use crate::store::StoreRefusal;

/// Between two attempts with a password or rights that were refused.
const LOGIN_BACKOFF: Duration = Duration::from_secs(5);
/// A connection that lasted for less does not make the next backoff a first one.
const LASTING: Duration = Duration::from_secs(1);
/// Connections of a thread that wait for replicas of the store.
const WAITING_MAX: usize = 16;

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub(super) refusal: StoreRefusal,
    /// Whether it will not pass by itself within seconds.
    pub(super) lasting: bool,
    /// For the log.
    pub(super) what: Arc<str>,
}

type Opened = Result<Link, Closed>;

/// One thread's connections.
pub(super) struct Line {
    connector: Arc<RedisConnector>,
    state: RefCell<State>,
    waiting: OnceCell<managed::Pool<Opener>>,
}

enum State {
    Down {
        backoff: Backoff,
        /// Not before.
        until: Instant,
        /// Until then this is the answer, where waiting for it would be in vain.
        closed: Option<Closed>,
    },
    Coming {
        number: u64,
        backoff: Backoff,
        attempt: Shared<LocalBoxFuture<'static, Opened>>,
    },
    Up {
        number: u64,
        backoff: Backoff,
        link: Link,
        since: Instant,
        heard: Instant,
    },
}

impl Line {
    pub(super) fn new(connector: Arc<RedisConnector>) -> Self {
        let state = State::Down { backoff: reconnect_backoff(), until: Instant::now(), closed: None };
        Self { connector, state: RefCell::new(state), waiting: OnceCell::new() }
    }

    /// The connection and its number, to be named in [`Line::lose`]. Waits for one attempt at most.
    pub(super) async fn link(&self) -> Result<(Link, u64), Closed> {
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
    fn current(&self) -> Result<(Link, u64), Option<(Shared<LocalBoxFuture<'static, Opened>>, u64)>> {
        match &*self.state.borrow() {
            State::Up { link, number, .. } => Ok((link.clone(), *number)),
            State::Coming { attempt, number, .. } => Err(Some((attempt.clone(), *number))),
            State::Down { .. } => Err(None),
        }
    }

    fn attempt(&self) -> Result<(Shared<LocalBoxFuture<'static, Opened>>, u64), Closed> {
        let mut state = self.state.borrow_mut();
        let (backoff, until) = match &*state {
            State::Down { closed: Some(closed), until, .. } if Instant::now() < *until => {
                return Err(closed.clone());
            }
            State::Down { backoff, until, .. } => (*backoff, *until),
            State::Coming { backoff, .. } | State::Up { backoff, .. } => (*backoff, Instant::now()),
        };
        let number = fastrand::u64(..);
        let attempt = open(Arc::clone(&self.connector), until).boxed_local().shared();
        *state = State::Coming { number, backoff, attempt: attempt.clone() };
        Ok((attempt, number))
    }

    /// Takes note of how an attempt ended; the first who sees it does.
    fn settle(&self, attempted: u64, opened: &Opened) {
        let mut state = self.state.borrow_mut();
        let State::Coming { number, backoff, .. } = &*state else { return };
        if *number != attempted {
            return;
        }
        let now = Instant::now();
        *state = match opened {
            Ok(link) => {
                State::Up { number: attempted, backoff: *backoff, link: link.clone(), since: now, heard: now }
            }
            Err(closed) => {
                let mut backoff = *backoff;
                let until = now + closed.pause(&mut backoff);
                let closed = closed.lasting.then(|| closed.clone());
                State::Down { backoff, until, closed }
            }
        };
    }

    /// Something was answered over this connection.
    pub(super) fn heard(&self, over: u64) {
        if let State::Up { number, heard, .. } = &mut *self.state.borrow_mut()
            && *number == over
        {
            *heard = Instant::now();
        }
    }

    /// Whether nothing was answered over this connection since then.
    pub(super) fn silent_since(&self, over: u64, then: Instant) -> bool {
        matches!(&*self.state.borrow(), State::Up { number, heard, .. } if *number == over && *heard <= then)
    }

    /// Lets go of this connection, unless there is another one already. Says whether it did.
    pub(super) fn lose(&self, lost: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let State::Up { number, backoff, since, .. } = &*state else { return false };
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
        *state = State::Down { backoff, until, closed: None };
        true
    }

    /// A connection for one write that waits for replicas of the store.
    pub(super) async fn waiting(&self) -> RedisResult<managed::Object<Opener>> {
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

    /// Lets go of the pool's idle connections: what happened to one happened to all.
    pub(super) fn lose_waiting(&self) {
        if let Some(pool) = self.waiting.get() {
            pool.retain(|_, _| false);
        }
    }
}

async fn open(connector: Arc<RedisConnector>, until: Instant) -> Opened {
    sleep_until(until).await;
    let opened = match timeout(connector.timeout(), connector.open()).await {
        Ok(opened) => opened,
        Err(_) => Err((ErrorKind::Io, "no connection in time").into()),
    };
    opened.map_err(|error| Closed::from(&error))
}

impl From<&RedisError> for Closed {
    fn from(error: &RedisError) -> Self {
        let (refusal, lasting) = match policy(error) {
            Policy::Refuse(refusal) => (refusal, true),
            Policy::Wait(refusal) | Policy::Reconnect { refusal, .. } => (refusal, false),
            Policy::Text => (StoreRefusal::Unexpected, false),
        };
        Self { refusal, lasting, what: for_log(error).into() }
    }
}

impl Closed {
    /// Counts the failure and returns the delay before the next attempt.
    pub(super) fn pause(&self, backoff: &mut Backoff) -> Duration {
        let draw = fastrand::f64();
        let delay = backoff.next(draw);
        if self.lasting { LOGIN_BACKOFF.mul_f64(draw) } else { delay }
    }
}

/// The backoff between attempts to reach Redis.
pub(super) const fn reconnect_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(1))
}

/// What fills the pool.
#[derive(Debug)]
pub(super) struct Opener(Arc<RedisConnector>);

impl managed::Manager for Opener {
    type Type = Link;
    type Error = RedisError;

    async fn create(&self) -> RedisResult<Link> {
        self.0.open().await
    }

    /// Asks nothing: a connection that died idle is found out by the write, which is repeated then.
    async fn recycle(&self, _: &mut Link, _: &Metrics) -> RecycleResult<RedisError> {
        Ok(())
    }
}
