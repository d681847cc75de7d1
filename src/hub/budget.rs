//! How often a bot may be connected to.
//!
//! The platform limits calls per bot (protocol.md 8), so the limit belongs to the bot and not to a replica or a
//! thread. Here it is kept in this process: exact for one replica.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::config::Bot;
use crate::domain::{BotName, Timestamp, Window};

/// The connects of each bot's last 60 seconds. Shared by all shards; a connect takes two calls over the
/// network, so its lock is on no hot path.
#[derive(Debug, Default)]
pub(crate) struct ConnectBudget(Mutex<HashMap<BotName, Window>>);

impl ConnectBudget {
    /// Takes a connect of this bot; where the minute is full, says when to ask again. Places are not handed out
    /// in advance: a wait that is given up would keep its place from those who still want to connect.
    pub(crate) fn take(&self, bot: &Bot, now: Timestamp) -> Result<(), Timestamp> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(bot.name.clone()).or_default();
        let at = window.next(bot.connects_per_minute, now);
        if at > now {
            return Err(at);
        }
        window.record(bot.connects_per_minute, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_burst_gets_what_a_minute_allows_and_no_more() {
        let platform = url::Url::parse("http://127.0.0.1:1").unwrap();
        let mut bot = Bot::clone(&Config::dev(platform).bots[0]);
        bot.connects_per_minute = 3;
        let budget = ConnectBudget::default();
        let start = Timestamp::from_millis(1_000_000);
        let at = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(budget.take(&bot, at(0)), Ok(()));
        }
        for ms in 0..100 {
            assert_eq!(budget.take(&bot, at(ms)), Err(at(60_000)), "after {ms} ms");
        }
        assert_eq!(budget.take(&bot, at(60_000)), Ok(()), "those who gave up took nothing");
        bot.connects_per_minute = 0;
        assert_eq!(budget.take(&bot, at(60_000)), Ok(()));
    }
}
