//! How often a bot may be connected to.
//!
//! The platform limits calls per bot (protocol.md 8), so the limit belongs to the bot and not to a replica: the
//! store counts. Places are not handed out in advance: a wait that is given up would keep its place from those
//! who still want to connect. Of a shard's conversations one asks at a time and the others stand in line behind
//! it: after an outage thousands wait, and the store is not to be asked by all of them for each place. Most of them
//! only keep a link warm; they let those pass whose caller waits.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep_until;

use crate::config::Bot;
use crate::domain::BotName;
use crate::link::{StoreClock, outlast};
use crate::store::{Permit, Store};

/// Shards that were told the same time come back spread over this span: most would be refused again.
const SPREAD: Duration = Duration::from_millis(100);

/// Those who wait for a connect, by bot.
#[derive(Debug)]
pub(crate) struct Budget(HashMap<BotName, Line>);

#[derive(Debug, Default)]
struct Line {
    /// Who has it asks the store.
    first: Mutex<()>,
    /// Who has it, of those without an open message, may stand in line for that.
    idle: Mutex<()>,
}

impl Budget {
    pub(crate) fn new(bots: &[Arc<Bot>]) -> Self {
        Self(bots.iter().map(|bot| (bot.name.clone(), Line::default())).collect())
    }

    /// Comes back when the bot may be connected to: first come, first served. `is_open` says whether the
    /// conversation has an open message; where that changes meanwhile, whoever polls this has it looked at again.
    /// It is bounded by who waits: a connect is given up at the deadline of the message that wants it.
    pub(crate) async fn permit(
        &self,
        store: &Store,
        clock: &StoreClock,
        bot: &Bot,
        is_open: impl Fn() -> bool,
    ) {
        let Some(line) = self.0.get(&bot.name).filter(|_| bot.connects_per_minute > 0) else { return };
        let _idle = {
            let mut idle = pin!(line.idle.lock());
            poll_fn(|cx| if is_open() { Poll::Ready(None) } else { idle.as_mut().poll(cx).map(Some) }).await
        };
        let _first = line.first.lock().await;
        let token = fastrand::u64(..);
        loop {
            let ask = async || store.permit(&bot.name, bot.connects_per_minute, token).await;
            match outlast("permit", ask).await {
                Ok(Permit::At(at)) => {
                    sleep_until(clock.instant(at) + SPREAD.mul_f64(fastrand::f64())).await;
                }
                // No other error is the store's answer to this.
                Ok(Permit::Granted) | Err(_) => return,
            }
        }
    }
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
    use crate::store::{Clock, Memory, MemoryLimits};

    /// Who connects in each of so many minutes, at three a minute, where these have an open message and `late`
    /// gets one after the first minute.
    async fn connected(minutes: usize, open: &[bool], late: Option<usize>) -> Vec<Vec<usize>> {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(Memory::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = Bot { connects_per_minute: 3, ..Bot::clone(&config.bots[0]) };
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
        // The first ones were there before anybody else, and one stood in line already. A message came for the
        // tenth while it waited.
        let connected = connected(4, &open, Some(10)).await;
        assert_eq!(connected, [vec![0, 1, 2], vec![3, 20, 21], vec![22, 23, 24], vec![10, 4, 5]]);
    }
}
