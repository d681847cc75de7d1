//! The platform's messages that were journaled already.

use std::collections::VecDeque;

use crate::domain::Fingerprint;

/// The newest message ids. The platform repeats frames after reconnects (protocol.md 5.6), and its history holds the
/// replies of sockets too. Both carry the same `messageId`.
#[derive(Debug, Default)]
pub(crate) struct DedupWindow(VecDeque<Fingerprint>);

impl DedupWindow {
    /// The size of the window. A repeat comes within a reconnect or a page of history.
    const CAPACITY: usize = 128;

    /// Inserts an id. Returns false if the window holds it.
    pub(crate) fn insert(&mut self, id: Fingerprint) -> bool {
        if self.0.contains(&id) {
            return false;
        }
        if self.0.len() == Self::CAPACITY {
            self.0.pop_front();
        }
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
        for i in 0..1000 {
            assert!(window.insert(Fingerprint::of(&format!("ms-{i}"))));
            assert!(!window.insert(Fingerprint::of(&format!("ms-{i}"))));
        }
        assert!(window.contains("ms-999") && window.contains("ms-900"));
        assert!(window.insert(Fingerprint::of("ms-1")), "the oldest ids are forgotten");
        assert_eq!(window.0.len(), DedupWindow::CAPACITY);
    }
}
