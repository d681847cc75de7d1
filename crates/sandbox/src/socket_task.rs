//! The life of one web socket: enter, listen, leave.
//!
//! It returns why it ended; cleaning up is done in one place whatever the reason was.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_ws::{AggregatedMessage as Message, AggregatedMessageStream, ProtocolError};
use serde_json::json;
use tokio::time::Instant;

use super::behaviour::{Behaviour, Welcome};
use super::client_frames;
use super::clock;
use super::default_bot;
use super::observations::{Closed, Connected, Ending};
use super::platform::{Platform, User, locked};
use super::session::{Arrival, Mode, Session};
use super::simulated_socket::Socket;
use super::step::Step;
use super::step_runner::{Cause, perform};

/// What the upgrade's query string says.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) mode: Option<String>,
    pub(super) is_reconnect: bool,
    pub(super) query: String,
}

/// What a socket's arrival sets off.
pub(super) struct Greeting {
    steps: Vec<Step>,
    /// The sockets that have to make room.
    replaced: Vec<Arc<Socket>>,
}

/// Brings a socket in. This happens before the upgrade is answered, so that whoever sees the answer can rely
/// on being heard and reached.
pub(super) fn enter(platform: &Platform, user: &User, socket: &Arc<Socket>, request: Request) -> Greeting {
    let behaviour = platform.behaviour();
    platform.counts.open_sockets.fetch_add(1, Ordering::Relaxed);
    let greeting = {
        let mut inner = locked(&user.inner);
        let replaced = if behaviour.replace { std::mem::take(&mut inner.sockets) } else { Vec::new() };
        inner.sockets.push(Arc::clone(socket));
        inner.trace = platform.ids.trace();

        let at = Instant::now();
        let timeout = platform.options.session_timeout;
        let ended = |session: &Session| session.ends_at(timeout).is_some_and(|end| end <= at);
        if inner.session.as_ref().is_some_and(ended) {
            inner.session = None;
            inner.agent = false;
        }
        let recent = inner.session.as_ref().map(|session| session.id.clone());
        let arrival = Mode::of(request.mode.as_deref(), request.is_reconnect).arrive(recent.is_some());
        if let Arrival::Renew { keep_agent } = arrival {
            inner.agent &= keep_agent;
            let mut session = Session::new(platform.ids.session(), at);
            session.welcomed = behaviour.welcome != Welcome::AfterFirstMessage;
            inner.session = Some(session);
        }
        let scripted = inner.next_connect.pop_front();
        let steps = scripted.unwrap_or_else(|| greet(&behaviour, arrival, recent.as_deref()));
        Greeting { steps, replaced }
    };
    let Request { mode, is_reconnect, query } = request;
    platform.observe(user, |observed| {
        observed.connects.push(Connected { at: clock::now(), socket: socket.id, mode, is_reconnect, query });
    });
    greeting
}

/// What the platform says on a connect (protocol.md 7.8). `recent` is the session that ran before it.
fn greet(behaviour: &Behaviour, arrival: Arrival, recent: Option<&str>) -> Vec<Step> {
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
    if arrival != Arrival::Keep {
        if behaviour.session_events {
            steps.push(Step::Event("session_start".to_owned()));
        }
        if behaviour.welcome == Welcome::OnConnect {
            steps.push(Step::Wait(behaviour.welcome_delay));
            steps.extend(default_bot::welcome());
        }
    }
    steps.extend(last);
    steps
}

/// Runs a socket until it ends, whatever ends it.
pub(super) async fn run(
    platform: Arc<Platform>,
    user: Arc<User>,
    socket: Arc<Socket>,
    mut frames: AggregatedMessageStream,
    greeting: Greeting,
) {
    for other in greeting.replaced {
        other.close(None, "").await;
    }
    let cause = Cause { reply_to: None, socket: Some(Arc::clone(&socket)), alone: true };
    perform(&platform, &user, cause, greeting.steps).await;

    let observed = listen(&platform, &user, &socket, &mut frames).await;
    platform.counts.open_sockets.fetch_sub(1, Ordering::Relaxed);
    locked(&user.inner).sockets.retain(|other| other.id != socket.id);
    let how = socket.ending.get().copied().unwrap_or(observed);
    platform
        .observe(&user, |observed| observed.closes.push(Closed { at: clock::now(), socket: socket.id, how }));
}

async fn listen(
    platform: &Arc<Platform>,
    user: &Arc<User>,
    socket: &Arc<Socket>,
    frames: &mut AggregatedMessageStream,
) -> Ending {
    let mut idle_since = Instant::now();
    loop {
        let idle_at = platform.options.idle_timeout.map(|timeout| idle_since + timeout);
        let session_at = locked(&user.inner)
            .session
            .as_ref()
            .and_then(|session| session.ends_at(platform.options.session_timeout));
        let next = tokio::select! {
            biased;
            () = socket.hang.notified() => return hung(socket).await,
            next = frames.recv() => next,
            () = at(idle_at) => {
                socket.close(None, "").await;
                return Ending::ByPlatform(None);
            }
            () = at(session_at) => {
                end_session(platform, user).await;
                continue;
            }
        };
        idle_since = Instant::now();
        match next {
            None => return Ending::Lost,
            Some(Err(error)) => return refuse(socket, &error).await,
            Some(Ok(Message::Text(text))) => client_frames::frame(platform, user, socket, &text).await,
            Some(Ok(Message::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                Ok(text) => client_frames::frame(platform, user, socket, text).await,
                Err(_) => socket.close(Some(1007), "not UTF-8").await,
            },
            Some(Ok(Message::Ping(payload))) => {
                if platform.behaviour().ws_pong {
                    socket.pong(&payload).await;
                }
                platform.observe(user, |observed| observed.ws_pings += 1);
            }
            Some(Ok(Message::Pong(_))) => {}
            Some(Ok(Message::Close(reason))) => {
                let code = reason.as_ref().map(|reason| reason.code.into());
                socket.close_in_return(reason).await;
                return Ending::ByClient(code);
            }
        }
    }
}

/// At that time; never, where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Lets the client talk to the wind until the connection is gone.
async fn hung(socket: &Socket) -> Ending {
    socket.gone().await;
    Ending::Lost
}

/// What cannot be read ends the socket with the code that fits (protocol.md 5.5).
async fn refuse(socket: &Socket, error: &ProtocolError) -> Ending {
    let (code, reason) = match error {
        ProtocolError::Io(error) if error.kind() == ErrorKind::InvalidData => (1007, "not UTF-8"),
        // The only error of this kind that the reassembly makes itself; a lost connection has a source.
        ProtocolError::Io(error) if error.to_string() == "Exceeded maximum continuation size" => {
            (1009, "too big")
        }
        ProtocolError::Io(_) => return Ending::Lost,
        ProtocolError::Overflow => (1009, "too big"),
        _ => (1002, "protocol error"),
    };
    socket.close(Some(code), reason).await;
    Ending::ByPlatform(Some(code))
}

/// Ends a session that nobody used for too long, with a message where the platform is set so.
async fn end_session(platform: &Arc<Platform>, user: &Arc<User>) {
    let timeout = platform.options.session_timeout;
    let over = locked(&user.inner)
        .session
        .as_ref()
        .and_then(|session| session.ends_at(timeout))
        .is_some_and(|end| end <= Instant::now());
    if over {
        let closing = platform.behaviour().closing_message.clone().map(Step::Say);
        let steps = closing.into_iter().chain([Step::EndSession]).collect();
        perform(platform, user, Cause::default(), steps).await;
    }
}
