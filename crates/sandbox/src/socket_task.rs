//! The task of one web socket: registers it, reads its frames, removes it.
//!
//! `listen` returns the reason of the end, and `run` removes the socket in every case.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_ws::{AggregatedMessage, AggregatedMessageStream, ProtocolError};
use serde_json::json;
use tokio::time::Instant;

use super::behaviour::{Behaviour, WelcomeTime};
use super::client_frames::welcome;
use super::clock;
use super::observations::{CloseObservation, ConnectObservation, SocketEnd};
use super::platform_state::{PlatformState, UserEntry, locked};
use super::session::{ConversationSession, RequestedMode, SessionEffect};
use super::socket_handle::SocketHandle;
use super::step::Step;
use super::step_runner::{StepTrigger, run_steps};

#[derive(Debug, Clone)]
pub(super) struct ConnectRequest {
    pub(super) mode: Option<String>,
    pub(super) is_reconnect: bool,
    /// Whether the bot says no welcome (`isSkipOnConnect=true`).
    pub(super) skips_welcome: bool,
    pub(super) query: String,
    pub(super) origin: Option<String>,
}

/// Consequences of a new socket.
pub(super) struct ConnectSteps {
    steps: Vec<Step>,
    /// Earlier sockets that the new one replaces.
    replaced: Vec<Arc<SocketHandle>>,
}

pub(super) struct SocketTask {
    pub(super) platform: Arc<PlatformState>,
    pub(super) user: Arc<UserEntry>,
    pub(super) socket: Arc<SocketHandle>,
}

impl SocketTask {
    /// Registers a socket before the upgrade is answered. From the answer on, the client can rely on being heard.
    pub(super) fn register(&self, request: ConnectRequest) -> ConnectSteps {
        let platform = &self.platform;
        let behaviour = platform.behaviour();
        platform.counts.open_sockets.fetch_add(1, Ordering::Relaxed);
        let greeting = {
            let mut state = locked(&self.user.state);
            let replaced = if behaviour.replace { std::mem::take(&mut state.sockets) } else { Vec::new() };
            state.sockets.push(Arc::clone(&self.socket));
            state.trace = platform.ids.trace();

            let at = Instant::now();
            let timeout = platform.options.session_timeout;
            let ended = |session: &ConversationSession| session.ends_at(timeout).is_some_and(|end| end <= at);
            if state.session.as_ref().is_some_and(ended) {
                state.session = None;
                state.agent = false;
            }
            let recent = state.session.as_ref().map(|session| session.id.clone());
            let arrival =
                RequestedMode::of(request.mode.as_deref(), request.is_reconnect).arrive(recent.is_some());
            if let SessionEffect::Renew { keep_agent } = arrival {
                state.agent &= keep_agent;
                let mut session = ConversationSession::new(platform.ids.session(), at);
                session.welcomed =
                    request.skips_welcome || behaviour.welcome != WelcomeTime::AfterFirstMessage;
                state.session = Some(session);
            }
            let scripted = state.scripted_connects.pop_front();
            let mut steps = scripted.unwrap_or_else(|| {
                let says_welcome = behaviour.welcome == WelcomeTime::OnConnect && !request.skips_welcome;
                let welcome = says_welcome.then(|| welcome(platform, &self.user, &state));
                greet(&behaviour, arrival, recent.as_deref(), state.context.language.as_deref(), welcome)
            });
            steps.extend(state.repeatable.iter().cloned().map(Step::Raw));
            ConnectSteps { steps, replaced }
        };
        let ConnectRequest { mode, is_reconnect, skips_welcome, query, origin } = request;
        let (at, socket) = (clock::now(), self.socket.id);
        platform.hear(&self.user, "connect", || {
            json!({
                "socket": socket, "mode": mode, "isReconnect": is_reconnect, "isSkipOnConnect": skips_welcome,
                "origin": origin,
            })
        });
        let connect = ConnectObservation { at, socket, mode, is_reconnect, query, origin };
        platform.observe(&self.user, |observed| observed.connects.push(connect));
        greeting
    }

    pub(super) async fn run(self, mut frames: AggregatedMessageStream, greeting: ConnectSteps) {
        for other in greeting.replaced {
            other.close(None, "").await;
        }
        let socket = Some(Arc::clone(&self.socket));
        let trigger = StepTrigger { socket, exclusive: true, ..StepTrigger::default() };
        run_steps(&self.platform, &self.user, trigger, greeting.steps).await;

        let observed = self.listen(&mut frames).await;
        let Self { platform, user, socket } = self;
        platform.counts.open_sockets.fetch_sub(1, Ordering::Relaxed);
        locked(&user.state).sockets.retain(|other| other.id != socket.id);
        let ending = socket.ending.get().copied().unwrap_or(observed);
        platform.hear(
            &user,
            "close",
            || json!({"socket": socket.id, "ending": ending.name(), "code": ending.code()}),
        );
        platform.observe(&user, |observed| {
            observed.closes.push(CloseObservation { at: clock::now(), socket: socket.id, ending });
        });
    }

    async fn listen(&self, frames: &mut AggregatedMessageStream) -> SocketEnd {
        let Self { platform, user, socket } = self;
        let mut idle_since = Instant::now();
        loop {
            let idle_at = platform.options.idle_timeout.map(|timeout| idle_since + timeout);
            let session_at = locked(&user.state)
                .session
                .as_ref()
                .and_then(|session| session.ends_at(platform.options.session_timeout));
            let next = tokio::select! {
                biased;
                () = socket.hang.notified() => return wait_until_gone(socket).await,
                next = frames.recv() => next,
                () = sleep_until(idle_at) => {
                    socket.close(None, "").await;
                    return SocketEnd::ByPlatform(None);
                }
                () = sleep_until(session_at) => {
                    self.end_session().await;
                    continue;
                }
            };
            idle_since = Instant::now();
            match next {
                None => return SocketEnd::Lost,
                Some(Err(error)) => return close_on_error(socket, &error).await,
                Some(Ok(AggregatedMessage::Text(text))) => self.handle_frame(&text).await,
                Some(Ok(AggregatedMessage::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                    Ok(text) => self.handle_frame(text).await,
                    Err(_) => socket.close(Some(1007), "not UTF-8").await,
                },
                Some(Ok(AggregatedMessage::Ping(payload))) => {
                    if platform.behaviour().ws_pong {
                        socket.pong(&payload).await;
                    }
                    platform.observe(user, |observed| observed.ws_pings += 1);
                }
                Some(Ok(AggregatedMessage::Pong(_))) => {}
                Some(Ok(AggregatedMessage::Close(reason))) => {
                    let code = reason.as_ref().map(|reason| reason.code.into());
                    socket.close_in_return(reason).await;
                    return SocketEnd::ByClient(code);
                }
            }
        }
    }

    /// Ends a session after its idle timeout, with a closing message if the behaviour has one.
    async fn end_session(&self) {
        let timeout = self.platform.options.session_timeout;
        let over = locked(&self.user.state)
            .session
            .as_ref()
            .and_then(|session| session.ends_at(timeout))
            .is_some_and(|end| end <= Instant::now());
        if over {
            let closing = self.platform.behaviour().closing_message.clone().map(Step::Say);
            let steps = closing.into_iter().chain([Step::EndSession]).collect();
            run_steps(&self.platform, &self.user, StepTrigger::default(), steps).await;
        }
    }
}

/// Returns the platform's steps on a connect (protocol.md 7.8). `recent` is the session that ran before it.
fn greet(
    behaviour: &Behaviour,
    arrival: SessionEffect,
    recent: Option<&str>,
    language: Option<&str>,
    welcome: Option<Vec<Step>>,
) -> Vec<Step> {
    let active = behaviour.bot_active.then(|| {
        let fields = if behaviour.recent_session_info {
            json!({"recentSessionInfo": {"isActive": recent.is_some(), "sessionId": recent}})
        } else {
            json!({})
        };
        Step::EventWith("bot_active".to_owned(), fields)
    });
    let (first, last) = if behaviour.active_last { (None, active) } else { (active, None) };
    let mut steps = Vec::new();
    if behaviour.hello {
        steps.push(Step::Event("hello".to_owned()));
    }
    steps.extend(first);
    if let Some(language) = language {
        let fields = json!({"langDetails": {"language": language}});
        steps.push(Step::EventWith("initial_language".to_owned(), fields));
    }
    if arrival != SessionEffect::Keep {
        if behaviour.session_events {
            steps.push(Step::Event("session_start".to_owned()));
        }
        if let Some(welcome) = welcome {
            steps.push(Step::Wait(behaviour.welcome_delay));
            steps.extend(welcome);
        }
    }
    steps.extend(last);
    steps
}

/// Sleeps until `time`, or forever without one.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Ignores the client until the connection is gone.
async fn wait_until_gone(socket: &SocketHandle) -> SocketEnd {
    socket.gone().await;
    SocketEnd::Lost
}

/// Closes a socket after a read error, with the matching code (protocol.md 5.5).
async fn close_on_error(socket: &SocketHandle, error: &ProtocolError) -> SocketEnd {
    let (code, reason) = match error {
        ProtocolError::Io(error) if error.kind() == ErrorKind::InvalidData => (1007, "not UTF-8"),
        // The reassembly itself makes only this error. An error of a lost connection has a source.
        ProtocolError::Io(error) if error.to_string() == "Exceeded maximum continuation size" => {
            (1009, "too big")
        }
        ProtocolError::Io(_) => return SocketEnd::Lost,
        ProtocolError::Overflow => (1009, "too big"),
        _ => (1002, "protocol error"),
    };
    socket.close(Some(code), reason).await;
    SocketEnd::ByPlatform(Some(code))
}
