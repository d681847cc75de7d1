//! Our message in the platform's history, without its number.
//!
//! Platforms of some versions store a message of the user without `userMsgId`, or with one of another form (protocol.md
//! 7.10). Then its text and its time tell. An acknowledged message is there for certain, so the only record in question
//! is its own.

use std::cmp::Reverse;

use super::super::platform_clock::PlatformClock;
use super::super::turn::Turn;
use super::Machine;
use crate::domain::{Fingerprint, MessageContent, Timestamp};
use crate::rtm::HistoryRecord;

impl Machine {
    /// Returns the turn whose message history may have. The message may wait to be sent again.
    pub(super) fn sought_in_history(&self) -> Option<&Turn> {
        self.turn.as_deref().filter(|turn| turn.went_out() && !turn.ends_session())
    }

    /// Returns the place of the record that is probably the open turn's message. `said` are the plausible times of the
    /// records. The records before `from` are from before the gap.
    pub(super) fn likely_own_record(
        &self,
        records: &[HistoryRecord],
        said: &[Option<Timestamp>],
        from: usize,
    ) -> Option<usize> {
        let turn = self.sought_in_history().filter(|turn| !turn.is_connect())?;
        let sent_at = self.platform_clock.of(turn.progress.sent_at?);
        // The message went out after the previous turn.
        let last_turn = self.buffer.record.last_turn.as_ref();
        let last_end =
            last_turn.map(|last| self.platform_clock.of(last.ended_at) - self.platform_clock.tolerance());
        let earliest = last_end.unwrap_or_default().max(sent_at - PlatformClock::SKEW);
        let follows = |record: &HistoryRecord| record.id.as_deref().map(Fingerprint::of) == turn.follows;
        let behind = turn.follows.and_then(|_| records.iter().rposition(follows));
        let from = behind.map_or(from, |at| from.max(at + 1));
        let distance = |said_at: &Option<Timestamp>, sent_at: Timestamp| {
            said_at.map_or(u64::MAX, |at| at.as_millis().abs_diff(sent_at.as_millis()))
        };
        // A record that lies nearer to the sending of the message before is of that one.
        let previous = turn.previous_sent_at.map(|at| self.platform_clock.of(at));
        let is_previous = |said_at: &Option<Timestamp>| {
            previous.is_some_and(|previous| distance(said_at, previous) < distance(said_at, sent_at))
        };
        let candidates = records.iter().zip(said).enumerate().skip(from).filter(|(_, (record, said_at))| {
            record.from_user
                && record.user_msg_id.is_none()
                && said_at.is_none_or(|at| at >= earliest)
                && !is_previous(said_at)
        });
        let same_text = candidates.clone().filter(|(_, (record, _))| says(record, &turn.message.new.content));
        let nearest = same_text.min_by_key(|(at, (_, said_at))| (distance(said_at, sent_at), Reverse(*at)));
        let is_acked = turn.progress.acked_at.is_some();
        let may_be_any = is_acked && self.backfill.as_ref().is_some_and(|backfill| backfill.is_late_read());
        let mut places = candidates.map(|(at, _)| at);
        nearest.map(|(at, _)| at).or_else(|| {
            let only = places.next().filter(|_| may_be_any)?;
            places.next().is_none().then_some(only)
        })
    }
}

/// Returns whether the record has the text of this message, or the text that its user saw.
fn says(record: &HistoryRecord, content: &MessageContent) -> bool {
    record.says(&content.body()) || content.display_text.as_deref().is_some_and(|text| record.says(text))
}
