//! The rhythm of the bot as a finished turn showed it.

use std::time::Duration;

use super::reply_kind::ReplyKind;

/// The event behind a reply of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextReply {
    /// Another reply of the same turn, after this gap.
    After(Duration),
    /// Silence for this long.
    NoneFor(Duration),
}

/// The lesson of a finished turn. A turn that a deadline, a loss or a human agent ended shows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnObservation {
    /// The turn's replies in order, and what came behind each.
    pub replies: Vec<(ReplyKind, NextReply)>,
    /// The time from sending to the first reply.
    pub first_reply_after: Option<Duration>,
    /// Whether a learned wait ended the turn and the bot then went on.
    pub early_cut: bool,
}
