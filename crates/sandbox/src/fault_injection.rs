//! Answers that are not what was asked for.

use std::io;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::body::{BodyStream, BoxBody};
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use serde_json::{Value, json};

use super::behaviour::Expiry;
use super::clock;
use super::connection_cut::{Frames, Knife};
use super::faults::{Endpoint, Fault, RetryAfter};
use super::platform::Platform;
use super::step::Cut;

/// What a planned fault leaves of a request.
pub(super) enum Struck {
    /// It goes on.
    Through,
    /// This is its answer.
    Answer(HttpResponse),
}

/// Lets a planned fault strike.
pub(super) async fn strike(platform: &Platform, endpoint: Endpoint) -> Struck {
    let Some(fault) = platform.faults.strike(endpoint) else { return Struck::Through };
    Struck::Answer(match fault {
        Fault::Slow(span) => {
            tokio::time::sleep(span).await;
            return Struck::Through;
        }
        Fault::Hang => std::future::pending().await,
        Fault::Drop => dropped(),
        Fault::Status(code) => error(status(code), &json!(code), "the sandbox was told to fail"),
        Fault::Error { status: code, code: text, msg } => {
            let code_value = text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
            error(status(code), &code_value, &msg)
        }
        Fault::Html(code) => HttpResponse::build(status(code))
            .content_type("text/html")
            .body("<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"),
        Fault::Body(code, body) => {
            HttpResponse::build(status(code)).content_type("application/json").body(body)
        }
        Fault::Empty => HttpResponse::Ok().json(json!({})),
        Fault::TokenExpired => expired(platform.behaviour().expiry),
        Fault::RateLimited(retry_after) => {
            let mut answer = error(
                StatusCode::TOO_MANY_REQUESTS,
                &json!(429),
                "Rate limit for this API has been reached. Please try again later",
            );
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

/// The platform's error envelope.
pub(super) fn error(status: StatusCode, code: &Value, msg: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({"errors": [{"msg": msg, "code": code}]}))
}

/// The refusal of an expired token.
pub(super) fn expired(spelling: Expiry) -> HttpResponse {
    match spelling {
        Expiry::Status => error(StatusCode::UNAUTHORIZED, &json!(401), "Unauthorized"),
        Expiry::Code => error(StatusCode::BAD_REQUEST, &json!("TOKEN_EXPIRED"), "Token has expired"),
        Expiry::Message => error(StatusCode::BAD_REQUEST, &json!(400), "token expired"),
    }
}

pub(super) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// No answer: the connection just ends.
fn dropped() -> HttpResponse {
    let knife = Knife::new(None);
    knife.cut(Cut::Reset);
    let never = BodyStream::new(futures_util::stream::pending::<Result<Bytes, io::Error>>());
    HttpResponse::Ok().body(Frames::new(BoxBody::new(never), Arc::new(knife)))
}
