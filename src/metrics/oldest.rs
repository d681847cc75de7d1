//! How long the oldest open message has been open.
//!
//! Each shard knows its own oldest only, so they meet here; what is shown is the greatest age of all. It says that
//! turns are late while they still are: histograms know them only once they have ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Error, Gauge};

use super::Declare;

/// The age of the oldest open message of this replica, as its shards told it last.
#[derive(Debug)]
pub struct OldestTurn {
    shown: Gauge,
    ages: Mutex<BTreeMap<usize, Duration>>,
}

impl OldestTurn {
    pub(super) fn declare(declare: &Declare) -> Result<Self, Error> {
        Ok(Self {
            shown: declare.seconds(
                "oldest_turn_seconds",
                "Seconds since the oldest message of this replica was accepted that has not ended; 0 without one.",
            )?,
            ages: Mutex::default(),
        })
    }

    /// How old the oldest open message of a shard is; none where nothing of it is open. Meant to be called about once
    /// a second, not with every turn: the shards share a lock.
    pub fn tell(&self, shard: usize, age: Option<Duration>) {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        match age {
            Some(age) => ages.insert(shard, age),
            None => ages.remove(&shard),
        };
        let oldest = ages.values().max().copied().unwrap_or_default();
        self.shown.set(oldest.as_secs_f64());
    }
}
