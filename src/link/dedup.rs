//! The platform's messages that were journaled already.

use std::collections::VecDeque;

use crate::domain::Fingerprint;

/// The newest message ids. The platform repeats frames after reconnects (protocol.md 5.6), and its history holds the
/// replies of sockets too. Both carry the same `messageId`.
///
/// A new owner fills the window from the journal, so it knows what earlier owners told.
#[derive(Debug, Default)]
pub(crate) struct DedupWindow(VecDeque<Fingerprint>);

impl DedupWindow {
    /// At least as many as a journal has entries. A quiet conversation has few, and needs little memory.
    const CAPACITY: usize = 1024;

    /// Inserts an id. Returns false if the window holds it.
    pub(crate) fn insert(&mut self, id: Fingerprint) -> bool {
        if self.0.contains(&id) {
            return false;
        }
        let over = (self.0.len() + 1).saturating_sub(Self::CAPACITY);
        self.0.drain(..over);
        self.0.push_back(id);
        true
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.contains(&Fingerprint::of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dedup_window_forgets_the_oldest_ids() {
        let mut window = DedupWindow::default();
        for i in 0..2000 {
            assert!(window.insert(Fingerprint::of(&format!("ms-{i}"))));
            assert!(!window.insert(Fingerprint::of(&format!("ms-{i}"))));
        }
        assert_eq!(window.0.len(), DedupWindow::CAPACITY);
        assert!(window.contains("ms-1999") && window.contains("ms-976"));
        assert!(window.insert(Fingerprint::of("ms-1")), "the oldest ids are forgotten");
    }
}
