//! Links that are kept although no message is open: for a while, or for good where the bot's `idle_ttl` is `never`.
//!
//! For good means over losses, restarts and take-overs: a bot that speaks unasked is heard as long as its
//! conversation is known to the store, and while the link is open that does not end. Such a link is only held: it
//! never asks the platform for a greeting, which would begin a session that nobody wanted.

use std::time::Duration;

use super::socket::Link;
use super::{FOREVER, Machine};
use crate::config::BotConfig;
use crate::domain::{ConversationRecord, Timestamp};

/// How long a new owner takes up a link that is kept for good after it was last heard of: as long as the store keeps
/// the conversation.
const KNOWN: Duration = Duration::from_hours(24);

impl Machine {
    /// Whether the link is kept for good once there was one.
    pub(super) fn keeps_link(&self) -> bool {
        self.bot.idle_ttl.is_none()
    }

    /// A sign that the link is worth keeping.
    pub(super) fn on_activity(&mut self, now: Timestamp) {
        self.keep_until = Some(self.bot.idle_ttl.map_or(FOREVER, |ttl| now + ttl));
    }

    /// Nobody waits for the link, and it does not come about.
    pub(super) fn give_up_link(&mut self) {
        if !self.keeps_link() {
            self.keep_until = None;
        }
    }

    /// For how long a new owner is to open the link, from a turn's end on; the ledger adds a quarter.
    pub(super) fn warm_for(&mut self, now: Timestamp) -> Duration {
        if self.keeps_link() {
            self.warm_at = now + KNOWN / 2;
            KNOWN * 4 / 5
        } else {
            self.bot.late_window
        }
    }

    /// Keeps the conversation known while its link is kept for good.
    pub(super) fn tend_warmth(&mut self, now: Timestamp) {
        if self.warm_wake_at().is_some_and(|at| now >= at) {
            self.warm_at = now + KNOWN / 2;
            self.ledger.warm(now + KNOWN);
            self.ledger.touch(now);
        }
    }

    /// When the store is to be told again that the conversation is known.
    pub(super) fn warm_wake_at(&self) -> Option<Timestamp> {
        let kept = self.keeps_link() && self.keep_until.is_some() && matches!(self.link, Link::Open(_));
        kept.then_some(self.warm_at)
    }
}

/// Until when the link of a conversation is worth having that comes into memory: while the bot may still answer its
/// last turn, or for good. One whose session was ended by its caller had no turn since.
pub(super) fn kept(bot: &BotConfig, record: &ConversationRecord, now: Timestamp) -> Option<Timestamp> {
    let known = record.connected_at.is_some() || record.last_turn.is_some();
    if bot.idle_ttl.is_none() && known {
        return Some(FOREVER);
    }
    let late_until = record.last_turn.as_ref().map(|turn| turn.ended_at + bot.late_window);
    late_until.filter(|&until| until > now)
}
