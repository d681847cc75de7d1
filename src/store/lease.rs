//! Who owns a partition, and what an owner proves itself with.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::domain::Timestamp;

/// One life of a replica: chosen at random when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Incarnation {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// What an owner proves itself with: its incarnation and the epoch it claimed. Compared for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The owner.
    pub incarnation: Incarnation,
    /// Rises with every claim of the partition, over restarts and losses of the store too: at least the store's
    /// time in milliseconds.
    pub epoch: u64,
}

/// Which partitions a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMode {
    /// Those that nobody owns: released, never owned, or the claimer's own.
    Free,
    /// Also those whose lease has run out.
    Expired,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimResult {
    /// The partition is the claimer's.
    Yours {
        /// To prove it with.
        fence: Fence,
        /// The store's time.
        now: Timestamp,
    },
    /// It is not.
    Held {
        /// By whom.
        by: Incarnation,
        /// Until when, if it is not renewed; in the past where it has run out.
        until: Timestamp,
    },
}

impl ClaimResult {
    /// The fence, where the claim succeeded.
    pub const fn fence(self) -> Option<Fence> {
        match self {
            Self::Yours { fence, .. } => Some(fence),
            Self::Held { .. } => None,
        }
    }
}
