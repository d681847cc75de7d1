//! Links that are kept without an open message: for a while, or for good if the bot's `idle_ttl` is `never`.
//!
//! A link for good survives losses, restarts and failovers. The bot is heard as long as the store knows the
//! conversation, and an open link renews that. Such a link never asks for a greeting, which would begin an unwanted
//! session. A link with a long `idle_ttl` renews it too, so the store's index has every conversation with a socket.

use std::time::Duration;

use super::link_phase::LinkPhase;
use super::{FOREVER, Machine};
use crate::config::BotConfig;
use crate::domain::{ConversationRecord, Timestamp};

/// The time for which the store keeps an idle conversation. A new owner reopens a link that is kept for good as long.
const RECORD_TTL: Duration = Duration::from_hours(24);

impl Machine {
    /// Returns whether the link is kept for good once it was open.
    pub(super) fn keeps_link(&self) -> bool {
        self.bot.idle_ttl.is_none()
    }

    /// Returns whether the link may stay open for longer than the store keeps an idle conversation.
    fn outlasts_record(&self) -> bool {
        self.bot.idle_ttl.is_none_or(|ttl| ttl >= RECORD_TTL)
    }

    pub(super) fn on_activity(&mut self, now: Timestamp) {
        self.keep_until = Some(self.bot.idle_ttl.map_or(FOREVER, |ttl| now + ttl));
    }

    /// Gives up a link that cannot be opened and has no waiting message.
    pub(super) fn release_link(&mut self) {
        if !self.keeps_link() {
            self.keep_until = None;
        }
    }

    /// Returns how long a new owner opens the link after the end of a turn. The write buffer adds a quarter.
    pub(super) fn warm_for(&mut self, now: Timestamp) -> Duration {
        self.warm_at = now + RECORD_TTL / 2;
        if self.keeps_link() { RECORD_TTL * 4 / 5 } else { self.bot.late_window }
    }

    /// Renews the record of a conversation whose open link outlasts it.
    pub(super) fn tend_warmth(&mut self, now: Timestamp) {
        if self.warm_wake_at().is_some_and(|at| now >= at) {
            self.warm_at = now + RECORD_TTL / 2;
            if self.keeps_link() {
                self.buffer.warm(now + RECORD_TTL);
            }
            self.buffer.touch(now);
        }
    }

    pub(super) fn warm_wake_at(&self) -> Option<Timestamp> {
        let kept =
            self.outlasts_record() && self.keep_until.is_some() && matches!(self.link, LinkPhase::Open(_));
        kept.then_some(self.warm_at)
    }
}

/// Returns until when the link of a loaded conversation is kept: within the late window of its last turn, or for
/// good. After a session end by the caller there is no such turn.
pub(super) fn initial_keep_until(
    bot: &BotConfig,
    record: &ConversationRecord,
    now: Timestamp,
) -> Option<Timestamp> {
    let known = record.connected_at.is_some() || record.last_turn.is_some();
    if bot.idle_ttl.is_none() && known {
        return Some(FOREVER);
    }
    let late_until = record.last_turn.as_ref().map(|turn| turn.ended_at + bot.late_window);
    late_until.filter(|&until| until > now)
}
