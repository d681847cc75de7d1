//! The age of the oldest open message.
//!
//! Each shard knows only its own oldest message, so the shards meet here. The gauge shows the greatest age. It reveals
//! late turns while they are open: the histograms learn of a turn at its end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Error, Gauge};

use super::MetricFactory;

/// The age of the oldest open message of this replica, as its shards last reported it.
#[derive(Debug)]
pub struct OldestOpenMessage {
    gauge: Gauge,
    ages: Mutex<BTreeMap<usize, Duration>>,
}

impl OldestOpenMessage {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            gauge: factory.seconds_gauge(
                "oldest_open_message_age_seconds",
                "Time since this replica's oldest open message was accepted; 0 without an open message.",
            )?,
            ages: Mutex::default(),
        })
    }

    /// Sets the age of a shard's oldest open message; `None` means that the shard has no open message. Shards share a
    /// lock here, so they report about once a second, not with every turn.
    pub fn set_age(&self, shard: usize, age: Option<Duration>) {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        match age {
            Some(age) => ages.insert(shard, age),
            None => ages.remove(&shard),
        };
        let oldest = ages.values().max().copied().unwrap_or_default();
        self.gauge.set(oldest.as_secs_f64());
    }
}
