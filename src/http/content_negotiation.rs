//! Content negotiation of events: an event stream or JSON (RFC 9110, 12.5.1).
//!
//! Pure. JSON is the default, also for callers that prefer both alike: a stream that a caller does not expect is worse
//! than a page.

use actix_web::http::header::{HeaderMap, Quality, QualityItem};
use actix_web::mime::{self, Mime};

/// Returns true if the `Accept` headers prefer `text/event-stream` to `application/json`. Unreadable parts are ignored.
pub(super) fn prefers_stream(headers: &HeaderMap) -> bool {
    let ranges: Vec<QualityItem<Mime>> = headers
        .get_all("accept")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    quality(&ranges, &mime::TEXT_EVENT_STREAM) > quality(&ranges, &mime::APPLICATION_JSON)
}

/// Returns the quality of a type, from the most specific range that matches it.
fn quality(ranges: &[QualityItem<Mime>], form: &Mime) -> Quality {
    let exactness = |range: &Mime| match (range.type_(), range.subtype()) {
        (mime::STAR, mime::STAR) => Some(0),
        (kind, mime::STAR) if kind == form.type_() => Some(1),
        (kind, sub) if kind == form.type_() && sub == form.subtype() => Some(2),
        _ => None,
    };
    ranges
        .iter()
        .filter_map(|range| Some((exactness(&range.item)?, range.quality)))
        .max()
        .map_or(Quality::ZERO, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn prefers(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HeaderName::from_static("accept"), HeaderValue::from_str(value).unwrap());
        }
        prefers_stream(&headers)
    }

    #[test]
    fn stream_is_chosen_only_if_preferred() {
        for stream in [
            &["text/event-stream"][..],
            &["Text/Event-Stream"],
            &["text/event-stream; charset=utf-8"],
            &["text/event-stream, application/json;q=0.9"],
            &["application/json;q=0.2", "text/event-stream;q=0.3"],
            &["text/*"],
            &["*/*;q=0.1, text/event-stream"],
            &["text/html, text/event-stream;q=0.1"],
            &["nonsense, text/event-stream"],
            &["*/*, application/json;q=0"],
        ] {
            assert!(prefers(stream), "{stream:?}");
        }
        for json in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/json"],
            &["text/event-stream, application/json"],
            &["application/json, text/event-stream"],
            &["text/event-stream, */*"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0, */*"],
            &["text/*, text/event-stream;q=0"],
            &["text/event-stream;q=0.5, */*"],
            &["text/html"],
            &["text/event-stream;q=high"],
            &["event-stream"],
        ] {
            assert!(!prefers(json), "{json:?}");
        }
    }

    proptest! {
        #[test]
        fn any_accept_header_is_read_or_ignored(text in "[ -~]{0,60}") {
            prefers(&[&text]);
        }
    }
}
