//! Backfill: the replies that the machine missed, taken from the platform's history.
//!
//! A gap begins when a socket is lost or closed, and when a conversation comes into memory: the bot may speak without a
//! listener. The gap ends when history was read behind the last known message ([`Backfill`]), up to the first message
//! over the new link. The socket brings the replies behind that message. Replies that only history holds are journaled. If
//! history holds too little, the journal says so ([`EntryBody::Gap`]). Until the end of the gap the record keeps the message
//! from which a new owner would begin.
//!
//! A turn whose link was lost waits for the backfill. A turn without a reply for `stuck_after` triggers a single read.
//!
//! Foreign messages of the user are left alone. The number of an ended message is not kept, so the machine cannot tell
//! its own messages from those of the user's other sessions.

use super::super::backfill_schedule::{Backfill, BackfillStep, GapCause, PageSummary, PageTrust, UserRecord};
use super::super::input::{Effect, HistoryFailure};
use super::super::platform_clock::PlatformClock;
use super::super::turn::{Turn, TurnPhase};
use super::Machine;
use super::link_phase::LinkPhase;
use super::record_owner::{RecordOwner, RecordPlace};
use crate::domain::{DeliveryKind, EntryBody, Fingerprint, GapReason, Timestamp};
use crate::rtm::{HistoryPage, HistoryRecord};
use crate::store::ConversationChange;

impl Machine {
    /// Opens a gap, or notes another loss in the one that is open.
    pub(super) fn on_gap(&mut self, cause: GapCause) {
        self.doubt_agent();
        if let Some(backfill) = &mut self.backfill {
            backfill.on_gone(cause);
            return;
        }
        let in_turn = self.turn.as_ref().is_some_and(|turn| !turn.ends_session());
        let record = &self.buffer.record;
        // The bot may still answer a message that it did not answer in time.
        if record.last_platform_message.is_some() || record.last_turn.is_some() || in_turn {
            self.backfill = Some(self.new_backfill(cause));
        }
    }

    fn new_backfill(&self, cause: GapCause) -> Box<Backfill> {
        let record = &self.buffer.record;
        let after = record.last_platform_message.clone();
        let backfill = Backfill::new(cause, after, &record.recent, self.oldest_missed(), &self.unfinished);
        // Without a reply before it, the gap begins with the conversation's messages.
        let since = match &record.last_turn {
            Some(last) => Some(record.connected_at.unwrap_or(last.ended_at)),
            None => self.turn.as_ref().and_then(|turn| turn.progress.sent_at),
        };
        let own = match &record.last_turn {
            Some(last) => last.client_message_id,
            None => self.turn.as_ref().map(|turn| turn.message.client_message_id),
        };
        let clock = &self.platform_clock;
        Box::new(backfill.since(since.map(|at| clock.of(at) - clock.tolerance()), own))
    }

    /// Returns the approximate time of the newest known message: an older one was not missed since. Without the
    /// platform's times this may be too late, because an earlier owner may have been connected since.
    fn oldest_missed(&self) -> Option<Timestamp> {
        let record = &self.buffer.record;
        let last_turn = record.last_turn.as_ref().map(|turn| turn.ended_at);
        let ours = record.connected_at.or(last_turn);
        let by_platform = self.said_at.map(|at| at - PlatformClock::SKEW);
        by_platform.or_else(|| Some(self.platform_clock.earliest(ours?)))
    }

    /// Notes a whole reply, which is journaled next. The next gap begins there, unless one is open before it. A reply that
    /// was cut does not count, because history may not know it.
    pub(super) fn on_newest(&mut self, id: Option<&str>, said_at: Option<Timestamp>) {
        let Some(id) = id else { return };
        self.said_at = self.said_at.max(said_at);
        let gap = self.backfill.as_mut();
        if gap.is_none_or(|backfill| !backfill.on_live_reply(id, said_at)) {
            self.read_from(id.into(), said_at);
        }
    }

    fn read_from(&mut self, id: Box<str>, created_on: Option<Timestamp>) {
        let record = &mut self.buffer.record;
        record.last_platform_message = Some(id);
        record.said_at = record.said_at.max(created_on);
    }

    /// Notes a reply that is journaled without its end.
    pub(super) fn on_unfinished(&mut self, id: Option<&str>) {
        const KEPT: usize = 16;
        if self.unfinished.len() == KEPT {
            self.unfinished.remove(0);
        }
        self.unfinished.extend(id.map(Fingerprint::of));
    }

    /// Performs the next step of the backfill. Ends the wait of a turn when history has told all.
    pub(super) fn tend_backfill(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.probe(now);
        self.look_before_deadline(now, effects);
        if self.may_read_history()
            && let Some(backfill) = &mut self.backfill
        {
            match backfill.step(now, self.bot.history) {
                BackfillStep::Wait => {}
                BackfillStep::Read(after) => {
                    if backfill.is_late_read() {
                        self.streams.on_sought();
                    }
                    effects.push(Effect::ReadHistory(after));
                }
                BackfillStep::Close(missing) => self.close_gap(now, missing),
            }
        }
        let settled = self.backfill.as_ref().is_none_or(|backfill| backfill.is_settled());
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.phase == TurnPhase::Broken && settled) {
            if turn.is_proved() {
                turn.on_gap_closed(now);
            } else {
                self.resolve_unproved(now, effects);
            }
        }
    }

    /// Returns whether history may be read. A draining conversation reads it for an open turn only; the rest is left to
    /// the next owner.
    fn may_read_history(&self) -> bool {
        !self.is_draining() || self.turn.as_ref().is_some_and(|turn| turn.is_open())
    }

    /// Returns when history is to be read, or a stuck turn to be probed.
    pub(super) fn backfill_wake_at(&self) -> Option<Timestamp> {
        let next = match &self.backfill {
            Some(backfill) => backfill.wake_at().filter(|_| self.may_read_history()),
            None => self.stuck_at(),
        };
        [next, self.last_look_at()].into_iter().flatten().min()
    }

    /// Opens a backfill of one read if the turn is stuck. Its reply may have gone to a dead socket, or to another one of
    /// the user's.
    fn probe(&mut self, now: Timestamp) {
        if self.backfill.is_some() || self.stuck_at().is_none_or(|at| now < at) {
            return;
        }
        let mut probe = self.new_backfill(GapCause::Stuck);
        probe.on_connected(now);
        self.backfill = Some(probe);
        let Some(turn) = &mut self.turn else { return };
        turn.probed = true;
        if self.rhythm.knows_first_reply() {
            let (message, sent_at) = (turn.message.id, turn.progress.sent_at.unwrap_or(now));
            self.buffer.append(now, EntryBody::Stuck { message, waited: now.since(sent_at) });
        }
    }

    /// Reads history once before the deadline of a turn without a reply. Without a link too: the bot may have answered
    /// meanwhile.
    fn look_before_deadline(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.last_look_at().is_none_or(|at| now < at) {
            return;
        }
        if let Some(backfill) = &mut self.backfill {
            effects.extend(backfill.look().map(Effect::ReadHistory));
        } else {
            let mut probe = self.new_backfill(GapCause::Stuck);
            probe.on_connected(now);
            self.backfill = Some(probe);
        }
        if let Some(turn) = &mut self.turn {
            (turn.looked, turn.probed) = (true, true);
        }
    }

    fn last_look_at(&self) -> Option<Timestamp> {
        // Without a gap it is a probe.
        let may_look = self.bot.history && (self.backfill.is_some() || self.bot.stuck_after.is_some());
        self.turn.as_ref().filter(|_| may_look)?.last_look_at()
    }

    /// Opens a backfill of one read if the whole text of a stream is missing. Returns whether it did.
    pub(super) fn seeks_whole(&mut self, now: Timestamp) -> bool {
        let may_read = self.bot.history && self.may_read_history() && matches!(self.link, LinkPhase::Open(_));
        if !may_read || self.backfill.is_some() || !self.streams.wants_whole() {
            return false;
        }
        let mut probe = self.new_backfill(GapCause::Stuck);
        probe.on_connected(now + self.bot.history_settle);
        self.backfill = Some(probe);
        true
    }

    /// Returns the open turn if the bot may answer it. A session's end is not answered.
    pub(super) fn asking(&self) -> Option<&Turn> {
        self.turn.as_deref().filter(|turn| turn.is_open() && !turn.ends_session())
    }

    fn stuck_at(&self) -> Option<Timestamp> {
        let may_look = self.bot.history && matches!(self.link, LinkPhase::Open(_));
        let wait = self.rhythm.stuck_after(self.bot.stuck_after.filter(|_| may_look)?);
        let turn = self.asking().filter(|turn| turn.phase != TurnPhase::Broken && !turn.probed)?;
        let silent = turn.progress.first_reply_at.is_none();
        Some(turn.progress.sent_at.filter(|_| silent)? + wait)
    }

    fn close_gap(&mut self, now: Timestamp, missing: Option<GapReason>) {
        let Some(backfill) = self.backfill.take() else { return };
        if let Some(missing) = missing {
            self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(missing));
            if let Some(turn) = &mut self.turn {
                turn.on_unheard();
            }
        }
        if let Some((created_on, newest)) = backfill.into_newest()
            && self.buffer.record.last_platform_message.as_ref() != Some(&newest)
        {
            self.read_from(newest, created_on);
            self.buffer.touch(now);
        }
    }

    pub(super) fn on_history(
        &mut self,
        now: Timestamp,
        page: Result<HistoryPage, HistoryFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let (settle, urgent) = (self.bot.history_settle, self.needs_history());
        let Some(backfill) = &mut self.backfill else { return };
        let asked = backfill.on_answer();
        match page {
            Ok(page) => self.take_history(now, page, asked, effects),
            Err(failure) if asked => {
                backfill.on_failure(failure == HistoryFailure::Permanent, urgent, now, settle);
            }
            Err(_) => {}
        }
    }

    /// Takes the records of a page: our own message, which proves its receipt, and the bot's replies since the gap
    /// began. If the page was not `asked` for since the last loss, only its records count. A missing record then proves nothing.
    fn take_history(
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
        let mut own_at = page.records.iter().position(|record| record.from_user && record.user_msg_id == own);
        if own.is_some() && own_at.is_some() {
            self.on_receipt_shown(now);
        }
        let last_turn = self.buffer.record.last_turn.as_ref();
        let is_ours = |record: &HistoryRecord| {
            let id = record.user_msg_id;
            record.from_user
                && id.is_some()
                && (id == own || last_turn.is_some_and(|last| last.is_echoed(id)))
        };
        let ours_at = page.records.iter().position(is_ours);
        let Some(backfill) = &mut self.backfill else { return };
        let end_at = page.records.iter().position(|r| r.from_user && backfill.ends_before(r.user_msg_id));
        let oldest = said.iter().flatten().next().copied().filter(|_| page.more);
        let first_live = backfill.first_live();
        let first_live_at = page.records.iter().position(|r| r.id.is_some() && r.id.as_deref() == first_live);
        if asked
            && first_live_at.is_none()
            && let Some(is_short) = backfill.on_newest_page(oldest, now)
        {
            if is_short {
                self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(GapReason::HistoryTooShort));
            }
            return;
        }
        let begin = page.records.iter().position(|r| r.from_user && backfill.begins_with(r.user_msg_id));
        let reads_inside = asked && backfill.reads_inside();
        let known =
            page.records.iter().rposition(|r| r.id.as_deref().is_some_and(|id| backfill.is_before(id)));
        let is_old =
            page.records.iter().zip(&said).any(|(record, at)| backfill.is_too_old(record.id.as_deref(), *at));
        let trust = if asked {
            let is_whole = ours_at.is_some() || !page.more;
            backfill.on_reach(known.is_some(), page.records.is_empty(), is_old, is_whole)
        } else {
            PageTrust::All
        };
        let is_short = trust == PageTrust::Short && !backfill.is_probe();
        let is_found = own_at.is_some() || asked && backfill.user_message() == Some(UserRecord(own));
        let user_message = if asked { backfill.user_message() } else { None };
        if is_short {
            self.append_event(now, DeliveryKind::Gap, EntryBody::Gap(GapReason::HistoryTooShort));
        }
        if !is_found && trust != PageTrust::None {
            own_at = self.likely_own_record(&page.records, &said, known.map_or(0, |at| at + 1));
            if own_at.is_some() {
                self.on_receipt_shown(now);
            }
        }
        let more = page.more && trust != PageTrust::None && end_at.is_none();
        let mut summary = PageSummary {
            next: page.records.iter().rev().find_map(|record| record.id.clone()).filter(|_| more),
            user_message,
            has_new: false,
            has_unclear: false,
        };
        let (mut before, mut start) = (None, None);
        for (at, (record, said_at)) in page.records.into_iter().zip(said).enumerate() {
            let in_gap = reads_inside || begin.is_some_and(|begin| begin <= at);
            let id = record.id.clone().filter(|_| in_gap && !summary.has_unclear);
            if record.from_user {
                before = id.or(before);
                // A reply behind our message answers it, even if another session of the user's spoke since.
                if own.is_none() || summary.user_message != Some(UserRecord(own)) {
                    summary.user_message =
                        Some(UserRecord(if own_at == Some(at) { own } else { record.user_msg_id }));
                }
                continue;
            }
            // The open turn's message is the one at the end of the gap, or a later one.
            let ahead = own.is_some() && own_at.max(end_at).is_some_and(|own| own > at);
            if known.is_some_and(|known| at <= known) || self.is_known(&record, said_at, trust) {
                before = id.or(before);
                continue;
            }
            summary.has_new = true;
            let place = RecordPlace {
                said_at,
                user_message: summary.user_message,
                ahead,
                behind_first: first_live_at.is_some_and(|first| first < at),
                in_gap,
                agent: record.agent,
            };
            let is_behind_ours = [ours_at, own_at].into_iter().flatten().any(|ours| ours < at);
            let is_unclear = self.take_placed(now, record, &place, is_behind_ours, effects);
            if is_unclear && !std::mem::replace(&mut summary.has_unclear, true) {
                start = before.take();
            }
        }
        let (settle, urgent) = (self.bot.history_settle, self.needs_history());
        if let (Some(backfill), Some(start)) = (&mut self.backfill, start) {
            backfill.on_start_shown(start);
        }
        if let Some(backfill) = self.backfill.as_mut().filter(|_| asked) {
            backfill.on_page(summary, urgent, now, settle);
        }
    }

    /// Journals a reply of a page if it belongs to the gap. Returns whether its owner is not clear yet.
    fn take_placed(
        &mut self,
        now: Timestamp,
        record: HistoryRecord,
        place: &RecordPlace,
        is_behind_ours: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.record_owner(place) {
            RecordOwner::Reply(owner) => {
                if owner.message.is_some() && !owner.late && !record.agent && !record.is_blank {
                    self.on_bot_sign(now);
                }
                self.take_record(now, record, place.said_at, Some(owner), effects);
            }
            RecordOwner::Unclear => return true,
            RecordOwner::Unrelated if is_behind_ours || self.is_heard(&record) => {
                self.take_record(now, record, place.said_at, None, effects);
            }
            RecordOwner::Unrelated => {}
        }
        false
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
            self.backfill.as_ref().is_some_and(|backfill| backfill.is_too_old(id, said_at))
        };
        record.id.as_deref().is_some_and(|id| self.dedup.contains(id))
            || match trust {
                PageTrust::All => false,
                PageTrust::None => true,
                PageTrust::Newer | PageTrust::Short => too_old(),
            }
    }
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
