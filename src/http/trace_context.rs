//! The trace of a request (W3C Trace Context). It continues the caller's `traceparent`, or starts if that header is
//! absent or invalid.
//!
//! Pure except for random ids. Trace ids are no secrets, so a fast generator is sufficient.

use std::fmt;

use actix_web::http::header::HeaderMap;

use crate::domain::TraceId;

/// The trace of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceContext {
    id: u128,
}

impl TraceContext {
    /// Reads the trace of a request from its headers.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all("traceparent");
        match (parents.next(), parents.next()) {
            (Some(parent), None) => Self::parse(parent.as_bytes()).unwrap_or_else(Self::new_root),
            _ => Self::new_root(),
        }
    }

    fn new_root() -> Self {
        Self { id: fastrand::u128(1..) }
    }

    /// Parses `00-{32 hex}-{16 hex}-{2 hex}`. Later versions may add fields after another dash.
    fn parse(header: &[u8]) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?.trim_matches([' ', '\t']);
        let mut fields = header.split('-');
        let version = hex(fields.next()?, 2)?;
        let id = hex(fields.next()?, 32)?;
        let parent = hex(fields.next()?, 16)?;
        hex(fields.next()?, 2)?;
        let more = fields.next().is_some();
        let readable = version != 0xff && id != 0 && parent != 0 && !(version == 0 && more);
        readable.then_some(Self { id })
    }
}

/// Parses exactly this many lower-case hexadecimal digits.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let lower = digits.len() == count && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if lower { u128::from_str_radix(digits, 16).ok() } else { None }
}

impl From<TraceContext> for TraceId {
    fn from(trace: TraceContext) -> Self {
        Self(trace.id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parse(header: &str) -> Option<String> {
        TraceContext::parse(header.as_bytes()).map(|trace| trace.to_string())
    }

    #[test]
    fn valid_traceparent_is_continued() {
        assert_eq!(parse(GOOD).as_deref(), Some(ID));
        assert_eq!(parse(&format!(" {GOOD}\t")).as_deref(), Some(ID));
        assert_eq!(parse(&GOOD.replacen("00", "cc", 1)).as_deref(), Some(ID));
        assert_eq!(parse(&format!("{}-what-ever", GOOD.replacen("00", "cc", 1))).as_deref(), Some(ID));
    }

    #[test]
    fn invalid_traceparent_starts_a_trace() {
        for bad in [
            "",
            "00",
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!("{GOOD}-more"),
            &GOOD[..54],
            &GOOD.replace("4bf9", "+bf9"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_traceparents_start_a_trace() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("traceparent");
        headers.append(name.clone(), HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::from_headers(&headers).to_string(), ID);
        headers.append(name, HeaderValue::from_static(GOOD));
        assert_ne!(TraceContext::from_headers(&headers).to_string(), ID);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            let _ = TraceContext::parse(&bytes);
        }
    }
}
