//! What a broken link leaves open while a message is out: did the platform get it, and what did we miss?
//!
//! The platform replays nothing to a new socket (protocol.md 5.6); its history is the only witness, and how soon
//! a message shows up there is not known (7.10). So history is read at the reconnect, and again until
//! `history_settle` has passed.

use std::time::Duration;

use crate::domain::Timestamp;

/// Pages read in one go at most; each has about ten messages.
const MAX_PAGES: u8 = 10;

/// The repair of one turn over one or more losses.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    /// The newest message of the platform that was known at the loss: the gap begins after it. It stays, because
    /// what arrives over the next socket lies behind the gap.
    gap_after: Option<Box<str>>,
    /// Where the page to read begins.
    cursor: Option<Box<str>>,
    /// Whether our own message stood on an earlier page of the read.
    own_found: bool,
    /// Since when a link is there again.
    since: Option<Timestamp>,
    reads: u8,
    pages: u8,
    read: Read,
    unreadable: bool,
    next_read: Option<Timestamp>,
}

/// Whether the answer to a read is to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Read {
    #[default]
    None,
    Asked,
    /// It was asked for before the last loss: its answer says nothing.
    Stale,
}

/// What is to be done about it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// Read history.
    Read,
    /// History has said all it will say.
    Done,
}

impl Repair {
    /// The link was just lost; `gap_after` is the newest message of the platform that is known, `reading` says
    /// whether an answer to an earlier read is still to come.
    pub(crate) fn new(gap_after: Option<Box<str>>, reading: bool) -> Self {
        let read = if reading { Read::Stale } else { Read::None };
        Self { gap_after, read, ..Self::default() }
    }

    /// A link is there again.
    pub(crate) fn on_connected(&mut self, now: Timestamp) {
        self.since = Some(now);
        self.next_read = Some(now);
    }

    /// The link was lost again.
    pub(crate) fn on_lost(&mut self) {
        *self = Self::new(self.gap_after.take(), self.read != Read::None);
    }

    /// An answer came; false where it is not of this repair's read.
    pub(crate) fn on_answer(&mut self) -> bool {
        std::mem::take(&mut self.read) != Read::Stale
    }

    /// Our own message stands in history.
    pub(crate) const fn on_own_found(&mut self) {
        self.own_found = true;
    }

    /// Whether our own message stood on an earlier page of this read.
    pub(crate) const fn is_own_found(&self) -> bool {
        self.own_found
    }

    /// The last page ended with this message, and others follow; none where it was the last page.
    pub(crate) fn on_page(&mut self, next: Option<Box<str>>, now: Timestamp, settle: Duration) {
        self.pages += 1;
        if next.is_some() && self.gap_after.is_some() && self.pages < MAX_PAGES {
            self.cursor = next;
            self.next_read = Some(now);
        } else {
            self.on_read(now, settle);
        }
    }

    /// A page could not be read.
    pub(crate) fn on_failure(&mut self, for_good: bool, now: Timestamp, settle: Duration) {
        self.unreadable |= for_good;
        self.on_read(now, settle);
    }

    fn on_read(&mut self, now: Timestamp, settle: Duration) {
        self.pages = 0;
        self.cursor = None;
        self.own_found = false;
        self.reads = self.reads.saturating_add(1);
        let end = self.since.unwrap_or(now) + settle;
        // At the start, in the middle and at the end; twice at least, however short the time is.
        self.next_read = if self.reads == 1 {
            Some(end - settle / 2).map(|at| at.max(now))
        } else if now < end {
            Some(end)
        } else {
            None
        };
    }

    /// What to do now; a read counts as begun.
    pub(crate) fn step(&mut self, now: Timestamp, history: bool) -> Step {
        let Some(_) = self.since else { return Step::Wait };
        if !history || self.unreadable {
            return Step::Done;
        }
        if self.read != Read::None {
            return Step::Wait;
        }
        match self.next_read {
            None => Step::Done,
            Some(at) if now >= at => {
                self.read = Read::Asked;
                self.next_read = None;
                Step::Read
            }
            Some(_) => Step::Wait,
        }
    }

    /// After which message the read that is due begins.
    pub(crate) fn read_after(&self) -> Option<Box<str>> {
        self.cursor.clone().or_else(|| self.gap_after.clone())
    }

    /// When the next read is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.next_read.filter(|_| self.read == Read::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn reads_at_the_start_in_the_middle_and_at_the_end() {
        let mut repair = Repair::new(Some("ms-0".into()), false);
        assert_eq!(repair.step(at(0), true), Step::Wait, "no link yet");
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), true), Step::Read);
        assert_eq!(repair.step(at(1), true), Step::Wait, "one read at a time");
        assert!(repair.on_answer());
        repair.on_page(None, at(10), SETTLE);
        assert_eq!(repair.step(at(1499), true), Step::Wait);
        assert_eq!(repair.step(at(1500), true), Step::Read);
        assert!(repair.on_answer());
        repair.on_failure(false, at(1600), SETTLE);
        assert_eq!(repair.wake_at(), Some(at(3000)));
        assert_eq!(repair.step(at(3000), true), Step::Read);
        assert!(repair.on_answer());
        repair.on_page(None, at(3001), SETTLE);
        assert_eq!(repair.step(at(3001), true), Step::Done);
    }

    #[test]
    fn reads_twice_even_without_time() {
        let mut repair = Repair::new(Some("ms-0".into()), false);
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), true), Step::Read);
        assert!(repair.on_answer());
        repair.on_page(None, at(5), Duration::ZERO);
        assert_eq!(repair.step(at(5), true), Step::Read);
        assert!(repair.on_answer());
        repair.on_page(None, at(9), Duration::ZERO);
        assert_eq!(repair.step(at(9), true), Step::Done);
    }

    #[test]
    fn follows_pages_but_not_for_ever() {
        let mut repair = Repair::new(Some("ms-0".into()), false);
        repair.on_connected(at(0));
        for _ in 0..MAX_PAGES {
            assert_eq!(repair.step(at(0), true), Step::Read);
            assert!(repair.on_answer());
            repair.on_page(Some("ms-1".into()), at(0), SETTLE);
        }
        assert_eq!(repair.step(at(0), true), Step::Wait);
    }

    #[test]
    fn without_history_there_is_nothing_to_learn() {
        let mut repair = Repair::new(Some("ms-0".into()), false);
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), false), Step::Done);
        repair.on_lost();
        assert_eq!(repair.step(at(0), true), Step::Wait);
        repair.on_connected(at(9));
        assert_eq!(repair.step(at(9), true), Step::Read);
        assert!(repair.on_answer());
        repair.on_failure(true, at(9), SETTLE);
        assert_eq!(repair.step(at(9), true), Step::Done);
    }

    #[test]
    fn an_answer_of_an_earlier_loss_says_nothing() {
        let mut repair = Repair::new(None, false);
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), true), Step::Read);
        repair.on_lost();
        repair.on_connected(at(10));
        assert_eq!(repair.step(at(10), true), Step::Wait, "one read at a time");
        assert_eq!(repair.wake_at(), None);
        assert!(!repair.on_answer());
        assert_eq!(repair.step(at(20), true), Step::Read);
        assert!(repair.on_answer());
    }

    #[test]
    fn pages_follow_each_other_and_reads_begin_at_the_gap() {
        let mut repair = Repair::new(Some("ms-0".into()), false);
        repair.on_connected(at(0));
        assert_eq!(repair.step(at(0), true), Step::Read);
        assert_eq!(repair.read_after().as_deref(), Some("ms-0"));
        assert!(repair.on_answer());
        repair.on_page(Some("ms-10".into()), at(1), SETTLE);
        assert_eq!(repair.step(at(1), true), Step::Read);
        assert_eq!(repair.read_after().as_deref(), Some("ms-10"));
        assert!(repair.on_answer());
        repair.on_page(None, at(2), SETTLE);
        assert_eq!(repair.step(at(1500), true), Step::Read);
        assert_eq!(repair.read_after().as_deref(), Some("ms-0"));
    }
}
