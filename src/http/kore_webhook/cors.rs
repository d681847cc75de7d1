//! Cross-origin requests: Kore's Web SDK calls the channel from a page of another host.
//!
//! A token in a header authorises each call, and no cookie does. So any origin may call.

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::super::ApiContext;
use super::super::request_pipeline;

/// Lets any page read an answer.
pub(super) fn allow(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
}

/// Returns an answer that any page may read.
pub(super) fn allowed(mut response: HttpResponse) -> HttpResponse {
    allow(response.headers_mut());
    response
}

/// Answers the preflight of a page, which carries no token.
pub(super) async fn preflight(
    context: Data<ApiContext>,
    request: HttpRequest,
    route: &'static str,
) -> HttpResponse {
    let response = HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .finish();
    request_pipeline::serve(&context, route, &request, async { Ok(allowed(response)) }).await
}
