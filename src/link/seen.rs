//! Which of the platform's messages were taken already.

use std::collections::VecDeque;

use crate::domain::Fingerprint;

/// The newest message ids. The platform repeats frames after reconnects (protocol.md 5.6) and its history holds
/// what the socket brought; both carry the same `messageId`.
#[derive(Debug, Default)]
pub(crate) struct Seen(VecDeque<Fingerprint>);

impl Seen {
    /// A repeat comes within a reconnect or a page of history: more need not be kept.
    const KEPT: usize = 128;

    /// Takes an id; false where it was taken before.
    pub(crate) fn insert(&mut self, id: Fingerprint) -> bool {
        if self.0.contains(&id) {
            return false;
        }
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(id);
        true
    }

    /// Whether it was taken before.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.contains(&Fingerprint::of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest_and_stays_small() {
        let mut seen = Seen::default();
        for i in 0..1000 {
            assert!(seen.insert(Fingerprint::of(&format!("ms-{i}"))));
            assert!(!seen.insert(Fingerprint::of(&format!("ms-{i}"))));
        }
        assert!(seen.contains("ms-999") && seen.contains("ms-900"));
        assert!(seen.insert(Fingerprint::of("ms-1")), "old ones are forgotten");
        assert_eq!(seen.0.len(), Seen::KEPT);
    }
}
