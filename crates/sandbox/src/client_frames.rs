//! Handles the frames of a client (protocol.md 6): answers pings and events, and turns each message into steps.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::behaviour::{UserIdStyle, WelcomeTime};
use super::clock;
use super::commands::{self, CommandAnswer};
use super::history::HistoryEntry;
use super::history_content::HistoryContent;
use super::observations::{FrameKind, ReceivedFrame};
use super::platform_state::{PlatformState, UserEntry, UserState, locked};
use super::scripted_bot::{AskedMessage, ScriptedBot};
use super::session::ConversationSession;
use super::socket_task::SocketTask;
use super::step::{ReceiptKind, ReceiptScope, Step};
use super::step_runner::{StepTrigger, frame_context, run_steps};
use super::{default_bot, platform_frames, uploads};

/// A client's frame. The code for each type checks the members that it needs, because the platform is lenient.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientFrame<'a> {
    #[serde(borrow, default)]
    client_message_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "resourceid")]
    resource_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

impl<'a> ClientFrame<'a> {
    /// Returns the id for the ack.
    fn reply_to(&self) -> Option<&'a RawValue> {
        self.id.or(self.client_message_id)
    }

    fn text(&self) -> String {
        #[derive(Deserialize)]
        struct MessageBody<'a> {
            #[serde(borrow)]
            body: Option<Cow<'a, str>>,
        }
        let message = self.message.and_then(|raw| serde_json::from_str::<MessageBody<'_>>(raw.get()).ok());
        message.and_then(|message| message.body).map(Cow::into_owned).unwrap_or_default()
    }

    fn files(&self) -> Vec<Value> {
        #[derive(Deserialize)]
        struct MessageFiles {
            attachments: Vec<Value>,
        }
        let message = self.message.and_then(|raw| serde_json::from_str::<MessageFiles>(raw.get()).ok());
        message.map(|message| message.attachments).unwrap_or_default()
    }

    fn attachments(&self) -> Option<Value> {
        #[derive(Deserialize)]
        struct MessageFiles {
            attachments: Option<Value>,
        }
        let message = self.message.and_then(|raw| serde_json::from_str::<MessageFiles>(raw.get()).ok());
        message.and_then(|message| message.attachments)
    }

    fn kind(&self) -> FrameKind {
        match (self.r#type.as_deref(), self.resource_id.as_deref()) {
            (Some("ping"), _) => FrameKind::Ping,
            (Some("ack"), _) => FrameKind::DeliveryAck,
            (_, Some("/bot.message")) if self.event.is_none() => FrameKind::Message,
            (_, Some("/bot.message")) => FrameKind::Signal,
            (_, Some("/bot.closeConversationSession")) => FrameKind::CloseSession,
            (_, Some("/bot.clientEvent")) => FrameKind::ClientEvent,
            _ => FrameKind::Other,
        }
    }
}

impl SocketTask {
    /// Handles one frame.
    pub(super) async fn handle_frame(&self, text: &str) {
        let Self { platform, user, socket } = self;
        let Ok(frame) = serde_json::from_str::<ClientFrame<'_>>(text) else {
            // The platform's reaction to such a frame is unknown. It is observed and otherwise ignored.
            let heard = ReceivedFrame {
                at: clock::now(),
                socket: socket.id,
                client_message_id: Value::Null,
                text: String::new(),
                kind: FrameKind::Unreadable,
                frame: Value::String(text.to_owned()),
            };
            self.hear(FrameKind::Unreadable, "", text);
            return platform.observe(user, |observed| observed.others.push(heard));
        };
        let trigger = StepTrigger {
            reply_to: frame.reply_to().map(|id| Box::from(id.get())),
            socket: Some(Arc::clone(socket)),
            ..StepTrigger::default()
        };
        let behaviour = platform.behaviour();
        let kind = frame.kind();
        let limit = if behaviour.signals_count || kind == FrameKind::Message {
            platform.options.rate_per_minute
        } else {
            0
        };
        if !is_within_rate(&mut locked(&user.state).sent, limit, clock::now()) {
            return socket.close(Some(1008), "rate limit exceeded").await;
        }
        match kind {
            FrameKind::Message => return self.handle_message(trigger, &frame, text).await,
            FrameKind::Ping => {
                self.hear(kind, "", text);
                platform.observe(user, |observed| observed.pings += 1);
                if behaviour.pong {
                    let pong = platform_frames::pong(behaviour.spelling, trigger.reply_to.as_deref());
                    socket.send(behaviour.framing, &pong).await;
                }
                return;
            }
            _ => {}
        }
        self.hear(kind, &frame.text(), text);
        platform.observe(user, |observed| observed.others.push(self.received_frame(&frame, text)));
        let steps = match kind {
            FrameKind::CloseSession => vec![Step::Ack, Step::EndSession],
            FrameKind::ClientEvent => vec![Step::AckWithoutReplyTo],
            FrameKind::Signal if behaviour.signal_acks => vec![Step::Ack],
            _ => return,
        };
        run_steps(platform, user, trigger, steps).await;
    }

    /// Records a frame for `/sandbox/heard`.
    fn hear(&self, kind: FrameKind, text: &str, raw: &str) {
        self.platform.hear(&self.user, "frame", || {
            let frame = serde_json::from_str(raw).unwrap_or_else(|_| json!(raw));
            json!({"type": kind.name(), "socket": self.socket.id, "text": text, "frame": frame})
        });
    }

    /// Handles a user's message: history, other sockets, answer.
    async fn handle_message(&self, trigger: StepTrigger, frame: &ClientFrame<'_>, raw: &str) {
        let Self { platform, user, socket } = self;
        let at = clock::now();
        let behaviour = platform.behaviour();
        let text = frame.text();
        let id = frame.client_message_id.or(frame.id).map_or("null", RawValue::get);
        self.hear(FrameKind::Message, &text, raw);
        platform.counts.messages.fetch_add(1, Ordering::Relaxed);

        let scripted = self.scripted_steps(frame, raw);
        let (steps, echo) = {
            let mut state = locked(&user.state);
            let mut steps = Vec::new();
            if resume_session(platform, &mut state) && behaviour.session_events {
                steps.push(Step::Event("session_start".to_owned()));
            }
            let agent = state.agent;
            let files = frame.files();
            let is_stalled = std::mem::take(&mut state.stalled);
            state.stalled = behaviour.files.stalls && text.is_empty() && !files.is_empty();
            let is_stalled = is_stalled || state.stalled;
            let welcome_steps = welcome(platform, user, &state);
            if let Some(session) = &mut state.session {
                let welcome = !std::mem::replace(&mut session.welcomed, true)
                    && behaviour.welcome == WelcomeTime::AfterFirstMessage;
                let answer = match scripted {
                    Some(steps) => steps,
                    None if is_stalled => vec![Step::Ack],
                    None => bot_steps(platform, user, session, agent, (&text, &files), id),
                };
                let acks = answer.iter().take_while(|step| matches!(step, Step::Ack)).count();
                steps.extend(answer);
                if welcome {
                    let place = steps.len().min(acks);
                    steps.splice(place..place, welcome_steps);
                }
            }
            let said = HistoryEntry {
                id: platform.ids.uuid("ms-"),
                user_message_id: match behaviour.user_ids {
                    UserIdStyle::AsSent => frame.client_message_id.or(frame.id).map(ToOwned::to_owned),
                    UserIdStyle::Missing => None,
                    UserIdStyle::Foreign => to_raw_value(&platform.ids.uuid("")).ok(),
                },
                from_user: true,
                by_agent: false,
                content: HistoryContent::of_user(&text, frame.attachments().as_ref()),
                at: clock::shifted(at, behaviour.clock_lead),
                visible_at: clock::after(at, behaviour.history_delay),
                session: state.session.as_ref().map(|session| session.id.clone()).unwrap_or_default(),
            };
            state.remember(said, platform.options.history);
            let others: Vec<_> =
                state.sockets.iter().filter(|other| other.id != socket.id).cloned().collect();
            let echo = (behaviour.fan_out && !others.is_empty()).then(|| {
                let context = frame_context(&behaviour, user, &state);
                let (id, message) = (to_value(frame.reply_to()), to_value(frame.message));
                (platform_frames::user_message(&context, &id, &message), others)
            });
            (steps, echo)
        };
        if let Some((echo, others)) = echo {
            for other in others {
                other.send(behaviour.framing, &echo).await;
            }
        }
        platform.observe(user, |observed| observed.messages.push(self.received_frame(frame, raw)));
        run_steps(platform, user, trigger, steps).await;
    }

    /// Returns the steps that a test scripted for this message: for the user, for any user, or by a bot of its own.
    fn scripted_steps(&self, frame: &ClientFrame<'_>, raw: &str) -> Option<Vec<Step>> {
        let Self { platform, user, .. } = self;
        if let Some(steps) = locked(&user.state).scripted_messages.pop_front() {
            return Some(steps);
        }
        if platform.scripted_for_any_count.load(Ordering::Acquire) > 0
            && let Some(steps) = locked(&platform.scripted_for_any).pop_front()
        {
            platform.scripted_for_any_count.fetch_sub(1, Ordering::AcqRel);
            return Some(steps);
        }
        let bot = platform.bot.read().ok()?.clone()?;
        Some(bot(&user.id, &self.received_frame(frame, raw)))
    }

    fn received_frame(&self, frame: &ClientFrame<'_>, raw: &str) -> ReceivedFrame {
        ReceivedFrame {
            at: clock::now(),
            socket: self.socket.id,
            client_message_id: to_value(frame.client_message_id),
            text: frame.text(),
            kind: frame.kind(),
            frame: serde_json::from_str(raw).unwrap_or_else(|_| json!(raw)),
        }
    }
}

/// Counts a message at `at`, and returns whether the user sent fewer than `limit` in the last minute. A refused
/// message does not count. With `limit` 0 there is no limit.
fn is_within_rate(sent: &mut VecDeque<Timestamp>, limit: u32, at: Timestamp) -> bool {
    const MINUTE: Duration = Duration::from_mins(1);
    if limit == 0 {
        return true;
    }
    while sent.front().is_some_and(|&first| clock::after(first, MINUTE) <= at) {
        sent.pop_front();
    }
    let is_within = sent.len() < limit as usize;
    if is_within {
        sent.push_back(at);
    }
    is_within
}

/// Keeps the running session alive or begins one. Returns whether it began one.
pub(super) fn resume_session(platform: &PlatformState, state: &mut UserState) -> bool {
    let at = Instant::now();
    let timeout = platform.options.session_timeout;
    match &mut state.session {
        Some(session) if session.ends_at(timeout).is_none_or(|end| end > at) => {
            session.last_activity = at;
            false
        }
        slot => {
            let mut session = ConversationSession::new(platform.ids.session(), at);
            session.welcomed = true;
            *slot = Some(session);
            true
        }
    }
}

/// Returns the bot's welcome of a new session.
pub(super) fn welcome(platform: &PlatformState, user: &UserEntry, state: &UserState) -> Vec<Step> {
    match platform.options.scripted_bot(user.bot_id()) {
        Some(bot) => bot.welcome(user.id.user()),
        None => default_bot::welcome(state.context.summary().as_deref()),
    }
}

/// Returns the bot's answer to a message: a command's, the script's, the agent's or the default bot's.
pub(super) fn bot_steps(
    platform: &PlatformState,
    user: &UserEntry,
    session: &mut ConversationSession,
    agent: bool,
    (text, files): (&str, &[Value]),
    id: &str,
) -> Vec<Step> {
    let mut behaviour = platform.behaviour();
    let script = platform.options.scripted_bot(user.bot_id());
    let command =
        if script.is_none_or(ScriptedBot::has_commands) { commands::command(text, id) } else { None };
    let mut answer = match (command, script) {
        (Some(CommandAnswer::Exact(steps)), _) => return steps,
        (Some(CommandAnswer::Usual(steps)), _) => steps,
        (None, Some(bot)) => {
            let asked = AskedMessage {
                user: user.id.user(),
                text,
                number: user.asked.fetch_add(1, Ordering::Relaxed) + 1,
                moment: platform.script_progress.count(user.bot_id()),
            };
            let answer = bot.answer(&mut session.script_dialog, asked);
            if let Some(ack) = answer.ack {
                Arc::make_mut(&mut behaviour).ack = ack;
            }
            answer.steps
        }
        (None, None) if agent => vec![Step::AgentSay(format!("I see: {text}"))],
        (None, None) => {
            uploads::answer(platform, files).unwrap_or_else(|| default_bot::answer(&mut session.dialog, text))
        }
    };
    if agent && behaviour.agent_receipts {
        let receipts = [ReceiptKind::Delivered, ReceiptKind::Read];
        answer.splice(..0, receipts.map(|kind| Step::AgentReceipt(kind, ReceiptScope::Answered)));
    }
    match (session.dialog.runs() || session.script_dialog.is_some(), &session.context) {
        (true, None) => session.context = Some(platform.ids.uuid("dcx-")),
        (false, Some(_)) => session.context = None,
        _ => {}
    }
    default_bot::place_ack_and_waiting(answer, &behaviour)
}

/// Parses a raw JSON value. An absent one becomes `null`.
fn to_value(raw: Option<&RawValue>) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_counts_any_sixty_seconds() {
        let mut sent = VecDeque::new();
        let mut sends = |second| is_within_rate(&mut sent, 2, Timestamp::from_second(second).unwrap());
        assert_eq!([0, 30, 59, 60, 89, 90].map(&mut sends), [true, true, false, true, false, true]);
        assert!(is_within_rate(&mut sent, 0, Timestamp::UNIX_EPOCH));
    }
}
