//! The rhythms of the bots: shared by all conversations of this replica, and by all replicas through the store.
//!
//! Turns read and write memory only. A task merges what this replica learned into the store every few seconds, and brings back
//! what the others learned. A replica that dies loses what it learned since.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::{Hub, HubError};
use crate::config::BotConfig;
use crate::domain::BotName;
use crate::rhythm::{BotRhythm, RhythmReport, SharedRhythm};
use crate::store::{Store, StoreError, StoredRhythm};
use crate::telemetry::LogLimiter;

/// The time between two merges of what was learned. Half of it is random, so that replicas do not cross each other.
const MERGE_INTERVAL: Duration = Duration::from_secs(10);
/// The merges after which a replica that learned nothing looks at what the others learned.
const LOOK_EVERY: u32 = 6;
/// How often a merge is tried if other replicas wrote meanwhile.
const TRIES: usize = 4;

/// The rhythms of the bots that have one.
#[derive(Debug, Default)]
pub(crate) struct BotRhythms(HashMap<BotName, Arc<SharedRhythm>>);

impl BotRhythms {
    /// Returns empty rhythms for the bots whose quiet time is learned.
    pub(crate) fn new(bots: &[Arc<BotConfig>]) -> Self {
        let rhythm = |bot: &Arc<BotConfig>| Some((bot.name.clone(), Arc::new(SharedRhythm::of(bot)?)));
        Self(bots.iter().filter_map(rhythm).collect())
    }

    /// Returns the rhythm of a bot, if it is learned.
    pub(crate) fn get(&self, bot: &BotName) -> Option<&Arc<SharedRhythm>> {
        self.0.get(bot)
    }

    /// Merges until `stop` receives or is dropped, and then a last time.
    pub(crate) async fn run(&self, store: Store, mut stop: oneshot::Receiver<()>) {
        if self.0.is_empty() {
            return;
        }
        for round in 0_u32.. {
            for (bot, rhythm) in &self.0 {
                if rhythm.has_unsaved() || round.is_multiple_of(LOOK_EVERY) {
                    log_failure(bot, merge(&store, bot, rhythm).await);
                }
            }
            let next = Instant::now() + MERGE_INTERVAL.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                _ = &mut stop => break,
                () = sleep_until(next) => {}
            }
        }
        for (bot, rhythm) in self.0.iter().filter(|(_, rhythm)| rhythm.has_unsaved()) {
            log_failure(bot, merge(&store, bot, rhythm).await);
        }
    }

    /// Returns what all replicas learned of a bot, or `None` if its quiet time is fixed.
    pub(crate) async fn report(
        &self,
        store: &Store,
        bot: &BotName,
    ) -> Result<Option<RhythmReport>, StoreError> {
        let Some(rhythm) = self.0.get(bot) else { return Ok(None) };
        merge(store, bot, rhythm).await?;
        Ok(Some(rhythm.report()))
    }

    /// Forgets what was learned of a bot. Other replicas notice when they merge or look.
    pub(crate) async fn forget(&self, store: &Store, bot: &BotName) -> Result<(), StoreError> {
        store.forget_rhythm(bot).await?;
        if let Some(rhythm) = self.0.get(bot) {
            rhythm.forget();
        }
        Ok(())
    }
}

impl Hub {
    /// Returns what all replicas learned of the rhythm of a bot, or `None` if its quiet time is fixed.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn rhythm(&self, bot: &BotName) -> Result<Option<RhythmReport>, HubError> {
        Ok(self.rhythms.report(&self.store, bot).await?)
    }

    /// Forgets the rhythm of a bot. Other replicas forget it within a minute.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn forget_rhythm(&self, bot: &BotName) -> Result<(), HubError> {
        Ok(self.rhythms.forget(&self.store, bot).await?)
    }
}

/// Brings together what the store knows and what this replica learned.
async fn merge(store: &Store, bot: &BotName, rhythm: &SharedRhythm) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let stored = store.rhythm(bot).await?;
        let merged = rhythm.merged_with(stored.as_ref().map_or_else(BotRhythm::default, |s| read(bot, s)));
        let version = stored.map(|stored| stored.version);
        if !rhythm.has_unsaved() || is_written(store, bot, version, &merged.rhythm.to_bytes()).await? {
            rhythm.on_saved(merged);
            return Ok(());
        }
    }
    // The others are faster. The lessons go with the next merge.
    Ok(())
}

/// Writes a state, and returns false if another replica wrote since.
async fn is_written(
    store: &Store,
    bot: &BotName,
    version: Option<u64>,
    state: &[u8],
) -> Result<bool, StoreError> {
    match store.put_rhythm(bot, version, state).await {
        Ok(written) => Ok(written),
        // The answer was lost, but maybe not the write.
        Err(error) => match store.rhythm(bot).await? {
            Some(stored) if *stored.state == *state => Ok(true),
            _ => Err(error),
        },
    }
}

fn read(bot: &BotName, stored: &StoredRhythm) -> BotRhythm {
    BotRhythm::from_bytes(&stored.state).unwrap_or_else(|error| {
        warn!(%bot, %error, "the rhythm of the bot is learned anew");
        BotRhythm::default()
    })
}

fn log_failure(bot: &BotName, result: Result<(), StoreError>) {
    static LIMIT: LogLimiter = LogLimiter::new();
    if let Err(error) = result
        && let Some(left_out) = LIMIT.pass()
    {
        warn!(%bot, %error, left_out, "the rhythm of the bot was not merged; it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{QuietRule, fixtures};
    use crate::domain::Fingerprint;
    use crate::rhythm::{NextReply, ReplyKind, TurnObservation};
    use crate::store::MemoryLimits;

    fn rhythms() -> BotRhythms {
        let bot = |name, quiet| Arc::new(BotConfig { quiet, ..fixtures::bot(name) });
        BotRhythms::new(&[bot("auto", QuietRule::Auto), bot("fixed", QuietRule::Fixed(MERGE_INTERVAL))])
    }

    fn single_answer() -> TurnObservation {
        let kind = Fingerprint::from_bits(1);
        let kind = ReplyKind { exact: kind, template: kind };
        TurnObservation {
            replies: vec![(kind, NextReply::NoneFor(MERGE_INTERVAL))],
            ..TurnObservation::default()
        }
    }

    fn names() -> [BotName; 2] {
        ["auto", "fixed"].map(|name| BotName::new(name).unwrap())
    }

    fn turns(report: Result<Option<RhythmReport>, StoreError>) -> Option<u64> {
        report.unwrap().map(|report| report.turns)
    }

    #[tokio::test]
    async fn replicas_share_what_they_learn_and_forget_it_together() {
        let store = Store::memory(MemoryLimits::new(1 << 20, MERGE_INTERVAL));
        let [auto, fixed] = names();
        let (one, other) = (rhythms(), rhythms());
        for replica in [&one, &other] {
            for _ in 0..5 {
                replica.get(&auto).unwrap().learn(single_answer());
            }
        }
        assert_eq!(turns(one.report(&store, &auto).await), Some(5));
        assert_eq!(turns(other.report(&store, &auto).await), Some(10));
        assert_eq!(turns(one.report(&store, &auto).await), Some(10));
        assert_eq!(turns(one.report(&store, &fixed).await), None);
        other.forget(&store, &auto).await.unwrap();
        assert_eq!(turns(one.report(&store, &auto).await), Some(0));
    }

    #[tokio::test]
    async fn unreadable_state_is_learned_anew() {
        let store = Store::memory(MemoryLimits::new(1 << 20, MERGE_INTERVAL));
        let [auto, _] = names();
        assert!(store.put_rhythm(&auto, None, b"of another version").await.unwrap());
        let replica = rhythms();
        replica.get(&auto).unwrap().learn(single_answer());
        assert_eq!(turns(replica.report(&store, &auto).await), Some(1));
        assert_eq!(turns(rhythms().report(&store, &auto).await), Some(1), "it was overwritten");
    }

    #[tokio::test]
    async fn last_lessons_are_merged_at_the_stop() {
        let store = Store::memory(MemoryLimits::new(1 << 20, MERGE_INTERVAL));
        let [auto, _] = names();
        let replica = Arc::new(rhythms());
        replica.get(&auto).unwrap().learn(single_answer());
        let (stop, stopped) = oneshot::channel();
        drop(stop);
        replica.run(store.clone(), stopped).await;
        assert_eq!(turns(rhythms().report(&store, &auto).await), Some(1));
    }
}
