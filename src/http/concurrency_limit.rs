//! A limit of concurrent requests or streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A permit, returned when it is dropped.
#[derive(Debug)]
pub(super) struct ConcurrencyPermit(Arc<AtomicUsize>);

impl ConcurrencyPermit {
    /// Takes one of `limit` permits that `open` counts, or returns `None` if all are taken.
    pub(super) fn acquire(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        // The count comes before the check, so that two concurrent requests cannot both take the last permit.
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
    fn permits_are_limited_and_reusable() {
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
