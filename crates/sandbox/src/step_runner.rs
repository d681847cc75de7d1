//! Performs steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::clock;
use super::history::Said;
use super::message_elements;
use super::observations::Delivered;
use super::platform::{Inner, Platform, User, locked};
use super::platform_frames::{self, Scene};
use super::simulated_socket::Socket;
use super::step::{Step, StreamEnd};

/// Why steps are performed.
#[derive(Clone, Default)]
pub(super) struct Cause {
    /// The id of the message they answer, as JSON.
    pub(super) reply_to: Option<Box<str>>,
    /// The socket it came on: acks go there, and it is the one that is closed, cut or hung.
    pub(super) socket: Option<Arc<Socket>>,
    /// Whether everything goes to that socket only, as on connect.
    pub(super) alone: bool,
}

/// Performs the steps: at once where they take no time, else beside whatever comes next.
pub(super) async fn perform(platform: &Arc<Platform>, user: &Arc<User>, cause: Cause, steps: Vec<Step>) {
    let player = Player { platform: Arc::clone(platform), user: Arc::clone(user), cause };
    if steps.iter().any(Step::takes_time) {
        actix_web::rt::spawn(player.play(steps));
    } else {
        player.play(steps).await;
    }
}

/// Performs steps for one user.
pub(super) struct Player {
    pub(super) platform: Arc<Platform>,
    pub(super) user: Arc<User>,
    pub(super) cause: Cause,
}

impl Player {
    pub(super) async fn play(self, steps: Vec<Step>) {
        for step in steps {
            self.step(step).await;
        }
    }

    async fn step(&self, step: Step) {
        match step {
            Step::Ack => self.ack(self.cause.reply_to.as_deref()).await,
            Step::AckWithoutReplyTo => self.ack(None).await,
            Step::AckAs(id) => self.ack(Some(&id.to_string())).await,
            Step::Wait(span) => tokio::time::sleep(span).await,
            Step::Until(gate) => gate.passed().await,
            Step::Say(text) => self.respond(&text, &[message_elements::text(&text)], None, false).await,
            Step::Message(elements) => {
                let text =
                    elements.first().and_then(|e| e.pointer("/cInfo/body")?.as_str()).unwrap_or_default();
                self.respond(text, &elements, None, false).await;
            }
            Step::Response(fields) => {
                let text =
                    fields.pointer("/message/0/cInfo/body").and_then(Value::as_str).unwrap_or_default();
                self.respond(text, &[], Some(&fields), false).await;
            }
            Step::Frame(frame) => self.send(&frame.to_string()).await,
            Step::Raw(text) => self.send(&text).await,
            Step::Binary(bytes) => {
                for socket in self.audience() {
                    socket.send_binary(bytes.clone()).await;
                }
            }
            Step::Event(kind) => self.event(&kind, &json!({})).await,
            Step::EventWith(kind, fields) => self.event(&kind, &fields).await,
            Step::WaitingForInput => self.event("waiting_for_user_input", &json!({})).await,
            Step::Stream { chunks, gap, end } => self.stream(&chunks, gap, end).await,
            Step::AgentStart => {
                locked(&self.user.inner).agent = true;
                self.event("agent_session_start", &json!({})).await;
                self.agent_event("agent_connected").await;
            }
            Step::AgentSay(text) => {
                self.agent_event("typing").await;
                self.agent_event("stoptyping").await;
                let fields = json!({"fromAgent": true, "author": author(), "agent_MessageId": self.platform.ids.uuid("")});
                self.respond(&text, &[message_elements::text(&text)], Some(&fields), true).await;
            }
            Step::AgentEnd => {
                locked(&self.user.inner).agent = false;
                self.agent_event("agent_disconnected").await;
                self.event("agent_session_end", &json!({})).await;
            }
            Step::EndSession => {
                if self.behaviour().session_events {
                    self.event("session_end", &json!({})).await;
                }
                let mut inner = locked(&self.user.inner);
                inner.session = None;
                inner.agent = false;
            }
            Step::OnlyHistory(text) => {
                self.note(&text, None, false, Vec::new(), |_, _| ());
            }
            Step::Forget => locked(&self.user.inner).history.clear(),
            Step::Close(code) => self.close(Some(code)).await,
            Step::CloseWithoutCode => self.close(None).await,
            Step::Drop(how) => {
                for socket in self.targets() {
                    socket.cut(how);
                }
            }
            Step::Hang => {
                for socket in self.targets() {
                    socket.hang();
                }
            }
            Step::ExpireTokens => {
                self.platform.grant_epoch.fetch_add(1, Ordering::AcqRel);
            }
            Step::Fault(endpoint, times, fault) => self.platform.faults.plan(endpoint, Some(times), fault),
        }
    }

    fn behaviour(&self) -> Arc<Behaviour> {
        self.platform.behaviour()
    }

    /// Who hears it.
    fn audience(&self) -> Vec<Arc<Socket>> {
        match &self.cause.socket {
            Some(socket) if self.cause.alone => vec![Arc::clone(socket)],
            _ => locked(&self.user.inner).sockets.clone(),
        }
    }

    /// Whom closing and cutting hit.
    fn targets(&self) -> Vec<Arc<Socket>> {
        match &self.cause.socket {
            Some(socket) => vec![Arc::clone(socket)],
            None => self.audience(),
        }
    }

    async fn send(&self, frame: &str) {
        let framing = self.behaviour().framing;
        for socket in self.audience() {
            socket.send(framing, frame).await;
        }
    }

    async fn ack(&self, reply_to: Option<&str>) {
        let behaviour = self.behaviour();
        let frame = platform_frames::ack(behaviour.spelling, reply_to);
        for socket in self.targets() {
            socket.send(behaviour.framing, &frame).await;
        }
    }

    async fn close(&self, code: Option<u16>) {
        for socket in self.targets() {
            socket.close(code, "").await;
        }
    }

    async fn event(&self, kind: &str, fields: &Value) {
        let behaviour = self.behaviour();
        let frame = {
            let inner = locked(&self.user.inner);
            platform_frames::event(&scene(&behaviour, &self.user, &inner), kind, fields)
        };
        self.send(&frame).await;
    }

    async fn agent_event(&self, kind: &str) {
        self.event("events", &json!({"message": {"type": kind, "author": author()}})).await;
    }

    /// Says a response: history, observation, sockets.
    async fn respond(&self, text: &str, elements: &[Value], fields: Option<&Value>, agent: bool) {
        let behaviour = self.behaviour();
        let audience = self.audience();
        let ids = audience.iter().map(|socket| socket.id).collect();
        let frame = self.note(text, template(elements), agent, ids, |scene, id| {
            platform_frames::response(scene, id, elements, fields)
        });
        for socket in audience {
            socket.send(behaviour.framing, &frame).await;
        }
    }

    /// Keeps what is said, and makes its frame under the same lock.
    fn note<R>(
        &self,
        text: &str,
        template: Option<String>,
        by_agent: bool,
        sockets: Vec<u64>,
        frame: impl FnOnce(&Scene<'_>, &str) -> R,
    ) -> R {
        let behaviour = self.behaviour();
        let id = self.platform.ids.uuid("ms-");
        let at = clock::now();
        self.platform.counts.responses.fetch_add(1, Ordering::Relaxed);
        let frame = {
            let mut inner = locked(&self.user.inner);
            let frame = frame(&scene(&behaviour, &self.user, &inner), &id);
            let session = inner.session.as_ref().map(|session| session.id.clone()).unwrap_or_default();
            let said = Said {
                id: id.clone(),
                user_message_id: None,
                from_user: false,
                by_agent,
                text: text.to_owned(),
                template,
                at,
                visible_at: clock::after(at, behaviour.history_delay),
                session,
            };
            inner.remember(said, self.platform.options.history);
            frame
        };
        self.platform.observe(&self.user, |observed| {
            observed.delivered.push(Delivered { at, message_id: id.clone(), text: text.to_owned(), sockets });
        });
        frame
    }

    async fn stream(&self, chunks: &[String], gap: std::time::Duration, end: StreamEnd) {
        let whole = chunks.concat();
        let audience = self.audience().iter().map(|socket| socket.id).collect();
        let id = self.note(&whole, None, false, audience, |_, id| id.to_owned());
        for (n, chunk) in chunks.iter().enumerate() {
            if n > 0 && !gap.is_zero() {
                tokio::time::sleep(gap).await;
            }
            let last = n + 1 == chunks.len() && end != StreamEnd::Missing;
            // A null leaves its field out.
            let fields = json!({
                "sM": true,
                "renderType": "text",
                "endChunk": last.then_some(true),
                "completeResponse": (last && end == StreamEnd::Complete).then_some(&whole),
            });
            let behaviour = self.behaviour();
            let frame = {
                let inner = locked(&self.user.inner);
                let scene = scene(&behaviour, &self.user, &inner);
                platform_frames::response(&scene, &id, &[message_elements::text(chunk)], Some(&fields))
            };
            self.send(&frame).await;
        }
    }
}

/// The template of a response as the history keeps it (protocol.md 7.10).
fn template(elements: &[Value]) -> Option<String> {
    let component = elements.first()?.get("component")?;
    (component.get("type")? == "template").then(|| component.get("payload").map(Value::to_string))?
}

fn author() -> Value {
    json!({"type": "AGENT", "firstName": "Alex", "lastName": "Agent"})
}

/// The scene of a user's frames now.
pub(super) fn scene<'a>(behaviour: &Behaviour, user: &'a User, inner: &'a Inner) -> Scene<'a> {
    Scene {
        spelling: behaviour.spelling,
        chat_bot: &inner.chat_bot,
        bot_id: user.bot_id(),
        session: inner.session.as_ref().map(|session| session.id.as_str()),
        trace: &inner.trace,
        context: inner.session.as_ref().and_then(|session| session.context.as_deref()),
        now: clock::now(),
    }
}
