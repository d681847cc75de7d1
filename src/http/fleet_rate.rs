//! The part of a rate limit that this replica holds for the whole fleet.
//!
//! The store has one bucket for each caller. A replica takes several requests out of it at once, so that a request seldom waits
//! for the store. Requests that it does not use within a second go back. No more requests pass than the limit allows. A replica
//! may refuse while another one still holds a few.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::hub::Hub;
use crate::metrics::CallerMetrics;
use crate::store::{RequestGrant, RequestWish};

/// The least that a replica takes at once, if the limit is not smaller.
const BATCH_MIN: u32 = 10;
/// The part of the limit that a replica takes at once.
const BATCH_PART: u32 = 10;
/// The time without a request after which a replica gives back what it holds.
const IDLE: Duration = Duration::from_secs(1);
/// The longest pause before a bucket that was nearly empty is asked again, if it holds a request by then.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);
/// The time in which the replica counts alone after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The requests that this replica holds.
#[derive(Debug)]
pub(super) struct FleetRate {
    caller: Box<str>,
    per_minute: u32,
    batch: u32,
    state: Mutex<HeldRequests>,
}

#[derive(Debug)]
struct HeldRequests {
    /// Requests that may pass without the store.
    held: u32,
    /// The requests that the store had left when it was asked last.
    left: u32,
    used_at: Instant,
    /// The bucket is empty until then.
    empty_until: Instant,
    /// The store failed, and is asked again then.
    alone_until: Instant,
}

/// A counted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FleetCount {
    /// Requests that the caller may still make, as far as this replica knows.
    pub(super) remaining: u32,
    pub(super) next_in: Duration,
    pub(super) refused: bool,
}

impl FleetRate {
    pub(super) fn new(caller: &str, per_minute: NonZeroU32) -> Self {
        let (per_minute, now) = (per_minute.get(), Instant::now());
        // Half at most, so that two replicas can share a small limit.
        let batch = (per_minute / BATCH_PART).max(BATCH_MIN).min(per_minute.div_ceil(2));
        let state =
            HeldRequests { held: 0, left: per_minute, used_at: now, empty_until: now, alone_until: now };
        Self { caller: caller.into(), per_minute, batch, state: Mutex::new(state) }
    }

    /// Counts a request. Returns `None` while the store is away: the replica then counts alone.
    pub(super) async fn count(&self, hub: &Hub, metrics: &CallerMetrics) -> Option<FleetCount> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        state.used_at = now;
        if state.held == 0 && now >= state.empty_until {
            if now < state.alone_until {
                return None;
            }
            let answer = hub.take_requests(self.wish(self.batch, 0)).await;
            metrics.rate_called(&self.caller, answer.is_ok());
            let Ok(RequestGrant { granted, left, next_in }) = answer else {
                state.alone_until = Instant::now() + STORE_PAUSE;
                return None;
            };
            state.held = granted;
            state.left = left;
            if granted < self.batch {
                // The bucket is nearly empty. Without a pause each request would ask for the next one that comes back.
                let refill = Duration::from_mins(1) / self.per_minute * self.batch.min(BATCH_MIN);
                state.empty_until = Instant::now() + refill.min(EMPTY_PAUSE).max(next_in);
            }
        }
        let refused = state.held == 0;
        state.held = state.held.saturating_sub(1);
        let next_in = match (refused, state.held + state.left) {
            (true, _) => state.empty_until.saturating_duration_since(Instant::now()),
            (false, 0) => Duration::from_mins(1) / self.per_minute,
            (false, _) => Duration::ZERO,
        };
        Some(FleetCount { remaining: state.held.saturating_add(state.left), next_in, refused })
    }

    /// Gives back what was not used for a while.
    pub(super) async fn return_idle(&self, hub: &Hub, metrics: &CallerMetrics) {
        // A request that is being counted uses it.
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.held == 0 || state.used_at.elapsed() < IDLE {
            return;
        }
        let returned = std::mem::take(&mut state.held);
        // Lost requests come back by themselves within a minute.
        let answer = hub.take_requests(self.wish(0, returned)).await;
        metrics.rate_called(&self.caller, answer.is_ok());
        if let Ok(grant) = answer {
            state.left = grant.left;
        }
    }

    fn wish(&self, wanted: u32, returned: u32) -> RequestWish<'_> {
        RequestWish { caller: &self.caller, per_minute: self.per_minute, wanted, returned }
    }
}
