//! The owner's cache: the state of its conversations in Redis, so that the owner can prepare its commands.
//!
//! The owner of a partition is nearly its only writer, so it knows that state. It prepares the commands of an
//! accept or a write, and the script `guard.lua` carries them out. This is optimistic concurrency. Every change gives
//! a conversation a new version, and the script refuses any but the version that the owner knows.
//! The operation then goes to the script that decides for itself, whose answer fills the cache again (ADR 29).
//!
//! The cache shares the open messages with the conversations in memory, and holds no reply. An idle entry takes about 300
//! bytes.
//!
//! The time in prepared commands is one estimate for all servers. In a cluster it may differ from the clock of a master by
//! as much as the clocks of the masters differ from each other.

mod conversation;
mod open_message;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use conversation::{CachedConversation, EndedMessage, PreparedAccept, PreparedWrite};

use super::hint_codec::RemoteAccept;
use crate::domain::{AcceptedMessage, ConversationId, MessageId, Partition, Timestamp};
use crate::store::{Fence, Incarnation, StoreClock};

/// The age up to which an answer tells the store's time. Renewals of leases are answered far more often.
const CLOCK_AGE: Duration = Duration::from_secs(30);
/// The time for which a conversation without open messages stays active. Another message within it costs no more.
pub(super) const REST_AFTER: Duration = Duration::from_secs(30);
/// The limit of conversations that come to rest in one call, so that no script blocks others for long.
const TOGETHER: usize = 256;

/// The caches of all partitions.
#[derive(Debug)]
pub(super) struct OwnerCache {
    partitions: Box<[Mutex<CachedPartition>]>,
    /// The store's time, and when it was last told.
    clock: Mutex<Option<(StoreClock, Instant)>>,
}

/// The cache of one partition. It belongs to one claim.
#[derive(Debug, Default)]
struct CachedPartition {
    fence: Option<Fence>,
    conversations: HashMap<ConversationId, CacheEntry>,
}

#[derive(Debug)]
struct CacheEntry {
    /// The state in Redis, or `None` if the owner does not know it. An unknown conversation may have to come to rest too.
    conversation: Option<CachedConversation>,
    /// When the owner last changed or forgot it.
    touched: Timestamp,
    /// Whether the conversation has left memory. The entry stays until the conversation is at rest.
    left: bool,
}

/// A conversation that is to come to rest.
#[derive(Debug)]
pub(super) struct RestCandidate {
    pub(super) conversation: ConversationId,
    /// Its version; empty for an unknown one.
    pub(super) version: Box<str>,
    touched: Timestamp,
}

impl OwnerCache {
    pub(super) fn new() -> Self {
        let partitions = Partition::all().map(|_| Mutex::default()).collect();
        Self { partitions, clock: Mutex::default() }
    }

    /// Takes in the time of an answer.
    pub(super) fn observe(&self, now: Timestamp) {
        let heard = Instant::now();
        match &mut *lock(&self.clock) {
            Some((clock, at)) => {
                clock.observe(now);
                *at = heard;
            }
            none => *none = Some((StoreClock::new(now), heard)),
        }
    }

    /// Returns the store's time, unless the last answer is too old to tell it.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let clock = lock(&self.clock);
        let (clock, heard) = clock.as_ref()?;
        (heard.elapsed() < CLOCK_AGE).then(|| clock.now())
    }

    /// Keeps the state of a conversation that a script answered.
    pub(super) fn insert(&self, fence: Fence, of: &ConversationId, conversation: CachedConversation) {
        let touched = self.now().unwrap_or_default();
        let mut partition = self.partition(Partition::of(of));
        if partition.fence != Some(fence) {
            // Epochs rise, so a late answer of an older claim does not replace the cache of a newer one.
            if partition.fence.is_some_and(|known| known.epoch > fence.epoch) {
                return;
            }
            partition.conversations.clear();
            partition.fence = Some(fence);
        }
        let entry = CacheEntry { conversation: Some(conversation), touched, left: false };
        partition.conversations.insert(of.clone(), entry);
    }

    /// Prepares a change of a cached conversation at the store's time. `None` means that a script has to decide. The cache
    /// then forgets the conversation, which may be half changed.
    pub(super) fn prepare<T>(
        &self,
        fence: Fence,
        of: &ConversationId,
        prepare: impl FnOnce(&mut CachedConversation, Timestamp) -> Option<T>,
    ) -> Option<T> {
        let now = self.now()?;
        let mut partition = self.partition(Partition::of(of));
        if partition.fence != Some(fence) {
            return None;
        }
        let entry = partition.conversations.get_mut(of)?;
        let mut conversation = entry.conversation.take()?;
        let prepared = prepare(&mut conversation, now)?;
        (entry.conversation, entry.touched) = (Some(conversation), now);
        Some(prepared)
    }

    /// Adds a message that a script accepted, here or at another replica, if the cache has the version before.
    pub(super) fn accepted_by_script(
        &self,
        accepted: &Arc<AcceptedMessage>,
        sent: bool,
        change: RemoteAccept,
    ) {
        let of = &accepted.new.conversation;
        self.follow(of, |cached| cached.accepted_by_script(accepted, sent, change));
    }

    /// Adds a watcher that a script noted, if the cache has the version before.
    pub(super) fn note_watcher(
        &self,
        of: &ConversationId,
        id: MessageId,
        watcher: Incarnation,
        known: &str,
        version: &str,
    ) {
        self.follow(of, |cached| cached.note_watcher(id, watcher, known, version));
    }

    /// Follows a change that a script made. A version that does not fit stays: the guard refuses it if it is old.
    fn follow(&self, of: &ConversationId, change: impl FnOnce(&mut CachedConversation) -> bool) {
        let now = self.now().unwrap_or_default();
        let mut partition = self.partition(Partition::of(of));
        let Some(entry) = partition.conversations.get_mut(of) else { return };
        if entry.conversation.as_mut().is_some_and(change) {
            entry.touched = now;
        }
    }

    /// Forgets the state of a conversation, because the cache may be wrong.
    pub(super) fn forget(&self, of: &ConversationId) {
        let now = self.now().unwrap_or_default();
        if let Some(entry) = self.partition(Partition::of(of)).conversations.get_mut(of) {
            (entry.conversation, entry.touched) = (None, now);
        }
    }

    /// Removes a conversation that was erased. It must not come to rest.
    pub(super) fn remove(&self, of: &ConversationId) {
        self.partition(Partition::of(of)).conversations.remove(of);
    }

    /// Notes that the conversation has left memory.
    pub(super) fn leave(&self, of: &ConversationId) {
        let mut partition = self.partition(Partition::of(of));
        if let Some(entry) = partition.conversations.get_mut(of) {
            entry.left = true;
            // Only a conversation that must come to rest stays. Open messages take memory, and the next owner's read returns
            // them.
            if entry.conversation.as_ref().is_some_and(|known| known.version_to_rest().is_none()) {
                partition.conversations.remove(of);
            }
        }
    }

    /// Returns the conversations of the partition that have been idle for this time, as many as come to rest in one call.
    pub(super) fn to_rest(
        &self,
        fence: Fence,
        partition: Partition,
        idle_for: Duration,
    ) -> Vec<RestCandidate> {
        let now = self.now();
        let partition = self.partition(partition);
        if partition.fence != Some(fence) || now.is_none() && !idle_for.is_zero() {
            return Vec::new();
        }
        let now = now.unwrap_or_default();
        let idle = partition.conversations.iter().filter_map(|(of, entry)| {
            if now.since(entry.touched) < idle_for {
                return None;
            }
            let version = match &entry.conversation {
                Some(conversation) => conversation.version_to_rest()?,
                None => Box::default(),
            };
            Some(RestCandidate { conversation: of.clone(), version, touched: entry.touched })
        });
        idle.take(TOGETHER).collect()
    }

    /// Notes that these conversations are at rest, with their new version.
    pub(super) fn on_rest(
        &self,
        fence: Fence,
        partition: Partition,
        asked: &[RestCandidate],
        rested: &HashSet<ConversationId>,
        version: &str,
    ) {
        let mut partition = self.partition(partition);
        if partition.fence != Some(fence) {
            return;
        }
        for RestCandidate { conversation: of, version: known, touched } in asked {
            let Some(entry) = partition.conversations.get_mut(of) else { continue };
            if entry.touched > *touched {
                continue;
            }
            let unchanged = match &mut entry.conversation {
                Some(conversation) if !conversation.has_version(known) => continue,
                Some(conversation) if rested.contains(of) => {
                    conversation.rest(version);
                    true
                }
                // Another replica changed it, or nothing is known of it. Its next write goes to a script.
                _ => false,
            };
            if !unchanged || entry.left {
                partition.conversations.remove(of);
            }
        }
    }

    /// Returns the claims whose conversations are cached.
    #[cfg(feature = "test-support")]
    pub(super) fn fences(&self) -> Vec<(Partition, Fence)> {
        Partition::all().filter_map(|partition| Some((partition, self.partition(partition).fence?))).collect()
    }

    /// Forgets the store's time, because a test has moved its clock.
    #[cfg(feature = "test-support")]
    pub(super) fn forget_time(&self) {
        *lock(&self.clock) = None;
    }

    #[expect(clippy::indexing_slicing, reason = "there is one of each partition")]
    fn partition(&self, partition: Partition) -> MutexGuard<'_, CachedPartition> {
        lock(&self.partitions[partition.index()])
    }
}

/// Locks, also after a panic elsewhere: it leaves an entry that the guard refuses.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
