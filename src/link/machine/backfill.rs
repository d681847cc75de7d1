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
//! Foreign messages of the user are left alone. Only the number of the last ended message is kept, so the machine cannot
//! tell its earlier messages from those of the user's other sessions.

use super::super::backfill_schedule::{Backfill, BackfillStep, GapCause};
use super::super::input::{Effect, HistoryFailure};
use super::super::platform_clock::PlatformClock;
use super::super::turn::{Turn, TurnPhase};
use super::Machine;
use super::link_phase::LinkPhase;
use crate::domain::{DeliveryKind, EntryBody, Fingerprint, FirstGap, GapReason, Timestamp};
use crate::rtm::HistoryPage;

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
            self.open_backfill(cause);
        }
    }

    /// Opens a backfill behind the newest known reply, or where an earlier gap began that is still open.
    fn open_backfill(&mut self, cause: GapCause) -> &mut Backfill {
        let first = self.first_gap();
        let record = &mut self.buffer.record;
        let newest = record.last_platform_message.clone();
        let after = newest.clone().filter(|_| first.is_none());
        record.first_gap = first;
        let record = &self.buffer.record;
        let oldest = match first {
            Some(first) => Some(self.platform_clock.earliest(first.since)),
            None => self.oldest_missed(),
        };
        let mut backfill = Backfill::new(cause, after, &record.recent, oldest, &self.unfinished);
        if let Some(first) = first {
            backfill = backfill.begins(first, newest.map(|id| (record.said_at, id)));
        }
        self.backfill.insert(Box::new(backfill))
    }

    /// Returns the start of the gap if no reply is known before it. It begins with the conversation's messages then.
    fn first_gap(&self) -> Option<FirstGap> {
        let record = &self.buffer.record;
        if record.first_gap.is_some() || record.last_platform_message.is_some() {
            return record.first_gap;
        }
        if let Some(last) = &record.last_turn {
            let since = record.connected_at.unwrap_or(last.ended_at);
            return Some(FirstGap { since, own: last.client_message_id });
        }
        let Some(turn) = &self.turn else {
            return record.connected_at.map(|since| FirstGap { since, own: None });
        };
        let since = turn.progress.sent_at.unwrap_or(turn.message.accepted_at);
        Some(FirstGap { since, own: Some(turn.message.client_message_id) })
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

    /// Has the next gap begin behind this message, unless a stream before it is still sought in history.
    fn read_from(&mut self, id: Box<str>, created_on: Option<Timestamp>) {
        if self.streams.has_ended() {
            return;
        }
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
        self.open_backfill(GapCause::Stuck).on_connected(now);
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
            self.open_backfill(GapCause::Stuck).on_connected(now);
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
        let settled_at = now + self.bot.history_settle;
        self.open_backfill(GapCause::Stuck).on_connected(settled_at);
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
        if self.buffer.record.first_gap.take().is_some() {
            self.buffer.touch(now);
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
}
