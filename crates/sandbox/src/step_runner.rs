//! Runs steps for a user.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::behaviour::{AgentDesk, Behaviour};
use super::clock;
use super::history::HistoryEntry;
use super::message_elements;
use super::observations::DeliveryObservation;
use super::platform_frames::{self, FrameContext};
use super::platform_state::{PlatformState, UserEntry, UserState, locked};
use super::socket_handle::SocketHandle;
use super::step::{Step, StreamEndMarker};

/// Trigger of a list of steps.
#[derive(Clone, Default)]
pub(super) struct StepTrigger {
    /// Id of the message they answer, as JSON.
    pub(super) reply_to: Option<Box<str>>,
    /// Socket of that message. It gets the acks, and it is the one to close, cut or hang.
    pub(super) socket: Option<Arc<SocketHandle>>,
    /// Whether all frames go to that socket only, as on connect.
    pub(super) exclusive: bool,
}

/// Runs steps: at once if they take no time, otherwise in a task of their own.
pub(super) async fn run_steps(
    platform: &Arc<PlatformState>,
    user: &Arc<UserEntry>,
    trigger: StepTrigger,
    steps: Vec<Step>,
) {
    let runner = StepRunner { platform: Arc::clone(platform), user: Arc::clone(user), trigger };
    if steps.iter().any(Step::takes_time) {
        actix_web::rt::spawn(runner.run(steps));
    } else {
        runner.run(steps).await;
    }
}

pub(super) struct StepRunner {
    pub(super) platform: Arc<PlatformState>,
    pub(super) user: Arc<UserEntry>,
    pub(super) trigger: StepTrigger,
}

impl StepRunner {
    pub(super) async fn run(self, steps: Vec<Step>) {
        for step in steps {
            self.step(step).await;
        }
    }

    async fn step(&self, step: Step) {
        match step {
            Step::Ack => self.ack(self.trigger.reply_to.as_deref()).await,
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
                locked(&self.user.state).agent = true;
                match self.behaviour().agent_desk {
                    AgentDesk::Kore => {
                        self.event("agent_session_start", &json!({})).await;
                        self.agent_event("agent_connected").await;
                    }
                    AgentDesk::Vendor => self.agent_event("agent_session_active").await,
                }
            }
            Step::AgentSay(text) => {
                self.agent_event("typing").await;
                self.agent_event("stoptyping").await;
                let id = self.platform.ids.uuid("");
                let fields = json!({"fromAgent": true, "author": author(), "agent_MessageId": id});
                match self.behaviour().agent_desk {
                    AgentDesk::Kore => {
                        self.respond(&text, &[message_elements::text(&text)], Some(&fields), true).await;
                    }
                    AgentDesk::Vendor => {
                        self.respond(&text, &[message_elements::agent_line(&text)], None, false).await;
                    }
                }
            }
            Step::AgentEnd => {
                locked(&self.user.state).agent = false;
                match self.behaviour().agent_desk {
                    AgentDesk::Kore => {
                        self.agent_event("agent_disconnected").await;
                        self.event("agent_session_end", &json!({})).await;
                    }
                    AgentDesk::Vendor => self.agent_event("agent_session_inactive").await,
                }
            }
            Step::EndSession => {
                if self.behaviour().session_events {
                    self.event("session_end", &json!({})).await;
                }
                let mut state = locked(&self.user.state);
                state.session = None;
                state.agent = false;
            }
            Step::OnlyHistory(text) => {
                self.record_response(&text, None, false, Vec::new(), |_, _| ());
            }
            Step::Forget => locked(&self.user.state).history.clear(),
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

    /// Returns the sockets that get the frames.
    fn audience(&self) -> Vec<Arc<SocketHandle>> {
        match &self.trigger.socket {
            Some(socket) if self.trigger.exclusive => vec![Arc::clone(socket)],
            _ => locked(&self.user.state).sockets.clone(),
        }
    }

    /// Returns the sockets to close or cut.
    fn targets(&self) -> Vec<Arc<SocketHandle>> {
        match &self.trigger.socket {
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
            let state = locked(&self.user.state);
            platform_frames::event(&frame_context(&behaviour, &self.user, &state), kind, fields)
        };
        self.send(&frame).await;
    }

    async fn agent_event(&self, kind: &str) {
        self.event("events", &json!({"message": {"type": kind, "author": author()}})).await;
    }

    /// Sends a response: to the history, the observations and the sockets.
    async fn respond(&self, text: &str, elements: &[Value], fields: Option<&Value>, agent: bool) {
        let behaviour = self.behaviour();
        let audience = self.audience();
        let ids = audience.iter().map(|socket| socket.id).collect();
        let frame = self.record_response(text, template(elements), agent, ids, |context, id| {
            platform_frames::response(context, id, elements, fields)
        });
        if behaviour.repeats > 0 {
            let mut state = locked(&self.user.state);
            state.repeatable.push_back(frame.clone());
            let over = state.repeatable.len().saturating_sub(behaviour.repeats);
            state.repeatable.drain(..over);
        }
        for socket in audience {
            socket.send(behaviour.framing, &frame).await;
        }
    }

    /// Records a response, and builds its frame under the same lock.
    fn record_response<R>(
        &self,
        text: &str,
        template: Option<String>,
        by_agent: bool,
        sockets: Vec<u64>,
        frame: impl FnOnce(&FrameContext<'_>, &str) -> R,
    ) -> R {
        let behaviour = self.behaviour();
        let id = self.platform.ids.uuid("ms-");
        let at = clock::now();
        self.platform.counts.responses.fetch_add(1, Ordering::Relaxed);
        let frame = {
            let mut state = locked(&self.user.state);
            let frame = frame(&frame_context(&behaviour, &self.user, &state), &id);
            let session = state.session.as_ref().map(|session| session.id.clone()).unwrap_or_default();
            let said = HistoryEntry {
                id: id.clone(),
                user_message_id: None,
                from_user: false,
                by_agent,
                text: text.to_owned(),
                template,
                at: clock::shifted(at, behaviour.clock_lead),
                visible_at: clock::after(at, behaviour.history_delay),
                session,
            };
            state.remember(said, self.platform.options.history);
            frame
        };
        let delivery = DeliveryObservation { at, message_id: id, text: text.to_owned(), sockets };
        self.platform.observe(&self.user, |observed| observed.delivered.push(delivery));
        frame
    }

    async fn stream(&self, chunks: &[String], gap: std::time::Duration, end: StreamEndMarker) {
        let whole = chunks.concat();
        let audience = self.audience().iter().map(|socket| socket.id).collect();
        let id = self.record_response(&whole, None, false, audience, |_, id| id.to_owned());
        for (n, chunk) in chunks.iter().enumerate() {
            if n > 0 && !gap.is_zero() {
                tokio::time::sleep(gap).await;
            }
            let last =
                n + 1 == chunks.len() && !matches!(end, StreamEndMarker::Missing | StreamEndMarker::Plain);
            // A null removes its field.
            let fields = json!({
                "sM": true,
                "renderType": "text",
                "endChunk": last.then_some(true),
                "completeResponse": (last && end == StreamEndMarker::Complete).then_some(&whole),
            });
            let behaviour = self.behaviour();
            let frame = {
                let state = locked(&self.user.state);
                let context = frame_context(&behaviour, &self.user, &state);
                platform_frames::response(&context, &id, &[message_elements::text(chunk)], Some(&fields))
            };
            self.send(&frame).await;
        }
        if end == StreamEndMarker::Plain {
            let frame = {
                let (behaviour, state) = (self.behaviour(), locked(&self.user.state));
                let context = frame_context(&behaviour, &self.user, &state);
                platform_frames::response(&context, &id, &[message_elements::text(&whole)], None)
            };
            self.send(&frame).await;
        }
    }
}

/// Returns the template of a response in the form of the history (protocol.md 7.10).
fn template(elements: &[Value]) -> Option<String> {
    let component = elements.first()?.get("component")?;
    (component.get("type")? == "template").then(|| component.get("payload").map(Value::to_string))?
}

fn author() -> Value {
    json!({"type": "AGENT", "firstName": "Alex", "lastName": "Agent"})
}

/// Returns the context of a user's frames.
pub(super) fn frame_context<'a>(
    behaviour: &Behaviour,
    user: &'a UserEntry,
    state: &'a UserState,
) -> FrameContext<'a> {
    FrameContext {
        spelling: behaviour.spelling,
        chat_bot: &state.chat_bot,
        bot_id: user.bot_id(),
        session: state.session.as_ref().map(|session| session.id.as_str()),
        trace: &state.trace,
        context: state.session.as_ref().and_then(|session| session.context.as_deref()),
        now: clock::shifted(clock::now(), behaviour.clock_lead),
    }
}
