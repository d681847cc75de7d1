//! Deliveries of webhooks as resources: their state, and requests to redeliver them (api.md 4).
//!
//! The handlers read deliveries from the store and queue redeliveries there. The owner of the partition makes the
//! attempts. A caller sees the deliveries of its bots and users; others do not exist for it.

pub(super) mod redrive;

use std::borrow::Cow;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::query_parameters::{QueryParameters, decode, parse_limit, without_query};
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, DELIVERIES, DELIVERY, REDELIVER};
use crate::domain::{BotName, Delivery, DeliveryId, DeliveryState, MessageId, Problem, ProblemKind, UserId};
use crate::store::{DeliveryQuery, RedeliverResult, StoreError};

pub(super) use self::redrive::post as redrive;

/// The page size if the caller does not give one.
const DEFAULT_LIMIT: usize = 100;

/// Most time by which the clock of a replica may be ahead of that of the store.
const CLOCK_DIFFERENCE: Duration = Duration::from_hours(1);

/// Handles `GET /deliveries`.
pub(super) async fn list(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, DELIVERIES, &request, page(&context, &request)).await
}

/// Handles `GET /deliveries/{id}`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let work = async {
        let caller = context.authorize(&request, RequiredScope::Admin)?;
        without_query(request.query_string())?;
        json_response(StatusCode::OK, &find(&context, &caller, &request).await?)
    };
    serve(&context, DELIVERY, &request, work).await
}

/// Handles `POST /deliveries/{id}/redeliver`.
pub(super) async fn redeliver(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, REDELIVER, &request, queue_again(&context, &request)).await
}

async fn page(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    #[derive(Serialize)]
    struct DeliveryPageBody<'a> {
        deliveries: &'a [Delivery],
        next: Option<DeliveryId>,
    }
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let mut errors = FieldErrors::default();
    let query = request.uri().query().unwrap_or_default();
    let QueryParameters { bot, others: [after, limit, state, user, message, webhook] } =
        QueryParameters::read(query, ["after", "limit", "state", "user", "message", "webhook"], &mut errors);
    let bot = bot.ok().flatten().and_then(|bot| errors.record("query/bot", BotName::new(&bot)));
    let user = user.and_then(|user| errors.record("query/user", UserId::new(&user)));
    let state = state.and_then(|state| errors.record("query/state", parse_state(&state)));
    let message = message.and_then(|id| {
        errors.record("query/message", id.parse::<MessageId>().map_err(|_| "is not the id of a message"))
    });
    let endpoint = webhook.and_then(|name| errors.record("query/webhook", endpoint_name(&name)));
    let before = after.and_then(|cursor| {
        errors.record(
            "query/after",
            cursor.parse().map_err(|_| "is not a cursor: take `next` of the page before"),
        )
    });
    let limit = limit.map_or(Some(DEFAULT_LIMIT), |limit| errors.record("query/limit", parse_limit(&limit)));
    let visible = visible(&caller, bot, user)?;
    let (Some(limit), true) = (limit, errors.is_empty()) else { return Err(errors.into()) };
    record("caller", &caller.name());
    // No delivery of a message is older, which bounds the search.
    let since = message.map(|id| id.at() - CLOCK_DIFFERENCE);
    let query = DeliveryQuery { state, endpoint, message, before, since, limit, ..visible };
    let page = context.hub.deliveries(&query).await.map_err(read_failure)?;
    json_response(StatusCode::OK, &DeliveryPageBody { deliveries: &page.deliveries, next: page.next })
}

async fn queue_again(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    without_query(request.query_string())?;
    let id = find(context, &caller, request).await?.new.id;
    match context.hub.redeliver(id).await.map_err(redeliver_failure)? {
        RedeliverResult::Queued | RedeliverResult::InFlight => {}
        RedeliverResult::Unknown => return Err(no_delivery()),
    }
    tracing::info!(delivery = %id, caller = caller.name(), "a delivery is queued again");
    let delivery = context.hub.delivery(id).await.map_err(redeliver_failure)?.ok_or_else(no_delivery)?;
    json_response(StatusCode::ACCEPTED, &delivery)
}

/// Returns the delivery of the path if this caller may see it.
async fn find(
    context: &ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
) -> Result<Delivery, ApiError> {
    // A malformed id gets the same answer as an unknown one.
    let id = request.path().split('/').nth(2).and_then(|id| decode(id).ok()?.parse().ok());
    let id: DeliveryId = id.ok_or_else(no_delivery)?;
    record("caller", &caller.name());
    let delivery = context.hub.delivery(id).await.map_err(read_failure)?;
    let visible = visible(caller, None, None)?;
    let delivery = delivery.filter(|delivery| visible.covers(&delivery.new.conversation));
    let delivery = delivery.ok_or_else(no_delivery)?;
    record("bot", delivery.new.conversation.bot());
    Ok(delivery)
}

/// Returns a query for the deliveries that this caller may see, narrowed to a bot and a user if they are given.
///
/// # Errors
/// `forbidden` for a bot or a user outside the configuration of the caller.
fn visible(
    caller: &CallerIdentity,
    bot: Option<BotName>,
    user: Option<UserId>,
) -> Result<DeliveryQuery, ApiError> {
    if let Some(bot) = &bot {
        caller.check_bot(bot.as_str())?;
    }
    match &user {
        Some(user) => caller.check_user(user)?,
        None => caller.check_covers_users()?,
    }
    let bots = bot.map(|bot| vec![bot]).or_else(|| caller.bots().map(<[_]>::to_vec));
    Ok(DeliveryQuery { bots, user, user_prefix: caller.user_prefix().into(), ..DeliveryQuery::default() })
}

fn parse_state(word: &str) -> Result<DeliveryState, &'static str> {
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or("must be `pending`, `delivered` or `dead`")
}

/// Parses the name of an endpoint, which has the form of a bot's name.
fn endpoint_name(name: &str) -> Result<Box<str>, &'static str> {
    let name = BotName::new(name).map_err(|_| "is not the name of an endpoint")?;
    Ok(name.as_str().into())
}

fn no_delivery() -> ApiError {
    ApiError::new(
        ProblemKind::NotFound,
        "There is no such delivery. It never existed, or its retention time is over.",
    )
}

/// Returns the failure of a read that the store did not answer.
fn read_failure(error: StoreError) -> ApiError {
    store_failure(error, "The store did not answer in time. No delivery was changed; try again.")
}

/// Returns the failure of a redelivery that the store did not answer.
fn redeliver_failure(error: StoreError) -> ApiError {
    store_failure(
        error,
        "The store did not answer in time. The delivery may be queued again; read it before you retry.",
    )
}

fn store_failure(error: StoreError, detail: impl Into<Cow<'static, str>>) -> ApiError {
    if error.is_passing() {
        Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(api_error::RETRY_SOON).into()
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests;
