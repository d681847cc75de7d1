//! Queues many dead-lettered deliveries again with one request.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::time::Instant;

use super::{endpoint_name, read_failure, store_failure, visible};
use crate::domain::{BotName, DeliveryId, DeliveryState, Timestamp, UserId};
use crate::http::api_error::{ApiError, FieldErrors};
use crate::http::auth::RequiredScope;
use crate::http::field_validator::FieldValidator;
use crate::http::query_parameters::without_query;
use crate::http::request_pipeline::{json_response, record, serve};
use crate::http::{ApiContext, REDRIVE, request_body};
use crate::hub::Hub;
use crate::store::{DeliveryQuery, RedeliverResult, StoreError};

/// The page size of a read. Each delivery comes with its payload and the responses to its attempts.
const PAGE: usize = 50;

/// The number of concurrent redeliveries.
const CONCURRENCY: usize = 16;

/// The time limit of one request. Proxies give up after 60 s.
const TIME_LIMIT: Duration = Duration::from_secs(45);

/// Handles `POST /deliveries/redrive`.
pub(in crate::http) async fn post(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    serve(&context, REDRIVE, &request, run(&context, &request, payload)).await
}

/// The selection of deliveries to queue again.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct RedriveRequest {
    bot: Option<BotName>,
    user: Option<UserId>,
    /// The name of the endpoint.
    webhook: Option<Box<str>>,
    since: Option<Timestamp>,
    dry_run: bool,
}

/// The result of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedriveResult {
    /// The number of deliveries that are queued again, or would be in a dry run.
    count: usize,
    /// Whether the time limit came before the last page.
    has_more: bool,
}

async fn run(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    without_query(request.query_string())?;
    let body = request_body::read(context, &caller, request, payload).await?;
    let mut errors = FieldErrors::default();
    let Some(RedriveRequest { bot, user, webhook, since, dry_run }) = parse(&body, &mut errors) else {
        return Err(errors.into());
    };
    record("caller", &caller.name());
    let visible = visible(&caller, bot, user)?;
    let state = Some(DeliveryState::Dead);
    let query = DeliveryQuery { state, endpoint: webhook, since, limit: PAGE, ..visible };
    let redriven = redrive(&context.hub, query, dry_run, Instant::now() + TIME_LIMIT).await?;
    if !dry_run {
        tracing::info!(count = redriven.count, caller = caller.name(), "deliveries are queued again");
    }
    json_response(StatusCode::OK, &redriven)
}

/// Parses the body.
pub(in crate::http) fn parse(body: &[u8], errors: &mut FieldErrors) -> Option<RedriveRequest> {
    FieldValidator::validate(body, errors, |check, body| {
        let [state, bot, user, webhook, since, dry_run] =
            check.object("", body, ["state", "bot", "user", "webhook", "since", "dryRun"])?;
        if let Some(state) = check.required("/state", state)
            && state.get() != "\"dead\""
        {
            check.add("/state", "must be `dead`: only dead-lettered deliveries are queued again");
        }
        let bot = bot.and_then(|value| check.string("/bot", value));
        let bot = bot.and_then(|bot| check.record("/bot", BotName::new(&bot)));
        let user = user.and_then(|value| check.string("/user", value));
        let user = user.and_then(|user| check.record("/user", UserId::new(&user)));
        let webhook = webhook.and_then(|value| check.string("/webhook", value));
        let webhook = webhook.and_then(|name| check.record("/webhook", endpoint_name(&name)));
        let since = since.and_then(|value| check.string("/since", value));
        let since = since.and_then(|since| {
            let detail = "must be a time of RFC 3339, such as 2026-11-23T09:30:00Z";
            check.record("/since", Timestamp::parse_bound(&since).ok_or(detail))
        });
        let dry_run = dry_run.and_then(|value| check.boolean("/dryRun", value)).unwrap_or_default();
        Some(RedriveRequest { bot, user, webhook, since, dry_run })
    })
}

/// Queues the deliveries of all pages again. A delivery that is dead-lettered again meanwhile keeps its place, so it is
/// not queued twice.
pub(super) async fn redrive(
    hub: &Hub,
    mut query: DeliveryQuery,
    dry_run: bool,
    until: Instant,
) -> Result<RedriveResult, ApiError> {
    let mut count = 0;
    loop {
        let page = hub.deliveries(&query).await.map_err(|error| interrupted(error, count))?;
        let ids = page.deliveries.iter().map(|delivery| delivery.new.id);
        count += if dry_run { ids.count() } else { queue(hub, ids, count).await? };
        match page.next {
            None => return Ok(RedriveResult { count, has_more: false }),
            Some(_) if Instant::now() >= until => return Ok(RedriveResult { count, has_more: true }),
            next => query.before = next,
        }
    }
}

/// Queues these deliveries again and returns their number. `before` counts those of earlier pages.
async fn queue(hub: &Hub, ids: impl Iterator<Item = DeliveryId>, before: usize) -> Result<usize, ApiError> {
    let mut requests = stream::iter(ids).map(|id| hub.redeliver(id)).buffer_unordered(CONCURRENCY);
    let mut count = 0;
    while let Some(redelivered) =
        requests.try_next().await.map_err(|error| interrupted(error, before + count))?
    {
        // Deliveries that another caller queued meanwhile, or that expired, do not count.
        count += usize::from(redelivered == RedeliverResult::Queued);
    }
    Ok(count)
}

fn interrupted(error: StoreError, count: usize) -> ApiError {
    if count == 0 {
        return read_failure(error);
    }
    store_failure(
        error,
        format!(
            "The store did not answer in time. At least {count} deliveries are queued again; repeat the call for the rest."
        ),
    )
}
