//! The wall clock of this machine, by which the bridge signs for others: JWTs and deliveries.
//!
//! The peers of a signature compare it with their own clocks, so the store's clock must not decide there. Everything that
//! replicas share is dated by the store instead ([`crate::store::Clock`]). [`crate::metrics::ClockMetrics`] shows how far
//! the other clocks are from this one.

use std::time::SystemTime;

use crate::domain::Timestamp;

/// Returns the time of the machine, which may go back.
#[expect(clippy::disallowed_methods, reason = "others compare signatures with their wall clocks")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
