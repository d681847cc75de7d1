//! Generates the ids, tokens and nonces of the platform.

use std::sync::atomic::{AtomicU64, Ordering};

use super::random_sequence::RandomSequence;

/// Generator of names that look random and follow from the seed.
pub(super) struct IdGenerator {
    seed: u64,
    count: AtomicU64,
}

impl IdGenerator {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, count: AtomicU64::new(0) }
    }

    fn bits(&self) -> u64 {
        mixed(self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(self.seed))
    }

    /// Returns random numbers for one list of steps.
    pub(super) fn random(&self) -> RandomSequence {
        RandomSequence::new(self.bits())
    }

    /// Returns the prefix and a UUID.
    pub(super) fn uuid(&self, prefix: &str) -> String {
        uuid(prefix, self.bits(), self.bits())
    }

    /// Returns the prefix and a UUID that is always the same for the name.
    pub(super) fn uuid_of(&self, prefix: &str, name: &str) -> String {
        let [a, b] = self.bits_of(prefix, name);
        uuid(prefix, a, b)
    }

    /// Returns twenty-four hexadecimal digits that are always the same for the name.
    pub(super) fn session_of(&self, kind: &str, name: &str) -> String {
        let [a, b] = self.bits_of(kind, name);
        format!("{a:016x}{:08x}", b >> 32)
    }

    fn bits_of(&self, kind: &str, name: &str) -> [u64; 2] {
        let bytes = kind.bytes().chain([0]).chain(name.bytes());
        let hash = bytes.fold(self.seed, |hash, byte| mixed(hash ^ u64::from(byte)));
        [hash, mixed(hash)]
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

/// Performs one step of splitmix64.
pub(super) fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn uuid(prefix: &str, a: u64, b: u64) -> String {
    format!(
        "{prefix}{:08x}-{:04x}-5{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_id_is_stable_and_differs_by_name() {
        let (ids, again) = (IdGenerator::new(1), IdGenerator::new(1));
        let _another = ids.uuid("u-");
        assert_eq!(ids.uuid_of("u-", "ann"), again.uuid_of("u-", "ann"));
        assert_ne!(ids.uuid_of("u-", "ann"), ids.uuid_of("u-", "bob"));
        assert_ne!(ids.session_of("account", "ann"), ids.session_of("manager", "ann"));
        assert_ne!(ids.uuid("u-"), ids.uuid("u-"));
    }
}
