//! The platform's HTTP endpoints: grant, start, history, upgrade, and a page for people.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::http::header;
use actix_web::web::{self, Bytes, Data, Query as QueryString};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::assertion;
use super::clock;
use super::commands;
use super::fault_injection::{error_response, inject_fault, token_expired_response};
use super::faults::Endpoint;
use super::history::{self, HistorySelection};
use super::observations::GrantObservation;
use super::platform_state::{BotUser, PlatformState, SimulatedGrant, SimulatedTicket, locked};
use super::step::Step;
use super::step_runner::{StepRunner, StepTrigger};
use super::{upgrade, uploads};

/// Adds all routes. Each route of the API exists with and without the version.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    for api in ["/api/1.1", "/api"] {
        config
            .route(&format!("{api}/oAuth/token/jwtgrant"), web::post().to(grant))
            .route(&format!("{api}/rtm/start"), web::post().to(start))
            .route(&format!("{api}/botmessages/rtm"), web::get().to(read_history));
        uploads::routes(config, api);
    }
    uploads::file_routes(config);
    config
        .route("/rtm/bot", web::get().to(upgrade::upgrade))
        .route("/{prefix}/rtm/bot", web::get().to(upgrade::upgrade))
        .route("/sandbox/push", web::post().to(push))
        .route("/", web::get().to(page));
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GrantBotInfo {
    chat_bot: String,
    task_bot_id: String,
}

/// Parses the body of `jwtgrant`, JSON or form.
fn grant_request(request: &HttpRequest, body: &[u8]) -> Option<(String, GrantBotInfo)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct GrantBody {
        assertion: String,
        bot_info: GrantBotInfo,
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
        let (mut assertion, mut info) = (None, GrantBotInfo::default());
        for (name, value) in url::form_urlencoded::parse(body) {
            match name.as_ref() {
                "assertion" => assertion = Some(value.into_owned()),
                "botInfo[chatBot]" => info.chat_bot = value.into_owned(),
                "botInfo[taskBotId]" => info.task_bot_id = value.into_owned(),
                _ => {}
            }
        }
        return assertion.map(|assertion| (assertion, info));
    }
    let body: GrantBody = serde_json::from_slice(body).ok()?;
    Some((body.assertion, body.bot_info))
}

async fn grant(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = inject_fault(&platform, Endpoint::Grant).await {
        return answer;
    }
    let Some((assertion, info)) = grant_request(&request, &body) else {
        return error_response(400, "assertion and botInfo are needed");
    };
    if !platform.options.bots.is_empty() && !platform.options.bots.contains(&info.task_bot_id) {
        return error_response(400, "no bot has this taskBotId");
    }
    let at = clock::now();
    let verified = {
        let options = &platform.options;
        let mut used = locked(&platform.used_jtis);
        assertion::verify(&assertion, &options.apps, &options.algorithms, at, &mut used)
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(refusal) => return error_response(401, &refusal.to_string()),
    };
    let user = platform.user(&BotUser { bot: Some(info.task_bot_id), user: identity.user.clone() });
    locked(&user.state).chat_bot = info.chat_bot;
    platform.observe(&user, |observed| {
        observed.grants += 1;
        observed.grant_requests.push(GrantObservation {
            bot_info: member(&body, "botInfo"),
            header: jsonwebtoken::decode_header(&assertion).map(|header| json!(header)).unwrap_or_default(),
            claims: jsonwebtoken::dangerous::insecure_decode_claims(&assertion).unwrap_or_default(),
        });
    });

    let token = platform.ids.secret();
    let expires = clock::after(at, platform.options.token_ttl);
    let epoch = platform.grant_epoch.load(Ordering::Acquire);
    platform.grants.with(&token, |grants| {
        // Clients never give a token back, so each part of the map removes expired ones now and then.
        if grants.len() >= 1024 && grants.len().is_power_of_two() {
            grants.retain(|_, grant: &mut SimulatedGrant| grant.expires > at);
        }
        grants.insert(token.clone(), SimulatedGrant { user, expires, epoch })
    });
    HttpResponse::Ok().json(json!({
        "authorization": {
            "accessToken": token, "token_type": "bearer",
            "issuedDate": clock::rfc3339(at), "expiresDate": clock::rfc3339(expires),
        },
        "userInfo": {
            "userId": platform.ids.uuid("u-"), "accountId": platform.ids.session(), "orgId": platform.ids.uuid("o-"),
            "identity": format!("{}/{}", identity.client, identity.user),
            "enrollType": if identity.anonymous { "anonymous" } else { "free" },
            "managedBy": platform.ids.session(), "fName": "", "lName": "",
        },
    }))
}

/// Returns the grant of the request's token.
pub(super) fn authorized(
    request: &HttpRequest,
    platform: &PlatformState,
) -> Result<SimulatedGrant, Box<HttpResponse>> {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else {
        return Err(Box::new(error_response(401, "no bearer token")));
    };
    platform
        .grants
        .with(token, |grants| grants.get(token).cloned())
        .filter(|grant| grant.expires > clock::now())
        .filter(|grant| grant.epoch == platform.grant_epoch.load(Ordering::Acquire))
        .ok_or_else(|| Box::new(token_expired_response(platform.behaviour().expired_token)))
}

/// Returns a member of a JSON body, or `null`.
fn member(body: &[u8], name: &str) -> Value {
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    body.get_mut(name).map(Value::take).unwrap_or_default()
}

async fn start(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = inject_fault(&platform, Endpoint::Start).await {
        return answer;
    }
    let grant = match authorized(&request, &platform) {
        Ok(grant) => grant,
        Err(refusal) => return *refusal,
    };
    let behaviour = platform.behaviour();
    let asked = request.headers().get("x-rtm-v").is_some_and(|version| version == "1");
    let nonce = (asked && behaviour.secure_handshake != super::SecureHandshake::Unsupported)
        .then(|| platform.ids.secret());
    let sid = platform.ids.secret();
    let at = clock::now();
    let ticket = SimulatedTicket { user: Arc::clone(&grant.user), made_at: at, nonce: nonce.clone() };
    platform.tickets.with(&sid, |tickets| {
        if tickets.len() >= 1024 && tickets.len().is_power_of_two() {
            tickets.retain(|_, ticket: &mut SimulatedTicket| {
                clock::elapsed(ticket.made_at, at) <= behaviour.sid_ttl
            });
        }
        tickets.insert(sid.clone(), ticket)
    });
    platform.observe(&grant.user, |observed| {
        observed.starts += 1;
        observed.start_infos.push(member(&body, "botInfo"));
    });
    let base = behaviour.url_base.clone().unwrap_or_else(|| match platform.address.get() {
        Some(address) => format!("ws://{address}"),
        None => String::new(),
    });
    let url = format!("{base}/rtm/bot?sid={sid}");
    HttpResponse::Ok().json(match nonce {
        Some(nonce) => json!({"url": url, "nonce": nonce}),
        None => json!({"url": url}),
    })
}

#[derive(Deserialize)]
struct HistoryParameters {
    limit: Option<usize>,
    offset: Option<usize>,
    skip: Option<usize>,
    forward: Option<bool>,
    #[serde(rename = "msgId")]
    message_id: Option<String>,
}

async fn read_history(
    request: HttpRequest,
    query: QueryString<HistoryParameters>,
    platform: Data<PlatformState>,
) -> HttpResponse {
    if let Some(answer) = inject_fault(&platform, Endpoint::History).await {
        return answer;
    }
    let grant = match authorized(&request, &platform) {
        Ok(grant) => grant,
        Err(refusal) => return *refusal,
    };
    platform.observe(&grant.user, |observed| observed.history_reads += 1);
    let most = platform.behaviour().history_limit;
    let query = query.into_inner();
    let query = HistorySelection {
        limit: query.limit.unwrap_or(most).min(most),
        offset: query.offset.or(query.skip).unwrap_or(0),
        forward: query.forward.unwrap_or(false),
        message_id: query.message_id,
    };
    let page = {
        let state = locked(&grant.user.state);
        history::page(&state.history, grant.user.bot_id(), &query, clock::now())
    };
    HttpResponse::Ok().json(page)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushRequest {
    user: String,
    text: String,
    #[serde(default)]
    bot: Option<String>,
}

/// Makes the bot send an unsolicited message, for people who try it.
async fn push(body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    let push: PushRequest = match serde_json::from_slice(&body) {
        Ok(push) => push,
        Err(error) => {
            let told = format!("send {{\"user\": \"…\", \"text\": \"…\"}}: {error}\n");
            return HttpResponse::BadRequest().content_type("text/plain; charset=utf-8").body(told);
        }
    };
    let platform = platform.into_inner();
    let user = platform.user(&BotUser { bot: push.bot, user: push.user });
    let sockets = locked(&user.state).sockets.len();
    StepRunner { platform, user, trigger: StepTrigger::default() }.run(vec![Step::Say(push.text)]).await;
    HttpResponse::Ok().json(json!({"sockets": sockets}))
}

async fn page(platform: Data<PlatformState>) -> HttpResponse {
    let totals = platform.counts.totals();
    let clients: Vec<Value> = platform.options.apps.iter().map(|client| json!(client.id)).collect();
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(format!(
        "This is the rtm-bridge sandbox: a simulated Kore.ai platform for trying things out and for tests.\n\
         Nothing here reaches a real bot. It must not be reachable from outside.\n\n\
         apps      {}\nbots      {}\nsockets   {} open\nmessages  {}\nresponses {}\n\n\
         Let the bot say something unsolicited:\n  \
         curl -d '{{\"user\": \"ann\", \"text\": \"Your parcel has arrived\"}}' \
         http://{}/sandbox/push\n\n\
         What the bot understands:\n{}\n",
        Value::from(clients),
        json!(platform.options.bots),
        totals.open_sockets,
        totals.messages,
        totals.responses,
        platform.address.get().map(ToString::to_string).unwrap_or_default(),
        commands::HELP,
    ))
}
