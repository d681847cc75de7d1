//! The schedule of reads that close a gap, and where each read begins.
//!
//! The platform replays nothing to a new socket (protocol.md 5.6). Only its history has the words of the bot meanwhile,
//! and the delay until a message shows up there is not known (7.10). The machine therefore reads history:
//!
//! * at the connect,
//! * again when `history_settle` has passed,
//! * once in between if a turn waits for it.
//!
//! `machine/backfill` decides what the pages mean.
//!
//! The platform's answer to an unknown id is not documented. An empty page behind the newest known message has two
//! possible reasons: the bot said nothing, or history forgot that message. If no page showed a known message, the last
//! read is therefore of the newest page. Three results are possible:
//!
//! * The page holds a known message.
//! * The page holds only new messages, and another read behind the known message returns some of them.
//! * History does not reach back to the gap.

mod gap_start;
mod history_reach;
mod live_replies;
mod read_pages;
mod read_stage;

use std::time::Duration;

pub(crate) use self::gap_start::GapStart;
use self::history_reach::HistoryReach;
pub(crate) use self::history_reach::PageTrust;
use self::live_replies::LiveReplies;
pub(crate) use self::live_replies::ReplyMark;
use self::read_pages::ReadPages;
pub(crate) use self::read_pages::{PageSummary, UserRecord};
use self::read_stage::ReadStage;
use super::platform_clock::PlatformClock;
use crate::domain::{Fingerprint, FirstGap, GapReason, RecentReplies, Timestamp};

/// The waits before history is read again after a read that failed or told too little.
const RETRIES: [Duration; 2] = [Duration::from_secs(15), Duration::from_mins(1)];

/// Why replies may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GapCause {
    /// No socket was open for an unknown time.
    Away,
    /// A socket was lost while the session lived.
    Lost,
    /// No loss is known, but the turn is stuck: one read checks.
    Stuck,
}

/// The backfill of one gap, which may span several losses.
#[derive(Debug)]
pub(crate) struct Backfill {
    cause: GapCause,
    start: GapStart,
    live: LiveReplies,
    /// Whether a page reached back to the start of the gap.
    start_shown: bool,
    /// Whether a page was empty although the page before it said that more follows.
    promise_broken: bool,
    reach: HistoryReach,
    request: HistoryRequest,
    /// The reads over the current link, if there is one.
    reads: Option<ReadSeries>,
}

/// Whether an answer to a read is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HistoryRequest {
    Idle,
    Pending,
    /// The read began before the last loss, or beside the regular ones: a message that its answer lacks may exist.
    Stale,
}

/// The reads over one link.
#[derive(Debug)]
struct ReadSeries {
    since: Timestamp,
    stage: ReadStage,
    /// When the next page is due, while no request is pending.
    due: Timestamp,
    /// The number of the first message that was sent over the link, and never before. The gap ends there in history:
    /// the socket brings every later reply.
    end: Option<u64>,
    pages: ReadPages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadResult {
    Complete,
    /// The read stopped at its most pages.
    Cut,
    /// A record may be older than the gap.
    Doubtful,
    /// The read failed, or the owner of a record is not clear yet.
    Incomplete,
}

/// The next action of the machine for the gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackfillStep {
    Wait,
    /// Read history behind this message, or the newest page.
    Read(Option<Box<str>>),
    /// Close the gap. The reason tells what stays missing.
    Close(Option<GapReason>),
}

impl Backfill {
    /// Opens a gap behind `after`. `recent` are the newest replies. The `unfinished` ones count as unknown, because history
    /// tells them at their end, which may lie behind the start of the gap.
    pub(crate) fn new(
        cause: GapCause,
        after: Option<Box<str>>,
        recent: &RecentReplies,
        oldest: Option<Timestamp>,
        unfinished: &[Fingerprint],
    ) -> Self {
        let anchor = after.as_deref().map(Fingerprint::of);
        let known = recent.iter().position(|reply| Some(reply) == anchor).map_or(0, |at| at + 1);
        let mut before: Vec<_> = recent.iter().take(known).collect();
        if known == 0 {
            before.extend(anchor);
        }
        before.retain(|id| !unfinished.contains(id));
        let backfilled = recent.iter().skip(known).filter(|_| known > 0).collect();
        let since_record = recent.iter().len().saturating_sub(known.max(1));
        Self {
            cause,
            start: GapStart { after, before: before.into(), backfilled, oldest, first: None, shown: None },
            live: LiveReplies { first: None, newest: None, since_record },
            start_shown: false,
            promise_broken: false,
            reach: HistoryReach::Unknown,
            request: HistoryRequest::Idle,
            reads: None,
        }
    }

    /// Has the gap begin here, because no message of the platform is known before it. `live` is the first reply since.
    pub(crate) fn begins(mut self, first: FirstGap, live: Option<ReplyMark>) -> Self {
        (self.start.first, self.live.first) = (Some(first), live);
        self
    }

    /// Begins a read beside the regular ones, unless one is under way. Its page only tells what history has.
    #[expect(clippy::option_option, reason = "no read, or a read behind a message, or of the newest page")]
    pub(crate) fn look(&mut self) -> Option<Option<Box<str>>> {
        if self.request != HistoryRequest::Idle {
            return None;
        }
        self.request = HistoryRequest::Stale;
        Some(self.start.reads_behind().map(Into::into))
    }

    /// Starts the reads over a new link.
    pub(crate) fn on_connected(&mut self, now: Timestamp) {
        let pages = ReadPages::default();
        self.reads = Some(ReadSeries { since: now, stage: ReadStage::First, due: now, end: None, pages });
    }

    /// Notes a message that is sent for the first time.
    pub(crate) fn on_sent(&mut self, client_message_id: u64) {
        if let Some(reads) = &mut self.reads {
            reads.end.get_or_insert(client_message_id);
        }
    }

    /// Returns whether the gap ends before this message of the user.
    pub(crate) fn ends_before(&self, client_message_id: Option<u64>) -> bool {
        let end = self.reads.as_ref().and_then(|reads| reads.end);
        end.is_some() && end == client_message_id
    }

    /// Ends the reads: the link is gone again.
    pub(crate) fn on_gone(&mut self, cause: GapCause) {
        if cause == GapCause::Lost || self.is_probe() {
            self.cause = cause;
        }
        if self.request == HistoryRequest::Pending {
            self.request = HistoryRequest::Stale;
        }
        self.reads = None;
        // More replies than a page has may come until the next link.
        (self.start_shown, self.promise_broken) = (false, false);
        if self.reach != HistoryReach::Shown {
            self.reach = HistoryReach::Unknown;
        }
    }

    /// Notes a reply that is journaled while the gap is open. Returns whether the record keeps its message. It keeps the
    /// message as long as its newest replies still tell a new owner which ones are stored.
    pub(crate) fn on_live_reply(&mut self, id: &str, created_on: Option<Timestamp>) -> bool {
        self.live.add(id, created_on, self.start.after.is_some())
    }

    /// Returns the start of the gap.
    pub(crate) fn start(&self) -> &GapStart {
        &self.start
    }

    /// Returns whether no loss is known.
    pub(crate) fn is_probe(&self) -> bool {
        self.cause == GapCause::Stuck
    }

    /// Returns the newest reply since the gap began.
    pub(crate) fn into_newest(self) -> Option<ReplyMark> {
        self.live.newest
    }

    /// Notes an answer. Returns whether it answers a read since the last loss.
    pub(crate) fn on_answer(&mut self) -> bool {
        std::mem::replace(&mut self.request, HistoryRequest::Idle) == HistoryRequest::Pending
    }

    /// Returns whether an unsolicited message of this time was missed. If the gap has no start, the message may be of any
    /// earlier time. `is_behind_first` says that its page shows the first live reply before it.
    pub(crate) fn covers(
        &self,
        created_on: Option<Timestamp>,
        is_behind_first: bool,
        clock: &PlatformClock,
    ) -> bool {
        let first = self.live.first.as_ref().and_then(|(first, _)| *first);
        let since = self.start.first.map(|first| clock.of(first.since) - clock.tolerance());
        let starts = [first, since].into_iter().flatten();
        let is_later = created_on.is_some_and(|at| starts.into_iter().any(|start| start <= at));
        self.start.after.is_some() || is_behind_first || is_later
    }

    /// Returns the id of the first reply since the gap began.
    pub(crate) fn first_live(&self) -> Option<&str> {
        self.live.first.as_ref().map(|(_, id)| &**id)
    }

    /// Continues behind the first live reply if the gap has no start and the newest page does not reach back to that
    /// reply. `oldest` is the time of the page's first message. Returns whether it continues there, and whether no page
    /// showed what came before.
    pub(crate) fn on_newest_page(&mut self, oldest: Option<Timestamp>, now: Timestamp) -> Option<bool> {
        let (None, Some(reads), false) =
            (self.start.reads_behind(), &mut self.reads, self.cause == GapCause::Stuck)
        else {
            return None;
        };
        let is_behind =
            |first: &ReplyMark| oldest.is_some_and(|oldest| first.0.is_none_or(|first| first < oldest));
        let (_, id) = self.live.first.take_if(|first| is_behind(first))?;
        self.start.move_to(id);
        reads.due = now;
        Some(!self.start_shown)
    }

    /// Returns whether the last read shows every message before this time of ours. A message that was said over the
    /// current link may show up before an earlier one, and no read follows. Without a time, it may be such a message.
    pub(crate) fn is_settled_before(&self, said_at: Option<Timestamp>) -> bool {
        let since = self.reads.as_ref().map(|reads| reads.since);
        !self.is_probe() && since.zip(said_at).is_some_and(|(since, at)| at < since)
    }

    /// Returns whether the page of this read begins inside the gap.
    pub(crate) fn reads_inside(&self) -> bool {
        let is_newest = self.reads.as_ref().is_none_or(|reads| reads.pages.is_newest);
        self.start.after.is_none() && self.start.shown.is_some() && !is_newest
    }

    /// Begins further reads behind this message, which history shows before the first unclear message of the gap.
    pub(crate) fn on_start_shown(&mut self, id: Box<str>) {
        self.start.shown.get_or_insert(id);
    }

    /// Returns the user's last message on the pages of this read so far.
    pub(crate) fn user_message(&self) -> Option<UserRecord> {
        self.reads.as_ref()?.pages.user_message
    }

    /// Judges by a page how far history reaches. `knows_before` says that the page holds a message from before the gap,
    /// and `is_old` that it holds one that is too old. `is_whole` says that it holds all of history, or a message of the
    /// user that is not behind the start of the gap.
    #[expect(clippy::fn_params_excessive_bools, reason = "the four facts of a page, each independent")]
    pub(crate) fn on_reach(
        &mut self,
        knows_before: bool,
        is_empty: bool,
        is_old: bool,
        is_whole: bool,
    ) -> PageTrust {
        let Some(reads) = &mut self.reads else { return PageTrust::None };
        let is_first = matches!(reads.stage, ReadStage::First | ReadStage::Middle);
        reads.pages.reaches_start = is_whole || is_old;
        // The page before said that more follows, as the newest page of a long history does.
        let breaks_promise = is_empty && reads.pages.count > 0 && self.start.after.is_some();
        let has_start = self.start.reads_behind().is_some() || self.live.first.is_some() && self.start_shown;
        let needs_more = !has_start && !is_whole && !is_old;
        let (reach, trust) = if needs_more && !is_first || breaks_promise && self.promise_broken {
            self.reach.after_short_page()
        } else if self.start.after.is_none() || knows_before {
            (HistoryReach::Shown, PageTrust::All)
        } else if reads.pages.is_newest {
            self.reach.after_newest_page(is_empty)
        } else if is_empty || is_old {
            (self.reach.after_other_page(), PageTrust::None)
        } else {
            (HistoryReach::Shown, PageTrust::All)
        };
        self.reach = reach;
        self.promise_broken |= breaks_promise;
        trust
    }

    /// Notes a page. `urgent` says that a turn waits.
    pub(crate) fn on_page(&mut self, page: PageSummary, urgent: bool, now: Timestamp, settle: Duration) {
        let Some(reads) = &mut self.reads else { return };
        let pages = &mut reads.pages;
        pages.add(&page);
        let is_decided = !pages.has_doubtful && (!pages.has_unclear || self.start.shown.is_some());
        self.start_shown |= pages.reaches_start && is_decided;
        let next = page.next.filter(|_| self.start.reads_behind().is_some() && !pages.is_newest);
        if next.is_some() && !pages.are_full() {
            pages.cursor = next;
            reads.due = now;
            return;
        }
        let result = match next {
            // An unclear record has to be read once more.
            _ if pages.has_unclear => ReadResult::Incomplete,
            Some(next) => {
                self.start.move_to(next);
                ReadResult::Cut
            }
            None if pages.has_doubtful => ReadResult::Doubtful,
            None => ReadResult::Complete,
        };
        self.on_read(result, urgent, now, settle);
    }

    /// Notes a page that could not be read.
    pub(crate) fn on_failure(&mut self, for_good: bool, urgent: bool, now: Timestamp, settle: Duration) {
        if for_good {
            if let Some(reads) = &mut self.reads {
                let missing = (self.cause != GapCause::Stuck).then_some(GapReason::HistoryUnreadable);
                reads.stage = ReadStage::Ended(missing);
            }
        } else {
            self.on_read(ReadResult::Incomplete, urgent, now, settle);
        }
    }

    /// Schedules the next read, or ends the backfill.
    fn on_read(&mut self, result: ReadResult, urgent: bool, now: Timestamp, settle: Duration) {
        let Some(reads) = &mut self.reads else { return };
        reads.pages = ReadPages::default();
        let settled_at = reads.since + settle;
        let is_first = reads.stage == ReadStage::First;
        let retries = reads.stage.retries();
        (reads.stage, reads.due) = if self.cause == GapCause::Stuck {
            (ReadStage::Ended(None), now)
        } else if is_first && urgent && !settle.is_zero() {
            (ReadStage::Middle, (settled_at - settle / 2).max(now))
        } else if matches!(reads.stage, ReadStage::First | ReadStage::Middle) || now < settled_at {
            // There are two regular reads at least, however short `history_settle` is.
            (ReadStage::Last, settled_at.max(now))
        } else if result == ReadResult::Incomplete {
            match RETRIES.get(usize::from(retries)) {
                Some(&wait) => (ReadStage::Retry(retries + 1), now + wait),
                None => (ReadStage::Ended(Some(GapReason::HistoryUnreadable)), now),
            }
        } else if self.reach.is_undecided() {
            (if retries > 0 { reads.stage } else { ReadStage::Last }, now)
        } else {
            let is_short = matches!(result, ReadResult::Cut | ReadResult::Doubtful);
            let missing = is_short.then_some(GapReason::HistoryTooShort);
            (ReadStage::Ended(missing), now)
        };
    }

    /// Returns whether history has told all that it tells within `history_settle`.
    pub(crate) fn is_settled(&self) -> bool {
        let stage = self.reads.as_ref().map(|reads| reads.stage);
        matches!(stage, Some(ReadStage::Retry(_) | ReadStage::Ended(_)))
    }

    /// Returns whether records had time to show up in history. A single read comes late too.
    pub(crate) fn is_late_read(&self) -> bool {
        let stage = self.reads.as_ref().map(|reads| reads.stage);
        self.is_probe() || matches!(stage, Some(ReadStage::Last | ReadStage::Retry(_)))
    }

    /// Returns whether no read follows this one: a record that is unclear now stays unclear.
    pub(crate) fn is_last(&self) -> bool {
        self.reads.as_ref().is_some_and(|reads| usize::from(reads.stage.retries()) == RETRIES.len())
    }

    /// Returns the next step. A read counts as begun.
    pub(crate) fn step(&mut self, now: Timestamp, history: bool) -> BackfillStep {
        let Some(reads) = &mut self.reads else { return BackfillStep::Wait };
        if !history {
            // An operator who disables history accepts that replies without a socket are missed. A loss is reported.
            return BackfillStep::Close(
                (self.cause == GapCause::Lost).then_some(GapReason::HistoryUnreadable),
            );
        }
        if let ReadStage::Ended(missing) = reads.stage {
            return BackfillStep::Close(missing);
        }
        if now < reads.due || self.request != HistoryRequest::Idle {
            return BackfillStep::Wait;
        }
        self.request = HistoryRequest::Pending;
        let is_last = matches!(reads.stage, ReadStage::Last | ReadStage::Retry(_));
        let pages = &mut reads.pages;
        pages.is_newest = self.start.reads_behind().is_none() || is_last && self.reach.wants_newest_page();
        let after = pages.cursor.as_deref().or(self.start.reads_behind());
        BackfillStep::Read(after.filter(|_| !pages.is_newest).map(Into::into))
    }

    /// Returns when the next read is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let reads = self.reads.as_ref().filter(|_| self.request == HistoryRequest::Idle)?;
        (!matches!(reads.stage, ReadStage::Ended(_))).then_some(reads.due)
    }
}

#[cfg(test)]
mod tests;
