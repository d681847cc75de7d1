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
    /// Reserves the next connect of this bot and says when it may begin.
    pub(crate) fn reserve(&self, bot: &Bot, now: Timestamp) -> Timestamp {
        if bot.connects_per_minute == 0 {
            return now;
        }
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(bot.name.clone()).or_default();
        let at = window.next(bot.connects_per_minute, now);
        window.record(bot.connects_per_minute, at);
        at
    }
}
