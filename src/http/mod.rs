//! The HTTP interface: callers' routes and, on a second listener, the operator's.
//!
//! It checks what comes in, hands it to the hub and writes down what the hub says. It does not know the
//! platform, and holds nothing between two requests but counters: any replica can answer any of them.

mod address;
mod admin;
mod auth;
mod body;
mod exchange;
mod idempotency;
mod json;
mod messages;
mod openapi;
mod pages;
mod prefer;
mod problem;
mod trace;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix_web::guard::{Any, Get, Guard, Head};
use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::config::Config;
use crate::domain::ProblemKind;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::Clock;
use problem::Failure;

pub use admin::{Admin, configure_admin};

const MESSAGES: &str = "/conversations/{user}/messages";
const MESSAGE: &str = "/conversations/{user}/messages/{id}";
const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
const PROBLEM: &str = "/problems/{slug}";
const OTHER: &str = "other";

/// Every route pattern as metrics and logs name it; `other` is whatever is no route.
pub const ROUTES: &[&str] = &[MESSAGES, MESSAGE, OPENAPI, DOCS, PROBLEM, OTHER];

/// What the callers' routes work with; shared by all workers.
#[derive(Debug)]
pub struct Front {
    hub: Hub,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    /// The wall clock, for message ids only; the store's clock counts everywhere else.
    clock: Clock,
    /// Requests being answered; the only word that workers share.
    open: AtomicUsize,
}

impl Front {
    /// A front for this hub. `metrics` must have been made with [`ROUTES`].
    pub const fn new(hub: Hub, config: Arc<Config>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { hub, config, metrics, clock, open: AtomicUsize::new(0) }
    }
}

/// The callers' routes: `App::new().configure(http::configure(front))`.
pub fn configure(front: Arc<Front>) -> impl FnOnce(&mut ServiceConfig) {
    move |app| {
        app.app_data(Data::from(front))
            .service(
                web::resource(MESSAGES)
                    .route(web::post().to(messages::post))
                    .default_service(web::to(|front, request| wrong_method(front, request, "POST"))),
            )
            .service(read_only(MESSAGE).route(web::route().guard(reads()).to(messages::get)))
            .service(read_only(OPENAPI).route(web::route().guard(reads()).to(pages::openapi)))
            .service(read_only(DOCS).route(web::route().guard(reads()).to(pages::docs)))
            .service(read_only(PROBLEM).route(web::route().guard(reads()).to(pages::problem)))
            .default_service(web::to(no_route));
    }
}

fn read_only(pattern: &str) -> actix_web::Resource {
    web::resource(pattern)
        .default_service(web::to(|front, request| wrong_method(front, request, "GET, HEAD")))
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
    let failure = Failure::new(ProblemKind::NotFound, "There is no such route; `/docs` lists them all.");
    exchange::serve(&front, OTHER, &request, async { Err(failure) }).await
}

#[cfg(test)]
mod tests;
