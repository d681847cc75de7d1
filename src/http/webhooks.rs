//! The endpoints of bots as resources: their state, the switch, and tests (api.md 4).
//!
//! The store holds the state for all replicas. A test goes to the dispatcher of this replica, which has the secrets and the
//! guard of deliveries.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::query_parameters::{decode, without_query};
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, WEBHOOK_DISABLE, WEBHOOK_ENABLE, WEBHOOK_TEST, WEBHOOKS};
use crate::config::{BotConfig, BotWebhookConfig, PayloadExtent, PayloadFormat};
use crate::domain::{
    DeliveryAttempt, DeliveryKind, EndpointId, EndpointState, Problem, ProblemKind, Timestamp,
};
use crate::store::{OutboxEvent, StoreError};

/// The time by which the result of a test may follow the timeout of its attempt.
const TEST_MARGIN: Duration = Duration::from_secs(5);

/// An endpoint, as callers see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView<'a> {
    bot: &'a str,
    name: &'a str,
    /// Null for an endpoint that only signs callbacks.
    url: Option<&'a str>,
    types: &'a [DeliveryKind],
    payload: &'static str,
    form: &'static str,
    /// `enabled` or `disabled`.
    state: &'static str,
    disabled_at: Option<Timestamp>,
    reason: Option<&'a str>,
    backlog: u64,
    last_success_at: Option<Timestamp>,
    last_failure_at: Option<Timestamp>,
    last_error: Option<&'a str>,
    failing_since: Option<Timestamp>,
}

impl<'a> EndpointView<'a> {
    pub(super) fn new(
        bot: &'a BotConfig,
        endpoint: &'a BotWebhookConfig,
        state: &'a EndpointState,
        backlog: u64,
    ) -> Self {
        let EndpointState { off, last_success_at, last_failure_at, last_error, failing_since } = state;
        Self {
            bot: bot.name.as_str(),
            name: &endpoint.name,
            url: endpoint.url.as_ref().map(url::Url::as_str),
            types: &endpoint.types,
            payload: match endpoint.payload {
                PayloadExtent::Full => "full",
                PayloadExtent::Thin => "thin",
            },
            form: match endpoint.form {
                PayloadFormat::Standard => "standard",
                PayloadFormat::CloudEvents => "cloudevents",
                PayloadFormat::CloudEventsStructured => "cloudevents-structured",
                PayloadFormat::KoreV2 => "kore-v2",
                PayloadFormat::KoreChannel(_) => "kore-webhook",
            },
            state: if off.is_some() { "disabled" } else { "enabled" },
            disabled_at: off.as_ref().map(|off| off.since),
            reason: off.as_ref().map(|off| &*off.reason),
            backlog,
            last_success_at: *last_success_at,
            last_failure_at: *last_failure_at,
            last_error: last_error.as_deref(),
            failing_since: *failing_since,
        }
    }
}

/// The answer of a receiver to a test event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointTestView<'a> {
    delivered: bool,
    status: Option<u16>,
    error: Option<&'a str>,
    duration_ms: u64,
    response: Option<&'a str>,
}

impl<'a> EndpointTestView<'a> {
    pub(super) fn new(attempt: &'a DeliveryAttempt) -> Self {
        Self {
            delivered: attempt.error.is_none(),
            status: attempt.status,
            error: attempt.error.as_deref(),
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            response: attempt.response.as_deref(),
        }
    }
}

/// Serves `GET /webhooks`.
pub(super) async fn list(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, WEBHOOKS, &request, all(&context, &request)).await
}

/// Serves `POST /webhooks/{bot}/{name}/enable`.
pub(super) async fn enable(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, WEBHOOK_ENABLE, &request, switch(&context, &request, None)).await
}

/// Serves `POST /webhooks/{bot}/{name}/disable`.
pub(super) async fn disable(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, WEBHOOK_DISABLE, &request, switch(&context, &request, Some("an operator"))).await
}

/// Serves `POST /webhooks/{bot}/{name}/test`.
pub(super) async fn test(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, WEBHOOK_TEST, &request, post_test(&context, &request)).await
}

async fn all(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct EndpointList<'a> {
        webhooks: Vec<EndpointView<'a>>,
    }
    let caller = context.authorize(request, RequiredScope::Admin)?;
    without_query(request.query_string())?;
    caller.check_covers_users()?;
    record("caller", &caller.name());
    let states = context.hub.endpoint_states().await.map_err(store_failure)?;
    let backlogs = context.hub.endpoint_backlogs().await.map_err(store_failure)?;
    let unknown = EndpointState::default();
    let mut webhooks = Vec::new();
    for bot in context.config.bots.iter().filter(|bot| caller.check_bot(bot.name.as_str()).is_ok()) {
        for endpoint in &bot.webhooks {
            let id = EndpointId { bot: bot.name.clone(), name: endpoint.name.clone() };
            let backlog = backlogs.get(&id).copied().unwrap_or_default();
            webhooks.push(EndpointView::new(bot, endpoint, states.get(&id).unwrap_or(&unknown), backlog));
        }
    }
    json_response(StatusCode::OK, &EndpointList { webhooks })
}

/// Switches the endpoint of the path off for a reason, or on without one.
async fn switch(
    context: &ApiContext,
    request: &HttpRequest,
    off: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let (bot, endpoint) = find(context, &caller, request)?;
    let id = EndpointId { bot: bot.name.clone(), name: endpoint.name.clone() };
    let reason = off.map(|who| format!("{who} switched it off"));
    context.hub.switch_endpoint(&id, reason.as_deref()).await.map_err(store_failure)?;
    if let Some(outbox) = &context.outbox {
        outbox.tell_now(OutboxEvent::EndpointsChanged);
    }
    let switch = if off.is_some() { "disable" } else { "enable" };
    tracing::info!(bot = %id.bot, webhook = &*id.name, switch, caller = caller.name(), "an endpoint is switched");
    let states = context.hub.endpoint_states().await.map_err(store_failure)?;
    let backlogs = context.hub.endpoint_backlogs().await.map_err(store_failure)?;
    let state = states.get(&id).cloned().unwrap_or_default();
    let backlog = backlogs.get(&id).copied().unwrap_or_default();
    json_response(StatusCode::OK, &EndpointView::new(bot, endpoint, &state, backlog))
}

async fn post_test(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let (bot, endpoint) = find(context, &caller, request)?;
    if endpoint.url.is_none() {
        return Err(ApiError::new(
            ProblemKind::NotFound,
            "This endpoint has no `url`: it only signs callbacks, so there is no receiver to test.",
        ));
    }
    let id = EndpointId { bot: bot.name.clone(), name: endpoint.name.clone() };
    let (answer, attempt) = oneshot::channel();
    if let Some(outbox) = &context.outbox {
        outbox.tell_now(OutboxEvent::TestRequested { endpoint: id, answer });
    }
    let attempt = timeout(context.config.webhooks.timeout + TEST_MARGIN, attempt).await;
    let Ok(Ok(attempt)) = attempt else {
        let detail = "The test was not made in time. Repeat the request.";
        return Err(Problem::new(ProblemKind::Overloaded, detail).retry_after(api_error::RETRY_SOON).into());
    };
    json_response(StatusCode::OK, &EndpointTestView::new(&attempt))
}

/// Returns the endpoint of the path, if this caller may use its bot.
///
/// # Errors
/// `forbidden` outside the caller's configuration, then `not-found` for an endpoint without configuration.
fn find<'c>(
    context: &'c ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
) -> Result<(&'c BotConfig, &'c BotWebhookConfig), ApiError> {
    let mut errors = FieldErrors::default();
    let mut segments = request.path().split('/').skip(2);
    let mut segment = |pointer| errors.record(pointer, decode(segments.next().unwrap_or_default()));
    let (bot, name) = (segment("path/bot"), segment("path/name"));
    let (Some(bot), Some(name)) = (bot, name) else { return Err(errors.into()) };
    caller.check_bot(&bot)?;
    caller.check_covers_users()?;
    let bot = context.config.bots.iter().find(|known| *known.name.as_str() == *bot);
    let found = bot.and_then(|bot| Some((&**bot, bot.webhooks.iter().find(|known| *known.name == *name)?)));
    let found = found.ok_or_else(|| {
        ApiError::new(ProblemKind::NotFound, "There is no such endpoint. `GET /webhooks` lists all of them.")
    })?;
    without_query(request.query_string())?;
    record("bot", &found.0.name);
    record("caller", &caller.name());
    Ok(found)
}

fn store_failure(error: StoreError) -> ApiError {
    if error.is_passing() {
        let detail = "The store did not answer in time. Repeat the request.";
        Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(api_error::RETRY_SOON).into()
    } else {
        error.into()
    }
}

/// Returns an endpoint and the answer to a test as JSON, for the test of the document.
#[cfg(test)]
pub(super) fn fixtures() -> (serde_json::Value, serde_json::Value) {
    let bot = crate::config::fixtures::bot("support");
    let (endpoint, state) = (BotWebhookConfig::default(), EndpointState::default());
    let view = EndpointView::new(&bot, &endpoint, &state, 0);
    let attempt = DeliveryAttempt {
        at: Timestamp::default(),
        status: None,
        error: None,
        duration: Duration::ZERO,
        response: None,
    };
    (serde_json::json!(view), serde_json::json!(EndpointTestView::new(&attempt)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::test::TestRequest;
    use serde_json::{Value, json};

    use crate::config::{BotConfig, BotWebhookConfig, CallerScopes, Config};
    use crate::http::tests::{caller, config, send_to, with_key};

    const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };
    const OTHERS: CallerScopes = CallerScopes { send: true, read: true, admin: false };

    /// Returns a configuration with an endpoint of each bot, and callers.
    fn guarded() -> Config {
        let mut config = config();
        for bot in &mut config.bots {
            let url = Some("https://hooks.example/in".parse().unwrap());
            let webhooks = vec![BotWebhookConfig { url, ..BotWebhookConfig::default() }];
            *bot = Arc::new(BotConfig { webhooks, ..(**bot).clone() });
        }
        let callers = vec![
            caller("all", ADMIN, None, ""),
            caller("none", OTHERS, None, ""),
            caller("sales", ADMIN, Some(&["sales"]), ""),
        ];
        Config { callers, ..config }
    }

    fn call(method: &str, path: &str, key: &str) -> (u16, Value) {
        let request = match method {
            "GET" => TestRequest::get(),
            _ => TestRequest::post(),
        };
        let answer = send_to(guarded(), with_key(request.uri(path), key));
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    #[test]
    fn endpoints_without_the_scope_admin_are_forbidden() {
        let bot = guarded().bots[0].name.to_string();
        for (method, path) in [
            ("GET", "/webhooks".to_owned()),
            ("POST", format!("/webhooks/{bot}/main/enable")),
            ("POST", format!("/webhooks/{bot}/main/disable")),
            ("POST", format!("/webhooks/{bot}/main/test")),
        ] {
            assert_eq!(call(method, &path, "none").0, 403, "{path}");
            let expected = if method == "GET" { 200 } else { 403 };
            assert_eq!(call(method, &path, "sales").0, expected, "another bot: {path}");
            let other = if method == "GET" { "POST" } else { "GET" };
            assert_eq!(call(other, &path, "all").0, 405, "{path}");
        }
        assert_eq!(call("GET", "/webhooks?x=1", "all").0, 400);
        for path in ["/webhooks/nobody/main/enable", "/webhooks/support/gone/test"] {
            assert_eq!(call("POST", &path.replace("support", &bot), "all").0, 404, "{path}");
        }
    }

    #[test]
    fn endpoint_is_shown_with_its_state() {
        let bot = guarded().bots[0].name.to_string();
        let (status, list) = call("GET", "/webhooks", "all");
        assert_eq!(status, 200);
        let types = ["message.answered", "message.failed", "reply.late", "reply.unsolicited"];
        let expected = json!({
            "bot": bot, "name": "main", "url": "https://hooks.example/in", "types": types, "payload": "full",
            "form": "standard", "state": "enabled", "disabledAt": null, "reason": null, "backlog": 0,
            "lastSuccessAt": null, "lastFailureAt": null, "lastError": null, "failingSince": null,
        });
        assert_eq!(list["webhooks"][0], expected);
        let (status, off) = call("POST", &format!("/webhooks/{bot}/main/disable"), "all");
        assert_eq!(
            (status, &off["state"], &off["reason"]),
            (200, &json!("disabled"), &json!("an operator switched it off"))
        );
        assert!(off["disabledAt"].is_string(), "{off}");
    }
}
