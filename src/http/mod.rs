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
mod caller_socket;
mod caller_table;
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
mod fleet_rate;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod header_parameters;
mod health_pages;
mod idempotency_key;
mod kore_webhook;
mod live_settings;
mod local_host;
mod long_work;
mod messages;
mod multipart_parser;
mod prefer_header;
mod query_parameters;
mod rate_limit;
mod read_pace;
mod read_tokens;
mod readiness;
mod refusal_writer;
mod request_body;
mod request_pipeline;
mod request_places;
mod rhythm;
mod server_tls;
mod signals;
mod tokens;
mod trace_context;
mod upload_body;
mod upload_shares;
mod webhooks;
mod work_debt;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix_http::RequestHead;
use actix_web::guard::{Any, Get, Guard, Head};
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use crate::config::Config;
use crate::domain::{CALLER_PLACES, FairShare, MessageId, Problem, ProblemKind};
use crate::hub::{Hub, HubError};
use crate::identity::RemoteKeys;
use crate::metrics::Metrics;
use crate::store::{Clock, OutboxEventSender};
use crate::wall_clock;
use api_error::ApiError;
use auth::{AuthRefusal, CallerIdentity, RequiredScope};
use concurrency_limit::ConcurrencyPermit;
use detachable_connection::DetachableConnection;
use expectation::CountedRequest;
use live_settings::{LiveSettings, LiveSettingsCell};
use long_work::LongWork;
use read_tokens::ReadTokenKeys;
use request_places::CallerPlaces;
use upload_shares::UploadShares;

pub use admin::{AdminContext, configure_admin};
pub use api_server::ApiServer;
pub use live_settings::ReloadStatus;
pub use readiness::ReadinessProbe;
pub use server_tls::{ServerTls, ServerTlsError, TlsSettings};

const CONVERSATIONS: &str = "/conversations";
const CONVERSATION: &str = "/conversations/{user}";
const TOKENS: &str = "/tokens";
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
const WEBHOOKS: &str = "/webhooks";
const WEBHOOK_ENABLE: &str = "/webhooks/{bot}/{name}/enable";
const WEBHOOK_DISABLE: &str = "/webhooks/{bot}/{name}/disable";
const WEBHOOK_TEST: &str = "/webhooks/{bot}/{name}/test";
const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
const PROBLEM: &str = "/problems/{slug}";
const LIVE: &str = "/livez";
const READY: &str = "/readyz";
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
    TOKENS,
    DELIVERIES,
    DELIVERY,
    REDELIVER,
    REDRIVE,
    WEBHOOKS,
    WEBHOOK_ENABLE,
    WEBHOOK_DISABLE,
    WEBHOOK_TEST,
    OPENAPI,
    DOCS,
    PROBLEM,
    kore_webhook::V1,
    kore_webhook::V2,
    kore_webhook::POLL,
    kore_webhook::BOT_META,
    kore_webhook::CHAT_HISTORY,
    kore_webhook::FILE,
    kore_webhook::FILE_TOKEN,
    kore_webhook::FILE_CHUNK,
    kore_webhook::FILE_END,
    LIVE,
    READY,
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
    /// Memory of requests, answers and event streams, in bytes. Callers share it.
    memory: Arc<FairShare>,
    /// The turns of the reads of long pages. They are apart, so that no body waits for the store.
    long_reads: LongWork,
    /// The turns of long bodies, and of long pages that are written.
    long_work: LongWork,
    /// Places of requests, which callers share.
    request_share: Arc<FairShare>,
    /// Places of event streams, which callers share.
    stream_share: Arc<FairShare>,
    /// Places of uploads, which callers and bots share.
    upload_shares: UploadShares,
    /// The keys of read tokens.
    read_token_keys: ReadTokenKeys,
    /// The callers and limits, which a reload of the configuration replaces.
    live: LiveSettingsCell,
    /// Longest silence in an event stream.
    keep_alive: Duration,
    /// True if the replica drains. Each answer then closes its connection, so that no caller reuses one that is about
    /// to close.
    draining: Arc<AtomicBool>,
    /// Answer of `/readyz`. Only tests have none.
    readiness: Option<Arc<ReadinessProbe>>,
    /// The dispatcher of this replica.
    outbox: Option<OutboxEventSender>,
}

impl ApiContext {
    /// Creates the context of this hub. `metrics` must know [`ROUTES`].
    pub fn new(hub: Hub, config: Arc<Config>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let live = LiveSettingsCell::new(&config);
        live.get().callers.show(&metrics.callers);
        Self {
            hub,
            metrics,
            clock,
            open_requests: Arc::default(),
            open_streams: Arc::default(),
            memory: FairShare::new(config.server.memory_limit, CALLER_PLACES),
            long_reads: LongWork::default(),
            long_work: LongWork::default(),
            request_share: FairShare::new(config.server.max_requests, CALLER_PLACES),
            stream_share: FairShare::new(config.server.max_streams, CALLER_PLACES),
            upload_shares: UploadShares::new(&config),
            read_token_keys: ReadTokenKeys::default(),
            live,
            keep_alive: events::KEEP_ALIVE,
            draining: Arc::default(),
            readiness: None,
            outbox: None,
            config,
        }
    }

    /// Sets the dispatcher that tests endpoints.
    #[must_use]
    pub fn outbox(self, outbox: OutboxEventSender) -> Self {
        Self { outbox: Some(outbox), ..self }
    }

    /// Sets the flag that tells this context whether its replica drains.
    #[must_use]
    pub fn draining(self, draining: Arc<AtomicBool>) -> Self {
        Self { draining, ..self }
    }

    /// Sets the probe of this replica's readiness.
    #[must_use]
    pub fn probed(self, readiness: Arc<ReadinessProbe>) -> Self {
        Self { readiness: Some(readiness), ..self }
    }

    /// Returns the memory of requests, answers and event streams.
    pub fn memory(&self) -> Arc<FairShare> {
        Arc::clone(&self.memory)
    }

    /// Returns the keys of issuers, which [`RemoteKeys::run`] fetches.
    pub fn remote_keys(&self) -> Vec<Weak<RemoteKeys>> {
        self.live().callers.remote_keys()
    }

    /// Gives the fleet back what idle callers did not use of their rates.
    pub async fn return_idle_rates(&self) {
        for rate in self.live().callers.entries().filter_map(|entry| entry.rate.as_ref()) {
            rate.return_idle(&self.hub, &self.metrics.callers).await;
        }
    }

    /// Returns the settings of the current configuration.
    fn live(&self) -> Arc<LiveSettings> {
        self.live.get()
    }

    /// Identifies the caller of a request, and counts the request in the caller's rate. A token with an unknown key waits
    /// until the keys of its issuer were fetched again.
    async fn count_request(&self, head: &RequestHead) -> CountedRequest {
        // Waits are rare, and on the heap, because each request would carry their room.
        let caller = if let Some(token) = read_tokens::of_request(head) {
            Box::pin(self.identify_reader(&token)).await
        } else {
            let identify =
                || CallerIdentity::identify(&self.live().callers, head.headers(), wall_clock::now());
            match identify() {
                Err(refusal)
                    if let Some(keys) = refusal.fetchable_keys()
                        && Box::pin(keys.refetched()).await =>
                {
                    identify()
                }
                identified => identified,
            }
        };
        self.count_request_of(caller).await
    }

    /// Counts a request of this caller in its rate.
    async fn count_request_of(&self, caller: Result<CallerIdentity, AuthRefusal>) -> CountedRequest {
        let entry = caller.as_ref().ok().and_then(CallerIdentity::entry);
        let rate_limit = match entry.and_then(|entry| entry.rate.as_ref()) {
            Some(rate) => Some(rate.count(&self.hub, &self.metrics.callers).await),
            None => None,
        };
        CountedRequest { caller, rate_limit }
    }

    /// Returns the caller of a request after a check of its scope and its places. The request holds the places until its
    /// answer is taken.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`, `rate-limited`, `overloaded`.
    fn authorize(&self, request: &HttpRequest, scope: RequiredScope) -> Result<CallerIdentity, ApiError> {
        let counted = request.extensions().get::<CountedRequest>().map(|counted| counted.caller.clone());
        let caller = counted.ok_or_else(api_error::internal)??;
        let places = self.admit_caller(&caller, scope)?;
        if let Some(connection) = DetachableConnection::of_request(request) {
            connection.with_places(|held| held.caller = places);
        }
        Ok(caller)
    }

    /// Checks the scope of a caller, and takes the places of its request.
    ///
    /// # Errors
    /// `forbidden`, `rate-limited`, `overloaded`.
    fn admit_caller(&self, caller: &CallerIdentity, scope: RequiredScope) -> Result<CallerPlaces, ApiError> {
        caller.check_scope(scope)?;
        let open = match caller.max_open().zip(caller.entry()) {
            Some((limit, entry)) => Some(ConcurrencyPermit::acquire(&entry.open, limit).ok_or_else(|| {
                let detail = format!(
                    "This caller already has {limit} open requests on this replica, streams and waits included. \
                     Retry when one of them has ended."
                );
                let problem = Problem::new(ProblemKind::RateLimited, detail);
                ApiError::from(problem.retry_after(api_error::RETRY_SOON))
            })?),
            None => None,
        };
        let share = self.request_share.acquire(caller.holder(), 1);
        let share = share.ok_or(HubError::Overloaded("this caller's share of open requests"))?;
        Ok(CallerPlaces { open, share: Some(share) })
    }

    /// Returns true if another request would be answered at once.
    fn has_room(&self) -> bool {
        self.open_requests.load(Ordering::Relaxed) < self.live().max_requests
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
            .service(write_only(TOKENS).route(web::post().to(tokens::post)))
            .service(write_only(SIGNALS).route(web::post().to(signals::post)))
            .service(read_only(EVENTS).route(web::route().guard(reads()).to(events::get)))
            .service(read_only(MESSAGE).route(web::route().guard(reads()).to(messages::get)))
            .service(read_only(DELIVERIES).route(web::route().guard(reads()).to(deliveries::list)))
            // This route precedes the one with an id, which would match `redrive`.
            .service(write_only(REDRIVE).route(web::post().to(deliveries::redrive)))
            .service(read_only(DELIVERY).route(web::route().guard(reads()).to(deliveries::get)))
            .service(write_only(REDELIVER).route(web::post().to(deliveries::redeliver)))
            .service(read_only(WEBHOOKS).route(web::route().guard(reads()).to(webhooks::list)))
            .service(write_only(WEBHOOK_ENABLE).route(web::post().to(webhooks::enable)))
            .service(write_only(WEBHOOK_DISABLE).route(web::post().to(webhooks::disable)))
            .service(write_only(WEBHOOK_TEST).route(web::post().to(webhooks::test)))
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
            .service(read_only(LIVE).route(web::route().guard(reads()).to(health_pages::live)))
            .service(read_only(READY).route(web::route().guard(reads()).to(health_pages::ready)))
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
