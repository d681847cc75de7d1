//! The fair division of a limited resource between holders, such as callers or bots.
//!
//! A holder may take more as long as it then holds no more than the rest that is free (dynamic thresholds). One greedy
//! holder so gets half of the limit, and two get a third each. A holder that comes later always finds room. Without a second holder only
//! the limit counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The places of callers in a share. Callers beyond them share places, so that the memory of a share is bounded.
pub const CALLER_PLACES: usize = 1024;

/// A limited resource and its holders. Its unit is up to the user of this type: places or bytes.
#[derive(Debug)]
pub struct FairShare {
    limit: AtomicUsize,
    /// Whether several holders share it.
    is_shared: AtomicBool,
    taken: AtomicUsize,
    by_holder: Box<[AtomicUsize]>,
}

/// A holder's part of a [`FairShare`], which is given back when it is dropped.
#[derive(Debug)]
pub struct SharePermit {
    share: Arc<FairShare>,
    holder: Option<usize>,
    amount: usize,
}

impl FairShare {
    /// Creates a resource with this limit for this number of holders.
    pub fn new(limit: usize, holders: usize) -> Arc<Self> {
        let by_holder = (0..holders).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            is_shared: AtomicBool::new(holders > 1),
            taken: AtomicUsize::new(0),
            by_holder,
        })
    }

    /// Returns a permit for nothing, which can grow. Without a holder only the limit counts.
    pub const fn empty_permit(self: Arc<Self>, holder: Option<usize>) -> SharePermit {
        SharePermit { share: self, holder, amount: 0 }
    }

    /// Takes an amount for a holder. Returns `None` if it is not free, or more than the holder's share.
    pub fn acquire(self: &Arc<Self>, holder: Option<usize>, amount: usize) -> Option<SharePermit> {
        let mut permit = Arc::clone(self).empty_permit(holder);
        permit.try_grow(amount).then_some(permit)
    }

    /// Returns the sum of all permits.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Returns the limit.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes whether several holders share it. A single holder may have everything.
    pub fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Changes the limit. Permits above a smaller one stay until they are dropped.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the amount of a holder.
    pub fn held(&self, holder: Option<usize>) -> usize {
        self.counter(holder).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    fn counter(&self, holder: Option<usize>) -> Option<&AtomicUsize> {
        self.by_holder.get(holder?)
    }

    /// Adds an amount. Returns what was free and what the holder had before.
    fn add(&self, holder: Option<usize>, amount: usize) -> (usize, usize) {
        let taken = self.taken.fetch_add(amount, Ordering::Relaxed);
        let held = self.counter(holder).map_or(0, |held| held.fetch_add(amount, Ordering::Relaxed));
        (self.limit().saturating_sub(taken), held)
    }

    fn remove(&self, holder: Option<usize>, amount: usize) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
        if let Some(held) = self.counter(holder) {
            held.fetch_sub(amount, Ordering::Relaxed);
        }
    }
}

impl SharePermit {
    /// Adds an amount to the permit. Returns `false` without a change if it is not free, or more than the holder's share.
    pub fn try_grow(&mut self, amount: usize) -> bool {
        // The sum comes before the check, so that two concurrent requests cannot both take the rest.
        let (free, held) = self.share.add(self.holder, amount);
        let shared = self.share.is_shared.load(Ordering::Relaxed) && self.holder.is_some();
        let fair = held.saturating_add(amount.saturating_mul(2)) <= free.saturating_add(1);
        let fits = amount <= free && (fair || !shared);
        if fits {
            self.amount += amount;
        } else {
            self.share.remove(self.holder, amount);
        }
        fits
    }

    /// Adds an amount that exists already, even above the limit.
    pub fn charge(&mut self, amount: usize) {
        self.share.add(self.holder, amount);
        self.amount += amount;
    }

    /// Gives back everything above this amount.
    pub fn shrink_to(&mut self, amount: usize) {
        let excess = self.amount.saturating_sub(amount);
        self.share.remove(self.holder, excess);
        self.amount -= excess;
    }

    /// Returns the holder.
    pub const fn holder(&self) -> Option<usize> {
        self.holder
    }

    /// Returns the amount.
    pub const fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        self.share.remove(self.holder, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets these holders take single places in turn until none gets another, and returns their counts.
    fn taken_by(limit: usize, holders: usize, greedy: usize) -> Vec<usize> {
        let share = FairShare::new(limit, holders);
        let mut permits = Vec::new();
        let mut counts = vec![0; greedy];
        loop {
            let before = permits.len();
            for (holder, count) in counts.iter_mut().enumerate() {
                if let Some(permit) = share.acquire(Some(holder), 1) {
                    permits.push(permit);
                    *count += 1;
                }
            }
            if permits.len() == before {
                // A holder that comes now finds room.
                assert!(holders == 1 || share.acquire(Some(greedy), 1).is_some());
                return counts;
            }
        }
    }

    #[test]
    fn greedy_holder_leaves_room_for_the_next() {
        assert_eq!(taken_by(100, 2, 1), [50]);
        assert_eq!(taken_by(99, 3, 2), [33, 33]);
        assert_eq!(taken_by(10, 1, 1), [10], "a single holder shares with no other");
        assert_eq!(FairShare::new(1, 2).acquire(Some(1), 1).map(|permit| permit.amount()), Some(1));
    }

    #[test]
    fn request_without_a_holder_takes_what_is_free() {
        let share = FairShare::new(10, 2);
        let most = share.acquire(None, 10);
        assert!(most.is_some() && share.acquire(None, 1).is_none());
    }

    #[test]
    fn charge_exceeds_the_limit_and_then_nothing_fits() {
        let share = FairShare::new(10, 0);
        let mut permit = Arc::clone(&share).empty_permit(None);
        permit.charge(25);
        assert_eq!((share.taken(), permit.try_grow(1), share.taken()), (25, false, 25));
        permit.shrink_to(4);
        assert_eq!((permit.amount(), share.taken()), (4, 4));
        assert!(permit.try_grow(6));
        drop(permit);
        assert_eq!(share.taken(), 0);
    }

    proptest! {
        /// The limit holds, no holder has more than half, and all of it comes back.
        #[test]
        fn shares_hold_for_any_requests(asks in prop::collection::vec((0usize..4, 0usize..40, any::<bool>()), 0..200)) {
            let share = FairShare::new(100, 4);
            let mut permits: Vec<(usize, SharePermit)> = Vec::new();
            for (holder, amount, gives_back) in asks {
                if gives_back && !permits.is_empty() {
                    permits.remove(amount % permits.len());
                }
                permits.extend(share.acquire(Some(holder), amount).map(|permit| (holder, permit)));
                let held = |holder| permits.iter().filter(|(of, _)| *of == holder).map(|(_, permit)| permit.amount()).sum::<usize>();
                prop_assert!((0..4).all(|holder| held(holder) <= 50));
                prop_assert_eq!((0..4).map(held).sum::<usize>(), share.taken());
                prop_assert!(share.taken() <= 100);
            }
            drop(permits);
            prop_assert_eq!(share.taken(), 0);
        }
    }
}
