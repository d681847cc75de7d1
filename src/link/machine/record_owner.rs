//! The records of history: the message that each one belongs to, and the reply that it becomes.

use super::super::backfill_schedule::{Backfill, UserRecord};
use super::super::input::Effect;
use super::super::open_streams::{JoinedReply, ReplyContext, ReplyStart};
use super::super::platform_clock::PlatformClock;
use super::Machine;
use super::incoming_frames::ReplyOwner;
use crate::domain::{Correlation, Timestamp};
use crate::rtm::{BotResponse, HistoryRecord};

/// The owner of a record of history.
pub(super) enum RecordOwner {
    Reply(ReplyOwner),
    /// The owner shows when our message does.
    Unclear,
    /// The record may be older than the gap.
    Unrelated,
}

/// The place of a record of the bot's in history.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(super) struct RecordPlace {
    /// The platform's time, if it is plausible.
    pub(super) said_at: Option<Timestamp>,
    /// The user's message before it.
    pub(super) user_message: Option<UserRecord>,
    /// Whether the open turn's message comes behind it.
    pub(super) ahead: bool,
    /// Whether the page shows the first live reply of the gap before it.
    pub(super) behind_first: bool,
    /// Whether the page shows it behind our message with which the gap begins.
    pub(super) in_gap: bool,
    /// Whether the platform says that a human agent wrote it.
    pub(super) agent: bool,
}

impl Machine {
    /// Returns whether a socket brought the reply of this record, at least its beginning.
    pub(super) fn is_heard(&self, record: &HistoryRecord) -> bool {
        let Some(id) = record.id.as_deref() else { return false };
        self.streams.contains(id) || self.turn.as_ref().is_some_and(|turn| turn.defers(id))
    }

    /// Takes a record. Without an owner it belongs to no turn, or where its beginning belongs.
    pub(super) fn take_record(
        &mut self,
        now: Timestamp,
        record: HistoryRecord,
        said_at: Option<Timestamp>,
        owner: Option<ReplyOwner>,
        effects: &mut Vec<Effect>,
    ) {
        let id = record.id.as_deref();
        let deferred = id.and_then(|id| self.turn.as_mut()?.take_deferred(id)).filter(|reply| !reply.partial);
        // A reply whose beginning arrived over a socket belongs where it began. History tells that of one whose message
        // was not proved.
        let streamed = id.and_then(|id| self.streams.forget(id));
        let is_placed = |start: ReplyStart| start.in_turn() || start.context == ReplyContext::Unproved;
        let owner = match (streamed, owner) {
            (Some((start, echoes)), owner) if owner.is_none() || !is_placed(start) || echoes.is_some() => {
                match self.owner(start, echoes) {
                    exact if exact.correlation == Correlation::Exact => exact,
                    other => ReplyOwner { correlation: Correlation::History, ..other },
                }
            }
            (_, Some(owner)) => owner,
            (_, None) => ReplyOwner { message: None, correlation: Correlation::History, late: false },
        };
        if record.is_blank && record.id.is_none() {
            // Without an id each read would journal it again.
            return;
        }
        let gap = self.backfill.as_ref();
        let ours = said_at.and_then(|at| self.platform_clock.latest(at));
        if gap.is_none_or(|backfill| backfill.is_settled_before(ours)) {
            self.on_newest(record.id.as_deref(), said_at);
        }
        let start = ReplyStart { at: now, context: ReplyContext::Silence };
        // The platform's frame has more than its record.
        let response = deferred.map_or_else(|| response_of(record), |reply| reply.response);
        self.take_reply(now, JoinedReply { response, start, said_at, partial: false }, Some(owner), effects);
    }

    /// Decides which message a record of the bot's belongs to.
    pub(super) fn record_owner(&self, place: &RecordPlace) -> RecordOwner {
        let Some(turn) = self.asking() else {
            return self.owner_before(place);
        };
        // The words of a human agent answer no message in particular. In doubt, unmarked ones are the bot's.
        let alone = self.is_with_agent() || place.agent && self.has_agent();
        let message = (!alone).then_some(turn.message.id);
        let owner = ReplyOwner { message, correlation: Correlation::History, late: false };
        if place.user_message == Some(UserRecord(Some(turn.message.client_message_id))) {
            return RecordOwner::Reply(owner);
        }
        if place.ahead || alone {
            return self.owner_before(place);
        }
        // Our message does not show: only the platform's times tell what came after the first reply.
        let sent_at = self.platform_clock.of(turn.progress.sent_at.unwrap_or_default());
        let earliest = sent_at - PlatformClock::SKEW;
        let replies = turn.progress.replies.iter().filter_map(|reply| reply.created_on);
        let first_reply = replies.filter(|at| *at >= earliest).min();
        if first_reply.is_some_and(|first| place.said_at.is_some_and(|at| at >= first)) {
            return RecordOwner::Reply(owner);
        }
        if place.said_at.is_some_and(|at| at < earliest) {
            return self.owner_before(place);
        }
        let Some(backfill) = &self.backfill else { return RecordOwner::Unclear };
        let since = sent_at - self.platform_clock.tolerance();
        if turn.is_proved() && backfill.is_late_read() && place.said_at.is_some_and(|at| at >= since) {
            RecordOwner::Reply(owner)
        } else if backfill.is_last() {
            self.owner_before(place)
        } else {
            RecordOwner::Unclear
        }
    }

    /// Returns whether the record is of the gap, by its position or its time.
    pub(super) fn covers(&self, place: &RecordPlace) -> bool {
        let covers_time =
            |gap: &Backfill| gap.covers(place.said_at, place.behind_first, &self.platform_clock);
        self.backfill.as_deref().is_some_and(|gap| place.in_gap || covers_time(gap))
    }

    /// Decides the same for a record outside the open turn. It is a late reply of the previous turn if its position or
    /// its time says so, otherwise it is unsolicited.
    fn owner_before(&self, place: &RecordPlace) -> RecordOwner {
        let correlation = Correlation::History;
        let said_at = place.said_at.map(|at| self.platform_clock.ours(at));
        let last = self.buffer.record.last_turn.as_ref().filter(|_| !self.buffer.record.agent);
        let last = last.filter(|last| {
            let in_window = said_at.is_none_or(|at| at < last.ended_at + self.bot.late_window);
            let accepted_at = last.client_message_id.map_or(last.ended_at, Timestamp::from_millis);
            in_window
                && match place.user_message {
                    Some(UserRecord(Some(id))) => last.is_echoed(Some(id)),
                    // The number of a message is at least the time of its accept.
                    Some(UserRecord(None)) => said_at.is_some_and(|at| at >= accepted_at),
                    None => said_at.is_some_and(|at| at >= last.ended_at),
                }
        });
        if let Some(last) = last {
            RecordOwner::Reply(ReplyOwner { message: Some(last.message), correlation, late: true })
        } else if self.covers(place) {
            RecordOwner::Reply(ReplyOwner { message: None, correlation, late: false })
        } else {
            RecordOwner::Unrelated
        }
    }
}

/// Turns a record of history into the response that it was.
fn response_of(record: HistoryRecord) -> BotResponse {
    BotResponse {
        message_id: record.id,
        text: record.text,
        choices: record.choices,
        media: record.media,
        is_blank: record.is_blank,
        agent: record.agent,
        created_on: record.created_on,
        stream: None,
        more_follows: false,
        session_id: record.session_id,
        correlation_id: None,
        event: record.event,
    }
}
