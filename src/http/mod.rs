//! The HTTP interface: callers' routes and, on a second listener, the operator's.
//!
//! It checks what comes in, hands it to the hub and writes down what the hub says. It does not know the
//! platform, and holds nothing between two requests but counters: any replica can answer any of them.

mod admin;
mod api_error;
mod api_server;
mod auth;
mod callback_policy;
mod canonical_json;
mod concurrency_limit;
mod content_negotiation;
mod conversation_address;
mod conversations;
mod deliveries;
mod detachable_connection;
mod documentation;
mod events;
mod field_validator;
mod idempotency;
mod messages;
mod prefer_header;
mod query_parameters;
mod rate_limit;
mod request_body;
mod request_pipeline;
mod trace_context;

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
use api_error::ApiError;
use auth::{CallerIdentity, RequiredScope};
use concurrency_limit::ConcurrencyPermit;
use rate_limit::CallerRateLimits;

pub use admin::{AdminContext, configure_admin};
pub use api_server::serve;

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
pub struct ApiContext {
    hub: Hub,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// The wall clock, for message ids only; the store's clock counts everywhere else.
    clock: Clock,
    /// Requests being answered.
    open_requests: Arc<AtomicUsize>,
    /// Streams of events that are open.
    open_streams: Arc<AtomicUsize>,
    /// Requests and streams of each caller, by its place in the configuration.
    open_by_caller: Vec<Arc<AtomicUsize>>,
    /// What is left of the rates of callers.
    rate_limits: CallerRateLimits,
    /// Between two signs of life in a stream that has nothing to say.
    keep_alive: Duration,
    /// Whether the replica is going away: each answer closes its connection then, so that none is idle, and may be
    /// about to be used, when all are closed.
    draining: Arc<AtomicBool>,
}

impl ApiContext {
    /// A context for this hub. `metrics` must have been made with [`ROUTES`].
    pub fn new(hub: Hub, config: Arc<Config>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            hub,
            metrics,
            clock,
            open_requests: Arc::default(),
            open_streams: Arc::default(),
            open_by_caller: config.callers.iter().map(|_| Arc::default()).collect(),
            rate_limits: CallerRateLimits::new(&config.callers),
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
    fn authorize(
        &self,
        headers: &HeaderMap,
        scope: RequiredScope,
    ) -> Result<(CallerIdentity<'_>, Option<ConcurrencyPermit>), ApiError> {
        let caller = CallerIdentity::authenticate(&self.config.callers, headers, scope)?;
        let Some((limit, open)) =
            caller.max_open().zip(caller.index().and_then(|index| self.open_by_caller.get(index)))
        else {
            return Ok((caller, None));
        };
        let permit = ConcurrencyPermit::acquire(open, limit).ok_or_else(|| {
            let detail = format!(
                "This key has {limit} requests open on this replica, streams and waits included, and may have no \
                 more. Try again when one of them has ended."
            );
            ApiError::from(Problem::new(ProblemKind::RateLimited, detail).retry_after(api_error::RETRY_SOON))
        })?;
        Ok((caller, Some(permit)))
    }

    /// A new id: the time, and 80 bits of the system's random source, for ids are unique over replicas and not to
    /// be guessed.
    fn new_id(&self) -> Result<MessageId, ApiError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| api_error::internal())?;
        Ok(MessageId::new(self.clock.now(), u128::from_ne_bytes(random)))
    }
}

/// The callers' routes: `App::new().configure(http::configure(context))`.
pub fn configure(context: Arc<ApiContext>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        app.app_data(Data::from(context))
            .service(
                web::resource(CONVERSATION)
                    .route(web::route().guard(reads()).to(conversations::get))
                    .route(web::delete().to(conversations::delete))
                    .default_service(web::to(|context, request| {
                        wrong_method(context, request, "GET, HEAD, DELETE")
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
        .default_service(web::to(|context, request| wrong_method(context, request, "GET, HEAD")))
}

fn write_only(pattern: &str) -> actix_web::Resource {
    web::resource(pattern).default_service(web::to(|context, request| wrong_method(context, request, "POST")))
}

/// Whoever answers GET answers HEAD (RFC 9110, 9.3.2).
fn reads() -> impl Guard {
    Any(Get()).or(Head())
}

async fn wrong_method(context: Data<ApiContext>, request: HttpRequest, allow: &'static str) -> HttpResponse {
    let failure = ApiError::new(ProblemKind::MethodNotAllowed, "See the header `Allow` for what is.")
        .with_header(header::ALLOW, HeaderValue::from_static(allow));
    request_pipeline::serve(&context, OTHER, &request, async { Err(failure) }).await
}

async fn no_route(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let failure =
        ApiError::new(ProblemKind::NotFound, "There is no such route. `/openapi.json` lists all routes.");
    request_pipeline::serve(&context, OTHER, &request, async { Err(failure) }).await
}

#[cfg(test)]
mod tests;
