//! The metrics and log lines of a link.

use tracing::{debug, error, info, warn};

use super::input::{AbandonReason, OutOfTurnReply};
use crate::domain::{BotName, LinkState, Message, MessageId, Timestamp, TurnOutcome};
use crate::metrics::{BotMetrics, SocketState, TurnStage};
use crate::rtm::{ConnectError, IncomingFrame, InvalidHistoryPage};
use crate::telemetry::LogLimiter;

/// The labels of incoming frames.
pub const FRAMES_IN: &[&str] = &IncomingFrame::KINDS;

/// The labels of outgoing frames.
pub const FRAMES_OUT: &[&str] = &["message", "close", "ping", "signal", "delivery_ack"];

/// Counts an ended turn by its outcome and the duration of its parts. The end of a session is not a turn.
pub(super) fn count_turn(metrics: &BotMetrics, message: &Message, head_at: Timestamp) {
    if message.accepted.new.session.is_end() {
        return;
    }
    let progress = &message.progress;
    match &progress.outcome {
        Some(TurnOutcome::Answered(by)) => {
            metrics.turn_ended(by.as_str());
            if let Some(quiet) = by.quiet() {
                metrics.quiet_ended_turn(quiet);
            }
        }
        Some(TurnOutcome::Failed(problem)) => {
            metrics.turn_ended(problem.kind.slug());
            let new = &message.accepted.new;
            let (bot, trace_id) = (new.conversation.bot(), new.trace);
            warn!(%bot, message.id = %message.accepted.id, %trace_id, %problem, "a turn failed");
        }
        None => {}
    }
    metrics.stage_ended(TurnStage::Queue, head_at.since(message.accepted.accepted_at));
    let Some(sent_at) = progress.sent_at else { return };
    metrics.stage_ended(TurnStage::Connect, sent_at.since(head_at));
    let parts = [
        (TurnStage::Ack, progress.acked_at),
        (TurnStage::FirstReply, progress.first_reply_at),
        (TurnStage::End, progress.ended_at),
    ];
    for (part, at) in parts {
        if let Some(at) = at {
            metrics.stage_ended(part, at.since(sent_at));
        }
    }
}

pub(super) fn log_loss(bot: &BotName, id: MessageId) {
    error!(%bot, message.id = %id, "the store lost an accepted message or its end; its waiters get message-lost");
}

/// Warns of an event that concerns many conversations, once for all of them. The rest is at debug.
macro_rules! warn_once {
    ($bot:expr, { $($field:tt)* }, $message:literal) => {{
        static LIMIT: LogLimiter = LogLimiter::new();
        match LIMIT.pass() {
            Some(left_out) => warn!(bot = %$bot, $($field)* left_out, $message),
            None => debug!(bot = %$bot, $($field)* $message),
        }
    }};
}

pub(super) fn log_reconciled(bot: &BotName) {
    warn_once!(bot, {}, "the store lost writes of a conversation; the known ones are written again");
}

pub(super) fn log_refusal(bot: &BotName, error: &ConnectError) {
    warn_once!(bot, { %error, }, "the platform refuses the bridge");
}

pub(super) fn log_strange_history(bot: &BotName, error: InvalidHistoryPage) {
    warn_once!(bot, { %error, }, "the platform's history cannot be understood");
}

pub(super) fn log_malformed(bot: &BotName, bytes: usize) {
    warn_once!(bot, { bytes, }, "the platform sent a frame that cannot be read");
}

pub(super) fn log_abandoned(bot: &BotName, why: AbandonReason) {
    match why {
        AbandonReason::Silent => info!(%bot, "the platform does not answer; the socket is abandoned"),
        AbandonReason::Unwanted => debug!(%bot, "the socket is not needed any more"),
        AbandonReason::Backlog => {
            warn_once!(
                bot,
                {},
                "the store is unavailable and too many changes wait for it; the socket is abandoned"
            );
        }
        AbandonReason::StoreAhead => {
            error!(%bot, "the store is ahead of the conversation's owner, which restarts from it; this is a bug");
        }
    }
}

impl OutOfTurnReply {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Unsolicited => "unsolicited",
            Self::Duplicate => "duplicate",
        }
    }
}

impl LinkState {
    /// Returns the gauge. A conversation without a link has no gauge.
    pub(super) const fn metric(self) -> Option<SocketState> {
        use SocketState as S;
        match self {
            Self::Cold => None,
            Self::Connecting => Some(S::Connecting),
            Self::Ready => Some(S::Ready),
            Self::BackingOff => Some(S::BackingOff),
            Self::Blocked => Some(S::Blocked),
            Self::Draining => Some(S::Draining),
        }
    }
}
