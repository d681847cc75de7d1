//! Counts what is sent to Redis, for tests.

use std::sync::{Mutex, PoisonError};

/// The commands and round trips of all threads so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Commands. A script is one, and a repeat counts. Subscriptions and logins do not.
    pub(super) commands: u64,
    /// Waits for an answer.
    pub(super) round_trips: u64,
}

/// The counter of one command runner.
#[derive(Debug, Default)]
pub(super) struct TrafficCounter(Mutex<Traffic>);

impl TrafficCounter {
    /// Counts commands and round trips.
    pub(super) fn add(&self, commands: u64, round_trips: u64) {
        let mut traffic = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.commands += commands;
        traffic.round_trips += round_trips;
    }

    /// Returns the counts so far.
    pub(super) fn get(&self) -> Traffic {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
