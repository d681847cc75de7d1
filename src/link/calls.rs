//! The calls of a conversation that take time, with their metrics and logs.
//!
//! The driver decides when a call is made, and boxes it while it runs.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::conversation_host::ConversationHost;
use super::input::{ConnectFailure, HistoryFailure};
use super::mailbox::Mailbox;
use super::new_deliveries;
use super::stats;
use super::store_retry::retry_while_unavailable;
use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, ConversationId, EntryBody, JournalEntry, JournalPosition, MessageId, MessageProgress,
    Partition, Problem, ProblemKind, SessionRequest, Timestamp, TurnOutcome, UserDetails, UserId,
};
use crate::metrics::{ConnectResult, ConnectStep};
use crate::rtm::{
    ConnectContext, ConnectError, ConnectMode, Grant, HistoryPage, PlatformSocket, RetryAdvice,
    decode_history_page, outgoing,
};
use crate::store::{
    ConversationChange, ConversationSnapshot, ConversationWrite, Fence, OpenMessage, QueueId, StoreError,
    WriteResult,
};
use crate::wall_clock;

/// Loads the stored conversation and retries while the store is unavailable. Returns none if another owner has the
/// partition.
pub(super) async fn load<H: ConversationHost>(
    host: &H,
    fence: Fence,
    conversation: &ConversationId,
) -> Option<ConversationSnapshot> {
    let opened = retry_while_unavailable("open", async || host.store().open(fence, conversation).await).await;
    let (open, now) = opened.ok()?;
    host.clock().observe(now);
    Some(open)
}

/// Has the store delete the conversation, and retries while it is unavailable. Returns the messages of the lane. Returns
/// `None` if another owner has the partition.
pub(super) async fn erase<H: ConversationHost>(
    host: &H,
    fence: Fence,
    conversation: &ConversationId,
) -> Option<Vec<MessageId>> {
    retry_while_unavailable("erase", async || host.store().erase(fence, conversation).await).await.ok()
}

/// Fails every open message of a conversation whose task panicked. A new task would panic again.
pub async fn fail_open<H: ConversationHost>(
    host: &H,
    bot: &BotConfig,
    fence: Fence,
    conversation: &ConversationId,
) {
    let Some(lane) = write_failures(host, bot, fence, conversation).await else { return };
    let metrics = host.bot_metrics(bot);
    for open in lane {
        match host.store().message(conversation, open.accepted.id, None).await {
            Ok(Some(message)) => {
                if let Some(metrics) = &metrics {
                    stats::count_turn(metrics, &message, message.accepted.accepted_at);
                }
                host.complete(message);
            }
            // The waiters read the store themselves.
            Ok(None) | Err(_) => host.report_loss(open.accepted.id),
        }
    }
}

/// Ends every open message and returns them. Retries while the store is unavailable. Returns none if another owner
/// has the partition.
async fn write_failures<H: ConversationHost>(
    host: &H,
    bot: &BotConfig,
    fence: Fence,
    conversation: &ConversationId,
) -> Option<Vec<OpenMessage>> {
    loop {
        let open = load(host, fence, conversation).await?;
        let write = failures(bot, &open, host.clock().now());
        match retry_while_unavailable("fail", async || host.store().write(fence, conversation, &write).await)
            .await
        {
            Ok(_) => {
                publish(host, fence, conversation, &write);
                return Some(open.lane);
            }
            // A write of the panicked task was still on its way, or the store lost data.
            Err(StoreError::OutOfStep) => {}
            Err(_) => return None,
        }
    }
}

fn failures(bot: &BotConfig, open: &ConversationSnapshot, now: Timestamp) -> ConversationWrite {
    let mut record = open.record.clone();
    record.number_write(now);
    let problem =
        Problem::new(ProblemKind::Internal, "the bridge failed while the message was open; this is a bug");
    let outcome = TurnOutcome::Failed(problem);
    let mut changes = Vec::with_capacity(2 * open.lane.len());
    for OpenMessage { accepted, progress } in &open.lane {
        record.seq += 1;
        let body = EntryBody::end_of(accepted, outcome.clone());
        changes.push(ConversationChange::Append(JournalEntry { seq: record.seq, at: now, body }));
        let (ended_at, outcome) = (Some(now), Some(outcome.clone()));
        let progress = MessageProgress { ended_at, outcome, ..progress.clone() };
        let place = JournalPosition { epoch: record.epoch, seq: record.seq };
        changes.extend(new_deliveries::of_end(bot, accepted, &progress, place, now));
    }
    ConversationWrite { record, follows: open.record.write, changes, warm_until: None }
}

/// Performs a write and counts it. If it is stored, tells live readers of its entries and the dispatcher of its
/// deliveries. If no answer comes, the repeat of the write tells them.
pub(super) async fn write<H: ConversationHost>(
    host: &H,
    fence: Fence,
    conversation: &ConversationId,
    write: &ConversationWrite,
) -> Result<WriteResult, StoreError> {
    let started = Instant::now();
    let result = host.store().write(fence, conversation, write).await;
    let metrics = host.write_metrics();
    metrics.duration.observe(started.elapsed().as_secs_f64());
    match &result {
        Ok(written) => {
            host.clock().observe(written.now);
            publish(host, fence, conversation, write);
        }
        Err(error) if error.is_passing() => metrics.unknown.inc(),
        // The machine reads the lane to find the loss.
        Err(StoreError::OutOfStep) => {}
        Err(_) => metrics.fenced.inc(),
    }
    result
}

fn publish<H: ConversationHost>(
    host: &H,
    fence: Fence,
    conversation: &ConversationId,
    write: &ConversationWrite,
) {
    if write.changes.iter().any(|change| matches!(change, ConversationChange::Append(_))) {
        host.appended(conversation);
    }
    let mut queues = Vec::new();
    for change in &write.changes {
        if let ConversationChange::Deliver(delivery) = change {
            let queue = QueueId::of_delivery(delivery);
            if !queues.contains(&queue) {
                queues.push(queue);
                host.due(fence, queue, delivery);
            }
        }
    }
}

pub(super) fn frame(
    bot: &BotConfig,
    message: &AcceptedMessage,
    context: &ConnectContext,
) -> (&'static str, String) {
    match message.new.session {
        SessionRequest::Close | SessionRequest::Erase => {
            ("close", outgoing::close_session(bot, message.client_message_id))
        }
        _ => ("message", outgoing::message(bot, message, context)),
    }
}

/// Reads the context that an earlier owner's message gave the session. It is empty if the message has expired.
async fn stored_context<H: ConversationHost>(
    host: &H,
    conversation: &ConversationId,
    id: MessageId,
    details: UserDetails,
) -> Result<ConnectContext, ConnectFailure> {
    match host.store().message(conversation, id, None).await {
        Ok(message) => {
            let content = message.as_ref().map(|message| &message.accepted.new.content);
            Ok(ConnectContext::new(content, details))
        }
        Err(error) => {
            info!(bot = %conversation.bot(), %error, "the context of a connection could not be read; retrying");
            let words = "the bridge could not read the context of the session from its store".into();
            Err(ConnectFailure::Unavailable { words, retry_after: None })
        }
    }
}

/// The context of a connect, as far as this owner knows it.
pub(super) enum ContextSource {
    Known(Rc<ConnectContext>),
    /// A message of the session has it. The details of the user are known.
    Stored(MessageId, UserDetails),
}

/// Opens a socket when the bot's budget allows it. Fails as soon as the lease is not valid. Returns the context that the
/// connection got.
pub(super) async fn connect<H: ConversationHost>(
    host: &H,
    bot: &BotConfig,
    conversation: &ConversationId,
    mode: ConnectMode,
    context: ContextSource,
    mailbox: &Mailbox,
    grant: &Mutex<Option<Grant>>,
) -> Result<(PlatformSocket, Rc<ConnectContext>), ConnectFailure> {
    let (user, partition) = (conversation.user(), Partition::of(conversation));
    let context = match context {
        ContextSource::Known(context) => context,
        ContextSource::Stored(id, details) => Rc::new(stored_context(host, conversation, id, details).await?),
    };
    let connecting = async {
        host.connect_permit(bot, conversation, mailbox).await;
        let mut grant = grant.lock().await;
        host.connector().connect(bot, user, mode, &context, &mut grant, wall_clock::now()).await
    };
    let mut connecting = pin!(connecting);
    // Budget, grant, ticket and handshake take time, so the lease is checked before each poll.
    let result = poll_fn(|cx| {
        if host.may_act(partition) { connecting.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }
    });
    let result = result.await.ok_or(ConnectFailure::Withheld)?;
    let metrics = host.bot_metrics(bot);
    let count = |phase, result| {
        if let Some(metrics) = &metrics {
            metrics.connects.ended(phase, result);
        }
    };
    let error = match result {
        Ok(socket) => {
            count(ConnectStep::Socket, ConnectResult::Ok);
            return Ok((socket, Rc::clone(&context)));
        }
        Err(error) => error,
    };
    let phase = match error.phase() {
        "assertion" => ConnectStep::Assertion,
        "grant" => ConnectStep::Grant,
        "start" => ConnectStep::Start,
        "proxy" => ConnectStep::Proxy,
        _ => ConnectStep::Socket,
    };
    let words = error.public_message().into();
    Err(match error.retry() {
        RetryAdvice::Never => {
            stats::log_refusal(&bot.name, &error);
            if let Some(metrics) = &metrics {
                metrics.connects.refused(phase, user, Instant::now().into_std());
            }
            ConnectFailure::Rejected(words)
        }
        retry @ (RetryAdvice::Now | RetryAdvice::Backoff(_)) => {
            info!(bot = %bot.name, %error, "the connect failed; retrying");
            let late = matches!(&error, ConnectError::Unreachable { error, .. } if error.is_timeout());
            count(phase, if late { ConnectResult::TimedOut } else { ConnectResult::Unavailable });
            let retry_after = if let RetryAdvice::Backoff(after) = retry { after } else { None };
            ConnectFailure::Unavailable { words, retry_after }
        }
    })
}

/// Reads a page of history behind a message of the platform, or the newest page. A background read waits for the
/// bot's budget, because thousands of idle conversations may read after an outage.
pub(super) async fn history<H: ConversationHost>(
    host: &H,
    bot: &BotConfig,
    user: &UserId,
    after: Option<&str>,
    context: &Rc<ConnectContext>,
    grant: &Mutex<Option<Grant>>,
    urgent: &Cell<bool>,
) -> Result<HistoryPage, HistoryFailure> {
    let mut permit = pin!(host.history_permit(bot));
    poll_fn(|cx| if urgent.get() { Poll::Ready(()) } else { permit.as_mut().poll(cx) }).await;
    // A connect that hangs holds the grant. A turn gets one of its own.
    let mut shared = match grant.try_lock() {
        Ok(shared) => Some(shared),
        Err(_) if urgent.get() => None,
        Err(_) => Some(grant.lock().await),
    };
    let mut own = None;
    let grant = shared.as_deref_mut().unwrap_or(&mut own);
    let page = host.connector().fetch_history_page(bot, user, context, grant, after, wall_clock::now()).await;
    let body = page.map_err(|error| {
        info!(bot = %bot.name, %error, "history could not be read");
        if error.retry() == RetryAdvice::Never {
            HistoryFailure::Permanent
        } else {
            HistoryFailure::Temporary
        }
    })?;
    decode_history_page(&body).map_err(|error| {
        stats::log_strange_history(&bot.name, error);
        HistoryFailure::Temporary
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::fixtures::{accepted_message, conversation, new_message};
    use crate::domain::{Callback, ConversationRecord, DeliveryId, DeliveryKind, NewMessage};

    #[test]
    fn messages_failed_by_a_panic_are_delivered_to_their_target() {
        let bot = crate::config::fixtures::bot("support");
        let conversation = conversation("support", "alice");
        let now = Timestamp::from_millis(2000);
        let open = |number, callback| {
            let new = NewMessage { callback, ..new_message(conversation.clone(), "hello") };
            let id = MessageId::new(Timestamp::from_millis(1), number);
            let accepted = Arc::new(AcceptedMessage { id, ..accepted_message(new) });
            OpenMessage { accepted, progress: MessageProgress::default() }
        };
        let callback = Callback { url: "https://caller.example/hook".into(), signer: None };
        let lane = vec![open(1, None), open(2, Some(callback))];
        let ids: Vec<_> = lane.iter().map(|open| open.accepted.id).collect();
        // No entry was written before: the journal begins here.
        let write = failures(
            &bot,
            &ConversationSnapshot {
                record: ConversationRecord::default(),
                lane,
                ..ConversationSnapshot::default()
            },
            now,
        );
        let [first, second, ConversationChange::Deliver(delivery)] = &*write.changes else {
            panic!("{write:?}")
        };
        let ended = [first, second].map(|change| change.ended().unwrap().0);
        assert_eq!((&ended[..], write.record.seq), (&*ids, 2));
        assert_eq!((delivery.kind, delivery.message), (DeliveryKind::MessageFailed, Some(ids[1])));
        assert_eq!(delivery.id, DeliveryId::of(&conversation, write.record.epoch, 2, now));
        assert!(delivery.data.get().contains(r#""status":"failed""#), "{}", delivery.data);
    }
}
