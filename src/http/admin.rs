//! The operator's routes, on a listener of their own: liveness, readiness, metrics.
//!
//! Liveness depends on this process alone. An orchestrator must not kill replicas because the store or the platform is
//! down. Readiness asks the store. A new replica becomes ready when the others have handed its conversations over: a
//! rolling update then moves users no faster than they may connect.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::guard::{Guard, fn_guard};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::api_error::{self, ApiError};
use super::detachable_connection::DetachableConnection;
use super::local_host;
use super::reads;
use super::trace_context::TraceContext;
use crate::domain::ProblemKind;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::Store;

/// State of the operator's routes.
#[derive(Debug)]
pub struct AdminContext {
    /// Content of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Store that `/readyz` asks.
    pub store: Store,
    /// Timeout of the store's answer to `/readyz`. Probes give up after a second or a few.
    pub store_timeout: Duration,
    /// Hub that `/readyz` asks whether this replica has its share of the conversations.
    pub hub: Hub,
    /// True as soon as this replica shuts down, before it refuses requests.
    pub draining: Arc<AtomicBool>,
    /// True if only requests for this machine are served, as on the listener of a bridge without callers.
    pub local_only: bool,
}

/// Registers the operator's routes: `App::new().configure(http::configure_admin(admin))`.
pub fn configure_admin(admin: Arc<AdminContext>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        let local_only = admin.local_only;
        let read_only =
            |path| web::resource(path).guard(served(local_only)).default_service(web::to(wrong_method));
        let routes = web::scope("")
            .service(read_only("/livez").route(web::route().guard(reads()).to(live)))
            .service(read_only("/readyz").route(web::route().guard(reads()).to(ready)))
            .service(read_only("/metrics").route(web::route().guard(reads()).to(metrics)))
            .default_service(web::to(no_route));
        app.app_data(Data::from(admin)).service(routes.wrap(from_fn(tell_connection)));
    }
}

/// Tells the connection of a request where it begins and where its answer does, as `request_pipeline` does for callers.
async fn tell_connection(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let connection = DetachableConnection::of_request(request.request()).cloned();
    if let Some(connection) = &connection {
        connection.request_begun(request.headers());
    }
    let (request, response) = next.call(request).await?.map_into_boxed_body().into_parts();
    let response = match connection {
        Some(connection) => connection.answer(response),
        None => response,
    };
    Ok(ServiceResponse::new(request, response))
}

/// Matches requests for a host that is served. The others end in [`no_route`].
fn served(local_only: bool) -> impl Guard {
    fn_guard(move |request| !local_only || local_host::check(request.head()).is_ok())
}

#[derive(Serialize)]
struct ReadinessReport {
    ready: bool,
    checks: [ReadinessCheck; 3],
}

#[derive(Serialize)]
struct ReadinessCheck {
    name: &'static str,
    ok: bool,
    /// Reason of a failed check.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
    /// Advice on settings that leave the replica ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl ReadinessCheck {
    fn of(name: &'static str, result: Result<(), Cow<'static, str>>) -> Self {
        Self { name, ok: result.is_ok(), detail: result.err(), warnings: Vec::new() }
    }
}

async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"live": true}))
}

async fn ready(admin: Data<AdminContext>) -> HttpResponse {
    let draining = admin.draining.load(Ordering::Relaxed);
    let drain = if draining { Err("this replica is shutting down".into()) } else { Ok(()) };
    let share = if admin.hub.is_settled() {
        Ok(())
    } else {
        Err("other replicas still hand conversations over to this new one".into())
    };
    let checks =
        [check_store(&admin).await, ReadinessCheck::of("handoff", share), ReadinessCheck::of("drain", drain)];
    let ready = checks.iter().all(|check| check.ok);
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(ReadinessReport { ready, checks })
}

/// Checks whether the store does what a replica needs. This is the only check of a dependency: no restart would mend the others.
async fn check_store(admin: &AdminContext) -> ReadinessCheck {
    let answer = match tokio::time::timeout(admin.store_timeout, admin.store.check_ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(_) => Err("the store did not answer in time".into()),
    };
    ReadinessCheck { warnings: admin.store.warnings(), ..ReadinessCheck::of("store", answer) }
}

async fn metrics(admin: Data<AdminContext>, request: HttpRequest) -> HttpResponse {
    match admin.metrics.text() {
        Ok(text) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
            .body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            problem_response(&request, &api_error::internal())
        }
    }
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let failure = ApiError::new(ProblemKind::MethodNotAllowed, "Use a method of the `Allow` header.")
        .with_header(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    problem_response(&request, &failure)
}

async fn no_route(admin: Data<AdminContext>, request: HttpRequest) -> HttpResponse {
    if admin.local_only
        && let Err(failure) = local_host::check(request.head())
    {
        return problem_response(&request, &failure);
    }
    problem_response(
        &request,
        &ApiError::new(
            ProblemKind::NotFound,
            "There is no such route. This listener serves `/livez`, `/readyz` and `/metrics`.",
        ),
    )
}

fn problem_response(request: &HttpRequest, failure: &ApiError) -> HttpResponse {
    failure.response(request.uri().path(), TraceContext::from_headers(request.headers()))
}
