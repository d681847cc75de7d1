//! The replicas that share a store, known by their heartbeats.

use super::Incarnation;
use crate::domain::{BotName, Timestamp};
use std::time::Duration;

/// One replica as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaIdentity {
    /// The configured name. Partitions are assigned by it.
    pub name: Box<str>,
    /// The incarnation of its process.
    pub incarnation: Incarnation,
}

/// The heartbeat of a replica, about once a second.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The replica.
    pub peer: ReplicaIdentity,
    /// The bots of its configuration.
    pub bots: Vec<BotName>,
    /// The time for which the replica counts as live after this heartbeat.
    pub ttl: Duration,
    /// The number that comes back over the replica's own channel as [`super::Hint::Echo`]. It proves that hints
    /// arrive.
    pub echo: u64,
}

/// The live replicas, the asking one included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetStatus {
    /// The store's time.
    pub now: Timestamp,
    /// The live replicas, in no order.
    pub live: Vec<ReplicaIdentity>,
    /// Whether the store is set up. It is false after the store was emptied.
    pub prepared: bool,
    /// Whether the store knew the replica before. If it did not although an earlier heartbeat was answered, the store
    /// lost data. [`FleetStatus::live`] then lacks the replicas without a heartbeat since.
    pub known: bool,
}

/// The answer to a request for a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPermit {
    /// The connect may begin now. It is counted.
    Granted,
    /// The minute is full until this time. The connect is not counted.
    At(Timestamp),
}
