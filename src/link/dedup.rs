//! The platform's messages that were journaled already.

use std::collections::VecDeque;

use crate::domain::Fingerprint;

/// The newest message ids. The platform repeats frames after reconnects (protocol.md 5.6), and its history holds the
/// replies of sockets too. Both carry the same `messageId`.
#[derive(Debug, Default)]
pub(crate) struct DedupWindow(VecDeque<Fingerprint>);

impl DedupWindow {
    /// The usual size. A repeat comes within a reconnect.
    const CAPACITY: usize = 128;
    /// The size during a backfill. Its last read may come more than a minute after the connect, and begins at the start of
    /// the gap.
    const BACKFILL_CAPACITY: usize = 1024;

    /// Inserts an id. Returns false if the window holds it. The window forgets less while `backfilling`.
    pub(crate) fn insert(&mut self, id: Fingerprint, backfilling: bool) -> bool {
        if self.0.contains(&id) {
            return false;
        }
        let capacity = if backfilling { Self::BACKFILL_CAPACITY } else { Self::CAPACITY };
        let over = (self.0.len() + 1).saturating_sub(capacity);
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
        for (backfilling, capacity) in [(false, 128), (true, 1024)] {
            let mut window = DedupWindow::default();
            for i in 0..2000 {
                assert!(window.insert(Fingerprint::of(&format!("ms-{i}")), backfilling));
                assert!(!window.insert(Fingerprint::of(&format!("ms-{i}")), backfilling));
            }
            assert_eq!(window.0.len(), capacity);
            assert!(window.contains("ms-1999") && window.contains(&format!("ms-{}", 2000 - capacity)));
            assert!(window.insert(Fingerprint::of("ms-1"), false), "the oldest ids are forgotten");
            assert_eq!(window.0.len(), DedupWindow::CAPACITY, "the backfill is over");
        }
    }
}
