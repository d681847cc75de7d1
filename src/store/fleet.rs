//! The replicas that share a store, as their heartbeats tell.

use super::Incarnation;
use crate::domain::{BotName, Timestamp};
use std::time::Duration;

/// One replica as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaIdentity {
    /// Its configured name; what partitions are dealt by.
    pub name: Box<str>,
    /// Its life.
    pub incarnation: Incarnation,
}

/// What a replica says of itself, once a second or so.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// Who.
    pub peer: ReplicaIdentity,
    /// The bots it is configured with.
    pub bots: Vec<BotName>,
    /// For how long it counts as live after this one.
    pub ttl: Duration,
    /// Comes back over the replica's own channel as [`super::Hint::Echo`]: proof that hints arrive.
    pub echo: u64,
}

/// Who is live, the asking replica included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetStatus {
    /// The store's time.
    pub now: Timestamp,
    /// The live replicas, in no order.
    pub live: Vec<ReplicaIdentity>,
    /// Whether the store is set up: false where it was emptied since.
    pub prepared: bool,
    /// Whether the store knew the replica from before. Where it did not although an earlier heartbeat was
    /// answered, the store lost data, and [`FleetStatus::live`] lacks those who have not beaten since.
    pub known: bool,
}

/// Whether a bot may be connected to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectPermit {
    /// Now; it is counted.
    Granted,
    /// The minute is full: ask again at this time. Nothing is counted.
    At(Timestamp),
}
