//! The operator's routes, on a listener of their own: liveness, readiness, metrics.
//!
//! Liveness looks at nothing but this process: an outage of the store or the platform must not make an
//! orchestrator kill replicas that will work again when it is over. Readiness asks the store.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::problem::{self, Failure};
use super::reads;
use super::trace::Trace;
use crate::domain::ProblemKind;
use crate::metrics::Metrics;
use crate::store::Store;

/// What the operator's routes work with.
#[derive(Debug)]
pub struct Admin {
    /// What `/metrics` tells.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` asks.
    pub store: Store,
    /// How long it may take to answer that; a probe gives up after a second or a few.
    pub store_timeout: Duration,
    /// Set when this replica begins to go away, before it refuses anything.
    pub draining: Arc<AtomicBool>,
}

/// The operator's routes: `App::new().configure(http::configure_admin(admin))`.
pub fn configure_admin(admin: Arc<Admin>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        let read_only = |path| web::resource(path).default_service(web::to(wrong_method));
        app.app_data(Data::from(admin))
            .service(read_only("/livez").route(web::route().guard(reads()).to(live)))
            .service(read_only("/readyz").route(web::route().guard(reads()).to(ready)))
            .service(read_only("/metrics").route(web::route().guard(reads()).to(metrics)))
            .default_service(web::to(no_route));
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: [Check; 2],
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
    /// What should be changed, although the replica is of use as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl Check {
    fn of(name: &'static str, result: Result<(), Cow<'static, str>>) -> Self {
        Self { name, ok: result.is_ok(), detail: result.err(), warnings: Vec::new() }
    }
}

async fn live() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(serde_json::json!({"live": true}))
}

async fn ready(admin: Data<Admin>) -> HttpResponse {
    let draining = admin.draining.load(Ordering::Relaxed);
    let drain = if draining { Err("this replica is shutting down".into()) } else { Ok(()) };
    let checks = [store(&admin).await, Check::of("drain", drain)];
    let ready = checks.iter().all(|check| check.ok);
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(Readiness { ready, checks })
}

/// Only whether the store answers makes a replica unready: it would not become better by anything else.
async fn store(admin: &Admin) -> Check {
    let answer = match tokio::time::timeout(admin.store_timeout, admin.store.now()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(_) => Err("the store did not answer in time".into()),
    };
    Check { warnings: admin.store.warnings(), ..Check::of("store", answer) }
}

async fn metrics(admin: Data<Admin>, request: HttpRequest) -> HttpResponse {
    match admin.metrics.text() {
        Ok(text) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
            .body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            refuse(&request, &problem::internal())
        }
    }
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let failure = Failure::new(ProblemKind::MethodNotAllowed, "See the header `Allow` for what is.")
        .with(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    refuse(&request, &failure)
}

async fn no_route(request: HttpRequest) -> HttpResponse {
    refuse(&request, &Failure::new(ProblemKind::NotFound, "Here are `/livez`, `/readyz` and `/metrics`."))
}

fn refuse(request: &HttpRequest, failure: &Failure) -> HttpResponse {
    failure.response(request.uri().path(), Trace::of(request.headers()))
}
