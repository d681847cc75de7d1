//! The start of a gap.

use super::super::platform_clock::PlatformClock;
use crate::domain::{Fingerprint, FirstGap, Timestamp};

/// Where the gap begins.
#[derive(Debug)]
pub(crate) struct GapStart {
    /// The newest message of the platform before the gap. It stays until history was read behind it, because the
    /// replies of the next socket lie behind the gap.
    pub(super) after: Option<Box<str>>,
    /// That message and some before it.
    pub(super) before: Box<[Fingerprint]>,
    /// The replies that an earlier owner stored while it closed the same gap.
    pub(super) backfilled: Box<[Fingerprint]>,
    /// An older message does not belong to the gap.
    pub(super) oldest: Option<Timestamp>,
    /// Its start if no message of the platform is known before the gap.
    pub(super) first: Option<FirstGap>,
    /// A message that history showed behind that one, and before those of the gap. Reads begin there, because the newest
    /// page may soon lack some of the gap.
    pub(super) shown: Option<Box<str>>,
}

impl GapStart {
    /// Moves the start behind this message.
    pub(super) fn move_to(&mut self, id: Box<str>) {
        self.before = Box::new([Fingerprint::of(&id)]);
        self.after = Some(id);
    }

    /// Returns the message behind which a read begins. Without one it is of the newest page.
    pub(super) fn reads_behind(&self) -> Option<&str> {
        self.after.as_deref().or(self.shown.as_deref())
    }

    /// Returns whether a message of this time may be of the gap or from before it, because no clock tells that exactly.
    pub(crate) fn may_cover(&self, created_on: Option<Timestamp>, clock: &PlatformClock) -> bool {
        let first = self.first.filter(|_| self.after.is_none());
        first.is_some_and(|first| created_on.is_none_or(|at| at >= clock.earliest(first.since)))
    }

    /// Returns whether this message was known before the gap.
    pub(crate) fn is_before(&self, id: &str) -> bool {
        self.before.contains(&Fingerprint::of(id))
    }

    /// Returns whether this message, of this time, is older than the gap.
    pub(crate) fn is_too_old(&self, id: Option<&str>, created_on: Option<Timestamp>) -> bool {
        self.oldest.zip(created_on).is_some_and(|(oldest, at)| at < oldest)
            && !id.is_some_and(|id| self.backfilled.contains(&Fingerprint::of(id)))
    }

    /// Returns the number of our message with which the gap begins.
    pub(crate) fn begins_with(&self) -> Option<u64> {
        self.first.filter(|_| self.after.is_none())?.own
    }
}
