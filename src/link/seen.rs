//! Which of the platform's messages were taken already.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The newest message ids, as hashes. The platform repeats frames after reconnects (protocol.md 5.6) and its
/// history holds what the socket brought; both carry the same `messageId`.
#[derive(Debug, Default)]
pub(crate) struct Seen(VecDeque<u64>);

impl Seen {
    /// A repeat comes within a reconnect or a page of history: more need not be kept.
    const KEPT: usize = 128;

    /// Takes an id; false where it was taken before.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let hash = hash(id);
        if self.0.contains(&hash) {
            return false;
        }
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(hash);
        true
    }

    /// Whether it was taken before.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.contains(&hash(id))
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest_and_stays_small() {
        let mut seen = Seen::default();
        for i in 0..1000 {
            assert!(seen.insert(&format!("ms-{i}")));
            assert!(!seen.insert(&format!("ms-{i}")));
        }
        assert!(seen.contains("ms-999") && seen.contains("ms-900"));
        assert!(seen.insert("ms-1"), "old ones are forgotten");
        assert_eq!(seen.0.len(), Seen::KEPT);
    }
}
