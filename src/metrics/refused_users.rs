//! The users whose connects the platform refuses.
//!
//! A refused user may connect again with each message. A counter of connects therefore cannot tell one such user from
//! many.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::domain::UserId;

/// The time in which a user counts once.
const WINDOW: Duration = Duration::from_mins(10);

/// The most users that a table remembers, in about 200 KiB.
const MAX_USERS: usize = 4096;

/// Counter of one bot's refused users.
#[derive(Debug)]
pub(super) struct RefusedUserCounter {
    counter: IntCounter,
    /// Keyed by chance in each process, so that a hash tells no name.
    hasher: RandomState,
    recent: Mutex<RecentUsers>,
}

impl RefusedUserCounter {
    pub(super) fn new(counter: IntCounter) -> Self {
        Self { counter, hasher: RandomState::new(), recent: Mutex::default() }
    }

    /// Counts the user unless it was counted within ten minutes before.
    pub(super) fn refused(&self, user: &UserId, now: Instant) {
        let hash = self.hasher.hash_one(user);
        if self.recent.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, now) {
            self.counter.inc();
        }
    }
}

/// Hashes of the users that were counted within ten minutes.
#[derive(Debug, Default)]
struct RecentUsers {
    hashes: HashSet<u64>,
    /// The hashes with their times, oldest first.
    order: VecDeque<(Instant, u64)>,
}

impl RecentUsers {
    /// Returns whether the user counts now. A user that a full table cannot remember counts each time.
    fn insert(&mut self, hash: u64, now: Instant) -> bool {
        while let Some((_, expired)) = self.order.pop_front_if(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.hashes.remove(&expired);
        }
        if self.hashes.contains(&hash) {
            return false;
        }
        if self.order.is_empty() {
            *self = Self::default();
        }
        if self.order.len() < MAX_USERS {
            self.hashes.insert(hash);
            self.order.push_back((now, hash));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn user_in_any_ten_minutes_counts_once(
            refusals in prop::collection::vec((0u64..8, 0u64..200), 1..300),
        ) {
            let mut table = RecentUsers::default();
            let mut counted: HashMap<u64, Instant> = HashMap::new();
            let mut now = tokio::time::Instant::now().into_std();
            for (user, gap) in refusals {
                now += Duration::from_secs(gap);
                let is_due = counted.get(&user).is_none_or(|&at| now - at >= WINDOW);
                prop_assert_eq!(table.insert(user, now), is_due);
                if is_due {
                    counted.insert(user, now);
                }
            }
        }

        #[test]
        fn table_of_any_users_stays_within_its_bound(
            bursts in prop::collection::vec((0u64..5000, 1u64..900), 1..12),
        ) {
            let mut table = RecentUsers::default();
            let mut now = tokio::time::Instant::now().into_std();
            let mut next = 0;
            for (users, gap) in bursts {
                for user in next..next + users {
                    prop_assert!(table.insert(user, now), "a new user counts, also in a full table");
                }
                next += users;
                prop_assert!(table.order.len() <= MAX_USERS);
                prop_assert_eq!(table.hashes.len(), table.order.len());
                now += Duration::from_secs(gap);
            }
            table.insert(next, now + WINDOW);
            prop_assert_eq!(table.order.len(), 1);
            prop_assert!(table.order.capacity() <= 8, "an old burst keeps no memory");
        }
    }

    #[test]
    fn refused_user_is_in_the_table_without_a_name() {
        let refused = RefusedUserCounter::new(IntCounter::new("refused", "Refused users.").unwrap());
        let now = tokio::time::Instant::now().into_std();
        for _ in 0..300 {
            refused.refused(&UserId::new("alice").unwrap(), now);
        }
        refused.refused(&UserId::new("bob").unwrap(), now);
        assert_eq!(refused.counter.get(), 2);
        assert!(!format!("{refused:?}").contains("alice"));
    }
}
