//! A page of history: the facts about the open turn and the gap that its records tell, and the replies that it adds.

use super::super::backfill_schedule::{Backfill, PageSummary, PageTrust, UserRecord};
use super::super::input::Effect;
use super::Machine;
use super::record_owner::{RecordOwner, RecordPlace};
use crate::domain::{DeliveryKind, EntryBody, GapReason, LastTurn, Timestamp};
use crate::rtm::{HistoryPage, HistoryRecord};
use crate::store::ConversationChange;

/// The places on a page that tell where it lies.
struct PageMarks {
    /// The number of the open turn's message.
    own: Option<u64>,
    /// That message.
    own_at: Option<usize>,
    /// The first message of the open turn or of the one before.
    ours_at: Option<usize>,
    /// The message before which the gap ends.
    end_at: Option<usize>,
    /// The first live reply since the gap began.
    first_live_at: Option<usize>,
    /// The message of ours with which the gap begins.
    begin_at: Option<usize>,
    /// The last message of the user that was sent before the gap, or with which it begins.
    sent_before_at: Option<usize>,
    /// The last reply that was known before the gap.
    known_at: Option<usize>,
}

impl PageMarks {
    fn of(records: &[HistoryRecord], backfill: &Backfill, own: Option<u64>, last: Option<&LastTurn>) -> Self {
        let users = |is: &dyn Fn(Option<u64>) -> bool| {
            records.iter().position(|record| record.from_user && is(record.user_msg_id))
        };
        let first = backfill.start().begins_with();
        let first_live = backfill.first_live();
        let is_before =
            |record: &HistoryRecord| record.id.as_deref().is_some_and(|id| backfill.start().is_before(id));
        Self {
            own,
            own_at: users(&|id| own.is_some() && id == own),
            ours_at: users(&|id| id.is_some() && (id == own || last.is_some_and(|last| last.is_echoed(id)))),
            end_at: users(&|id| backfill.ends_before(id)),
            first_live_at: records.iter().position(|r| r.id.is_some() && r.id.as_deref() == first_live),
            begin_at: users(&|id| first.is_some() && id == first),
            // Numbers are times, so an earlier message of the user has a smaller one.
            sent_before_at: records
                .iter()
                .rposition(|r| r.from_user && r.user_msg_id.is_some_and(|id| Some(id) <= first)),
            known_at: records.iter().rposition(is_before),
        }
    }
}

impl Machine {
    /// Takes the records of a page: our own message, which proves its receipt, and the bot's replies since the gap
    /// began. If the page was not `asked` for since the last loss, only its records count. A missing record then proves nothing.
    pub(super) fn take_history(
        &mut self,
        now: Timestamp,
        mut page: HistoryPage,
        asked: bool,
        effects: &mut Vec<Effect>,
    ) {
        let said: Vec<_> =
            put_in_order(&mut page.records, |record| self.platform_clock.plausible(record.created_on, now));
        effects.extend(far_off_times(&page.records, &said));
        let own = self.sought_in_history().map(|turn| turn.message.client_message_id);
        let Some(backfill) = &self.backfill else { return };
        let mut marks = PageMarks::of(&page.records, backfill, own, self.buffer.record.last_turn.as_ref());
        if marks.own_at.is_some() {
            self.on_receipt_shown(now);
        }
        let oldest = said.iter().flatten().next().copied().filter(|_| page.more);
        if asked && marks.first_live_at.is_none() && self.continues_behind_live(now, oldest) {
            return;
        }
        let trust = if asked { self.judge_page(now, &page, &said, &marks) } else { PageTrust::All };
        let Some(backfill) = &self.backfill else { return };
        let user_message = if asked { backfill.user_message() } else { None };
        let reads_inside = asked && backfill.reads_inside();
        let is_found = marks.own_at.is_some() || user_message == Some(UserRecord(own));
        if !is_found && trust != PageTrust::None {
            let from = marks.known_at.map_or(0, |at| at + 1);
            marks.own_at = self.likely_own_record(&page.records, &said, from);
            if marks.own_at.is_some() {
                self.on_receipt_shown(now);
            }
        }
        let more = page.more && trust != PageTrust::None && marks.end_at.is_none();
        let mut summary = PageSummary {
            next: page.records.iter().rev().find_map(|record| record.id.clone()).filter(|_| more),
            user_message,
            ..PageSummary::default()
        };
        let start =
            self.take_records(now, (page, said), &marks, (trust, reads_inside), &mut summary, effects);
        let (settle, urgent) = (self.bot.history_settle, self.needs_history());
        if let (Some(backfill), Some(start)) = (&mut self.backfill, start) {
            backfill.on_start_shown(start);
        }
        if let Some(backfill) = self.backfill.as_mut().filter(|_| asked) {
            backfill.on_page(summary, urgent, now, settle);
        }
    }

    /// Continues behind the first live reply if the newest page does not reach back to it. `oldest` is the time of the
    /// page's first message. Returns whether it does.
    fn continues_behind_live(&mut self, now: Timestamp, oldest: Option<Timestamp>) -> bool {
        let Some(is_short) = self.backfill.as_mut().and_then(|gap| gap.on_newest_page(oldest, now)) else {
            return false;
        };
        // The next read begins behind that reply, and the journal has the gap before it.
        self.buffer.record.first_gap = None;
        if is_short {
            self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(GapReason::HistoryTooShort));
        }
        true
    }

    /// Judges how far history reaches back, and journals that it does not reach the start of the gap.
    fn judge_page(
        &mut self,
        now: Timestamp,
        page: &HistoryPage,
        said: &[Option<Timestamp>],
        marks: &PageMarks,
    ) -> PageTrust {
        let Some(backfill) = &mut self.backfill else { return PageTrust::None };
        let records = &page.records;
        let is_old = records
            .iter()
            .zip(said)
            .any(|(record, at)| backfill.start().is_too_old(record.id.as_deref(), *at));
        let is_whole = marks.sent_before_at.is_some() || !page.more;
        let trust = backfill.on_reach(marks.known_at.is_some(), records.is_empty(), is_old, is_whole);
        if trust == PageTrust::Short && !backfill.is_probe() {
            self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(GapReason::HistoryTooShort));
        }
        trust
    }

    /// Takes the replies of a page. Returns the message before the first one whose owner is not clear yet, if that one is
    /// of the gap.
    fn take_records(
        &mut self,
        now: Timestamp,
        (page, said): (HistoryPage, Vec<Option<Timestamp>>),
        marks: &PageMarks,
        (trust, reads_inside): (PageTrust, bool),
        summary: &mut PageSummary,
        effects: &mut Vec<Effect>,
    ) -> Option<Box<str>> {
        let own = marks.own;
        let is_behind = |mark: Option<usize>, at| mark.is_some_and(|mark| mark < at);
        let (mut before, mut start) = (None, None);
        for (at, (record, said_at)) in page.records.into_iter().zip(said).enumerate() {
            let id = record.id.clone().filter(|_| !summary.has_unclear);
            if record.from_user {
                before = id.or(before);
                // A reply behind our message answers it, even if another session of the user's spoke since.
                if own.is_none() || summary.user_message != Some(UserRecord(own)) {
                    let is_own = marks.own_at == Some(at);
                    summary.user_message = Some(UserRecord(if is_own { own } else { record.user_msg_id }));
                }
                continue;
            }
            let was_known = marks.known_at.is_some_and(|known| at <= known);
            if was_known || self.is_known(&record, said_at, trust) {
                before = id.or(before);
                continue;
            }
            summary.has_new = true;
            let place = RecordPlace {
                said_at,
                user_message: summary.user_message,
                // The open turn's message is the one at the end of the gap, or a later one.
                ahead: own.is_some() && marks.own_at.max(marks.end_at).is_some_and(|own| own > at),
                behind_first: is_behind(marks.first_live_at, at),
                in_gap: reads_inside || is_behind(marks.begin_at, at),
                agent: record.agent,
            };
            let is_behind_ours = is_behind(marks.ours_at, at) || is_behind(marks.own_at, at);
            match self.take_placed(now, record, &place, is_behind_ours, effects) {
                RecordFate::Unclear if !std::mem::replace(&mut summary.has_unclear, true) => {
                    start = before.take().filter(|_| !summary.has_doubtful && self.covers(&place));
                }
                RecordFate::Unclear => {}
                RecordFate::Doubtful => {
                    summary.has_doubtful |= marks.sent_before_at.is_none_or(|before| before < at);
                }
                RecordFate::Decided => before = id.or(before),
            }
        }
        start
    }

    /// Journals a reply of a page if it belongs to the gap.
    fn take_placed(
        &mut self,
        now: Timestamp,
        record: HistoryRecord,
        place: &RecordPlace,
        is_behind_ours: bool,
        effects: &mut Vec<Effect>,
    ) -> RecordFate {
        match self.record_owner(place) {
            RecordOwner::Reply(owner) => {
                if owner.message.is_some() && !owner.late && !record.agent && !record.is_blank {
                    self.on_bot_sign(now);
                }
                self.take_record(now, record, place.said_at, Some(owner), effects);
            }
            RecordOwner::Unclear => return RecordFate::Unclear,
            RecordOwner::Unrelated if is_behind_ours || self.is_heard(&record) => {
                self.take_record(now, record, place.said_at, None, effects);
            }
            RecordOwner::Unrelated => {
                let gap = self.backfill.as_ref();
                if gap.is_some_and(|gap| gap.start().may_cover(place.said_at, &self.platform_clock)) {
                    return RecordFate::Doubtful;
                }
            }
        }
        RecordFate::Decided
    }

    /// Notes that history, or a frame without a new reply, shows the receipt of the turn's message.
    pub(super) fn on_receipt_shown(&mut self, now: Timestamp) {
        let Some(turn) = &mut self.turn else { return };
        turn.on_found();
        if turn.progress.acked_at.is_none() {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.buffer.push(ConversationChange::Acked { message, at: now });
        }
    }

    /// Returns whether the record is journaled, or may be older than the gap.
    fn is_known(&self, record: &HistoryRecord, said_at: Option<Timestamp>, trust: PageTrust) -> bool {
        let too_old = || {
            let id = record.id.as_deref();
            self.backfill.as_ref().is_some_and(|backfill| backfill.start().is_too_old(id, said_at))
        };
        record.id.as_deref().is_some_and(|id| self.dedup.contains(id))
            || match trust {
                PageTrust::All => false,
                PageTrust::None => true,
                PageTrust::Newer | PageTrust::Short => too_old(),
            }
    }
}

/// The result for a record of history.
enum RecordFate {
    /// It is journaled, or older than the gap.
    Decided,
    /// Its owner is not clear yet.
    Unclear,
    /// It may be older than the gap.
    Doubtful,
}

/// Returns an effect for each time of a record that is not plausible.
fn far_off_times(
    records: &[HistoryRecord],
    said: &[Option<Timestamp>],
) -> impl Iterator<Item = Effect> + use<> {
    let far_off =
        |(record, said): &(&HistoryRecord, &Option<Timestamp>)| said.is_none() && record.created_on.is_some();
    let count = records.iter().zip(said).filter(far_off).count();
    std::iter::repeat_with(|| Effect::FarOffTime).take(count)
}

/// Puts records into the order in which they were said, and returns their times. Pages are ordered, oldest first or
/// newest first. One wrong time does not change the order.
fn put_in_order(
    records: &mut [HistoryRecord],
    time: impl Fn(&HistoryRecord) -> Option<Timestamp>,
) -> Vec<Option<Timestamp>> {
    let mut times: Vec<_> = records.iter().map(time).collect();
    let known: Vec<_> = times.iter().flatten().collect();
    let pairs = || known.iter().zip(known.iter().skip(1));
    if pairs().filter(|(a, b)| a > b).count() > pairs().filter(|(a, b)| a < b).count() {
        records.reverse();
        times.reverse();
    }
    times
}
