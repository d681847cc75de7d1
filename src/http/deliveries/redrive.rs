//! Having many buried deliveries made again at once.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::time::Instant;

use super::{told, unread, visible, without_query};
use crate::domain::{BotName, DeliveryId, DeliveryState, Timestamp, UserId};
use crate::http::api_error::{ApiError, FieldErrors};
use crate::http::auth::RequiredScope;
use crate::http::field_validator::FieldValidator;
use crate::http::request_pipeline::{json_response, record, serve};
use crate::http::{ApiContext, REDRIVE, request_body};
use crate::hub::Hub;
use crate::store::{DeliveryQuery, RedeliverResult, StoreError};

/// Deliveries that are read at a time: each comes with what it would tell, and with what was answered to its attempts.
const PAGE: usize = 50;

/// Deliveries that are asked for at the same time.
const AT_ONCE: usize = 16;

/// How long one call goes on; proxies give up after 60 s.
const PATIENCE: Duration = Duration::from_secs(45);

/// `POST /deliveries/redrive`
pub(in crate::http) async fn post(
    context: Data<ApiContext>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    serve(&context, REDRIVE, &request, run(&context, &request, payload)).await
}

/// What is to be made again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    bot: Option<BotName>,
    user: Option<UserId>,
    since: Option<Timestamp>,
    dry_run: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redriven {
    /// Deliveries that are to be made again, or would be.
    count: usize,
    /// Whether time was up before all of them were looked at.
    has_more: bool,
}

async fn run(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    let (caller, _permit) = context.authorize(headers, RequiredScope::Admin)?;
    without_query(request)?;
    let body = request_body::read(headers, payload).await?;
    let mut errors = FieldErrors::default();
    let Some(wish) = parse(&body, &mut errors) else { return Err(errors.into()) };
    let Wish { bot, user, since, dry_run } = wish;
    record("caller", &caller.name());
    let visible = visible(caller, bot, user)?;
    let query = DeliveryQuery { state: Some(DeliveryState::Dead), since, limit: PAGE, ..visible };
    let redriven = redrive(&context.hub, query, dry_run, Instant::now() + PATIENCE).await?;
    if !dry_run {
        tracing::info!(count = redriven.count, caller = caller.name(), "deliveries are made again");
    }
    json_response(StatusCode::OK, &redriven)
}

/// Reads the body.
pub(super) fn parse(body: &[u8], errors: &mut FieldErrors) -> Option<Wish> {
    FieldValidator::validate(body, errors, |check, body| {
        let [state, bot, user, since, dry_run] =
            check.object("", body, ["state", "bot", "user", "since", "dryRun"])?;
        if let Some(state) = check.required("/state", state)
            && state.get() != "\"dead\""
        {
            check.add("/state", "must be `dead`: only buried deliveries are made again");
        }
        let bot = bot.and_then(|value| check.string("/bot", value));
        let bot = bot.and_then(|bot| check.record("/bot", BotName::new(&bot)));
        let user = user.and_then(|value| check.string("/user", value));
        let user = user.and_then(|user| check.record("/user", UserId::new(&user)));
        let since = since.and_then(|value| check.string("/since", value));
        let since = since.and_then(|since| {
            let detail = "must be a time of RFC 3339, such as 2026-11-23T09:30:00Z";
            check.record("/since", Timestamp::parse(&since).ok_or(detail))
        });
        let dry_run = dry_run.and_then(|value| check.boolean("/dryRun", value)).unwrap_or_default();
        Some(Wish { bot, user, since, dry_run })
    })
}

/// Goes through the deliveries from page to page. What is made again and buried again meanwhile is not met twice: it
/// stays where it was.
pub(super) async fn redrive(
    hub: &Hub,
    mut query: DeliveryQuery,
    dry_run: bool,
    until: Instant,
) -> Result<Redriven, ApiError> {
    let mut count = 0;
    loop {
        let page = hub.deliveries(&query).await.map_err(|error| broken_off(error, count))?;
        let ids = page.deliveries.iter().map(|delivery| delivery.new.id);
        count += if dry_run { ids.count() } else { queue(hub, ids, count).await? };
        match page.next {
            None => return Ok(Redriven { count, has_more: false }),
            Some(_) if Instant::now() >= until => return Ok(Redriven { count, has_more: true }),
            next => query.before = next,
        }
    }
}

/// Has these made again, and tells how many of them are; `before` were in this call.
async fn queue(hub: &Hub, ids: impl Iterator<Item = DeliveryId>, before: usize) -> Result<usize, ApiError> {
    let mut asked = stream::iter(ids).map(|id| hub.redeliver(id)).buffer_unordered(AT_ONCE);
    let mut count = 0;
    while let Some(redelivered) = asked.try_next().await.map_err(|error| broken_off(error, before + count))? {
        // What somebody else has asked for meanwhile, or what is gone, does not count.
        count += usize::from(redelivered == RedeliverResult::Queued);
    }
    Ok(count)
}

fn broken_off(error: StoreError, count: usize) -> ApiError {
    if count == 0 {
        return unread(error);
    }
    told(
        error,
        format!(
            "The store did not answer in time. {count} deliveries or more are to be made again; repeat the call for the rest."
        ),
    )
}
