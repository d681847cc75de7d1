//! A place among so many that may be taken at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct ConcurrencyPermit(Arc<AtomicUsize>);

impl ConcurrencyPermit {
    /// One of the `limit` places that `open` counts; none where all are taken.
    pub(super) fn acquire(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        // Counted first and given back when dropped: two that come at once cannot both take the last place.
        let permit = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::Relaxed) < limit).then_some(permit)
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_up_to_the_limit_and_again_after_an_end() {
        let open = Arc::default();
        let first = ConcurrencyPermit::acquire(&open, 2);
        let second = ConcurrencyPermit::acquire(&open, 2);
        assert!(first.is_some() && second.is_some());
        assert!(ConcurrencyPermit::acquire(&open, 2).is_none());
        drop(first);
        assert!(ConcurrencyPermit::acquire(&open, 2).is_some());
        drop(second);
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
