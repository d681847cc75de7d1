//! The door for callers of the platform's webhook channel, version 1 and 2 (protocol.md 9).
//!
//! Existing clients of that channel change the host name of their URLs and nothing else. So this folder speaks their
//! protocol: paths, tokens, bodies, answers and errors. Behind it a call is a message like any other.
//!
//! ```text
//!  client_token:  JWT ─► caller          call_request:  body ─► message
//!  calls, polls:  message ─► hub ─► message              call_answer:  message ─► body
//! ```
//!
//! A `pollId` names the message and what was told of it. So any replica answers a poll, and none of them remembers it.

mod call_answer;
mod call_request;
mod calls;
mod chat_history;
mod client_token;
mod cors;
mod error_form;
mod files;
mod form_fields;
mod poll_id;
mod polls;

use std::sync::Arc;

use actix_http::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use self::client_token::ClientToken;
use super::ApiContext;
use super::api_error::ApiError;
use super::auth::{AuthRefusal, CallerIdentity, RequiredScope};
use super::detachable_connection::DetachableConnection;
use super::expectation::CountedRequest;
use super::request_body;
use super::request_pipeline::{RequestCount, record, respond};
use super::trace_context::TraceContext;
use crate::config::{BotConfig, KoreWebhookConfig};
use crate::domain::{ConversationId, ProblemKind, TraceId, UserId};

pub(super) use self::error_form::error_response;

/// Version 1 of the channel.
pub(super) const V1: &str = "/chatbot/hooks/{bot}";
/// Version 2 of the channel.
pub(super) const V2: &str = "/chatbot/v2/webhook/{bot}";
/// Polls of version 2.
pub(super) const POLL: &str = "/chatbot/v2/webhook/{bot}/poll/{poll}";

/// Instances of a channel share the first one's path. All of them are the same to the bridge.
const INSTANCE: &str = "/hookInstance/{instance}";

/// The description of a bot.
pub(super) const BOT_META: &str = "/api/botmeta/{bot}";
/// The history of the token's user.
pub(super) const CHAT_HISTORY: &str = "/api/chathistory/{bot}/{channel}";
/// The upload of a whole file.
pub(super) const FILE: &str = "/api/attachments/file/{bot}/{channel}";
/// The begin of an upload in chunks.
pub(super) const FILE_TOKEN: &str = "/api/attachments/{bot}/{channel}/token";
/// A chunk of a file.
pub(super) const FILE_CHUNK: &str = "/api/attachments/{bot}/{channel}/token/{token}/chunk";
/// The end of an upload in chunks.
pub(super) const FILE_END: &str = "/api/attachments/{bot}/{channel}/token/{token}";

/// All routes of the door.
const ROUTES: [&str; 9] = [V1, V2, POLL, BOT_META, CHAT_HISTORY, FILE, FILE_TOKEN, FILE_CHUNK, FILE_END];

/// Begins of the paths of the platform's API. Clients use either.
const API_PATHS: [&str; 2] = ["/api", "/api/1.1"];

/// Returns whether a route belongs to this door.
pub(super) fn is_route(route: &str) -> bool {
    ROUTES.contains(&route)
}

/// The version of the channel that a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ApiVersion {
    V1,
    V2,
}

/// A client of the channel whose token is valid.
struct DoorClient<'c> {
    bot: &'c Arc<BotConfig>,
    door: &'c KoreWebhookConfig,
    token: ClientToken,
}

/// Registers the routes of the door, if a bot has one.
pub(super) fn configure(context: &ApiContext, app: &mut ServiceConfig) {
    if context.config.bots.iter().all(|bot| bot.kore_webhook.is_none()) {
        return;
    }
    for suffix in ["", INSTANCE] {
        app.service(resource(&format!("{V1}{suffix}"), V1).route(web::post().to(calls::post_v1)))
            .service(resource(&format!("{V2}{suffix}"), V2).route(web::post().to(calls::post_v2)));
    }
    app.service(resource(POLL, POLL).route(web::get().to(polls::get)));
    for api in API_PATHS {
        let resource = |route: &'static str| resource(&route.replacen(API_PATHS[0], api, 1), route);
        app.service(resource(BOT_META).route(web::get().to(chat_history::get_meta)))
            .service(resource(CHAT_HISTORY).route(web::get().to(chat_history::get)))
            .service(resource(FILE).route(web::post().to(files::post_whole)))
            .service(resource(FILE_TOKEN).route(web::post().to(files::post_token)))
            // The documentation has the end behind the chunks, and the SDKs behind the token.
            .service(
                resource(FILE_CHUNK)
                    .route(web::post().to(files::post_chunk))
                    .route(web::put().to(files::put_end)),
            )
            .service(resource(FILE_END).route(web::put().to(files::put_end)));
    }
}

/// Returns a resource that answers preflights, and refuses other methods in the platform's form.
fn resource(path: &str, route: &'static str) -> actix_web::Resource {
    web::resource(path)
        .route(
            web::route()
                .guard(actix_web::guard::Options())
                .to(move |context, request| cors::preflight(context, request, route)),
        )
        .default_service(web::to(move |context: Data<ApiContext>, request: HttpRequest| async move {
            let failure = ApiError::new(ProblemKind::MethodNotAllowed, "The path does not take this method.");
            super::request_pipeline::serve(&context, route, &request, async { Err(failure) }).await
        }))
}

/// Answers a request of a client with the result of `work`, if its token is valid.
async fn serve<'c, F>(
    context: &'c ApiContext,
    route: &'static str,
    request: &'c HttpRequest,
    work: impl FnOnce(DoorClient<'c>) -> F,
) -> HttpResponse
where
    F: Future<Output = Result<HttpResponse, ApiError>>,
{
    let head = request.head();
    let trace = TraceContext::from_headers(head.headers());
    request.extensions_mut().insert(TraceId::from(trace));
    let bot = request.match_info().get("bot").unwrap_or_default();
    let client = DoorClient::authenticate(context, bot, request.headers());
    // A request that expects an answer to its head was counted then.
    let counted = request.extensions().get::<CountedRequest>().cloned();
    let counted = match counted {
        Some(counted) => counted,
        None => context.count_request_of(DoorClient::caller_of(client.as_ref())).await,
    };
    request.extensions_mut().insert(counted.clone());
    let work = async {
        let client = client.ok_or_else(unauthorized)?;
        context.authorize(request, RequiredScope::Send)?;
        record("bot", &client.bot.name);
        record("caller", &client.token.caller.name());
        work(client).await.map(cors::allowed)
    };
    let connection = DetachableConnection::of_request(request);
    respond(context, route, head, connection, trace, RequestCount::Done(counted), work).await
}

impl<'c> DoorClient<'c> {
    /// Finds the client of a request: by the bot of its path, and its token. An unknown bot is like an unknown client.
    fn authenticate(context: &'c ApiContext, id: &str, headers: &HeaderMap) -> Option<Self> {
        let live = context.live();
        let now = context.clock.now();
        context.config.bots.iter().filter(|bot| bot.task_bot_id == id).find_map(|bot| {
            let door = bot.kore_webhook.as_ref()?;
            let token = ClientToken::verify(&live.callers, &bot.name, headers, now)?;
            Some(Self { bot, door, token })
        })
    }

    /// Returns the conversation of a request that names no user: that of the token, or of the client itself.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    fn conversation(&self) -> Result<ConversationId, ApiError> {
        let token = &self.token;
        let user = token.user_identity.as_deref().or(token.subject.as_deref());
        let user = UserId::new(user.unwrap_or(token.caller.name())).map_err(|_| unauthorized())?;
        token.caller.check_user(&user)?;
        Ok(ConversationId::new(self.bot.name.clone(), user))
    }

    const fn caller(&self) -> &CallerIdentity {
        &self.token.caller
    }

    fn caller_of(client: Option<&Self>) -> Result<CallerIdentity, AuthRefusal> {
        client.map(|client| client.token.caller.clone()).ok_or(AuthRefusal::NoCredentials)
    }
}

/// Checks the head of a request for the door, before its body is asked for. Returns `None` for another path.
///
/// The bot is a part of each path, so a client passes whose token is for a bot that the path names.
pub(super) async fn check_head(
    context: &ApiContext,
    head: &RequestHead,
) -> Option<(&'static str, CountedRequest, Result<(), ApiError>)> {
    let path = head.uri.path();
    let is_call = path.starts_with("/chatbot/");
    let has_door = context.config.bots.iter().any(|bot| bot.kore_webhook.is_some());
    if !has_door || !(is_call || path.starts_with("/api/")) {
        return None;
    }
    let client = path.split('/').find_map(|part| DoorClient::authenticate(context, part, &head.headers));
    let counted = context.count_request_of(DoorClient::caller_of(client.as_ref())).await;
    let checked = client.ok_or_else(unauthorized).and_then(|client| {
        let _places = context.admit_caller(client.caller(), RequiredScope::Send)?;
        if is_call && head.method == Method::POST {
            request_body::check_head(&head.headers)
        } else {
            files::check_length(&client, &head.headers)
        }
    });
    // The form of a refusal depends on the route.
    let route = match path {
        _ if path.starts_with("/chatbot/v2/") => V2,
        _ if is_call => V1,
        _ if path.contains("/attachments/") => FILE,
        _ => CHAT_HISTORY,
    };
    Some((route, counted, checked))
}

fn unauthorized() -> ApiError {
    ApiError::new(
        ProblemKind::Unauthorized,
        "The JWT is missing, expired, or not of a client of this bot. Its `appId`, else its `iss`, names the client.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
