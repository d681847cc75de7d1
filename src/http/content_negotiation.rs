//! Content negotiation of events: an event stream or JSON (RFC 9110, 12.5.1).
//!
//! Pure. JSON is the default, also for callers that prefer both alike: a stream that a caller does not expect is worse
//! than a page.

use actix_web::http::header::{HeaderMap, Quality, QualityItem};
use actix_web::mime::{self, Mime};

/// Returns true if the `Accept` headers prefer `text/event-stream` to `application/json`. Unreadable parts are ignored.
pub(super) fn prefers_stream(headers: &HeaderMap) -> bool {
    let ranges = headers
        .get_all("accept")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse::<QualityItem<Mime>>().ok());
    let (mut stream, mut json) = (None, None);
    for range in ranges {
        stream = stream.max(rank(&range, &mime::TEXT_EVENT_STREAM));
        json = json.max(rank(&range, &mime::APPLICATION_JSON));
    }
    let quality = |best: Option<(u8, Quality)>| best.map_or(Quality::ZERO, |(_, quality)| quality);
    quality(stream) > quality(json)
}

/// Returns how exactly a range matches a type, with its quality. The most exact range decides.
fn rank(range: &QualityItem<Mime>, form: &Mime) -> Option<(u8, Quality)> {
    let exactness = match (range.item.type_(), range.item.subtype()) {
        (mime::STAR, mime::STAR) => 0,
        (kind, mime::STAR) if kind == form.type_() => 1,
        (kind, sub) if kind == form.type_() && sub == form.subtype() => 2,
        _ => return None,
    };
    Some((exactness, range.quality))
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
