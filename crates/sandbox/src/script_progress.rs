//! How long scripted bots run, and how many messages they got. Rules with `after` follow it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::platform_state::locked;

/// A moment in the life of a scripted bot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BotMoment {
    /// Number of the message that the bot answers, of all users, from 1.
    pub(super) message: u64,
    /// Time since the start of the sandbox.
    pub(super) time: Duration,
}

/// The progress of all scripted bots since the start, or the last reset.
pub(super) struct ScriptProgress(Mutex<ProgressCounts>);

struct ProgressCounts {
    since: Instant,
    /// Messages of each bot.
    messages: HashMap<String, u64>,
}

impl ProgressCounts {
    fn new() -> Self {
        Self { since: Instant::now(), messages: HashMap::new() }
    }
}

impl ScriptProgress {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ProgressCounts::new()))
    }

    /// Counts a message to a bot, and returns its moment.
    pub(super) fn count(&self, bot: &str) -> BotMoment {
        let mut progress = locked(&self.0);
        let time = progress.since.elapsed();
        let count = progress.messages.entry(bot.to_owned()).or_default();
        *count += 1;
        BotMoment { message: *count, time }
    }

    pub(super) fn reset(&self) {
        *locked(&self.0) = ProgressCounts::new();
    }
}
