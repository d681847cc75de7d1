//! Health pages for load balancers that reach only the callers' listener. They need no key and tell no detail.
//!
//! They pass by the pipeline: a replica with many requests is healthy, and no probe counts among callers' requests.

use actix_web::http::header;
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::ApiContext;
use super::detachable_connection::DetachableConnection;
use super::local_host;
use super::trace_context::TraceContext;

/// Serves `GET /livez`.
pub(super) async fn live(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    answer(&context, &request, async { (true, json!({"live": true})) }).await
}

/// Serves `GET /readyz`.
pub(super) async fn ready(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    answer(&context, &request, async {
        let ready = match &context.readiness {
            Some(probe) => probe.is_ready().await,
            None => false,
        };
        (ready, json!({"ready": ready}))
    })
    .await
}

async fn answer(
    context: &ApiContext,
    request: &HttpRequest,
    page: impl Future<Output = (bool, Value)>,
) -> HttpResponse {
    let connection = DetachableConnection::of_request(request).cloned();
    if let Some(connection) = &connection {
        connection.request_begun(request.headers());
    }
    let host = if context.has_callers() { Ok(()) } else { local_host::check(request.head()) };
    let mut response = match host {
        Ok(()) => {
            let (well, body) = page.await;
            let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            HttpResponse::build(status).insert_header((header::CACHE_CONTROL, "no-store")).json(body)
        }
        Err(failure) => failure.response(request.uri().path(), TraceContext::from_headers(request.headers())),
    };
    if context.readiness.as_ref().is_some_and(|probe| probe.is_draining()) {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    match connection {
        Some(connection) => connection.answer(response),
        None => response,
    }
}
