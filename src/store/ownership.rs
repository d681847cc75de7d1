//! The ownership of a partition by this replica: one type for every part of the replica that acts on it.

use super::Fence;

/// The ownership of one partition by this replica.
///
/// ```text
///   None ──claim──► Active ──drain──► Draining ──release──► None
///                      └──────lost───────┴──► Revoked ──left──► None
/// ```
///
/// Each part of the replica keeps its own copy, and each copy follows the one above it in this table. `D` is the
/// data that a drain needs there.
///
/// | part | `D` | `Active` | `Draining` | `Revoked` |
/// | --- | --- | --- | --- | --- |
/// | lease table (`hub::lease_table`), the source | [`DrainReason`] | one word of atomics: epoch and state | the same, with the reason | never: a lost lease is `None` |
/// | rebalance plan (`hub::rebalance`) | [`DrainReason`] | drains if another replica is assigned | waits for the release | never |
/// | shard (`hub::shard`) | [`DrainReason`] | starts conversations, accepts sends | finishes open turns, starts no conversation | conversations of the lost fence leave; a new claim has to wait |
/// | webhook worker and scheduler | a sender, or `()` | attempts deliveries | begins no attempt, reports the last end | never: attempts are cancelled |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership<D = DrainReason> {
    /// Another replica owns the partition, or no replica does.
    #[default]
    None,
    /// This replica owns the partition and works for it.
    Active(Fence),
    /// This replica owns the partition, finishes open work and then releases it.
    Draining(Fence, D),
    /// The lease is lost, and work of its fence is still ending.
    Revoked,
}

/// The reason of a drain. It decides how long open turns may delay the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainReason {
    /// Another replica is assigned: open turns have seconds.
    Rebalance,
    /// This replica shuts down: open turns have the whole time of the shutdown.
    Shutdown,
}

impl<D> Ownership<D> {
    /// Returns the fence of an owner, draining or not.
    pub const fn fence(&self) -> Option<Fence> {
        match self {
            Self::Active(fence) | Self::Draining(fence, _) => Some(*fence),
            Self::None | Self::Revoked => None,
        }
    }

    /// Returns the fence under which new work may start.
    pub const fn active(&self) -> Option<Fence> {
        match self {
            Self::Active(fence) => Some(*fence),
            Self::None | Self::Draining(..) | Self::Revoked => None,
        }
    }
}
