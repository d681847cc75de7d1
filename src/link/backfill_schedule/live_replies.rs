//! The replies that arrive while a gap is open.

use crate::domain::{RecentReplies, Timestamp};

/// A reply of the platform by id and time.
pub(crate) type ReplyMark = (Option<Timestamp>, Box<str>);

/// The replies that arrived while the gap was open.
#[derive(Debug)]
pub(super) struct LiveReplies {
    /// The first one. If the bot said nothing before the gap, every later message was missed or is known.
    pub(super) first: Option<ReplyMark>,
    /// The newest one by the platform's time.
    pub(super) newest: Option<ReplyMark>,
    /// The number of replies since the record's message moved.
    pub(super) since_record: usize,
}

impl LiveReplies {
    /// Adds a reply. Returns whether the record keeps its message. `has_start` says that a message before the gap is known.
    pub(super) fn add(&mut self, id: &str, created_on: Option<Timestamp>, has_start: bool) -> bool {
        let newest = self.newest.as_ref().and_then(|(newest, _)| *newest);
        // Without times, the last one is the newest.
        if created_on.is_none() || newest <= created_on {
            self.newest = Some((newest.max(created_on), id.into()));
        }
        self.since_record += 1;
        // Without a message before the gap, a new owner needs the first one behind it.
        let has_place = has_start || self.first.is_some();
        let keeps = has_place && self.since_record < RecentReplies::MOST / 2;
        self.first.get_or_insert_with(|| (created_on, id.into()));
        if !keeps {
            self.since_record = 0;
        }
        keeps
    }
}
