//! Injects planned faults into requests, and builds the error responses.

use std::io;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::body::{BodyStream, BoxBody};
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use serde_json::{Value, json};

use super::behaviour::ExpiredTokenStyle;
use super::clock;
use super::connection_cut::{ConnectionCutter, CuttableBody};
use super::faults::{Endpoint, Fault, RetryAfter};
use super::platform_state::PlatformState;
use super::step::CutMode;

/// Counts a request, and returns the response of the next planned fault if that replaces the answer.
pub(super) async fn inject_fault(platform: &PlatformState, endpoint: Endpoint) -> Option<HttpResponse> {
    platform.count(endpoint);
    Some(match platform.faults.take(endpoint)? {
        Fault::Slow(span) => {
            tokio::time::sleep(span).await;
            return None;
        }
        Fault::Hang => std::future::pending().await,
        Fault::Drop => dropped_connection(),
        Fault::Status(code) => error_response(code, "the sandbox was told to fail"),
        Fault::Error { status: code, code: text, msg } => {
            let code_value = text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
            error_with_code(code, &code_value, &msg)
        }
        Fault::Html(code) => HttpResponse::build(status_code(code))
            .content_type("text/html")
            .body("<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"),
        Fault::Body(code, body) => {
            HttpResponse::build(status_code(code)).content_type("application/json").body(body)
        }
        Fault::Empty => HttpResponse::Ok().json(json!({})),
        Fault::TokenExpired => token_expired_response(platform.behaviour().expired_token),
        Fault::RateLimited(retry_after) => {
            let mut answer =
                error_response(429, "Rate limit for this API has been reached. Please try again later");
            let value = match retry_after {
                RetryAfter::Seconds(seconds) => Some(seconds.to_string()),
                RetryAfter::Date(span) => {
                    Some(httpdate::fmt_http_date(clock::after(clock::now(), span).into()))
                }
                RetryAfter::Missing => None,
            };
            if let Some(value) = value.and_then(|value| value.try_into().ok()) {
                answer.headers_mut().insert(header::RETRY_AFTER, value);
            }
            answer
        }
    })
}

/// Builds a response with the platform's error envelope, and the status as its code.
pub(super) fn error_response(status: u16, msg: &str) -> HttpResponse {
    error_with_code(status, &json!(status), msg)
}

fn error_with_code(status: u16, code: &Value, msg: &str) -> HttpResponse {
    HttpResponse::build(status_code(status)).json(json!({"errors": [{"msg": msg, "code": code}]}))
}

/// Builds the refusal of an expired token.
pub(super) fn token_expired_response(spelling: ExpiredTokenStyle) -> HttpResponse {
    match spelling {
        ExpiredTokenStyle::Status => error_response(401, "Unauthorized"),
        ExpiredTokenStyle::Code => error_with_code(400, &json!("TOKEN_EXPIRED"), "Token has expired"),
        ExpiredTokenStyle::Message => error_response(400, "token expired"),
    }
}

fn status_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns a response that ends the connection without an answer.
fn dropped_connection() -> HttpResponse {
    let cutter = ConnectionCutter::new(None);
    cutter.cut(CutMode::Reset);
    let never = BodyStream::new(futures_util::stream::pending::<Result<Bytes, io::Error>>());
    HttpResponse::Ok().body(CuttableBody::new(BoxBody::new(never), Arc::new(cutter)))
}
