//! The limits that the connections of a listener share: their number, and what is scarce.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_progress::{ConnectionTimeouts, CutReason};
use crate::domain::FairShare;
use crate::metrics::{ConnectionEndReason, ConnectionMetrics};

/// Time for a connection to leave after another has come.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(100);

/// The limits of a listener's connections.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    max: usize,
    places: Arc<Semaphore>,
    /// Connections that may give their place to another. The one that waits longest is told first.
    evictable: Notify,
    evictable_count: AtomicUsize,
    /// The memory that requests and answers share.
    memory: Arc<FairShare>,
    pub(super) timeouts: ConnectionTimeouts,
    metrics: Option<ConnectionMetrics>,
}

/// Counts an open connection.
pub(super) struct OpenConnectionGuard(Option<IntGauge>);

/// Counts a connection that may give its place to another.
pub(super) struct EvictableGuard<'l>(&'l AtomicUsize);

impl ConnectionLimits {
    /// Sets other timeouts.
    #[cfg(test)]
    pub(super) fn with_timeouts(self, timeouts: ConnectionTimeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// Creates limits for this number of connections. Requests and answers share `memory`.
    pub(super) fn new(max: usize, memory: Arc<FairShare>, metrics: Option<ConnectionMetrics>) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            max,
            places: Arc::new(Semaphore::new(max)),
            evictable: Notify::new(),
            evictable_count: AtomicUsize::new(0),
            memory,
            timeouts: ConnectionTimeouts::default(),
            metrics,
        }
    }

    /// Returns a place for a new connection. At the limit, the connection that has waited longest for its next request
    /// gives its own. Returns `None` if there is no such connection.
    pub(super) async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        if self.evictable_count.load(Ordering::Relaxed) > 0 {
            self.evictable.notify_one();
            let place = timeout(EVICTION_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
            if let Ok(Ok(place)) = place {
                return Some(place);
            }
        }
        self.count(ConnectionEndReason::Refused);
        None
    }

    /// Counts a connection that may give its place to another, until the guard is dropped.
    pub(super) fn evictable(&self) -> EvictableGuard<'_> {
        self.evictable_count.fetch_add(1, Ordering::Relaxed);
        EvictableGuard(&self.evictable_count)
    }

    /// Completes if such a connection has to give its place to another.
    pub(super) fn evicted(&self) -> Notified<'_> {
        self.evictable.notified()
    }

    /// Returns whether all places are taken.
    pub(super) fn are_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Returns whether connections or memory are scarce. A peer that does not read must then go sooner.
    pub(super) fn are_scarce(&self) -> bool {
        self.places.available_permits() < self.max / 4 || self.memory.taken() > self.memory.limit() / 2
    }

    /// Counts a connection that the bridge closes.
    pub(super) fn count_close(&self, reason: CutReason) {
        let reason = match reason {
            CutReason::Idle => return,
            CutReason::SlowHead => ConnectionEndReason::SlowHead,
            CutReason::Unread => ConnectionEndReason::UnreadBody,
            CutReason::Stalled => ConnectionEndReason::Stalled,
            CutReason::Evicted => ConnectionEndReason::Evicted,
        };
        self.count(reason);
    }

    /// Counts an accept that failed because files or memory are missing.
    pub(super) fn count_accept_error(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.accept_errors.inc();
        }
    }

    /// Counts an open connection until the guard is dropped.
    pub(super) fn count_open(&self) -> OpenConnectionGuard {
        let gauge = self.metrics.as_ref().map(|metrics| metrics.open.clone());
        gauge.iter().for_each(IntGauge::inc);
        OpenConnectionGuard(gauge)
    }

    fn count(&self, reason: ConnectionEndReason) {
        if let Some(metrics) = &self.metrics {
            metrics.closed(reason);
        }
    }
}

impl Drop for EvictableGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for OpenConnectionGuard {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}
