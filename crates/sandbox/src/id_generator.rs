//! Generates the ids, tokens and nonces of the platform.

use std::sync::atomic::{AtomicU64, Ordering};

/// Generator of names that look random and follow from the seed.
pub(super) struct IdGenerator {
    seed: u64,
    count: AtomicU64,
}

impl IdGenerator {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, count: AtomicU64::new(0) }
    }

    /// Performs one step of splitmix64.
    fn bits(&self) -> u64 {
        let n = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(self.seed);
        let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns the prefix and a UUID.
    pub(super) fn uuid(&self, prefix: &str) -> String {
        let (a, b) = (self.bits(), self.bits());
        format!(
            "{prefix}{:08x}-{:04x}-5{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    /// Returns sixteen hexadecimal digits.
    pub(super) fn trace(&self) -> String {
        format!("{:016x}", self.bits())
    }

    /// Returns twenty-four hexadecimal digits.
    pub(super) fn session(&self) -> String {
        format!("{:016x}{:08x}", self.bits(), self.bits() >> 32)
    }

    /// Returns a name that is too long to be guessed.
    pub(super) fn secret(&self) -> String {
        format!("{:016x}{:016x}", self.bits(), self.bits())
    }
}
