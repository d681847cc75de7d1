//! How often a bot may be connected to.
//!
//! The platform limits calls per bot (protocol.md 8), so the limit belongs to the bot and not to a replica: the
//! store counts. Places are not handed out in advance: a wait that is given up would keep its place from those
//! who still want to connect. Of a shard's conversations one asks at a time and the others stand in line behind
//! it: after an outage thousands wait, and the store is not to be asked by all of them for each place.
//!
//! There are two lines. Most of those who wait only keep a link warm, or read what was said while there was none;
//! they get three quarters of the limit at most, and come back after those whose caller waits, who so find a place
//! however many of the others there are.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep_until;

use crate::config::BotConfig;
use crate::domain::BotName;
use crate::link::{StoreClock, retry_while_unavailable};
use crate::store::{ConnectPermit, Store};

/// Shards that were told the same time come back spread over this span: most would be refused again.
const SPREAD: Duration = Duration::from_millis(100);

/// Those who wait for a connect, by bot.
#[derive(Debug)]
pub(crate) struct Budget(HashMap<BotName, Lines>);

/// Who has one of these asks the store.
#[derive(Debug, Default)]
struct Lines {
    /// Of those with an open message.
    open: Mutex<()>,
    /// Of those without.
    idle: Mutex<()>,
}

impl Budget {
    pub(crate) fn new(bots: &[Arc<BotConfig>]) -> Self {
        Self(bots.iter().map(|bot| (bot.name.clone(), Lines::default())).collect())
    }

    /// Comes back when the bot may be connected to: first come, first served. `is_open` says whether the
    /// conversation has an open message; where that changes meanwhile, whoever polls this has it looked at again.
    /// It is bounded by who waits: a connect is given up at the deadline of the message that wants it.
    pub(crate) async fn permit(
        &self,
        store: &Store,
        clock: &StoreClock,
        bot: &BotConfig,
        is_open: impl Fn() -> bool,
    ) {
        let limit = bot.connects_per_minute;
        let Some(lines) = self.0.get(&bot.name).filter(|_| limit > 0) else { return };
        // One for both lines: what was counted in the first is not counted again.
        let token = fastrand::u64(..);
        let turn = async |line: &Mutex<()>, limit, later| {
            let _first = line.lock().await;
            let ask = async || store.permit(&bot.name, limit, token).await;
            while let Ok(ConnectPermit::At(at)) = retry_while_unavailable("permit", ask).await {
                sleep_until(clock.instant(at) + later + SPREAD.mul_f64(fastrand::f64())).await;
            }
            // It is granted: no error is the store's answer to this.
        };
        let granted = {
            let mut idle = pin!(turn(&lines.idle, share(limit), SPREAD));
            poll_fn(|cx| if is_open() { Poll::Ready(None) } else { idle.as_mut().poll(cx).map(Some) }).await
        };
        if granted.is_none() {
            turn(&lines.open, limit, Duration::ZERO).await;
        }
    }
}

/// How many of a minute's connects those may have for whom nobody waits.
const fn share(limit: u32) -> u32 {
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
    use crate::store::{Clock, MemoryLimits, MemoryStore};

    /// Who connects in each of so many minutes, at three a minute, where these have an open message and `late`
    /// gets one after the first minute.
    async fn connected(minutes: usize, open: &[bool], late: Option<usize>) -> Vec<Vec<usize>> {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(MemoryStore::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = BotConfig { connects_per_minute: 3, ..BotConfig::clone(&config.bots[0]) };
        let budget = Budget::new(&config.bots);
        let told = StoreClock::new(clock.now());
        let (connected, promoted) = (RefCell::new(Vec::new()), Cell::new(None));
        let waits = open.iter().enumerate().map(async |(place, open)| {
            budget.permit(&store, &told, &bot, || *open || promoted.get() == Some(place)).await;
            connected.borrow_mut().push(place);
        });
        let mut waits = pin!(join_all(waits));
        let mut by_minute = Vec::new();
        for _ in 0..minutes {
            assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
            by_minute.push(connected.take());
            promoted.set(late);
            // No time for the next minute's: the budget of this one is spent.
            assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
            assert!(connected.borrow().is_empty());
            hand.advance(Duration::from_mins(1));
            tokio::time::advance(Duration::from_secs(58)).await;
        }
        by_minute
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_longest_connects_first() {
        let connected = connected(4, &[true; 60], None).await;
        assert_eq!(connected.concat(), (0..12).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_an_open_message_passes_those_who_have_none() {
        let mut open = [false; 25];
        open[20..].fill(true);
        // The first ones were there before anybody else. A message came for the tenth while it waited. Of the third
        // minute's connects two are taken, and that is all that the others may have.
        let connected = connected(4, &open, Some(10)).await;
        assert_eq!(connected, [vec![0, 1, 20], vec![21, 22, 23], vec![24, 10], vec![2, 3]]);
    }

    #[test]
    fn who_waits_for_nobody_leaves_a_quarter() {
        let shares = [1, 2, 3, 4, 5, 8, 250, u32::MAX].map(share);
        assert_eq!(shares, [1, 1, 2, 3, 3, 6, 187, 3_221_225_471]);
    }
}
