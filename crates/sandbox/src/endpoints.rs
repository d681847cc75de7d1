//! The platform's HTTP endpoints: grant, start, history, upgrade, and a page for people.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::http::header;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::assertion::{self, TimeCheck};
use super::clock;
use super::commands;
use super::fault_injection::{error_response, inject_fault, token_expired_response};
use super::faults::Endpoint;
use super::history::{self, HistoryOwner, HistorySelection};
use super::lenient_query::LenientQuery;
use super::observations::GrantObservation;
use super::platform_state::{BotUser, PlatformState, SimulatedGrant, SimulatedTicket, UserEntry, locked};
use super::upgrade::{self, header_text};
use super::{assertion_signer, control, uploads, web_sdk, webhook_channel};

/// Messages on a page of the history if the client names no limit.
const DEFAULT_HISTORY_LIMIT: usize = 10;

/// Adds all routes. Each route of the API exists with and without the version.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    for api in ["/api/1.1", "/api"] {
        config
            .route(&format!("{api}/oAuth/token/jwtgrant"), web::post().to(grant))
            .route(&format!("{api}/rtm/start"), web::post().to(start))
            .route(&format!("{api}/botmessages/rtm"), web::get().to(read_history));
        assertion_signer::routes(config, api);
        web_sdk::routes(config, api);
        webhook_channel::api_routes(config, api);
        uploads::routes(config, api);
    }
    uploads::file_routes(config);
    assertion_signer::routes(config, "");
    web_sdk::picture_routes(config);
    webhook_channel::routes(config);
    control::routes(config);
    config
        .route("/rtm/bot", web::get().to(upgrade::upgrade))
        .route("/{prefix}/rtm/bot", web::get().to(upgrade::upgrade))
        .route("/", web::get().to(page));
}

#[derive(Default)]
struct GrantBotInfo {
    chat_bot: String,
    task_bot_id: String,
    /// The whole object.
    whole: Value,
}

impl GrantBotInfo {
    fn of(whole: Value) -> Option<Self> {
        let text = |name: &str| match whole.get(name) {
            None => Some(String::new()),
            Some(value) => value.as_str().map(str::to_owned),
        };
        let (chat_bot, task_bot_id) = (text("chatBot")?, text("taskBotId")?);
        whole.is_object().then_some(Self { chat_bot, task_bot_id, whole })
    }
}

/// Parses the body of `jwtgrant`, JSON or form.
fn grant_request(request: &HttpRequest, body: &[u8]) -> Option<(String, GrantBotInfo)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct GrantBody {
        assertion: String,
        bot_info: Value,
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
    Some((body.assertion, GrantBotInfo::of(body.bot_info)?))
}

async fn grant(request: HttpRequest, body: Bytes, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = inject_fault(&platform, Endpoint::Grant).await {
        return answer;
    }
    let Some((assertion, info)) = grant_request(&request, &body) else {
        return error_response(400, "assertion and botInfo are needed");
    };
    if !platform.options.has_bot(&info.task_bot_id) {
        return error_response(400, "no bot has this taskBotId");
    }
    let at = clock::now();
    let verified = {
        let options = &platform.options;
        let used_jtis = &mut locked(&platform.used_jtis);
        let times = TimeCheck::Strict { now: at, used_jtis };
        assertion::verify(&assertion, &options.apps, &options.algorithms, times)
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(refusal) => return error_response(401, &refusal.to_string()),
    };
    let user = platform.user(&BotUser { bot: Some(info.task_bot_id), user: identity.user.clone() });
    {
        let mut state = locked(&user.state);
        state.context.update(&info.whole);
        state.chat_bot = info.chat_bot;
        state.site = platform.site(host(&request));
    }
    platform.hear(&user, "grant", || {
        let origin = header_text(&request, header::ORIGIN);
        json!({"app": identity.client, "botInfo": info.whole, "isAnonymous": identity.anonymous, "origin": origin})
    });
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
            "userId": platform.user_id(&identity.user),
            "accountId": platform.ids.session_of("account", &identity.client),
            "orgId": platform.ids.uuid_of("o-", &identity.client),
            "identity": format!("{}/{}", identity.client, identity.user),
            "enrollType": if identity.anonymous { "anonymous" } else { "free" },
            "managedBy": platform.ids.session_of("manager", &identity.client), "fName": "", "lName": "",
        },
    }))
}

/// Returns the host that the client calls.
pub(super) fn host(request: &HttpRequest) -> Option<&str> {
    request.headers().get(header::HOST).and_then(|host| host.to_str().ok())
}

/// Returns the bearer token of the request.
pub(super) fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the grant of the request's token.
pub(super) fn authorized(
    request: &HttpRequest,
    platform: &PlatformState,
) -> Result<SimulatedGrant, Box<HttpResponse>> {
    let Some(token) = bearer(request) else {
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
    note_start(&platform, &grant, &request, &body);
    let base =
        behaviour.url_base.clone().unwrap_or_else(|| platform.site(host(&request)).replacen("http", "ws", 1));
    let url = format!("{base}/rtm/bot?sid={sid}");
    HttpResponse::Ok().json(match nonce {
        Some(nonce) => json!({"url": url, "nonce": nonce}),
        None => json!({"url": url}),
    })
}

/// Records a start, and keeps its context for the bot. The platform reads its body leniently.
fn note_start(platform: &PlatformState, grant: &SimulatedGrant, request: &HttpRequest, body: &[u8]) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let language = body.get("language").and_then(Value::as_str).map(str::to_owned);
    let bot_info = body.get("botInfo").cloned().unwrap_or_default();
    {
        let mut state = locked(&grant.user.state);
        state.context.update(&bot_info);
        state.context.language.clone_from(&language);
    }
    platform.hear(&grant.user, "start", || {
        json!({
            "botInfo": bot_info, "language": language, "query": request.query_string(),
            "origin": header_text(request, header::ORIGIN),
        })
    });
    platform.observe(&grant.user, |observed| {
        observed.starts += 1;
        observed.start_infos.push(bot_info);
    });
}

/// Parses the part of the history that a request asks for.
///
/// # Errors
/// A parameter is no number. The error names it.
pub(super) fn history_selection(query: &LenientQuery, most: usize) -> Result<HistorySelection, &'static str> {
    let offset = query.number("offset")?.or(query.number("skip")?);
    Ok(HistorySelection {
        limit: query.number("limit")?.unwrap_or(DEFAULT_HISTORY_LIMIT).min(most),
        offset: offset.unwrap_or(0),
        // `direction=1` is another spelling of it.
        forward: query.is_true("forward") || query.get("direction") == Some("1"),
        message_id: query.get("msgId").map(str::to_owned),
    })
}

async fn read_history(request: HttpRequest, platform: Data<PlatformState>) -> HttpResponse {
    if let Some(answer) = inject_fault(&platform, Endpoint::History).await {
        return answer;
    }
    let grant = match authorized(&request, &platform) {
        Ok(grant) => grant,
        Err(refusal) => return *refusal,
    };
    platform.observe(&grant.user, |observed| observed.history_reads += 1);
    let most = platform.behaviour().history_limit;
    let query = match history_selection(&LenientQuery::of(&request), most) {
        Ok(query) => query,
        Err(name) => return error_response(400, &format!("{name} is not a number")),
    };
    history_response(&platform, &grant.user, &query, "rtm")
}

/// Builds the answer with a page of a user's history.
pub(super) fn history_response(
    platform: &PlatformState,
    user: &UserEntry,
    query: &HistorySelection,
    channel: &str,
) -> HttpResponse {
    let state = locked(&user.state);
    let owner = HistoryOwner {
        bot_id: user.bot_id(),
        user_id: &platform.user_id(user.id.user()),
        icon: &format!("{}/sandbox/bot.png", state.site),
        channel,
    };
    HttpResponse::Ok().json(history::page(&state.history, owner, query, clock::now()))
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
         More control: /sandbox/next, /sandbox/faults, /sandbox/reset and /sandbox/heard (docs/sandbox.md).\n\n\
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
