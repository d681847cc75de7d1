//! Deliveries of webhooks as resources: how they stand, and having them made again (api.md 4).
//!
//! They are read from the store and asked for there; whoever owns their partition makes them. A caller sees those of
//! its bots and users; others do not exist for it.

mod redrive;

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::auth::{Caller, Scope};
use super::exchange::{note, resource, serve};
use super::problem::{self, Failure, Mistakes};
use super::query::{Query, decode, parse_limit};
use super::{DELIVERIES, DELIVERY, Front, REDELIVER};
use crate::domain::{BotName, Delivery, DeliveryId, DeliveryState, Problem, ProblemKind, UserId};
use crate::store::{DeliveryQuery, RedeliverResult, StoreError};

pub(super) use self::redrive::post as redrive;

/// Deliveries of a page where the caller does not say.
const LIMIT: usize = 100;

/// `GET /deliveries`
pub(super) async fn list(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, DELIVERIES, &request, page(&front, &request)).await
}

/// `GET /deliveries/{id}`
pub(super) async fn get(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    let work = async {
        let (caller, _place) = front.enter(request.headers(), Scope::Admin)?;
        without_query(&request)?;
        resource(StatusCode::OK, &find(&front, caller, &request).await?)
    };
    serve(&front, DELIVERY, &request, work).await
}

/// `POST /deliveries/{id}/redeliver`
pub(super) async fn redeliver(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    serve(&front, REDELIVER, &request, again(&front, &request)).await
}

async fn page(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    #[derive(Serialize)]
    struct View<'a> {
        deliveries: &'a [Delivery],
        next: Option<DeliveryId>,
    }
    let (caller, _place) = front.enter(request.headers(), Scope::Admin)?;
    let mut mistakes = Mistakes::default();
    let query = request.uri().query().unwrap_or_default();
    let Query { bot, others: [after, limit, state, user] } =
        Query::read(query, ["after", "limit", "state", "user"], &mut mistakes);
    let bot = bot.ok().flatten().and_then(|bot| mistakes.note("query/bot", BotName::new(&bot)));
    let user = user.and_then(|user| mistakes.note("query/user", UserId::new(&user)));
    let state = state.and_then(|state| mistakes.note("query/state", parse_state(&state)));
    let before = after.and_then(|cursor| {
        mistakes
            .note("query/after", cursor.parse().map_err(|_| "is no cursor: take `next` of the page before"))
    });
    let limit = limit.map_or(Some(LIMIT), |limit| mistakes.note("query/limit", parse_limit(&limit)));
    let visible = visible(caller, bot, user)?;
    let (Some(limit), true) = (limit, mistakes.is_empty()) else { return Err(mistakes.into()) };
    note("caller", &caller.name());
    let query = DeliveryQuery { state, before, limit, ..visible };
    let page = front.hub.deliveries(&query).await.map_err(unread)?;
    resource(StatusCode::OK, &View { deliveries: &page.deliveries, next: page.next })
}

async fn again(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    let (caller, _place) = front.enter(request.headers(), Scope::Admin)?;
    without_query(request)?;
    let id = find(front, caller, request).await?.new.id;
    match front.hub.redeliver(id).await.map_err(unasked)? {
        RedeliverResult::Queued | RedeliverResult::InFlight => {}
        RedeliverResult::Unknown => return Err(no_delivery()),
    }
    tracing::info!(delivery = %id, caller = caller.name(), "a delivery is made again");
    let delivery = front.hub.delivery(id).await.map_err(unasked)?.ok_or_else(no_delivery)?;
    resource(StatusCode::ACCEPTED, &delivery)
}

/// The delivery that the path names, if this caller may see it.
async fn find(front: &Front, caller: Caller<'_>, request: &HttpRequest) -> Result<Delivery, Failure> {
    // What is no id of ours is the id of no delivery.
    let id = request.path().split('/').nth(2).and_then(|id| decode(id).ok()?.parse().ok());
    let id: DeliveryId = id.ok_or_else(no_delivery)?;
    note("caller", &caller.name());
    let delivery = front.hub.delivery(id).await.map_err(unread)?;
    let visible = visible(caller, None, None)?;
    let delivery = delivery.filter(|delivery| visible.covers(&delivery.new.conversation));
    let delivery = delivery.ok_or_else(no_delivery)?;
    note("bot", &delivery.new.conversation.bot);
    Ok(delivery)
}

/// All that this caller may see, of this bot and user if they are named.
///
/// # Errors
/// `forbidden` for a bot or a user that its configuration does not cover.
fn visible(caller: Caller<'_>, bot: Option<BotName>, user: Option<UserId>) -> Result<DeliveryQuery, Failure> {
    if let Some(bot) = &bot {
        caller.check_bot(bot.as_str())?;
    }
    if let Some(user) = &user {
        caller.check_user(user)?;
    }
    let bots = bot.map(|bot| vec![bot]).or_else(|| caller.bots().map(<[_]>::to_vec));
    Ok(DeliveryQuery { bots, user, user_prefix: caller.user_prefix().into(), ..DeliveryQuery::default() })
}

/// Refuses any parameter: a delivery is named by its id alone.
fn without_query(request: &HttpRequest) -> Result<(), Failure> {
    let mut mistakes = Mistakes::default();
    for pair in request.query_string().split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        mistakes.add(format!("query/{name}"), "is not known; no parameter is known here");
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.into()) }
}

fn parse_state(word: &str) -> Result<DeliveryState, &'static str> {
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
    state.ok_or("must be `pending`, `delivered` or `dead`")
}

fn no_delivery() -> Failure {
    Failure::new(
        ProblemKind::NotFound,
        "There is no such delivery: it never was, or its time to be kept is over.",
    )
}

/// A store that did not answer a question.
fn unread(error: StoreError) -> Failure {
    told(error, "The store did not answer in time. Nothing was changed; ask again.")
}

/// A store that did not answer a wish.
fn unasked(error: StoreError) -> Failure {
    told(
        error,
        "The store did not answer in time: the delivery may or may not be made again. Look at it first.",
    )
}

fn told(error: StoreError, detail: impl Into<Cow<'static, str>>) -> Failure {
    if error.is_passing() {
        Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(problem::SOON).into()
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests;
