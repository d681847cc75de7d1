//! Control of a running sandbox over HTTP (docs/sandbox.md): `POST /sandbox/push`, `/sandbox/next`, `/sandbox/faults`
//! and `/sandbox/reset`, and `GET /sandbox/heard`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::behaviour::AckOrder;
use super::default_bot;
use super::endpoints::bearer;
use super::fault_spec::FaultSpec;
use super::faults::Endpoint;
use super::heard_log::{HeardPage, HeardSelection};
use super::lenient_query::LenientQuery;
use super::placeholders::Placeholders;
use super::platform_state::{BotUser, PlatformState, locked};
use super::script_step::StepList;
use super::step::Step;
use super::step_runner::{StepTrigger, run_steps};
use super::webhook_posts::WebhookPosts;

/// Time for which `/sandbox/heard` waits for an entry, in seconds.
const WAIT: u64 = 10;
const LONGEST_WAIT: u64 = 60;

/// Adds the routes.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/sandbox/push", web::post().to(push))
        .route("/sandbox/next", web::post().to(next))
        .route("/sandbox/faults", web::post().to(plan_faults))
        .route("/sandbox/faults", web::delete().to(clear_faults))
        .route("/sandbox/reset", web::post().to(reset))
        .route("/sandbox/heard", web::get().to(heard));
}

fn refusal(status: StatusCode, told: &str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(format!("{told}\n"))
}

/// Checks the key, if the sandbox has one.
fn permitted(request: &HttpRequest, platform: &PlatformState) -> Result<(), Box<HttpResponse>> {
    match &platform.options.control_key {
        Some(key) if bearer(request) != Some(key.expose_secret()) => Err(Box::new(refusal(
            StatusCode::UNAUTHORIZED,
            "this sandbox has a control key: send Authorization: Bearer KEY",
        ))),
        _ => Ok(()),
    }
}

/// Checks the key, and parses the body.
fn parsed<T: DeserializeOwned>(
    request: &HttpRequest,
    platform: &PlatformState,
    body: &[u8],
    example: &str,
) -> Result<T, Box<HttpResponse>> {
    permitted(request, platform)?;
    serde_json::from_slice(body)
        .map_err(|error| Box::new(refusal(StatusCode::BAD_REQUEST, &format!("send {example}: {error}"))))
}

/// Refuses the id of an unknown bot. Steps for it would never be seen.
fn known_bot(platform: &PlatformState, bot: Option<&str>) -> Result<(), Box<HttpResponse>> {
    match bot {
        Some(id) if !platform.options.has_bot(id) => {
            let known = platform.options.bots.join(", ");
            Err(Box::new(refusal(
                StatusCode::BAD_REQUEST,
                &format!("no bot has the id {id}; known: {known}"),
            )))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushRequest {
    user: String,
    #[serde(default)]
    bot: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    reply: Option<StepList>,
}

/// Makes the bot do something unasked: say a text, or any steps.
async fn push(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let example = r#"{"user": "…", "text": "…"}, or "reply" with steps"#;
    let push: PushRequest = match parsed(&request, &platform, &body, example) {
        Ok(push) => push,
        Err(refusal) => return *refusal,
    };
    let steps = match (push.text, push.reply) {
        (Some(text), None) => vec![Step::Say(text)],
        (None, Some(reply)) => {
            let random = platform.ids.random();
            reply.steps(&Placeholders { user: &push.user, random, ..Placeholders::default() })
        }
        _ => return refusal(StatusCode::BAD_REQUEST, &format!("send {example}")),
    };
    if let Err(refusal) = known_bot(&platform, push.bot.as_deref()) {
        return *refusal;
    }
    let platform = platform.into_inner();
    let user = platform.user(&BotUser { bot: push.bot, user: push.user });
    let sockets = locked(&user.state).sockets.len();
    let collector = WebhookPosts::of_push(&platform, &user);
    run_steps(&platform, &user, StepTrigger { collector, ..StepTrigger::default() }, steps).await;
    HttpResponse::Ok().json(json!({"sockets": sockets}))
}

/// Occasion of scripted steps.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum NextOccasion {
    #[default]
    Message,
    Connect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NextRequest {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    bot: Option<String>,
    #[serde(default)]
    on: NextOccasion,
    reply: StepList,
    #[serde(default)]
    ack: Option<AckOrder>,
}

/// Says what the bot answers next: to a user, or to any.
async fn next(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let example = r#"{"user": "…", "reply": "…"}"#;
    let next: NextRequest = match parsed(&request, &platform, &body, example) {
        Ok(next) => next,
        Err(refusal) => return *refusal,
    };
    if let Err(refusal) = known_bot(&platform, next.bot.as_deref()) {
        return *refusal;
    }
    let (user, random) = (next.user.as_deref().unwrap_or_default(), platform.ids.random());
    let values = Placeholders { user, random, ..Placeholders::default() };
    let steps = next.reply.steps(&values);
    let mut behaviour = platform.behaviour().as_ref().clone();
    behaviour.ack = next.ack.unwrap_or(behaviour.ack);
    let answer = || default_bot::place_ack_and_waiting(steps.clone(), &behaviour);
    let planned = match (next.user, next.on) {
        (Some(user), on) => {
            let user = platform.user(&BotUser { bot: next.bot, user });
            let mut state = locked(&user.state);
            let (queue, steps) = match on {
                NextOccasion::Message => (&mut state.scripted_messages, answer()),
                NextOccasion::Connect => (&mut state.scripted_connects, steps.clone()),
            };
            queue.push_back(steps);
            queue.len()
        }
        (None, NextOccasion::Message) if next.bot.is_none() => {
            let mut queue = locked(&platform.scripted_for_any);
            queue.push_back(answer());
            platform.scripted_for_any_count.fetch_add(1, Ordering::AcqRel);
            queue.len()
        }
        _ => {
            let told = "name the user: without one, the steps are for the next message of any user and bot";
            return refusal(StatusCode::BAD_REQUEST, told);
        }
    };
    HttpResponse::Ok().json(json!({"planned": planned}))
}

/// Plans faults behind those that are planned already.
async fn plan_faults(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let example = r#"{"endpoint": "start", "times": 1, "fault": {"status": 503}}, or a list of these"#;
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let faults: Result<Vec<FaultSpec>, _> = if is_list {
        parsed(&request, &platform, &body, example)
    } else {
        parsed(&request, &platform, &body, example).map(|fault| vec![fault])
    };
    let faults = match faults {
        Ok(faults) => faults,
        Err(refusal) => return *refusal,
    };
    for spec in &faults {
        platform.faults.plan(spec.endpoint, spec.times, spec.fault());
    }
    HttpResponse::Ok().json(json!({"planned": faults.len()}))
}

/// Clears the faults of one endpoint, or all.
async fn clear_faults(request: HttpRequest, platform: Data<PlatformState>) -> HttpResponse {
    if let Err(refusal) = permitted(&request, &platform) {
        return *refusal;
    }
    let query = LenientQuery::of(&request);
    let named: Option<Result<Endpoint, _>> =
        query.get("endpoint").map(|name| serde_json::from_value(json!(name)));
    match named.transpose() {
        Ok(endpoint) => {
            platform.faults.clear(endpoint);
            HttpResponse::NoContent().finish()
        }
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Brings the sandbox back to its start.
async fn reset(request: HttpRequest, _body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    match permitted(&request, &platform) {
        Ok(()) => HttpResponse::Ok().json(json!({"after": platform.reset()})),
        Err(refusal) => *refusal,
    }
}

/// Returns what clients did after a number, and waits for it if there is none yet.
async fn heard(request: HttpRequest, platform: Data<PlatformState>) -> HttpResponse {
    if let Err(refusal) = permitted(&request, &platform) {
        return *refusal;
    }
    let query = LenientQuery::of(&request);
    let numbers = query.number::<u64>("after").and_then(|after| Ok((after, query.number::<u64>("wait")?)));
    let (after, wait) = match numbers {
        Ok((after, wait)) => (after.unwrap_or(0), wait.unwrap_or(WAIT).min(LONGEST_WAIT)),
        Err(name) => {
            let told = format!("{name} is not a number");
            return refusal(StatusCode::BAD_REQUEST, &told);
        }
    };
    let selection = HeardSelection {
        user: query.get("user").map(str::to_owned),
        bot: query.get("bot").map(str::to_owned),
        after,
    };
    let mut changes = platform.changed.subscribe();
    let found = changes.wait_for(|()| platform.heard.has(&selection));
    // At the end of the wait, the page is empty.
    let _timeout = tokio::time::timeout(Duration::from_secs(wait), found).await;
    let HeardPage { events, after, dropped } = platform.heard.page(&selection);
    HttpResponse::Ok().json(json!({"events": events, "after": after, "dropped": dropped}))
}
