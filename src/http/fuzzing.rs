//! The parsers of callers' input, for the fuzz targets. Each function takes any bytes, and panics if a promise is broken.

#![expect(clippy::missing_panics_doc, clippy::panic, reason = "a panic is what a fuzzer looks for")]

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::api_error::{ApiError, FieldErrors};
use super::content_disposition::ContentDisposition;
use super::content_negotiation::prefers_stream;
use super::deliveries::redrive;
use super::header_parameters::HeaderWithParameters;
use super::multipart_parser::{MultipartEvent, MultipartParser};
use super::prefer_header::PreferHeader;
use super::query_parameters::{QueryParameters, decode, parse_limit};
use super::trace_context::TraceContext;
use super::{idempotency_key, request_body};
use crate::domain::Cursor;
use actix_web::body::{BodySize, MessageBody as _};

/// The largest answer to an invalid request, in bytes.
const MAX_REFUSAL: u64 = 64 * 1024;

/// The body of a message: a draft or errors, and an answer of bounded length.
pub fn message_body(bytes: &[u8]) {
    let mut errors = FieldErrors::default();
    match request_body::parse_message(bytes, &mut errors) {
        Some(draft) => {
            assert!(errors.is_empty(), "a draft with errors");
            assert_eq!(idempotency_key::digest(&draft), idempotency_key::digest(&draft));
        }
        None => check_refusal(errors),
    }
}

/// The body of a redrive.
pub fn redrive_body(bytes: &[u8]) {
    let mut errors = FieldErrors::default();
    if redrive::parse(bytes, &mut errors).is_none() {
        check_refusal(errors);
    }
}

/// A query, and its values as a limit and as a cursor.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut errors = FieldErrors::default();
    let _parameters = QueryParameters::read(text, ["after", "limit"], &mut errors);
    if !errors.is_empty() {
        check_refusal(errors);
    }
    if let Ok(value) = decode(text) {
        let _limit = parse_limit(&value);
    }
}

/// A cursor. One that is accepted is written as it was read.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        let written = cursor.to_string();
        assert_eq!(written.parse(), Ok(cursor), "a cursor reads back");
    }
}

/// The headers that the routes read, each with the value of one line.
pub fn headers(bytes: &[u8]) {
    const NAMES: [&str; 6] =
        ["prefer", "idempotency-key", "accept", "traceparent", "last-event-id", "content-type"];
    let mut headers = HeaderMap::new();
    for (name, line) in NAMES.into_iter().cycle().zip(bytes.split(|&byte| byte == b'\n').take(32)) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    let prefer = PreferHeader::from_headers(&headers);
    assert!(prefer.applied().is_ok(), "an applied preference fits into a header");
    let mut errors = FieldErrors::default();
    if let Some(key) = idempotency_key::key(&headers, &mut errors) {
        assert!(
            (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        );
    }
    let _stream = prefers_stream(&headers);
    let _trace = TraceContext::from_headers(&headers);
}

/// A form with a file, in pieces. Its content is no longer than the form.
pub fn upload_form(bytes: &[u8]) {
    let content_type = HeaderWithParameters::parse(b"multipart/form-data; boundary=x");
    let Some(Ok(mut parser)) = content_type.map(|content_type| MultipartParser::new(&content_type)) else {
        panic!("the boundary is valid")
    };
    let mut content = 0;
    for piece in bytes.chunks(1000) {
        parser.push(piece);
        loop {
            match parser.next_event() {
                Ok(Some(MultipartEvent::Content(piece))) => content += piece.len(),
                Ok(Some(MultipartEvent::PartBegun(head))) => {
                    let disposition = head.header("content-disposition").unwrap_or_default();
                    let _read = ContentDisposition::of_part(disposition);
                }
                Ok(Some(MultipartEvent::PartEnded | MultipartEvent::FormEnded)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(content <= bytes.len(), "content that did not come");
}

/// The header that names a file.
pub fn content_disposition(bytes: &[u8]) {
    let _read = ContentDisposition::of_request(bytes);
}

fn check_refusal(errors: FieldErrors) {
    assert!(!errors.is_empty(), "refused without an error");
    let response = ApiError::from(errors).response("/", TraceContext::from_headers(&HeaderMap::new()));
    let BodySize::Sized(size) = response.body().size() else { panic!("an answer without a size") };
    assert!(size <= MAX_REFUSAL, "an answer of {size} bytes to a bad request");
}
