//! A concurrent map with one lock per part.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;

use super::platform_state::locked;

/// A map in 64 parts.
pub(super) struct ShardedMap<V> {
    parts: Vec<Mutex<HashMap<String, V>>>,
    hasher: RandomState,
}

impl<V> Default for ShardedMap<V> {
    fn default() -> Self {
        Self { parts: (0..64).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl<V> ShardedMap<V> {
    /// Calls `f` with the part of the key.
    pub(super) fn with<R>(&self, key: &str, f: impl FnOnce(&mut HashMap<String, V>) -> R) -> R {
        let part = usize::try_from(self.hasher.hash_one(key) % 64).unwrap_or_default();
        match self.parts.get(part) {
            Some(part) => f(&mut locked(part)),
            None => f(&mut HashMap::new()),
        }
    }

    /// Empties the map, and returns its values.
    pub(super) fn take(&self) -> Vec<V> {
        self.parts.iter().flat_map(|part| std::mem::take(&mut *locked(part)).into_values()).collect()
    }

    pub(super) fn each(&self, mut f: impl FnMut(&V)) {
        for part in &self.parts {
            locked(part).values().for_each(&mut f);
        }
    }
}
