//! The platform's webhook channel, V1 and V2 (protocol.md 9). `webhook_posts` has its asynchronous form.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;

use super::assertion::{self, AssertionError};
use super::client_frames::{bot_steps, resume_session, welcome};
use super::clock;
use super::endpoints::{bearer, history_response, history_selection, host};
use super::fault_injection::error_response;
use super::history::HistoryEntry;
use super::history_content::HistoryContent;
use super::lenient_query::LenientQuery;
use super::message_elements;
use super::platform_state::{BotUser, PlatformState, UserEntry, locked};
use super::step::Step;
use super::step_runner::{CollectedResponse, StepRunner, StepTrigger};
use super::webhook_posts::WebhookPosts;

/// Longest call.
const LIMIT: Duration = Duration::from_secs(15);
/// Most responses of a call that wait to be read. Further ones are in the history only.
const RESPONSES: usize = 1024;
/// Time without a response that ends the first block of a polled call.
const BLOCK_GAP: Duration = Duration::from_millis(50);

/// Id of each trace.
const TRACE: &str = "RTM-TRACE-sandbox";

/// A running call.
pub(super) struct WebhookCall {
    user: Arc<UserEntry>,
    responses: Receiver<CollectedResponse>,
}

/// Version of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelVersion {
    V1,
    V2,
}

/// Content of a call.
enum CallContent {
    Text { text: String, attachments: Option<Value> },
    OnConnect,
    SessionClosure,
}

/// Adds the routes of the channel.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    for instance in ["", "/hookInstance/{instance}"] {
        config
            .route(&format!("/chatbot/hooks/{{bot}}{instance}"), web::post().to(call_v1))
            .route(&format!("/chatbot/v2/webhook/{{bot}}{instance}"), web::post().to(call_v2));
    }
    config.route("/chatbot/v2/webhook/{bot}/poll/{poll}", web::get().to(poll));
}

/// Adds the routes below one prefix of the API.
pub(super) fn api_routes(config: &mut web::ServiceConfig, api: &str) {
    config.route(&format!("{api}/chathistory/{{bot}}/{{channel}}"), web::get().to(chat_history));
}

async fn call_v1(
    bot: Path<PathOfCall>,
    request: HttpRequest,
    body: Bytes,
    platform: Data<PlatformState>,
) -> HttpResponse {
    call(ChannelVersion::V1, bot.into_inner().bot, &request, &body, platform).await
}

async fn call_v2(
    bot: Path<PathOfCall>,
    request: HttpRequest,
    body: Bytes,
    platform: Data<PlatformState>,
) -> HttpResponse {
    call(ChannelVersion::V2, bot.into_inner().bot, &request, &body, platform).await
}

/// Part of the path that a call needs. The instance does not matter.
#[derive(serde::Deserialize)]
struct PathOfCall {
    bot: String,
}

#[expect(clippy::indexing_slicing, reason = "the value is an object")]
fn refusal(version: ChannelVersion, status: StatusCode, msg: &str) -> HttpResponse {
    let mut body = json!({"errors": [{"msg": msg, "code": status.as_u16()}]});
    if version == ChannelVersion::V2 {
        body["_v"] = "v2".into();
        body["_t"] = TRACE.into();
    }
    HttpResponse::build(status).json(body)
}

/// Checks the token of a request. Returns its `userIdentity`, if it has one.
fn checked_identity(
    request: &HttpRequest,
    platform: &PlatformState,
) -> Result<Option<String>, AssertionError> {
    let options = &platform.options;
    let token = bearer(request).ok_or(AssertionError::Malformed)?;
    assertion::verify_webhook(token, &options.apps, &options.algorithms, clock::now())
}

async fn call(
    version: ChannelVersion,
    bot: String,
    request: &HttpRequest,
    body: &[u8],
    platform: Data<PlatformState>,
) -> HttpResponse {
    let Ok(identity) = checked_identity(request, &platform) else {
        return refusal(version, StatusCode::UNAUTHORIZED, "Invalid Access token");
    };
    let invalid = || refusal(version, StatusCode::BAD_REQUEST, "Invalid Request Payload");
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return invalid() };
    let user = body.pointer("/from/id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let (Some(user), Some(content)) = (user, content(version, &body)) else { return invalid() };
    if identity.is_some_and(|identity| identity != user) {
        return refusal(version, StatusCode::UNAUTHORIZED, "Invalid Access token");
    }
    if !platform.options.has_bot(&bot) {
        return invalid();
    }
    let platform = platform.into_inner();
    let user = platform.user(&BotUser { bot: Some(bot), user: user.to_owned() });
    locked(&user.state).site = platform.site(host(request));
    platform.hear(&user, "webhook", || json!({"body": body}));
    if body.pointer("/session/new").is_some_and(|new| *new == json!(true) || *new == json!("true")) {
        locked(&user.state).session = None;
    }
    let steps = match content {
        CallContent::SessionClosure => return closure_response(&user),
        CallContent::OnConnect => {
            let mut state = locked(&user.state);
            let _is_new = resume_session(&platform, &mut state);
            welcome(&platform, &user, &state)
        }
        CallContent::Text { text, attachments } => {
            answer_steps(&platform, &user, &text, attachments.as_ref())
        }
    };
    let play = |collector| {
        let trigger = StepTrigger { collector: Some(collector), ..StepTrigger::default() };
        let runner = StepRunner { platform: Arc::clone(&platform), user: Arc::clone(&user), trigger };
        actix_web::rt::spawn(runner.run(steps));
    };
    if let Some(posts) = WebhookPosts::of_call(&platform, &user, version) {
        play(posts.start(true));
        return acknowledgement(version);
    }
    let (sender, responses) = channel(RESPONSES);
    play(sender);
    let call = WebhookCall { user, responses };
    let polls = version == ChannelVersion::V2 && platform.behaviour().webhook_polling;
    let (responses, running) = call.collected(polls.then_some(BLOCK_GAP)).await;
    match (version, running) {
        (_, Some(_)) if !polls => {
            refusal(version, StatusCode::GATEWAY_TIMEOUT, "The request has been timed-out")
        }
        (ChannelVersion::V1, _) => HttpResponse::Ok().json(v1_answer(&responses)),
        (ChannelVersion::V2, running) => HttpResponse::Ok().json(v2_answer(&platform, &responses, running)),
    }
}

impl WebhookCall {
    /// Collects responses until the steps end, the call's time is over, or none came for `gap` after the first. Returns
    /// the call as well if its steps go on.
    async fn collected(mut self, gap: Option<Duration>) -> (Vec<CollectedResponse>, Option<Self>) {
        let deadline = Instant::now() + LIMIT;
        let mut collected = Vec::new();
        loop {
            let until = match gap {
                Some(gap) if !collected.is_empty() => (Instant::now() + gap).min(deadline),
                _ => deadline,
            };
            match tokio::time::timeout_at(until, self.responses.recv()).await {
                Ok(Some(response)) => collected.push(response),
                Ok(None) => return (collected, None),
                Err(_) => return (collected, Some(self)),
            }
        }
    }
}

/// Acknowledges a call whose responses are posted.
fn acknowledgement(version: ChannelVersion) -> HttpResponse {
    HttpResponse::Ok().json(match version {
        ChannelVersion::V1 => json!({}),
        ChannelVersion::V2 => json!({"status": "ok", "_v": "v2", "traceId": TRACE}),
    })
}

fn content(version: ChannelVersion, body: &Value) -> Option<CallContent> {
    let message = body.get("message")?;
    // Some clients write the files beside the message.
    let attachments = message.get("attachments").or_else(|| body.get("attachments")).cloned();
    let event = message.get("val").and_then(Value::as_str);
    if message.get("type").and_then(Value::as_str) == Some("event") {
        return match event? {
            "ON_CONNECT" => Some(CallContent::OnConnect),
            "SESSION_CLOSURE" => Some(CallContent::SessionClosure),
            _ => None,
        };
    }
    let text = match version {
        ChannelVersion::V1 => message.get("text"),
        ChannelVersion::V2 => message.get("val"),
    };
    let text = match text {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        // V1 clients send a message of buttons or files only.
        None if version == ChannelVersion::V1 => String::new(),
        None => return None,
    };
    Some(CallContent::Text { text, attachments })
}

/// Records a message, and returns the bot's answer.
fn answer_steps(
    platform: &PlatformState,
    user: &UserEntry,
    text: &str,
    attachments: Option<&Value>,
) -> Vec<Step> {
    let at = clock::now();
    let behaviour = platform.behaviour();
    let mut state = locked(&user.state);
    let _is_new = resume_session(platform, &mut state);
    let scripted = state.scripted_messages.pop_front();
    let agent = state.agent;
    let said = HistoryEntry {
        id: platform.ids.uuid("ms-"),
        user_message_id: None,
        from_user: true,
        by_agent: false,
        content: HistoryContent::of_user(text, attachments),
        at: clock::shifted(at, behaviour.clock_lead),
        visible_at: clock::after(at, behaviour.history_delay),
        session: state.session.as_ref().map(|session| session.id.clone()).unwrap_or_default(),
    };
    state.remember(said, platform.options.history);
    match (scripted, &mut state.session) {
        (Some(steps), _) => steps,
        (None, Some(session)) => bot_steps(platform, user, session, agent, (text, &[]), "null"),
        (None, None) => Vec::new(),
    }
}

fn closure_response(user: &UserEntry) -> HttpResponse {
    let mut state = locked(&user.state);
    state.agent = false;
    let outcome = match state.session.take() {
        Some(_) => "SESSION_CLOSURE_SUCCESS",
        None => "SESSION_CLOSURE_IGNORED",
    };
    HttpResponse::Ok().json(json!({
        "data": [{"type": "event", "val": "SESSION_CLOSURE", "eventType": outcome, "description": ""}],
        "_v": "v2",
    }))
}

/// Returns the value of a response: a text, or a template.
fn value(response: &CollectedResponse) -> (&'static str, Value) {
    let element = response.elements.first();
    let template = element.and_then(|element| {
        (element.pointer("/component/type")? == "template").then(|| element.pointer("/component/payload"))?
    });
    if let Some(template) = template {
        return ("template", template.clone());
    }
    let text = element.and_then(|element| {
        let places = ["/component/payload/text", "/cInfo/body"];
        places.into_iter().find_map(|place| element.pointer(place)?.as_str())
    });
    ("text", text.unwrap_or_default().into())
}

pub(super) fn task_end() -> Map<String, Value> {
    let members = json!({
        "endOfTask": true, "endReason": "Fulfilled", "completedTaskId": "dg-sandbox",
        "completedTaskName": "Sandbox dialog",
    });
    if let Value::Object(members) = members { members } else { Map::new() }
}

/// Returns the text of a response: a template as escaped JSON.
pub(super) fn v1_text(response: &CollectedResponse) -> Value {
    match value(response) {
        ("template", template) => message_elements::escape_html(&template.to_string()).into(),
        (_, text) => text,
    }
}

pub(super) fn v2_element(response: &CollectedResponse) -> Value {
    let (kind, val) = value(response);
    json!({"type": kind, "val": val, "createdOn": response.created_on, "messageId": response.message_id})
}

fn v1_answer(responses: &[CollectedResponse]) -> Value {
    let mut texts: Vec<Value> = responses.iter().map(v1_text).collect();
    // One response is a text, several are a list.
    let text = if texts.len() == 1 { texts.swap_remove(0) } else { Value::from(texts) };
    let mut answer = task_end();
    answer.insert("text".to_owned(), text);
    answer.into()
}

/// Builds the answer with these responses. A call that still runs gets an id to poll.
fn v2_answer(
    platform: &PlatformState,
    responses: &[CollectedResponse],
    running: Option<WebhookCall>,
) -> Value {
    let data: Vec<Value> = responses.iter().map(v2_element).collect();
    let mut answer = match running {
        Some(call) => {
            let id = platform.ids.secret();
            platform.polls.with(&id, |polls| polls.insert(id.clone(), call));
            Map::from_iter([("pollId".to_owned(), id.into())])
        }
        None => task_end(),
    };
    answer.insert("data".to_owned(), data.into());
    answer.insert("_v".to_owned(), "v2".into());
    answer.into()
}

/// Returns what a call said since its last answer. Each id is good for one result.
async fn poll(
    path: Path<(String, String)>,
    request: HttpRequest,
    platform: Data<PlatformState>,
) -> HttpResponse {
    if checked_identity(&request, &platform).is_err() {
        return refusal(ChannelVersion::V2, StatusCode::UNAUTHORIZED, "Invalid Access token");
    }
    let (bot, id) = path.into_inner();
    let call = platform.polls.with(&id, |polls| match polls.get(&id) {
        Some(call) if call.user.bot_id() == bot => polls.remove(&id),
        _ => None,
    });
    let Some(call) = call else {
        return error_response(400, "No data found");
    };
    if call.responses.is_empty() && !call.responses.is_closed() {
        let progress = json!({"status": "Inprogress", "pollId": id, "_v": "v2"});
        platform.polls.with(&id, |polls| polls.insert(id.clone(), call));
        return HttpResponse::Ok().json(progress);
    }
    let (responses, running) = call.collected(Some(BLOCK_GAP)).await;
    HttpResponse::Ok().json(v2_answer(&platform, &responses, running))
}

/// Returns the history of the token's user.
async fn chat_history(
    path: Path<(String, String)>,
    request: HttpRequest,
    platform: Data<PlatformState>,
) -> HttpResponse {
    let options = &platform.options;
    let times = assertion::TimeCheck::Lenient;
    let identity = bearer(&request)
        .and_then(|token| assertion::verify(token, &options.apps, &options.algorithms, times).ok());
    let Some(identity) = identity else {
        return error_response(401, "Invalid Access token");
    };
    let most = platform.behaviour().history_limit;
    let query = match history_selection(&LenientQuery::of(&request), most) {
        Ok(query) => query,
        Err(name) => return error_response(400, &format!("{name} is not a number")),
    };
    let (bot, channel) = path.into_inner();
    let user = platform.user(&BotUser { bot: Some(bot), user: identity.user });
    history_response(&platform, &user, &query, &channel)
}
