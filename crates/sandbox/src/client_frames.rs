//! What a client says, understood (protocol.md 6), and what happens then.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::behaviour::Welcome;
use super::clock;
use super::commands::{self, Reply};
use super::history::Said;
use super::observations::Heard;
use super::platform::{Inner, Platform, User, locked};
use super::session::Session;
use super::simulated_socket::Socket;
use super::step::Step;
use super::step_runner::{Cause, perform, scene};
use super::{default_bot, platform_frames};

/// A client's frame. What a type needs is checked where it is used: the platform is lenient.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
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

impl<'a> Frame<'a> {
    /// What an ack names.
    fn reply_to(&self) -> Option<&'a RawValue> {
        self.id.or(self.client_message_id)
    }

    fn text(&self) -> String {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            body: Option<Cow<'a, str>>,
        }
        let message = self.message.and_then(|raw| serde_json::from_str::<Message<'_>>(raw.get()).ok());
        message.and_then(|message| message.body).map(Cow::into_owned).unwrap_or_default()
    }
}

/// Takes a frame and does what it asks for.
pub(super) async fn frame(platform: &Arc<Platform>, user: &Arc<User>, socket: &Arc<Socket>, text: &str) {
    let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else {
        // What the platform does with such a frame is unknown; it is noted and otherwise ignored.
        let heard = Heard {
            at: clock::now(),
            socket: socket.id,
            client_message_id: Value::Null,
            text: String::new(),
            frame: Value::String(text.to_owned()),
        };
        return platform.observe(user, |observed| observed.others.push(heard));
    };
    let cause = Cause {
        reply_to: frame.reply_to().map(|id| Box::from(id.get())),
        socket: Some(Arc::clone(socket)),
        alone: false,
    };
    let resource = frame.resource_id.as_deref().unwrap_or_default();
    let behaviour = platform.behaviour();
    if frame.r#type.as_deref() == Some("ping") {
        platform.observe(user, |observed| observed.pings += 1);
        if behaviour.pong {
            let pong = platform_frames::pong(behaviour.spelling, cause.reply_to.as_deref());
            socket.send(behaviour.framing, &pong).await;
        }
    } else if resource == "/bot.message" && frame.event.is_none() {
        message(platform, user, cause, &frame, text).await;
    } else {
        platform.observe(user, |observed| observed.others.push(noted(socket, &frame, text)));
        match resource {
            "/bot.closeConversationSession" => {
                perform(platform, user, cause, vec![Step::Ack, Step::EndSession]).await;
            }
            "/bot.clientEvent" => perform(platform, user, cause, vec![Step::AckWithoutReplyTo]).await,
            "/bot.message" => perform(platform, user, cause, vec![Step::Ack]).await,
            _ => {}
        }
    }
}

/// Counts a message at `at`, and returns whether the user sent fewer than `limit` in the last minute. A refused message
/// does not count. With `limit` 0 there is no limit.
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

/// A message of the user: the rate limit, the history, the other sockets, then the answer.
async fn message(platform: &Arc<Platform>, user: &Arc<User>, cause: Cause, frame: &Frame<'_>, raw: &str) {
    let Some(socket) = cause.socket.clone() else { return };
    let at = clock::now();
    let limit = platform.options.rate_per_minute;
    let behaviour = platform.behaviour();
    let text = frame.text();
    let id = frame.client_message_id.or(frame.id).map_or("null", RawValue::get);

    if !is_within_rate(&mut locked(&user.inner).sent, limit, at) {
        return socket.close(Some(1008), "rate limit exceeded").await;
    }
    platform.counts.messages.fetch_add(1, Ordering::Relaxed);

    let scripted = scripted(platform, user, &socket, frame, raw);
    let (steps, echo) = {
        let mut inner = locked(&user.inner);
        let mut steps = Vec::new();
        if resume(platform, &mut inner) && behaviour.session_events {
            steps.push(Step::Event("session_start".to_owned()));
        }
        let agent = inner.agent;
        if let Some(session) = &mut inner.session {
            let welcome = !std::mem::replace(&mut session.welcomed, true)
                && behaviour.welcome == Welcome::AfterFirstMessage;
            let answer = match scripted {
                Some(steps) => steps,
                None => by_default(platform, session, agent, &text, id),
            };
            let acks = answer.iter().take_while(|step| matches!(step, Step::Ack)).count();
            steps.extend(answer);
            if welcome {
                let place = steps.len().min(acks);
                steps.splice(place..place, default_bot::welcome());
            }
        }
        let said = Said {
            id: platform.ids.uuid("ms-"),
            user_message_id: frame.client_message_id.or(frame.id).map(ToOwned::to_owned),
            from_user: true,
            by_agent: false,
            text,
            template: None,
            at,
            visible_at: clock::after(at, behaviour.history_delay),
            session: inner.session.as_ref().map(|session| session.id.clone()).unwrap_or_default(),
        };
        inner.remember(said, platform.options.history);
        let others: Vec<_> = inner.sockets.iter().filter(|other| other.id != socket.id).cloned().collect();
        let echo = (behaviour.fan_out && !others.is_empty()).then(|| {
            let scene = scene(&behaviour, user, &inner);
            (platform_frames::user_message(&scene, &value(frame.reply_to()), &value(frame.message)), others)
        });
        (steps, echo)
    };
    if let Some((echo, others)) = echo {
        for other in others {
            other.send(behaviour.framing, &echo).await;
        }
    }
    platform.observe(user, |observed| observed.messages.push(noted(&socket, frame, raw)));
    perform(platform, user, cause, steps).await;
}

/// Keeps the running session alive or begins one; whether it began one.
fn resume(platform: &Platform, inner: &mut Inner) -> bool {
    let at = Instant::now();
    let timeout = platform.options.session_timeout;
    match &mut inner.session {
        Some(session) if session.ends_at(timeout).is_none_or(|end| end > at) => {
            session.last_activity = at;
            false
        }
        slot => {
            let mut session = Session::new(platform.ids.session(), at);
            session.welcomed = true;
            *slot = Some(session);
            true
        }
    }
}

/// What a test planned for this message: for the user, for anybody, or a bot of its own.
fn scripted(
    platform: &Platform,
    user: &User,
    socket: &Socket,
    frame: &Frame<'_>,
    raw: &str,
) -> Option<Vec<Step>> {
    if let Some(steps) = locked(&user.inner).next.pop_front() {
        return Some(steps);
    }
    if platform.nexts.load(Ordering::Acquire) > 0
        && let Some(steps) = locked(&platform.next).pop_front()
    {
        platform.nexts.fetch_sub(1, Ordering::AcqRel);
        return Some(steps);
    }
    let bot = platform.bot.read().ok()?.clone()?;
    Some(bot(&user.who, &noted(socket, frame, raw)))
}

fn by_default(platform: &Platform, session: &mut Session, agent: bool, text: &str, id: &str) -> Vec<Step> {
    let behaviour = platform.behaviour();
    let answer = match commands::command(text, id) {
        Some(Reply::Exact(steps)) => return steps,
        Some(Reply::Usual(steps)) => steps,
        None if agent => vec![Step::AgentSay(format!("I see: {text}"))],
        None => default_bot::answer(&mut session.dialog, text),
    };
    match (session.dialog.runs(), &session.context) {
        (true, None) => session.context = Some(platform.ids.uuid("dcx-")),
        (false, Some(_)) => session.context = None,
        _ => {}
    }
    default_bot::arrange(answer, &behaviour)
}

fn noted(socket: &Socket, frame: &Frame<'_>, raw: &str) -> Heard {
    Heard {
        at: clock::now(),
        socket: socket.id,
        client_message_id: value(frame.client_message_id),
        text: frame.text(),
        frame: serde_json::from_str(raw).unwrap_or_else(|_| json!(raw)),
    }
}

/// A JSON value of a raw one; `null` where there is none.
fn value(raw: Option<&RawValue>) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_counts_any_sixty_seconds() {
        let mut sent = VecDeque::new();
        let mut sends = |second| is_within_rate(&mut sent, 2, Timestamp::from_second(second).unwrap());
        assert_eq!([0, 30, 59, 60, 89, 90].map(&mut sends), [true, true, false, true, false, true]);
        assert!(is_within_rate(&mut sent, 0, Timestamp::UNIX_EPOCH));
    }
}
