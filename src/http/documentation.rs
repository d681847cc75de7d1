//! Documentation that the bridge serves: the OpenAPI document, a page that links it, and a page for each problem.
//!
//! All of it is in the binary. A page describes this version and loads no other resource.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::api_error::ApiError;
use super::request_pipeline::serve;
use super::{ApiContext, DOCS, OPENAPI, PROBLEM};
use crate::domain::ProblemKind;

/// The OpenAPI document. It is written by hand, because domain types know nothing of HTTP and bodies are read field by
/// field. Tests compare it with the route table, the problem table and real resources.
const OPENAPI_SOURCE: &str = include_str!("openapi.json");

const HTML: &str = "text/html; charset=utf-8";

/// Serves `GET /openapi.json`.
pub(super) async fn openapi(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, OPENAPI, &request, async { Ok(page("application/json", openapi_document())) }).await
}

/// Serves `GET /docs`.
pub(super) async fn docs(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let body = "<p><a href=\"/openapi.json\">openapi.json</a> describes all routes, resources and \
                   problems (OpenAPI 3.1). Open it in an OpenAPI viewer, or generate a client from it.</p>";
    serve(&context, DOCS, &request, async { Ok(page(HTML, html("rtm-bridge", body))) }).await
}

/// Serves `GET /problems/{slug}`.
pub(super) async fn problem(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let kind = ProblemKind::from_slug(request.match_info().query("slug"));
    serve(&context, PROBLEM, &request, async {
        let kind = kind.ok_or_else(|| {
            let detail = "There is no problem of this name; see the enum `ProblemSlug` in `/openapi.json`.";
            ApiError::new(ProblemKind::NotFound, detail)
        })?;
        Ok(page(HTML, problem_page(kind)))
    })
    .await
}

/// Returns the OpenAPI document of this version.
fn openapi_document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        OPENAPI_SOURCE.replace("\"VERSION\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""))
    });
    &DOCUMENT
}

fn page(kind: &'static str, body: impl actix_web::body::MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .body(body)
}

fn html(title: &str, content: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto}}</style>\
         <h1>{title}</h1>{content}</html>"
    )
}

fn problem_page(kind: ProblemKind) -> String {
    let (slug, status) = (kind.slug(), kind.status());
    let (meaning, remedy) = advice(kind);
    let content = format!(
        "<p><code>{slug}</code>, HTTP {status}</p><h2>What it means</h2><p>{meaning}</p>\
         <h2>What to do</h2><p>{remedy}</p><p><a href=\"/docs\">All routes and problems</a></p>"
    );
    html(kind.title(), &content)
}

/// Returns the meaning of a problem and its remedy, as HTML.
#[expect(clippy::too_many_lines, reason = "a table, one row per kind")]
fn advice(kind: ProblemKind) -> (&'static str, &'static str) {
    use ProblemKind as K;
    match kind {
        K::InvalidRequest => (
            "The request is malformed, or a field, header or parameter is missing, unknown or out of range. \
             Its body may be no JSON, broken off or too slow. Nothing was accepted.",
            "Read <code>errors</code>, which has the first 50: each entry has a <code>pointer</code> to the \
             place (a JSON pointer into the body, <code>header/NAME</code>, <code>query/NAME</code>, \
             <code>path/NAME</code>, or <code>head</code> for a request that is no HTTP) and says what would be \
             accepted. The same request will fail again.",
        ),
        K::Unauthorized => (
            "The request carries no key or token, more than one, or one that no configured caller has. Or its token has expired, \
             or is for another audience.",
            "Send one <code>Authorization: Bearer KEY</code> with a key made by <code>rtm-bridge key new</code> \
             whose hash is in the configuration. Get a new token from its issuer if <code>detail</code> says so.",
        ),
        K::Forbidden => (
            "The key or token is known, but its scopes, bots or users do not cover this request.",
            "Read <code>detail</code> for which of them it is. Use another key, or have the caller's \
             configuration changed.",
        ),
        K::IssuerUnavailable => (
            "The request carries a token, and the keys of its issuer could not be fetched yet. Nothing was accepted.",
            "Send it again after <code>Retry-After</code> seconds. Operators: the log says why \
             <code>callers.jwt.jwks_url</code> gives no keys; the metric <code>key_set_fetches_total</code> counts the \
             attempts.",
        ),
        K::NotFound => (
            "There is no such route, bot, message or delivery. Messages are kept for a time after their end \
             (<code>store.message_ttl</code>) and are then gone; so are deliveries. Or a proxy decoded a \
             <code>%2F</code> in the user, so that the path is another one.",
            "Check the path, and <code>bot</code> in the query: a message is found under its own bot and \
             user only. A proxy in front must pass the path on as it came.",
        ),
        K::MethodNotAllowed => (
            "The route exists, but not with this method.",
            "Use one of the methods that the header <code>Allow</code> lists.",
        ),
        K::RequestTimeout => (
            "The head of the request did not arrive in time. Nothing was accepted.",
            "Send the request at once, over a new connection.",
        ),
        K::PayloadTooLarge => (
            "The body is over 1 MiB, or a file is over the bot's <code>max_attachment_bytes</code>; or the message was \
             sent, and the platform closed the connection with code 1009 because it was too large for it; or the \
             platform refused a file as too large.",
            "Send less. The same message or file will fail again.",
        ),
        K::UnsupportedMediaType => (
            "The body is not declared as JSON, or an upload has no type; or the body is compressed.",
            "Send plain JSON with <code>Content-Type: application/json</code>; a file with its own \
             <code>Content-Type</code>, or as <code>multipart/form-data</code>.",
        ),
        K::Misdirected => (
            "This bridge has no callers, so it serves its own machine only, and the request names another host.",
            "Use <code>localhost</code>, <code>127.0.0.1</code> or <code>[::1]</code> as host; a proxy in front must \
             send one of them as <code>Host</code>. Operators: configure <code>[[callers]]</code> to serve other \
             names.",
        ),
        K::IdempotencyMismatch => (
            "This <code>Idempotency-Key</code> was used in this conversation before, with another body. \
             Nothing was accepted.",
            "Use a new key for a new message; repeat a message with its original body.",
        ),
        K::CallbackRefused => (
            "The callback's URL is ambiguous or not covered by <code>webhooks.allowed</code>, or neither the caller \
             nor the bot has a secret to sign with. Nothing was accepted.",
            "Read <code>detail</code> for which of them it is. Leave <code>callback</code> out and read the message by \
             its <code>Location</code>, or have the URL allowed or a secret added in the configuration.",
        ),
        K::HeadTooLarge => (
            "The request line and the headers are over 128 KiB, or there are over 96 headers. Nothing was accepted.",
            "Send fewer or shorter headers. The same request will fail again.",
        ),
        K::Overloaded => (
            "This replica or the store is at its limit: open requests, streams, uploads or sockets, a queue between \
             threads, or the store's memory. <code>detail</code> says which. Nothing was accepted.",
            "Repeat the request after <code>Retry-After</code> seconds. Operators: see the metrics for open \
             requests, connections, sockets and memory; add replicas or raise the limits.",
        ),
        K::LaneFull => (
            "The conversation has as many open messages as it may have: a bot answers one message of a user \
             at a time. Nothing was accepted.",
            "Wait until an open message has ended, then repeat the request.",
        ),
        K::RateLimited => (
            "The caller has made the requests that it may make in a minute on this replica \
             (<code>callers.rate_per_minute</code>), or has as many requests or messages open as it may have \
             (<code>callers.max_open_requests</code>, waits and streams included; \
             <code>callers.max_open_messages</code>). Nothing was accepted.",
            "Wait <code>Retry-After</code> seconds, or until one of them has ended. Close unused streams.",
        ),
        K::PlatformRejected => (
            "The platform refused the bot's credentials, does not know the bot, could not read the message (code \
             1007), or refused a file. No repeat will change that.",
            "Operators: check the bot's <code>client_id</code>, secret, <code>task_bot_id</code>, \
             <code>platform</code>, and that the app is published to the web channel.",
        ),
        K::PlatformUnavailable => (
            "The platform could not be reached before the message's deadline, or the bot's budget of connects \
             (<code>bots.connects_per_minute</code>) was used up. The message was not sent. To a DELETE: the \
             conversation did not end within 30 s, and ends later. To an upload: the platform did not take the \
             file, also after retries.",
            "Repeat the message later: it has not reached the bot. Operators: <code>detail</code> says what failed \
             last. A redirect, or an answer without a reason, comes from a gateway before the platform: check \
             <code>platform</code> and <code>api_path</code>.",
        ),
        K::BotBlocked => (
            "The platform closed the connection with code 1008: a rate limit, a suspended bot or a blocked \
             user. The message may have reached the bot.",
            "Wait <code>Retry-After</code> seconds at least. If it stays, look at the bot and the user on \
             the platform.",
        ),
        K::Uncertain => (
            "The connection broke after the message was sent, and neither an acknowledgement nor the \
             platform's history proves that it arrived. The bot may or may not have seen it.",
            "Repeat it if a duplicate does no harm; <code>\"resend\": \"auto\"</code> lets the bridge do so \
             by itself.",
        ),
        K::NoAck => (
            "The message was sent, and until its deadline the platform neither acknowledged it nor replied.",
            "The bot may have seen it. Repeat it if that does no harm, or give it a longer \
             <code>turn.deadlineMs</code>.",
        ),
        K::NoReply => (
            "The platform acknowledged the message, and no reply to it came until the deadline.",
            "Look at the bot's dialog on the platform, or give it a longer <code>turn.deadlineMs</code>. A \
             reply that comes later is still joined to the message for a while: read it again.",
        ),
        K::StoreUnavailable => (
            "The store did not answer in time, refused, or too few of its replicas confirmed. The message may or may \
             not have been accepted; <code>detail</code> says what is known.",
            "Repeat the request after <code>Retry-After</code> seconds with the same <code>Idempotency-Key</code>: it \
             is then accepted once.",
        ),
        K::MessageLost => (
            "The store lost data after it had accepted the message, for instance in a failover. The message \
             may have reached the bot; its end stays unknown.",
            "Repeat it if a duplicate does no harm. Operators: see <code>store.wait_replicas</code> and the \
             store's persistence.",
        ),
        K::Erased => (
            "An operator had the conversation erased (<code>POST /conversations/{user}/erase</code>) while the message was \
             open. The message may have reached the bot. It is not stored any more.",
            "Do not wait for an answer. A new message begins a new conversation.",
        ),
        K::Draining => (
            "This replica is shutting down. Nothing was accepted.",
            "Repeat the request over a new connection: another replica will take it.",
        ),
        K::Internal => (
            "The bridge has a bug.",
            "Please report it with <code>traceId</code> and the log lines of the trace.",
        ),
    }
}

#[cfg(test)]
mod tests;
