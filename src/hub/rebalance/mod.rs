//! The rebalance: which replica should own which partition, and the steps towards that. All functions are pure.
//!
//! There is no leader. Every replica computes the same [`Assignment`] from the same live replicas. Replicas may see
//! different ones for a while; the leases of the store then keep one owner per partition. [`plan_rebalance()`] compares
//! the assignment with the partitions that the replica has.
//!
//! This module does not know the store, threads or clocks. Times are spans since a fixed moment of the replica's own
//! monotonic clock.

mod assignment;
mod plan;
#[cfg(test)]
mod tests;

pub use assignment::Assignment;
pub use plan::{ClusterView, PartitionStatus, RebalanceAction, StoreContact, plan_rebalance};
