//! The read of the lane from the store.

/// Whether the lane is to be read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneRead {
    Idle,
    Wanted,
    /// The answer is awaited. `again` says that it may miss a newer message.
    Pending {
        again: bool,
        known: KnownLane,
    },
}

/// The confirmed state of the lane when it was requested. An answer that knows less proves a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownLane {
    pub(super) write: u64,
    /// Every smaller position was accepted.
    pub(super) position: u64,
    /// Whether no write is in flight until the answer comes.
    pub(super) settled: bool,
}
