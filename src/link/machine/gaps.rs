//! What was missed, and what history tells of it.
//!
//! A gap begins where a socket is lost or closed, and with a conversation that is taken up again: the bot may speak to
//! nobody. It ends when history was read behind the last message that was known ([`Repair`]); what history holds there
//! is journaled, and where it holds too little that is journaled too ([`EntryBody::Gap`]). Until then the record keeps
//! the message from which a new owner would begin. A turn whose link was lost waits for it, and a turn in which the
//! bot says nothing for `stuck_after` takes one look.
//!
//! Messages of the user's that are not ours are left alone: an ended message's number is not kept, so that ours
//! cannot be told from those of his other sessions.

use std::time::Duration;

use super::super::input::{Effect, HistoryFailure};
use super::super::repair::{Cause, Repair, Spoken, Step, Trust};
use super::super::stream::{Begun, Place};
use super::super::turn::Turn;
use super::Machine;
use super::arrival::Owner;
use super::socket::Link;
use crate::domain::{Correlation, EntryBody, Fingerprint, GapReason, Timestamp};
use crate::rtm::{BotResponse, HistoryPage, HistoryRecord};
use crate::store::ConversationChange;

/// How far the platform's clock may be from ours where only times tell what came first.
const SKEW: Duration = Duration::from_mins(1);
/// Where a record of history belongs.
enum Belongs {
    To(Owner),
    /// That will show when our message does.
    Unclear,
    /// Nowhere: it need not have been missed.
    Nowhere,
}

impl Machine {
    /// From here on something may be missed.
    pub(super) fn on_gap(&mut self, cause: Cause) {
        if let Some(gap) = &mut self.gap {
            gap.on_gone(cause);
            return;
        }
        let record = &self.ledger.record;
        let after = record.last_platform_message.clone();
        let in_turn = self.turn.as_ref().is_some_and(|turn| !turn.closes());
        if after.is_some() || in_turn {
            let gap = Repair::new(cause, after, &record.recent, self.floor(), self.reading_history);
            self.gap = Some(Box::new(gap.leave_out(&self.unfinished)));
        }
    }

    /// When the newest message that we know was said, about: what is older was not missed since. Where the platform
    /// tells no times it may be too late, for an earlier owner may have been connected since.
    fn floor(&self) -> Option<Timestamp> {
        let record = &self.ledger.record;
        let last_turn = record.last_turn.as_ref().map(|turn| turn.ended_at);
        Some(self.said_at.or(record.connected_at).or(last_turn)? - SKEW)
    }

    /// The platform finished a reply, which is journaled next: history is read from there, as soon as no gap is open
    /// before it. One that was cut in the middle history may not know.
    pub(super) fn on_newest(&mut self, id: Option<&str>, created_on: Option<Timestamp>) {
        let Some(id) = id else { return };
        self.said_at = self.said_at.max(created_on);
        if self.gap.as_mut().is_none_or(|gap| !gap.stays(id, created_on)) {
            self.read_from(id.into(), created_on);
        }
    }

    /// History is read from this message on.
    fn read_from(&mut self, id: Box<str>, created_on: Option<Timestamp>) {
        let record = &mut self.ledger.record;
        record.last_platform_message = Some(id);
        record.said_at = record.said_at.max(created_on);
    }

    /// A reply with this id is journaled as far as it came.
    pub(super) fn on_unfinished(&mut self, id: Option<&str>) {
        const KEPT: usize = 16;
        if self.unfinished.len() == KEPT {
            self.unfinished.remove(0);
        }
        self.unfinished.extend(id.map(Fingerprint::of));
    }

    /// Reads history where something may have been missed, and decides when it has said all.
    pub(super) fn tend_gap(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.probe(now);
        if self.may_read_history()
            && let Some(gap) = &mut self.gap
        {
            match gap.step(now, self.bot.history) {
                Step::Wait => {}
                Step::Read => {
                    effects.push(Effect::ReadHistory(gap.read_after()));
                    self.reading_history = true;
                }
                Step::Over(missing) => self.close_gap(now, missing),
            }
        }
        let settled = self.gap.as_ref().is_none_or(|gap| gap.is_settled());
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.is_open() && turn.broken && settled) {
            if turn.is_proved() {
                turn.on_gap_closed(now);
            } else {
                self.resolve_unproved(now, effects);
            }
        }
    }

    /// A conversation that is about to go begins nothing that no turn waits for: the next owner does.
    fn may_read_history(&self) -> bool {
        !self.is_draining() || self.turn.as_ref().is_some_and(|turn| turn.is_open())
    }

    /// When history wants to be read, or a stuck turn a look.
    pub(super) fn gap_wake_at(&self) -> Option<Timestamp> {
        match &self.gap {
            Some(gap) => gap.wake_at().filter(|_| self.may_read_history()),
            None => self.stuck_at(),
        }
    }

    /// Takes one look where the bot has said nothing for too long: its reply may have gone to a socket that is dead,
    /// or to another one of the user's.
    fn probe(&mut self, now: Timestamp) {
        if self.gap.is_some() || self.stuck_at().is_none_or(|at| now < at) {
            return;
        }
        let record = &self.ledger.record;
        let after = record.last_platform_message.clone();
        let probe = Repair::probe(after, &record.recent, self.floor(), self.reading_history, now);
        self.gap = Some(Box::new(probe.leave_out(&self.unfinished)));
        if let Some(turn) = &mut self.turn {
            turn.probed = true;
        }
    }

    /// The open turn, where the bot may answer it: the end of a session is not answered.
    fn asking(&self) -> Option<&Turn> {
        self.turn.as_deref().filter(|turn| turn.is_open() && !turn.closes())
    }

    fn stuck_at(&self) -> Option<Timestamp> {
        let wait = self.bot.stuck_after.filter(|_| self.bot.history && matches!(self.link, Link::Open(_)))?;
        let turn = self.asking().filter(|turn| !turn.broken && !turn.probed)?;
        let silent = turn.progress.first_reply_at.is_none();
        Some(turn.progress.sent_at.filter(|_| silent)? + wait)
    }

    /// Nothing more is to be learned about the gap.
    fn close_gap(&mut self, now: Timestamp, missing: Option<GapReason>) {
        let Some(gap) = self.gap.take() else { return };
        if let Some(missing) = missing {
            self.ledger.append(now, EntryBody::Gap(missing));
        }
        if let Some((created_on, newest)) = gap.into_newest()
            && self.ledger.record.last_platform_message.as_ref() != Some(&newest)
        {
            self.read_from(newest, created_on);
            self.ledger.touch(now);
        }
    }

    pub(super) fn on_history(
        &mut self,
        now: Timestamp,
        page: Result<HistoryPage, HistoryFailure>,
        effects: &mut Vec<Effect>,
    ) {
        self.reading_history = false;
        let (settle, urgent) = (self.bot.history_settle, self.needs_history());
        let Some(gap) = &mut self.gap else { return };
        let asked = gap.on_answer();
        match page {
            Ok(page) => self.take_history(now, page, asked, effects),
            Err(failure) if asked => gap.on_failure(failure == HistoryFailure::ForGood, urgent, now, settle),
            Err(_) => {}
        }
    }

    /// Takes what a page tells: our own message, which proves receipt, and what the bot said since the gap began. A
    /// page that was not `asked` for since the last loss proves by what it holds, and nothing by what it lacks.
    fn take_history(
        &mut self,
        now: Timestamp,
        mut page: HistoryPage,
        asked: bool,
        effects: &mut Vec<Effect>,
    ) {
        page.records.sort_by_key(|record| record.created_on);
        let own = self.asking().map(|turn| turn.message.client_message_id);
        let own_at = page.records.iter().position(|record| record.from_user && record.user_msg_id == own);
        if own.is_some() && own_at.is_some() {
            self.on_own_found(now);
        }
        let Some(gap) = &mut self.gap else { return };
        let oldest = page.records.first().and_then(|record| record.created_on).filter(|_| page.more);
        if asked && gap.on_newest_page(oldest, now) {
            return;
        }
        let known = page.records.iter().rposition(|r| r.id.as_deref().is_some_and(|id| gap.is_before(id)));
        let is_old =
            page.records.iter().any(|record| gap.is_too_old(record.id.as_deref(), record.created_on));
        let trust =
            if asked { gap.on_reach(known.is_some(), page.records.is_empty(), is_old) } else { Trust::All };
        if trust == Trust::Short && !gap.is_probe() {
            self.ledger.append(now, EntryBody::Gap(GapReason::HistoryTooShort));
        }
        let more = page.more && trust != Trust::None;
        let next = page.records.iter().rev().find_map(|record| record.id.clone()).filter(|_| more);
        let mut spoken = if asked { gap.spoken() } else { None };
        let mut held = false;
        for (at, record) in page.records.into_iter().enumerate() {
            if record.from_user {
                // What follows our message answers it, also where another session of the user's spoke since.
                if own.is_none() || spoken != Some(Spoken(own)) {
                    spoken = Some(Spoken(record.user_msg_id));
                }
                continue;
            }
            let ahead = own.is_some() && own_at.is_some_and(|own| own > at);
            let passed = known.is_some_and(|known| at <= known) || self.is_told(&record, trust);
            match self.belongs(&record, spoken, ahead) {
                _ if passed => {}
                Belongs::To(owner) => self.take_record(now, record, owner, effects),
                Belongs::Unclear => held = true,
                Belongs::Nowhere => {}
            }
        }
        let (settle, urgent) = (self.bot.history_settle, self.needs_history());
        if let Some(gap) = self.gap.as_mut().filter(|_| asked) {
            gap.on_spoken(spoken);
            gap.on_page(next, held, urgent, now, settle);
        }
    }

    /// The platform has the message of the open turn.
    fn on_own_found(&mut self, now: Timestamp) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.progress.acked_at.is_none()) {
            turn.progress.acked_at = Some(now);
            let message = turn.message.id;
            self.ledger.push(ConversationChange::Acked { message, at: now });
        }
    }

    /// Whether the journal has it, or it need not have been missed.
    fn is_told(&self, record: &HistoryRecord, trust: Trust) -> bool {
        let too_old =
            || self.gap.as_ref().is_some_and(|gap| gap.is_too_old(record.id.as_deref(), record.created_on));
        record.id.as_deref().is_some_and(|id| self.seen.contains(id))
            || match trust {
                Trust::All => false,
                Trust::None => true,
                Trust::Newer | Trust::Short => too_old(),
            }
    }

    fn take_record(
        &mut self,
        now: Timestamp,
        record: HistoryRecord,
        owner: Owner,
        effects: &mut Vec<Effect>,
    ) {
        // What we heard the beginning of belongs where that does.
        let streamed = record.id.as_deref().and_then(|id| self.streams.forget(id));
        let owner = match streamed {
            Some((begun, echoes)) if !begun.in_turn() || echoes.is_some() => {
                match self.owner(begun, echoes) {
                    exact if exact.correlation == Correlation::Exact => exact,
                    other => Owner { correlation: Correlation::History, ..other },
                }
            }
            _ => owner,
        };
        if self.gap.as_ref().is_none_or(|gap| gap.is_settled_before(record.created_on)) {
            self.on_newest(record.id.as_deref(), record.created_on);
        }
        let begun = Begun { at: now, place: Place::Silence };
        self.take_reply(now, found(record), begun, Some(owner), effects);
    }

    /// What a record of the bot's belongs to. `spoken` is the user's message that it follows in history; `ahead` says
    /// that the open turn's message stands behind it.
    fn belongs(&self, record: &HistoryRecord, spoken: Option<Spoken>, ahead: bool) -> Belongs {
        let Some(turn) = self.asking() else {
            return self.belongs_before(record, spoken);
        };
        // While a human agent has the conversation nothing answers a message.
        let alone = self.is_with_agent();
        let message = (!alone).then_some(turn.message.id);
        let owner = Owner { message, correlation: Correlation::History, late: false };
        if spoken == Some(Spoken(Some(turn.message.client_message_id))) {
            return Belongs::To(owner);
        }
        if ahead || alone {
            return self.belongs_before(record, spoken);
        }
        // Where our message does not show, only the platform's own times tell what came after the first reply.
        let first_reply = turn.progress.replies.iter().filter_map(|reply| reply.created_on).min();
        if first_reply.is_some_and(|first| record.created_on.is_some_and(|at| at >= first)) {
            return Belongs::To(owner);
        }
        let sent_at = turn.progress.sent_at.unwrap_or_default();
        if record.created_on.is_some_and(|at| at + SKEW < sent_at) {
            return self.belongs_before(record, spoken);
        }
        match &self.gap {
            Some(gap) if gap.is_last() => {
                let since = record.created_on.is_some_and(|at| at >= sent_at);
                if since && turn.is_proved() {
                    Belongs::To(owner)
                } else {
                    self.belongs_before(record, spoken)
                }
            }
            _ => Belongs::Unclear,
        }
    }

    /// The same of a record that is none of the open turn's: it is a late reply of the turn before, by its place
    /// behind that message or by its time, or none at all.
    fn belongs_before(&self, record: &HistoryRecord, spoken: Option<Spoken>) -> Belongs {
        let correlation = Correlation::History;
        let last = self.ledger.record.last_turn.as_ref().filter(|_| !self.ledger.record.agent);
        let last = last.filter(|last| {
            let in_window = record.created_on.is_none_or(|at| at < last.ended_at + self.bot.late_window);
            in_window
                && match spoken {
                    Some(Spoken(id)) => last.is_echoed(id),
                    None => record.created_on.is_some_and(|at| at >= last.ended_at),
                }
        });
        if let Some(last) = last {
            Belongs::To(Owner { message: Some(last.message), correlation, late: true })
        } else if self.gap.as_ref().is_some_and(|gap| gap.reaches(record.created_on)) {
            Belongs::To(Owner { message: None, correlation, late: false })
        } else {
            Belongs::Nowhere
        }
    }
}

/// A record of history as the response it once was.
fn found(record: HistoryRecord) -> BotResponse {
    BotResponse {
        message_id: record.id,
        text: record.text,
        agent: record.agent,
        created_on: record.created_on,
        stream: None,
        more_follows: false,
        session_id: record.session_id,
        correlation_id: None,
        event: record.event,
    }
}
