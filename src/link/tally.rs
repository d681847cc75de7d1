//! What a link counts.

use tracing::{debug, error, info, warn};

use super::input::{AbandonReason, OutOfTurnReply};
use crate::domain::{BotName, LinkState, Message, MessageId, SessionRequest, Timestamp, TurnOutcome};
use crate::metrics::{BotMetrics, SocketState, TurnStage};
use crate::rtm::IncomingFrame;

/// Words under which incoming frames are counted.
pub const FRAMES_IN: &[&str] = &IncomingFrame::KINDS;

/// Words under which outgoing frames are counted.
pub const FRAMES_OUT: &[&str] = &["message", "close", "ping"];

/// Counts an ended turn: its outcome, and where its time went. The end of a session is no turn.
pub(super) fn turn(metrics: &BotMetrics, message: &Message, head_at: Timestamp) {
    if message.accepted.new.session == SessionRequest::Close {
        return;
    }
    let progress = &message.progress;
    match &progress.outcome {
        Some(TurnOutcome::Answered(by)) => metrics.turn_ended(by.as_str()),
        Some(TurnOutcome::Failed(problem)) => {
            metrics.turn_ended(problem.kind.slug());
            let new = &message.accepted.new;
            let (bot, trace_id) = (&new.conversation.bot, new.trace);
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

/// Reports a message that the store accepted and lost, or of which it lost how it ended.
pub(super) fn lost(bot: &BotName, id: MessageId) {
    error!(%bot, message.id = %id, "the store lost an accepted message, or its end; whoever waits for it is told so");
}

/// Reports that the store lost writes.
pub(super) fn rebased(bot: &BotName) {
    warn!(%bot, "the store lost writes of a conversation; what is still known is written again");
}

/// Says why a socket is given up.
pub(super) fn abandoned(bot: &BotName, why: AbandonReason) {
    match why {
        AbandonReason::Silent => info!(%bot, "the platform fell silent; the socket is given up"),
        AbandonReason::Unwanted => debug!(%bot, "nobody wants the socket any more"),
        AbandonReason::Backlog => {
            warn!(%bot, "the store is away and no more can be kept for it; the socket is given up");
        }
        AbandonReason::Anew => {
            error!(%bot, "the store is ahead of the conversation's owner, which begins anew; this is a bug");
        }
    }
}

impl OutOfTurnReply {
    /// Its word in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Unsolicited => "unsolicited",
            Self::Duplicate => "duplicate",
        }
    }
}

impl LinkState {
    /// Its gauge; none for a conversation without a link.
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
