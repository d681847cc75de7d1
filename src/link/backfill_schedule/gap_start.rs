//! The start of a gap.

use crate::domain::{Fingerprint, Timestamp};

/// Where the gap begins.
#[derive(Debug)]
pub(super) struct GapStart {
    /// The newest message of the platform before the gap. It stays until history was read behind it, because the
    /// replies of the next socket lie behind the gap.
    pub(super) after: Option<Box<str>>,
    /// That message and some before it.
    pub(super) before: Box<[Fingerprint]>,
    /// The replies that an earlier owner stored while it closed the same gap.
    pub(super) backfilled: Box<[Fingerprint]>,
    /// An older message does not belong to the gap.
    pub(super) oldest: Option<Timestamp>,
    /// If no message of the platform is known before the gap: its start by time.
    pub(super) since: Option<Timestamp>,
    /// If no message of the platform is known before the gap: the number of our message with which it begins.
    pub(super) own: Option<u64>,
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
}
