//! The HTTP interface: callers' routes and, on a second listener, the operator's.
//!
//! It checks what comes in, hands it to the hub and writes down what the hub says. It does not know the
//! platform, and holds nothing between two requests but counters: any replica can answer any of them.

mod accept;
mod address;
mod admin;
mod admission;
mod auth;
mod body;
mod callback;
mod check;
mod conversations;
mod deliveries;
mod documentation;
mod events;
mod exchange;
mod idempotency;
mod json;
mod line;
mod messages;
mod prefer;
mod problem;
mod query;
mod quota;
mod server;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use actix_web::guard::{Any, Get, Guard, Head};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::config::Config;
use crate::domain::{MessageId, Problem, ProblemKind};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::Clock;
use admission::Admission;
use auth::{Caller, Scope};
use problem::Failure;
use quota::Quotas;

pub use admin::{Admin, configure_admin};
pub use server::serve;

const CONVERSATION: &str = "/conversations/{user}";
const EVENTS: &str = "/conversations/{user}/events";
const MESSAGES: &str = "/conversations/{user}/messages";
const MESSAGE: &str = "/conversations/{user}/messages/{id}";
const DELIVERIES: &str = "/deliveries";
const DELIVERY: &str = "/deliveries/{id}";
const REDELIVER: &str = "/deliveries/{id}/redeliver";
const REDRIVE: &str = "/deliveries/redrive";
const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
const PROBLEM: &str = "/problems/{slug}";
const OTHER: &str = "other";

/// Every route pattern as metrics and logs name it; `other` is whatever is no route.
pub const ROUTES: &[&str] = &[
    CONVERSATION,
    EVENTS,
    MESSAGES,
    MESSAGE,
    DELIVERIES,
    DELIVERY,
    REDELIVER,
    REDRIVE,
    OPENAPI,
    DOCS,
    PROBLEM,
    OTHER,
];

/// What the callers' routes work with; shared by all workers.
#[derive(Debug)]
pub struct Front {
    hub: Hub,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// The wall clock, for message ids only; the store's clock counts everywhere else.
    clock: Clock,
    /// Requests being answered.
    open: Arc<AtomicUsize>,
    /// Streams of events that are open.
    streams: Arc<AtomicUsize>,
    /// Requests and streams of each caller, by its place in the configuration.
    callers: Vec<Arc<AtomicUsize>>,
    /// What is left of the rates of callers.
    quotas: Quotas,
    /// Between two signs of life in a stream that has nothing to say.
    keep_alive: Duration,
    /// Whether the replica is going away: each answer closes its connection then, so that none is idle, and may be
    /// about to be used, when all are closed.
    draining: Arc<AtomicBool>,
}

impl Front {
    /// A front for this hub. `metrics` must have been made with [`ROUTES`].
    pub fn new(hub: Hub, config: Arc<Config>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            hub,
            metrics,
            clock,
            open: Arc::default(),
            streams: Arc::default(),
            callers: config.callers.iter().map(|_| Arc::default()).collect(),
            quotas: Quotas::new(&config.callers),
            keep_alive: events::KEEP_ALIVE,
            draining: Arc::default(),
            config,
        }
    }

    /// The same, for a replica that says here when it is going away.
    #[must_use]
    pub fn draining(self, draining: Arc<AtomicBool>) -> Self {
        Self { draining, ..self }
    }

    /// The caller of a request, if it may do this and has not too many requests open; and its place among those,
    /// to be kept for as long as the request takes.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `rate-limited`.
    fn enter(&self, headers: &HeaderMap, scope: Scope) -> Result<(Caller<'_>, Option<Admission>), Failure> {
        let caller = Caller::of(&self.config.callers, headers, scope)?;
        let Some((limit, open)) = caller.max_open().zip(caller.place().and_then(|at| self.callers.get(at)))
        else {
            return Ok((caller, None));
        };
        let place = Admission::of(open, limit).ok_or_else(|| {
            let detail = format!(
                "This key has {limit} requests open on this replica, streams and waits included, and may have no \
                 more. Try again when one of them has ended."
            );
            Failure::from(Problem::new(ProblemKind::RateLimited, detail).retry_after(problem::SOON))
        })?;
        Ok((caller, Some(place)))
    }

    /// A new id: the time, and 80 bits of the system's random source, for ids are unique over replicas and not to
    /// be guessed.
    fn new_id(&self) -> Result<MessageId, Failure> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| problem::internal())?;
        Ok(MessageId::new(self.clock.now(), u128::from_ne_bytes(random)))
    }
}

/// The callers' routes: `App::new().configure(http::configure(front))`.
pub fn configure(front: Arc<Front>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        app.app_data(Data::from(front))
            .service(
                web::resource(CONVERSATION)
                    .route(web::route().guard(reads()).to(conversations::get))
                    .route(web::delete().to(conversations::delete))
                    .default_service(web::to(|front, request| {
                        wrong_method(front, request, "GET, HEAD, DELETE")
                    })),
            )
            .service(read_only(EVENTS).route(web::route().guard(reads()).to(events::get)))
            .service(write_only(MESSAGES).route(web::post().to(messages::post)))
            .service(read_only(MESSAGE).route(web::route().guard(reads()).to(messages::get)))
            .service(read_only(DELIVERIES).route(web::route().guard(reads()).to(deliveries::list)))
            // Before the one that would take its last segment for an id.
            .service(write_only(REDRIVE).route(web::post().to(deliveries::redrive)))
            .service(read_only(DELIVERY).route(web::route().guard(reads()).to(deliveries::get)))
            .service(write_only(REDELIVER).route(web::post().to(deliveries::redeliver)))
            .service(read_only(OPENAPI).route(web::route().guard(reads()).to(documentation::openapi)))
            .service(read_only(DOCS).route(web::route().guard(reads()).to(documentation::docs)))
            .service(read_only(PROBLEM).route(web::route().guard(reads()).to(documentation::problem)))
            .default_service(web::to(no_route));
    }
}

fn read_only(pattern: &str) -> actix_web::Resource {
    web::resource(pattern)
        .default_service(web::to(|front, request| wrong_method(front, request, "GET, HEAD")))
}

fn write_only(pattern: &str) -> actix_web::Resource {
    web::resource(pattern).default_service(web::to(|front, request| wrong_method(front, request, "POST")))
}

/// Whoever answers GET answers HEAD (RFC 9110, 9.3.2).
fn reads() -> impl Guard {
    Any(Get()).or(Head())
}

async fn wrong_method(front: Data<Front>, request: HttpRequest, allow: &'static str) -> HttpResponse {
    let failure = Failure::new(ProblemKind::MethodNotAllowed, "See the header `Allow` for what is.")
        .with(header::ALLOW, HeaderValue::from_static(allow));
    exchange::serve(&front, OTHER, &request, async { Err(failure) }).await
}

async fn no_route(front: Data<Front>, request: HttpRequest) -> HttpResponse {
    let failure =
        Failure::new(ProblemKind::NotFound, "There is no such route. `/openapi.json` lists all routes.");
    exchange::serve(&front, OTHER, &request, async { Err(failure) }).await
}

#[cfg(test)]
mod tests;
