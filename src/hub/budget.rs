//! How often a bot may be connected to.
//!
//! The platform limits calls per bot (protocol.md 8), so the limit belongs to the bot and not to a replica: the
//! store counts. Places are not handed out in advance: a wait that is given up would keep its place from those
//! who still want to connect. Of a shard's conversations one asks at a time and the others stand in line behind
//! it: after an outage thousands wait, and the store is not to be asked by all of them for each place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep_until;

use crate::config::Bot;
use crate::domain::BotName;
use crate::link::{StoreClock, outlast};
use crate::store::{Permit, Store};

/// Shards that were told the same time come back spread over this span: most would be refused again.
const SPREAD: Duration = Duration::from_millis(100);

/// The lines of those who wait for a connect, one for each bot.
#[derive(Debug)]
pub(crate) struct Budget(HashMap<BotName, Mutex<()>>);

impl Budget {
    pub(crate) fn new(bots: &[Arc<Bot>]) -> Self {
        Self(bots.iter().map(|bot| (bot.name.clone(), Mutex::default())).collect())
    }

    /// Comes back when the bot may be connected to: first come, first served. It is bounded by who waits: a
    /// connect is given up at the deadline of the message that wants it.
    pub(crate) async fn permit(&self, store: &Store, clock: &StoreClock, bot: &Bot) {
        let Some(line) = self.0.get(&bot.name).filter(|_| bot.connects_per_minute > 0) else { return };
        let _first = line.lock().await;
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
    use std::cell::RefCell;

    use futures_util::future::join_all;
    use tokio::time::timeout;
    use url::Url;

    use super::*;
    use crate::config::Config;
    use crate::domain::Timestamp;
    use crate::store::{Clock, Memory, MemoryLimits};

    #[tokio::test(start_paused = true)]
    async fn who_waited_longest_connects_first() {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(1_000_000));
        let store = Store::Memory(Memory::new(MemoryLimits::new(0, Duration::ZERO), clock.clone()));
        let config = Config::dev(Url::parse("http://127.0.0.1:1").unwrap());
        let bot = Bot { connects_per_minute: 3, ..Bot::clone(&config.bots[0]) };
        let budget = Budget::new(&config.bots);
        let told = StoreClock::new(clock.now());
        let connected = RefCell::new(Vec::new());
        let waits = (0..60).map(async |place| {
            budget.permit(&store, &told, &bot).await;
            connected.borrow_mut().push(place);
        });
        let mut waits = std::pin::pin!(join_all(waits));
        for minute in 1..=4 {
            // No time for the next minute's: the budget of this one is spent.
            assert!(timeout(Duration::from_secs(1), &mut waits).await.is_err());
            assert_eq!(*connected.borrow(), (0..3 * minute).collect::<Vec<_>>());
            hand.advance(Duration::from_secs(60));
            tokio::time::advance(Duration::from_secs(59)).await;
        }
    }
}
