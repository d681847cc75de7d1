//! The connect limiter: a rate limit for connects to each bot.
//!
//! The platform limits calls per bot (protocol.md 8). The limit therefore belongs to the bot and not to a replica, and the
//! store counts. Permits are not handed out in advance, because a wait that is given up would block its permit. One
//! conversation of a shard asks at a time, and the others queue behind it. After an outage thousands wait, and they must not
//! all ask the store for each permit.
//!
//! There are two priority queues. Background work (idle reconnects, history reads) may use at most 75 % of the limit, and
//! retries later than foreground connects. A connect for a waiting caller therefore always finds capacity.
//!
//! Callers share the foreground. A caller with more than half of the shard's recent connects is dominant. It queues apart, and
//! has three quarters of the limit as well. A few users of another caller therefore find capacity too.
//!
//! The connects of a queue have a pause between them, because hundreds at once would keep the threads busy.
//!
//! A replica that gives a conversation away reserves the connect of its next owner (`shard/handoff.rs`).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::config::BotConfig;
use crate::domain::{BotName, ConversationId, Sha256};
use crate::link::{StoreClock, retry_while_unavailable};
use crate::store::{ConnectPermit, DrainReason, Store};

/// The span over which shards with the same retry time spread, because most of them would be refused again.
const SPREAD: Duration = Duration::from_millis(100);

/// The time between two connects of a queue.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// The span of the limit, over which the connects of callers are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// The demand of a conversation for a connect.
#[derive(Debug, Default)]
pub(crate) struct ConnectDemand {
    /// Whether it has an open message.
    pub(crate) is_open: bool,
    /// The caller of its oldest open message, if callers share the bridge.
    pub(crate) caller: Option<Arc<str>>,
}

/// A queue of conversations. The holder of the lock is its head, and asks the store. The content is the time from which the
/// head may connect.
type Queue = Mutex<Option<Instant>>;

/// The queues for connects, by bot.
#[derive(Debug)]
pub(crate) struct ConnectLimiter(HashMap<BotName, PriorityQueues>);

/// The queues of a bot.
#[derive(Debug, Default)]
struct PriorityQueues {
    /// Conversations with an open message.
    foreground: Queue,
    /// Conversations with an open message of the dominant caller.
    dominant: Queue,
    /// Conversations without one.
    background: Queue,
    /// Conversations that move to a replica that has joined.
    rebalance: Queue,
    /// Connects of the last minute that a caller waited for, oldest first.
    recent: RefCell<VecDeque<(Instant, Arc<str>)>>,
}

impl PriorityQueues {
    /// Returns whether a caller has more than half of the recent connects.
    fn is_dominant(&self, caller: Option<&Arc<str>>) -> bool {
        let Some(caller) = caller else { return false };
        let mut recent = self.recent.borrow_mut();
        while recent.front().is_some_and(|(at, _)| at.elapsed() >= WINDOW) {
            recent.pop_front();
        }
        recent.iter().filter(|(_, of)| of == caller).count() * 2 > recent.len()
    }

    fn count(&self, caller: Option<Arc<str>>) {
        self.recent.borrow_mut().extend(caller.map(|caller| (Instant::now(), caller)));
    }
}

impl ConnectLimiter {
    pub(crate) fn new(bots: &[Arc<BotConfig>]) -> Self {
        Self(bots.iter().map(|bot| (bot.name.clone(), PriorityQueues::default())).collect())
    }

    /// Returns when the bot may be connected to, in order of arrival. Every poll asks for `demand` again. A
    /// reservation for the conversation is used up. The wait has no timeout of its own: the message's deadline ends the
    /// connect.
    pub(crate) async fn acquire(
        &self,
        store: &Store,
        clock: &StoreClock,
        bot: &BotConfig,
        reserved: Option<&ConversationId>,
        demand: impl Fn() -> ConnectDemand,
    ) {
        let limit = bot.connects_per_minute;
        let Some(queues) = self.0.get(&bot.name).filter(|_| limit > 0) else { return };
        // All queues use one token, so the store does not count the connect twice.
        let (token, reserved) = (fastrand::u64(..), reserved.map(reservation));
        let permit = async |queue: &Queue, limit, later, stays: &dyn Fn() -> bool| {
            let mut next = queue.lock().await;
            if let Some(next) = *next {
                sleep_until(next).await;
            }
            let request = PermitRequest { limit, token, reserved, later };
            let granted = granted(store, clock, &bot.name, request, stays).await;
            if granted {
                *next = Some(Instant::now() + CONNECT_PAUSE);
            }
            granted
        };
        let mut granted = {
            let always = || true;
            let mut background = pin!(permit(&queues.background, reduced_limit(limit), SPREAD, &always));
            let is_open = || demand().is_open;
            poll_fn(|cx| if is_open() { Poll::Ready(false) } else { background.as_mut().poll(cx) }).await
        };
        let is_dominant = || queues.is_dominant(demand().caller.as_ref());
        while !granted {
            granted = if is_dominant() {
                permit(&queues.dominant, reduced_limit(limit), Duration::ZERO, &is_dominant).await
            } else {
                permit(&queues.foreground, limit, Duration::ZERO, &|| !is_dominant()).await
            };
        }
        queues.count(demand().caller);
    }

    /// Reserves a connect of the conversation at its next owner. A shutdown may use the limit of background work. A rebalance
    /// may use half of the whole limit, because it can wait and the users of a lost replica cannot. The reservation holds for a
    /// minute. A connect that comes later counts by itself.
    pub(crate) async fn reserve(
        &self,
        store: &Store,
        clock: &StoreClock,
        bot: &BotConfig,
        conversation: &ConversationId,
        reason: DrainReason,
    ) {
        let limit = bot.connects_per_minute;
        let Some(queues) = self.0.get(&bot.name).filter(|_| limit > 0) else { return };
        let (queue, limit) = match reason {
            DrainReason::Shutdown => (&queues.background, reduced_limit(limit)),
            DrainReason::Rebalance => (&queues.rebalance, limit.div_ceil(2)),
        };
        let _head = queue.lock().await;
        let token = reservation(conversation);
        let request = PermitRequest { limit, token, reserved: None, later: SPREAD };
        granted(store, clock, &bot.name, request, &|| true).await;
    }
}

/// The arguments of [`Store::permit`], and the time that a refused request waits beyond the answer.
#[derive(Clone, Copy)]
struct PermitRequest {
    limit: u32,
    token: u64,
    reserved: Option<u64>,
    later: Duration,
}

/// Asks the store until it grants the connect, or until `stays` says that the place in the queue is the wrong one. Returns
/// whether the connect is granted.
async fn granted(
    store: &Store,
    clock: &StoreClock,
    bot: &BotName,
    request: PermitRequest,
    stays: &dyn Fn() -> bool,
) -> bool {
    let PermitRequest { limit, token, reserved, later } = request;
    let ask = async || store.permit(bot, limit, token, reserved).await;
    while stays() {
        // The store answers a request for a permit with no error.
        let Ok(ConnectPermit::At(at)) = retry_while_unavailable("permit", ask).await else { return true };
        sleep_until(clock.instant(at) + later + SPREAD.mul_f64(fastrand::f64())).await;
    }
    false
}

/// Returns the token of a reservation. Replicas of different versions must agree on it.
fn reservation(conversation: &ConversationId) -> u64 {
    let mut hash = Sha256::default();
    for part in ["handoff", conversation.bot().as_str(), conversation.user().as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finish().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Returns the connects per minute for background work, and for the dominant caller.
const fn reduced_limit(limit: u32) -> u32 {
    if limit == 1 { 1 } else { limit - limit.div_ceil(4) }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::future::join_all;
    use tokio::time::timeout;
    use url::Url;

    use super::*;
    use crate::config::Config;
    use crate::domain::Timestamp;
    use crate::domain::fixtures::conversation;
    use crate::store::{Clock, MemoryLimits, MemoryStore};

    /// Returns the connects of each minute, at three per minute. `open` marks conversations with an open message; `late`
    /// gets one after the first minute.
    async fn connected(minutes: usize, open: &[bool], late: Option<usize>) -> Vec<Vec<usize>> {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 3, ..BotConfig::clone(&config.bots[0]) };
        let limiter = ConnectLimiter::new(&config.bots);
        let store_clock = StoreClock::new(clock.now());
        let (connected, promoted) = (RefCell::new(Vec::new()), Cell::new(None));
        let waits = open.iter().enumerate().map(async |(place, open)| {
            let demand = || ConnectDemand { is_open: *open || promoted.get() == Some(place), caller: None };
            limiter.acquire(&store, &store_clock, &bot, None, demand).await;
            connected.borrow_mut().push(place);
        });
        let mut waits = pin!(join_all(waits));
        let mut by_minute = Vec::new();
        for _ in 0..minutes {
            assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
            by_minute.push(connected.take());
            promoted.set(late);
            // The limit of this minute is used up.
            assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
            assert!(connected.borrow().is_empty());
            hand.advance(Duration::from_mins(1));
            tokio::time::advance(Duration::from_secs(58)).await;
        }
        by_minute
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_wait_connects_first() {
        let connected = connected(4, &[true; 60], None).await;
        assert_eq!(connected.concat(), (0..12).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn foreground_connects_pass_background_connects() {
        let mut open = [false; 25];
        open[20..].fill(true);
        // The first one came before all others, and the second one had a pause before it. The tenth got a message during its
        // wait. Background work takes no third connect of a minute.
        let connected = connected(4, &open, Some(10)).await;
        assert_eq!(connected, [vec![0, 20, 21], vec![22, 23, 24], vec![10, 1], vec![2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn reserved_connect_of_the_next_owner_waits_for_nothing() {
        let (clock, _) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 3, ..BotConfig::clone(&config.bots[0]) };
        let store_clock = StoreClock::new(clock.now());
        let [giver, taker] = [(), ()].map(|()| ConnectLimiter::new(&config.bots));
        let soon = Duration::from_secs(1);
        let [moved, second, third] = ["moved", "second", "third"].map(|user| conversation("dev", user));
        for user in [&moved, &second] {
            timeout(soon, giver.reserve(&store, &store_clock, &bot, user, DrainReason::Shutdown))
                .await
                .unwrap();
        }
        let beyond =
            timeout(soon, giver.reserve(&store, &store_clock, &bot, &third, DrainReason::Shutdown)).await;
        assert!(beyond.is_err(), "reservations leave a quarter of the limit");
        // A new user takes the last connect. The moved ones still have theirs.
        let acquire = async |user| {
            let demand = || ConnectDemand { is_open: true, caller: None };
            timeout(soon, taker.acquire(&store, &store_clock, &bot, Some(user), demand)).await.is_ok()
        };
        assert!(acquire(&third).await);
        assert!(acquire(&moved).await && acquire(&second).await);
        assert!(!acquire(&moved).await, "its second connect counts");
    }

    #[tokio::test(start_paused = true)]
    async fn rebalance_leaves_half_of_the_connects() {
        let (clock, _) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 8, ..BotConfig::clone(&config.bots[0]) };
        let (store_clock, limiter) = (StoreClock::new(clock.now()), ConnectLimiter::new(&config.bots));
        let reserved = async |reason, users: std::ops::Range<usize>| {
            let mut count = 0;
            for user in users {
                let user = conversation("dev", &format!("{reason:?}-{user}"));
                let reserve = limiter.reserve(&store, &store_clock, &bot, &user, reason);
                count += usize::from(timeout(Duration::from_secs(1), reserve).await.is_ok());
            }
            count
        };
        assert_eq!(reserved(DrainReason::Rebalance, 0..8).await, 4);
        assert_eq!(reserved(DrainReason::Shutdown, 0..8).await, 2, "three quarters together");
    }

    #[tokio::test(start_paused = true)]
    async fn dominant_caller_leaves_connects_for_another() {
        let (clock, _hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 8, ..BotConfig::clone(&config.bots[0]) };
        let limiter = ConnectLimiter::new(&config.bots);
        let store_clock = StoreClock::new(clock.now());
        let connected = RefCell::new(Vec::new());
        let connect = async |caller: &'static str| {
            let demand = || ConnectDemand { is_open: true, caller: Some(caller.into()) };
            limiter.acquire(&store, &store_clock, &bot, None, demand).await;
            connected.borrow_mut().push(caller);
        };
        let greedy = join_all((0..20).map(|_| connect("greedy")));
        let mut greedy = pin!(greedy);
        assert!(timeout(Duration::from_secs(1), &mut greedy).await.is_err());
        assert_eq!(connected.take(), ["greedy"; 6], "three quarters of the limit");
        // Behind twenty others, in the same minute.
        let modest = async { tokio::join!(connect("modest"), connect("modest")) };
        assert!(timeout(Duration::from_secs(1), modest).await.is_ok());
        assert_eq!(connected.take(), ["modest"; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn connects_of_a_queue_have_pauses() {
        let (clock, _hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 250, ..BotConfig::clone(&config.bots[0]) };
        let (limiter, store_clock) = (ConnectLimiter::new(&config.bots), StoreClock::new(clock.now()));
        let connect = async |is_open| {
            let demand = || ConnectDemand { is_open, caller: None };
            limiter.acquire(&store, &store_clock, &bot, None, demand).await;
            Instant::now()
        };
        for is_open in [true, false] {
            let (begun, times) = (Instant::now(), join_all((0..10).map(|_| connect(is_open))).await);
            assert_eq!(times[0], begun, "a queue does not wait for another one");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= CONNECT_PAUSE), "{times:?}");
        }
    }

    #[test]
    fn background_work_leaves_a_quarter() {
        let shares = [1, 2, 3, 4, 5, 8, 250, u32::MAX].map(reduced_limit);
        assert_eq!(shares, [1, 1, 2, 3, 3, 6, 187, 3_221_225_471]);
    }
}
