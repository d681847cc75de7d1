//! Which replica should own which partition, and what one has to do about it: pure functions.
//!
//! No leader says who owns what. Every replica deals the partitions over the live replicas by itself ([`Deal`]),
//! and all that see the same replicas deal alike; for as long as they see different ones, the store's leases
//! keep a partition with one owner. [`decide()`] compares the deal with what the replica has.
//!
//! What it does not know: the store, threads, clocks. Times are spans since any fixed moment of the replica's
//! own monotonic clock.

mod deal;
mod decide;
#[cfg(test)]
mod tests;

pub use deal::Deal;
pub use decide::{Contact, Standing, Step, Tenure, View, decide};
