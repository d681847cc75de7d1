//! Runs steps for a user.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::behaviour::{AgentDesk, Behaviour};
use super::clock;
use super::history::HistoryEntry;
use super::history_content::HistoryContent;
use super::message_elements;
use super::observations::DeliveryObservation;
use super::platform_frames::{self, FrameContext, ResponseId};
use super::platform_state::{PlatformState, UserEntry, UserState, locked};
use super::socket_handle::SocketHandle;
use super::step::{ReceiptKind, ReceiptScope, Step, StreamEndMarker};

/// Trigger of a list of steps.
#[derive(Clone, Default)]
pub(super) struct StepTrigger {
    /// Id of the message they answer, as JSON.
    pub(super) reply_to: Option<Box<str>>,
    /// Socket of that message. It gets the acks, and it is the one to close, cut or hang.
    pub(super) socket: Option<Arc<SocketHandle>>,
    /// Whether all frames go to that socket only, as on connect.
    pub(super) exclusive: bool,
    /// Collects the responses for a webhook call.
    pub(super) collector: Option<Sender<CollectedResponse>>,
}

/// A response for a webhook call.
#[derive(Debug, Clone)]
pub(super) struct CollectedResponse {
    pub(super) message_id: String,
    pub(super) created_on: String,
    pub(super) elements: Vec<Value>,
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
            Step::Say(text) => self.respond(&[message_elements::text(&text)], None, false).await,
            Step::Message(elements) => {
                let site = locked(&self.user.state).site.clone();
                self.respond(&message_elements::at_site(&elements, &site), None, false).await;
            }
            Step::Response(fields) => self.respond(&[], Some(&fields), false).await,
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
                let behaviour = self.behaviour();
                self.agent_event("typing").await;
                tokio::time::sleep(behaviour.agent_typing).await;
                self.agent_event("stoptyping").await;
                let id = self.platform.ids.uuid("");
                let fields = json!({"fromAgent": true, "author": author(), "agent_MessageId": id});
                match behaviour.agent_desk {
                    AgentDesk::Kore => {
                        self.respond(&[message_elements::text(&text)], Some(&fields), true).await;
                    }
                    AgentDesk::Vendor => {
                        self.respond(&[message_elements::agent_line(&text)], None, false).await;
                    }
                }
            }
            Step::AgentReceipt(kind, scope) => self.agent_receipt(kind, scope).await,
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
                self.record_response(&text, HistoryContent::text(&text), false, Vec::new(), |_, _| ());
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
        let message = json!({
            "type": kind, "author": author(), "fromAgent": true,
            "timestamp": clock::now().as_millisecond(), "agentInfo": agent_info(&self.platform),
        });
        self.event("events", &json!({"customEvent": "EVENT", "message": message})).await;
    }

    async fn agent_receipt(&self, kind: ReceiptKind, scope: ReceiptScope) {
        let answered = || {
            self.trigger.reply_to.as_deref().and_then(|id| serde_json::from_str(id).ok()).unwrap_or_default()
        };
        let message = match scope {
            ReceiptScope::All => json!("all"),
            ReceiptScope::Answered => answered(),
        };
        let kind = match kind {
            ReceiptKind::Delivered => "message_delivered",
            ReceiptKind::Read => "message_read",
        };
        let message = json!({"type": kind, "clientMessageId": message, "author": author()});
        self.event("events", &json!({"customEvent": "EVENT", "message": message})).await;
    }

    /// Sends a response: to the history, the observations and the sockets.
    async fn respond(&self, elements: &[Value], fields: Option<&Value>, agent: bool) {
        let behaviour = self.behaviour();
        let escaped;
        let sent = if behaviour.escape_html {
            escaped = message_elements::escaped(elements);
            &escaped
        } else {
            elements
        };
        let shown =
            fields.and_then(|fields| fields.get("message")?.as_array()).map_or(elements, Vec::as_slice);
        let text = shown.first().and_then(|e| e.pointer("/cInfo/body")?.as_str()).unwrap_or_default();
        let content = match self.platform.options.history {
            0 => HistoryContent::default(),
            _ => HistoryContent::of_elements(shown, behaviour.history_text),
        };
        let audience = self.audience();
        let ids = audience.iter().map(|socket| socket.id).collect();
        let frame = self.record_response(text, content, agent, ids, |context, id| {
            self.collect(&id.message_id, context, shown);
            platform_frames::response(context, id, sent, fields)
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

    fn collect(&self, message_id: &str, context: &FrameContext<'_>, elements: &[Value]) {
        if let Some(collector) = &self.trigger.collector {
            let created_on = clock::rfc3339(context.now);
            let response = CollectedResponse {
                message_id: message_id.to_owned(),
                created_on,
                elements: elements.to_vec(),
            };
            // The call may have ended, or have all it takes.
            let _gone = collector.try_send(response);
        }
    }

    /// Records a response, and builds its frame under the same lock.
    fn record_response<R>(
        &self,
        text: &str,
        content: HistoryContent,
        by_agent: bool,
        sockets: Vec<u64>,
        frame: impl FnOnce(&FrameContext<'_>, &ResponseId) -> R,
    ) -> R {
        let behaviour = self.behaviour();
        let id = self.platform.ids.uuid("ms-");
        let key = self.platform.ids.trace();
        let at = clock::now();
        self.platform.counts.responses.fetch_add(1, Ordering::Relaxed);
        let frame = {
            let mut state = locked(&self.user.state);
            let now = clock::shifted(at, behaviour.clock_lead).as_millisecond();
            state.last_timestamp = now.max(state.last_timestamp + 1);
            let response = ResponseId { message_id: id.clone(), timestamp: state.last_timestamp, key };
            let frame = frame(&frame_context(&behaviour, &self.user, &state), &response);
            let session = state.session.as_ref().map(|session| session.id.clone()).unwrap_or_default();
            let said = HistoryEntry {
                id: id.clone(),
                user_message_id: None,
                from_user: false,
                by_agent,
                content,
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
        let content = HistoryContent::text(&whole);
        let mut id = self.record_response(&whole, content, false, audience, |context, id| {
            self.collect(&id.message_id, context, &[message_elements::text(&whole)]);
            id.clone()
        });
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
            self.send_piece(&mut id, chunk, Some(&fields)).await;
        }
        if end == StreamEndMarker::Plain {
            self.send_piece(&mut id, &whole, None).await;
        }
    }

    /// Sends a piece of a stream. Each piece has a timestamp of its own, because clients acknowledge each.
    async fn send_piece(&self, id: &mut ResponseId, text: &str, fields: Option<&Value>) {
        let behaviour = self.behaviour();
        let frame = {
            let mut state = locked(&self.user.state);
            let context = frame_context(&behaviour, &self.user, &state);
            let frame = platform_frames::response(&context, id, &[message_elements::text(text)], fields);
            state.last_timestamp += 1;
            id.timestamp = state.last_timestamp;
            frame
        };
        self.send(&frame).await;
    }
}

fn author() -> Value {
    json!({"type": "AGENT", "firstName": "Alex", "lastName": "Agent"})
}

/// Describes the agent as desks do (protocol.md 7.11).
fn agent_info(platform: &PlatformState) -> Value {
    let user_id = platform.ids.uuid_of("u-", "the sandbox's agent");
    json!({
        "status": "ONLINE", "id": platform.ids.uuid_of("a-", "the sandbox's agent"), "userId": user_id,
        "firstName": "Alex", "lastName": "Agent", "nickName": "Alex", "name": "Alex Agent",
        "emailId": "alex@example.com", "phoneNumber": "", "profImage": "",
        "orgId": platform.ids.uuid_of("o-", "sandbox"), "accountId": platform.ids.session_of("account", "sandbox"),
        "roleId": "agent", "customId": "",
    })
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
        icon: format!("{}/sandbox/bot.png", state.site),
        now: clock::shifted(clock::now(), behaviour.clock_lead),
        task_runs: behaviour
            .end_of_task
            .then(|| state.session.as_ref().is_some_and(|session| session.context.is_some())),
    }
}
