//! When history is read to close a gap, and from where.
//!
//! The platform replays nothing to a new socket (protocol.md 5.6); its history is the only witness of what was said
//! meanwhile, and how soon a message shows up there is not known (7.10). So history is read at the connect and again
//! when `history_settle` has passed, in between too where a turn waits for it. What its pages mean is decided by the
//! machine (`machine/gaps`).
//!
//! What the platform answers to an id that it does not know is not documented, and an empty page after the newest
//! known message may mean that nothing was said or that the message is forgotten. So where nothing showed that
//! history still knows it, the last read is of the newest page. That message, or one before it, stands on it; or so
//! much was said since that another read behind it brings something; or history does not reach back to the gap.

mod reach;

use std::time::Duration;

use self::reach::Reach;
pub(crate) use self::reach::Trust;
use crate::domain::{Fingerprint, GapReason, RecentReplies, Timestamp};

/// Pages of one read at most; each has about ten messages. The next read goes on behind them.
const MAX_PAGES: u8 = 10;
/// When history is read again that could not be read, or told too little, by its time.
const RETRIES: [Duration; 2] = [Duration::from_secs(15), Duration::from_mins(1)];

/// Why something may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No socket was open: nobody knows for how long.
    Away,
    /// A socket was lost while the session lived.
    Lost,
    /// Nothing was lost that we know of, but the turn is stuck: one look.
    Stuck,
}

/// A gap in what we know, over one or more losses, until history has closed it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and any of them may hold at once"
)]
pub(crate) struct Repair {
    cause: Cause,
    /// The newest message of the platform before the gap. It stays until history was read behind it, because what
    /// arrives over the next socket lies behind the gap.
    after: Option<Box<str>>,
    /// It and some before it.
    before: Box<[Fingerprint]>,
    /// What an earlier owner took while he repaired the same gap.
    taken: Box<[Fingerprint]>,
    /// Nothing that is older belongs to the gap.
    floor: Option<Timestamp>,
    /// The first message since it began, with its time. Where the bot had said nothing before, whatever is later was
    /// missed, or is known.
    mark: Option<(Option<Timestamp>, Box<str>)>,
    /// The newest message since, by the platform's time.
    newest: Option<(Option<Timestamp>, Box<str>)>,
    /// How many replies came since the record's message moved.
    kept: usize,
    /// Since when a link is there again.
    since: Option<Timestamp>,
    read: Read,
    next_read: Option<Timestamp>,
    /// Where the page to read begins, within a read of several.
    cursor: Option<Box<str>>,
    /// The user's last message on the pages of this read.
    spoken: Option<Spoken>,
    pages: u8,
    reads: u8,
    retries: u8,
    reach: Reach,
    /// Whether the read that is due is the last of the regular ones, or comes after them.
    is_late: bool,
    /// Whether the page under way is the newest one.
    newest_page: bool,
    /// Whether the last read was cut at [`MAX_PAGES`].
    cut: bool,
    /// Whether a record on it could not be joined to anything yet.
    held: bool,
    /// The regular reads are over.
    settled: bool,
    end: Option<End>,
}

/// One of the user's messages, by the id it was sent with; none where that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spoken(pub(crate) Option<u64>);

/// Whether the answer to a read is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    None,
    Asked,
    /// It was asked for before the last loss: its answer says nothing by what it lacks.
    Stale,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Read,
    Unreadable,
}

/// What is to be done about it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// Read history.
    Read,
    /// It is over. What is still missing stays so, for this reason.
    Over(Option<GapReason>),
}

impl Repair {
    /// A gap behind `after`. `recent` are the newest replies, `reading` says whether an answer to an earlier read is
    /// still to come.
    pub(crate) fn new(
        cause: Cause,
        after: Option<Box<str>>,
        recent: &RecentReplies,
        floor: Option<Timestamp>,
        reading: bool,
    ) -> Self {
        let anchor = after.as_deref().map(Fingerprint::of);
        let known = recent.iter().position(|reply| Some(reply) == anchor).map_or(0, |at| at + 1);
        let mut before: Vec<_> = recent.iter().take(known).collect();
        if known == 0 {
            before.extend(anchor);
        }
        Self {
            cause,
            after,
            before: before.into(),
            taken: recent.iter().skip(known).filter(|_| known > 0).collect(),
            floor,
            mark: None,
            newest: None,
            kept: recent.iter().len().saturating_sub(known.max(1)),
            since: None,
            read: if reading { Read::Stale } else { Read::None },
            next_read: None,
            cursor: None,
            spoken: None,
            pages: 0,
            reads: 0,
            retries: 0,
            reach: Reach::Unknown,
            is_late: false,
            newest_page: false,
            cut: false,
            held: false,
            settled: false,
            end: None,
        }
    }

    /// These were cut in the middle: history tells them where they ended, which may be behind the beginning.
    pub(crate) fn leave_out(mut self, unfinished: &[Fingerprint]) -> Self {
        let before = std::mem::take(&mut self.before).into_vec();
        self.before = before.into_iter().filter(|id| !unfinished.contains(id)).collect();
        self
    }

    /// One look for a turn that is stuck while the link is there.
    pub(crate) fn probe(
        after: Option<Box<str>>,
        recent: &RecentReplies,
        floor: Option<Timestamp>,
        reading: bool,
        now: Timestamp,
    ) -> Self {
        let mut probe = Self::new(Cause::Stuck, after, recent, floor, reading);
        probe.on_connected(now);
        probe
    }

    /// A link is there again.
    pub(crate) fn on_connected(&mut self, now: Timestamp) {
        self.since = Some(now);
        self.next_read = Some(now);
    }

    /// The link is gone again.
    pub(crate) fn on_gone(&mut self, cause: Cause) {
        if cause == Cause::Lost || self.cause == Cause::Stuck {
            self.cause = cause;
        }
        self.read = if self.read == Read::None { Read::None } else { Read::Stale };
        (self.since, self.next_read) = (None, None);
        (self.reads, self.retries) = (0, 0);
        (self.settled, self.is_late, self.end) = (false, false, None);
        if self.reach != Reach::Shown {
            self.reach = Reach::Unknown;
        }
        self.begin_read();
    }

    /// Takes note of a reply that is journaled meanwhile. Whether the place from which a new owner would begin stays:
    /// it does while the record's newest replies tell him which ones he has.
    pub(crate) fn stays(&mut self, id: &str, created_on: Option<Timestamp>) -> bool {
        let is_newer = self.newest.as_ref().is_none_or(|(newest, _)| *newest <= created_on);
        if is_newer {
            self.newest = Some((created_on, id.into()));
        }
        self.kept += 1;
        // A new owner would have no place but the first message, where there was none before.
        let stays = (self.after.is_some() || self.mark.is_some()) && self.kept < RecentReplies::MOST / 2;
        self.mark.get_or_insert_with(|| (created_on, id.into()));
        if !stays {
            self.kept = 0;
        }
        stays
    }

    /// Whether nothing was lost that we know of.
    pub(crate) fn is_probe(&self) -> bool {
        self.cause == Cause::Stuck
    }

    /// The newest message since it began, with its time.
    pub(crate) fn into_newest(self) -> Option<(Option<Timestamp>, Box<str>)> {
        self.newest
    }

    /// An answer came; false where it is not of a read since the last loss.
    pub(crate) fn on_answer(&mut self) -> bool {
        std::mem::replace(&mut self.read, Read::None) == Read::Asked
    }

    /// Whether a message of this time, which follows none of ours, was missed: without a place where the gap begins
    /// it may be of any time before.
    pub(crate) fn reaches(&self, created_on: Option<Timestamp>) -> bool {
        let mark = self.mark.as_ref().and_then(|(mark, _)| *mark);
        self.after.is_some() || mark.zip(created_on).is_some_and(|(mark, at)| mark <= at)
    }

    /// Goes on behind the first message since it began, where there was none before and the newest page, whose oldest
    /// is of this time, does not reach back to it. Says whether it does so.
    pub(crate) fn on_newest_page(&mut self, oldest: Option<Timestamp>, now: Timestamp) -> bool {
        let (None, Cause::Away | Cause::Lost) = (&self.after, self.cause) else { return false };
        let Some((_, id)) =
            self.mark.take_if(|(mark, _)| mark.zip(oldest).is_some_and(|(mark, at)| mark < at))
        else {
            return false;
        };
        self.before = Box::new([Fingerprint::of(&id)]);
        self.after = Some(id);
        self.next_read = Some(now);
        true
    }

    /// Whether history shows all before a message of this time that it holds, once it is read for the last time. Of
    /// what was said since the link is there it may show the later before the earlier, and no other read follows.
    pub(crate) fn is_settled_before(&self, created_on: Option<Timestamp>) -> bool {
        !self.is_probe() && self.since.is_some_and(|since| created_on.is_none_or(|at| at < since))
    }

    /// Whether this message was known before.
    pub(crate) fn is_before(&self, id: &str) -> bool {
        let id = Fingerprint::of(id);
        self.before.contains(&id)
    }

    /// Whether this message, of this time, is too old to belong to it.
    pub(crate) fn is_too_old(&self, id: Option<&str>, created_on: Option<Timestamp>) -> bool {
        self.floor.zip(created_on).is_some_and(|(floor, at)| at < floor)
            && !id.is_some_and(|id| self.taken.contains(&Fingerprint::of(id)))
    }

    /// The user's last message on the pages of this read so far.
    pub(crate) const fn spoken(&self) -> Option<Spoken> {
        self.spoken
    }

    /// The pages of this read so far end behind this message of the user's.
    pub(crate) const fn on_spoken(&mut self, spoken: Option<Spoken>) {
        self.spoken = spoken;
    }

    /// What a page shows of how far history reaches. `knows_before` says that something stands on it that was known
    /// before the gap, `is_old` that something does that is older.
    pub(crate) fn on_reach(&mut self, knows_before: bool, is_empty: bool, is_old: bool) -> Trust {
        if self.after.is_none() || knows_before {
            self.reach = Reach::Shown;
            return Trust::All;
        }
        if self.newest_page {
            let trust;
            (self.reach, trust) = self.reach.of_newest(is_empty);
            return trust;
        }
        if is_empty || is_old {
            self.reach = self.reach.of_other(is_empty, self.pages > 0);
            return Trust::None;
        }
        self.reach = Reach::Shown;
        Trust::All
    }

    /// A page was taken. `next` is its last message where others follow, `held` says that not all of it could be
    /// taken. `urgent` says that a turn waits for this.
    pub(crate) fn on_page(
        &mut self,
        next: Option<Box<str>>,
        held: bool,
        urgent: bool,
        now: Timestamp,
        settle: Duration,
    ) {
        self.pages += 1;
        self.held |= held;
        let next = next.filter(|_| self.after.is_some() && !self.newest_page);
        if next.is_none() || self.pages == MAX_PAGES {
            let held = self.held;
            self.cut = next.is_some();
            // What is held has to be read once more.
            if let Some(next) = next.filter(|_| !held) {
                self.before = Box::new([Fingerprint::of(&next)]);
                self.after = Some(next);
            }
            self.on_read(!held, urgent, now, settle);
        } else {
            self.cursor = next;
            self.next_read = Some(now);
        }
    }

    /// A page could not be read.
    pub(crate) fn on_failure(&mut self, for_good: bool, urgent: bool, now: Timestamp, settle: Duration) {
        if for_good {
            self.finish(End::Unreadable);
        } else {
            self.on_read(false, urgent, now, settle);
        }
    }

    fn on_read(&mut self, done: bool, urgent: bool, now: Timestamp, settle: Duration) {
        self.begin_read();
        self.reads = self.reads.saturating_add(1);
        let end = self.since.unwrap_or(now) + settle;
        self.is_late = self.reads > 1 || !urgent || settle.is_zero();
        if self.cause == Cause::Stuck {
            self.finish(End::Read);
        } else if self.reads == 1 {
            // At the start, in the middle where it is urgent, and at the end; twice at least, however short it is.
            self.next_read = Some(if urgent { end - settle / 2 } else { end }.max(now));
        } else if now < end {
            self.next_read = Some(end);
        } else if done && matches!(self.reach, Reach::Doubtful | Reach::Suspect | Reach::Gone) {
            self.next_read = Some(now);
        } else if done {
            self.finish(End::Read);
        } else if let Some(&wait) = RETRIES.get(usize::from(self.retries)) {
            self.settled = true;
            self.retries += 1;
            self.next_read = Some(now + wait);
        } else {
            self.finish(End::Unreadable);
        }
    }

    fn begin_read(&mut self) {
        (self.pages, self.cursor, self.spoken, self.held) = (0, None, None, false);
    }

    fn finish(&mut self, end: End) {
        self.next_read = None;
        self.settled = true;
        self.end = Some(end);
    }

    /// Whether history has said all it will say within `history_settle`.
    pub(crate) const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether no other read would follow: what cannot be told apart now never will.
    pub(crate) fn is_last(&self) -> bool {
        usize::from(self.retries) == RETRIES.len()
    }

    /// What to do now; a read counts as begun.
    pub(crate) fn step(&mut self, now: Timestamp, history: bool) -> Step {
        if self.since.is_none() {
            return Step::Wait;
        }
        if !history {
            // Whoever switched it off knows that nothing is seen while no socket is open; a loss is news.
            return Step::Over((self.cause == Cause::Lost).then_some(GapReason::HistoryUnreadable));
        }
        match (self.end, self.next_read) {
            (Some(_), _) if self.cause == Cause::Stuck => Step::Over(None),
            (Some(End::Unreadable), _) => Step::Over(Some(GapReason::HistoryUnreadable)),
            (Some(End::Read), _) => Step::Over(self.cut.then_some(GapReason::HistoryTooShort)),
            (None, Some(at)) if now >= at && self.read == Read::None => {
                self.read = Read::Asked;
                self.next_read = None;
                let doubted = matches!(self.reach, Reach::Doubtful | Reach::Gone | Reach::Short);
                self.newest_page = self.after.is_none() || self.is_late && doubted;
                Step::Read
            }
            (None, _) => Step::Wait,
        }
    }

    /// After which message the read that is due begins; none for the newest page.
    pub(crate) fn read_after(&self) -> Option<Box<str>> {
        if self.newest_page { None } else { self.cursor.clone().or_else(|| self.after.clone()) }
    }

    /// When the next read is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.next_read.filter(|_| self.read == Read::None)
    }
}

#[cfg(test)]
mod tests;
