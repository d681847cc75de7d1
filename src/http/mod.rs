//! The HTTP interface: the callers' routes and, on a second listener, the operator's routes.
//!
//! This layer checks requests, hands them to the hub and writes down the hub's answers. It does not know the platform.
//! Between two requests it keeps only counters, so any replica can answer any request.

mod admin;
mod api_error;
mod api_server;
mod attachments;
mod auth;
mod callback_policy;
mod canonical_json;
mod concurrency_limit;
mod connection_limits;
mod connection_progress;
mod content_disposition;
mod content_negotiation;
mod conversation_address;
mod conversation_list;
mod conversations;
mod deliveries;
mod detachable_connection;
mod detached_stream;
mod documentation;
mod events;
mod expectation;
mod field_validator;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod header_parameters;
mod idempotency_key;
mod kore_webhook;
mod local_host;
mod messages;
mod multipart_parser;
mod prefer_header;
mod query_parameters;
mod rate_limit;
mod refusal_writer;
mod request_body;
mod request_pipeline;
mod request_places;
mod rhythm;
mod signals;
mod trace_context;
mod upload_body;
mod upload_shares;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::guard::{Any, Get, Guard, Head};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::config::Config;
use crate::domain::{FairShare, MessageId, Problem, ProblemKind};
use crate::hub::{self, Hub, HubError};
use crate::metrics::Metrics;
use crate::store::Clock;
use api_error::ApiError;
use auth::{CallerIdentity, RequiredScope};
use concurrency_limit::ConcurrencyPermit;
use detachable_connection::DetachableConnection;
use rate_limit::CallerRateLimits;
use request_places::CallerPlaces;
use upload_shares::UploadShares;

pub use admin::{AdminContext, configure_admin};
pub use api_server::ApiServer;

const CONVERSATIONS: &str = "/conversations";
const CONVERSATION: &str = "/conversations/{user}";
const ATTACHMENTS: &str = "/conversations/{user}/attachments";
const ERASE: &str = "/conversations/{user}/erase";
const EVENTS: &str = "/conversations/{user}/events";
const MESSAGES: &str = "/conversations/{user}/messages";
const MESSAGE: &str = "/conversations/{user}/messages/{id}";
const SIGNALS: &str = "/conversations/{user}/signals";
const RHYTHM: &str = "/bots/{bot}/rhythm";
const DELIVERIES: &str = "/deliveries";
const DELIVERY: &str = "/deliveries/{id}";
const REDELIVER: &str = "/deliveries/{id}/redeliver";
const REDRIVE: &str = "/deliveries/redrive";
const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
const PROBLEM: &str = "/problems/{slug}";
const OTHER: &str = "other";

/// Route patterns as metrics and logs name them. `other` stands for every path without a route.
pub const ROUTES: &[&str] = &[
    CONVERSATIONS,
    CONVERSATION,
    ATTACHMENTS,
    ERASE,
    EVENTS,
    MESSAGES,
    MESSAGE,
    SIGNALS,
    RHYTHM,
    DELIVERIES,
    DELIVERY,
    REDELIVER,
    REDRIVE,
    OPENAPI,
    DOCS,
    PROBLEM,
    kore_webhook::V1,
    kore_webhook::V2,
    kore_webhook::POLL,
    OTHER,
];

/// State that all workers share to answer callers.
#[derive(Debug)]
pub struct ApiContext {
    hub: Hub,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// The wall clock, for message ids only. All other times come from the store's clock.
    clock: Clock,
    /// Number of requests in progress.
    open_requests: Arc<AtomicUsize>,
    /// Number of open event streams.
    open_streams: Arc<AtomicUsize>,
    /// Number of open requests and streams of each caller, by its index in the configuration.
    open_by_caller: Vec<Arc<AtomicUsize>>,
    /// Memory of requests, answers and event streams, in bytes. Callers share it.
    memory: Arc<FairShare>,
    /// Places of requests, which callers share.
    request_share: Arc<FairShare>,
    /// Places of event streams, which callers share.
    stream_share: Arc<FairShare>,
    /// Places of uploads, which callers and bots share.
    upload_shares: UploadShares,
    /// Names of the callers, if there are several.
    sharing_callers: Vec<Arc<str>>,
    /// Remaining requests of callers with a rate limit.
    rate_limits: CallerRateLimits,
    /// Longest silence in an event stream.
    keep_alive: Duration,
    /// True if the replica drains. Each answer then closes its connection, so that no caller reuses one that is about
    /// to close.
    draining: Arc<AtomicBool>,
}

impl ApiContext {
    /// Creates the context of this hub. `metrics` must know [`ROUTES`].
    pub fn new(hub: Hub, config: Arc<Config>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self {
            hub,
            metrics,
            clock,
            open_requests: Arc::default(),
            open_streams: Arc::default(),
            open_by_caller: config.callers.iter().map(|_| Arc::default()).collect(),
            memory: FairShare::new(config.server.memory_limit, config.callers.len()),
            request_share: FairShare::new(config.server.max_requests, config.callers.len()),
            stream_share: FairShare::new(config.server.max_streams, config.callers.len()),
            upload_shares: UploadShares::new(&config),
            sharing_callers: hub::sharing_callers(&config.callers),
            rate_limits: CallerRateLimits::new(&config.callers),
            keep_alive: events::KEEP_ALIVE,
            draining: Arc::default(),
            config,
        }
    }

    /// Sets the flag that tells this context whether its replica drains.
    #[must_use]
    pub fn draining(self, draining: Arc<AtomicBool>) -> Self {
        Self { draining, ..self }
    }

    /// Returns the memory of requests, answers and event streams.
    pub fn memory(&self) -> Arc<FairShare> {
        Arc::clone(&self.memory)
    }

    /// Identifies the caller of a request, and checks its scope and its places. The request holds the places until its
    /// answer is taken.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `rate-limited`, `overloaded`.
    fn authorize(&self, request: &HttpRequest, scope: RequiredScope) -> Result<CallerIdentity<'_>, ApiError> {
        let caller = CallerIdentity::authenticate(&self.config.callers, request.headers(), scope)?;
        self.hold_places(request, caller)?;
        Ok(caller)
    }

    /// Has a request hold the places of its caller until its answer is taken.
    ///
    /// # Errors
    /// `rate-limited`, `overloaded`.
    fn hold_places(&self, request: &HttpRequest, caller: CallerIdentity<'_>) -> Result<(), ApiError> {
        let places = self.places_of(caller)?;
        if let Some(connection) = DetachableConnection::of_request(request) {
            connection.with_places(|held| held.caller = places);
        }
        Ok(())
    }

    /// Does the same for a head alone, and returns the places.
    ///
    /// # Errors
    /// The errors of [`ApiContext::authorize`].
    fn authorize_head(
        &self,
        headers: &HeaderMap,
        scope: RequiredScope,
    ) -> Result<(CallerIdentity<'_>, CallerPlaces), ApiError> {
        let caller = CallerIdentity::authenticate(&self.config.callers, headers, scope)?;
        Ok((caller, self.places_of(caller)?))
    }

    /// Takes the places of a request of this caller.
    ///
    /// # Errors
    /// `rate-limited`, `overloaded`.
    fn places_of(&self, caller: CallerIdentity<'_>) -> Result<CallerPlaces, ApiError> {
        let open = match caller.max_open().zip(self.open_by_caller.get(caller.index().unwrap_or(usize::MAX)))
        {
            Some((limit, open)) => Some(ConcurrencyPermit::acquire(open, limit).ok_or_else(|| {
                let detail = format!(
                    "This key already has {limit} open requests on this replica, streams and waits included. \
                     Retry when one of them has ended."
                );
                let problem = Problem::new(ProblemKind::RateLimited, detail);
                ApiError::from(problem.retry_after(api_error::RETRY_SOON))
            })?),
            None => None,
        };
        let share = self.request_share.acquire(caller.index(), 1);
        let share = share.ok_or(HubError::Overloaded("this caller's share of open requests"))?;
        Ok(CallerPlaces { open, share: Some(share) })
    }

    /// Returns true if another request would be answered at once.
    fn has_room(&self) -> bool {
        self.open_requests.load(Ordering::Relaxed) < self.config.server.max_requests
    }

    /// Returns the name of a caller that shares the bridge with others.
    fn sharing_caller(&self, caller: CallerIdentity<'_>) -> Option<Arc<str>> {
        caller.index().and_then(|index| self.sharing_callers.get(index)).map(Arc::clone)
    }

    /// Returns a new message id: the time, and 80 bits of the system's random source. Ids are unique over replicas and
    /// cannot be guessed.
    fn new_id(&self) -> Result<MessageId, ApiError> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| api_error::internal())?;
        Ok(MessageId::new(self.clock.now(), u128::from_ne_bytes(random)))
    }
}

/// Registers the callers' routes: `App::new().configure(http::configure(context))`.
pub fn configure(context: Arc<ApiContext>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        kore_webhook::configure(&context, app);
        app.app_data(Data::from(context))
            // The router tries one pattern after the other, so that of nearly all requests comes first.
            .service(write_only(MESSAGES).route(web::post().to(messages::post)))
            .service(
                web::resource(CONVERSATION)
                    .route(web::route().guard(reads()).to(conversations::get))
                    .route(web::delete().to(conversations::delete))
                    .default_service(web::to(|context, request| {
                        wrong_method(context, request, "GET, HEAD, DELETE")
                    })),
            )
            .service(write_only(ATTACHMENTS).route(web::post().to(attachments::post)))
            .service(read_only(CONVERSATIONS).route(web::route().guard(reads()).to(conversation_list::list)))
            .service(write_only(ERASE).route(web::post().to(conversations::erase)))
            .service(write_only(SIGNALS).route(web::post().to(signals::post)))
            .service(read_only(EVENTS).route(web::route().guard(reads()).to(events::get)))
            .service(read_only(MESSAGE).route(web::route().guard(reads()).to(messages::get)))
            .service(read_only(DELIVERIES).route(web::route().guard(reads()).to(deliveries::list)))
            // This route precedes the one with an id, which would match `redrive`.
            .service(write_only(REDRIVE).route(web::post().to(deliveries::redrive)))
            .service(read_only(DELIVERY).route(web::route().guard(reads()).to(deliveries::get)))
            .service(write_only(REDELIVER).route(web::post().to(deliveries::redeliver)))
            .service(
                web::resource(RHYTHM)
                    .route(web::route().guard(reads()).to(rhythm::get))
                    .route(web::delete().to(rhythm::delete))
                    .default_service(web::to(|context, request| {
                        wrong_method(context, request, "GET, HEAD, DELETE")
                    })),
            )
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

/// Matches GET and HEAD, because a resource with GET has HEAD too (RFC 9110, 9.3.2).
fn reads() -> impl Guard {
    Any(Get()).or(Head())
}

async fn wrong_method(context: Data<ApiContext>, request: HttpRequest, allow: &'static str) -> HttpResponse {
    let failure = ApiError::new(ProblemKind::MethodNotAllowed, "Use a method of the `Allow` header.")
        .with_header(header::ALLOW, HeaderValue::from_static(allow));
    request_pipeline::serve(&context, OTHER, &request, async { Err(failure) }).await
}

async fn no_route(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    let failure = ApiError::new(ProblemKind::NotFound, no_route_detail(request.path()));
    request_pipeline::serve(&context, OTHER, &request, async { Err(failure) }).await
}

/// Returns the cause of a 404 without a route. A user with a slash is the cause that callers cannot see.
fn no_route_detail(path: &str) -> &'static str {
    if path.starts_with("/conversations/") {
        "There is no such route. `/openapi.json` lists all routes. A slash in the user must arrive as `%2F`; a proxy in \
         front must pass the path on as it came, without decoding or normalising it."
    } else {
        "There is no such route. `/openapi.json` lists all routes."
    }
}

#[cfg(test)]
mod tests;
