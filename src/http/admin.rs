//! The operator's routes, on a listener of their own: liveness, readiness, metrics.
//!
//! Liveness depends on this process alone. An orchestrator must not kill replicas because the store or the platform is
//! down.

use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::guard::{Guard, fn_guard};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::api_error::{self, ApiError};
use super::auth;
use super::detachable_connection::DetachableConnection;
use super::local_host;
use super::readiness::ReadinessProbe;
use super::reads;
use super::trace_context::TraceContext;
use crate::domain::{ProblemKind, Sha256};
use crate::metrics::Metrics;

/// State of the operator's routes.
#[derive(Debug)]
pub struct AdminContext {
    /// Content of `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Answer of `/readyz`.
    pub readiness: Arc<ReadinessProbe>,
    /// Bearer token that `/metrics` asks for.
    pub metrics_token: Option<SecretString>,
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

async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"live": true}))
}

async fn ready(admin: Data<AdminContext>) -> HttpResponse {
    let report = admin.readiness.report().await;
    let mut response = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(report)
}

async fn metrics(admin: Data<AdminContext>, request: HttpRequest) -> HttpResponse {
    if let Some(token) = &admin.metrics_token
        && !presents(&request, token)
    {
        let failure = ApiError::new(
            ProblemKind::Unauthorized,
            "The token is missing or wrong. Send `server.metrics_token` as `Authorization: Bearer TOKEN`.",
        )
        .with_challenge("Bearer");
        return problem_response(&request, &failure);
    }
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

/// Returns whether a request presents this token. The duration of the comparison reveals nothing.
fn presents(request: &HttpRequest, token: &SecretString) -> bool {
    let expected = Sha256::digest(token.expose_secret().as_bytes());
    auth::bearer_credentials(request.headers()).is_some_and(|key| Sha256::digest(key).ct_eq(&expected).into())
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
