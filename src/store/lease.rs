//! Leases of partitions: claims, and the fencing token of an owner.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use crate::domain::Timestamp;

/// The incarnation of a replica: a random number that it draws at each start.
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

/// The fencing token of an owner: its incarnation and the epoch of its claim. Tokens are compared for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The owner.
    pub incarnation: Incarnation,
    /// The epoch. It rises with every claim, also over restarts and data loss of the store.
    /// It is at least the store's time in milliseconds.
    pub epoch: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.incarnation, self.epoch)
    }
}

/// The partitions that a claim may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMode {
    /// Free partitions: released, never owned, or already the claimer's.
    Free,
    /// Free partitions, and partitions whose lease has expired.
    Expired,
}

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimResult {
    /// The partition belongs to the claimer.
    Yours {
        /// The fencing token of the claim.
        fence: Fence,
        /// The store's time.
        now: Timestamp,
    },
    /// The partition belongs to another owner.
    Held {
        /// The owner.
        by: Incarnation,
        /// The end of the lease if it is not renewed. An expired lease ends in the past.
        until: Timestamp,
    },
}

impl ClaimResult {
    /// Returns the fence of a successful claim.
    pub const fn fence(self) -> Option<Fence> {
        match self {
            Self::Yours { fence, .. } => Some(fence),
            Self::Held { .. } => None,
        }
    }
}
