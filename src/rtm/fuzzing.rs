//! The parsers of the platform's answers, for the fuzz targets. Each function takes any bytes, and panics if a promise is
//! broken.

#![expect(clippy::missing_panics_doc, reason = "a panic is what a fuzzer looks for")]

use serde_json::value::RawValue;

use super::grant::Grant;
use super::refusal::PlatformRefusal;
use super::ticket::Ticket;
use super::{ConnectMode, ConnectPhase, IncomingFrame, decode_frame, decode_history_page};
use crate::config::fixtures;
use crate::domain::lenient_json::{limit_depth, value};
use crate::domain::{ReplyChoice, ReplyMedia, Timestamp};

/// Most bytes of a text beside the frame's own words, with a margin for its last mark.
const COMPOSED_MAX: usize = (64 << 10) + 64;

const NOW: Timestamp = Timestamp::from_millis(1_763_845_000_000);

/// A frame: it has a kind, and an event is the frame, untouched but for its deep parts.
pub fn frame(bytes: &[u8]) {
    let incoming = decode_frame(bytes);
    assert!(IncomingFrame::KINDS.contains(&incoming.kind()));
    match &incoming {
        IncomingFrame::Response(response) => {
            check_event(&response.event, bytes);
            check_lists(&response.choices, &response.media);
            assert!(response.text.len() <= bytes.len() + COMPOSED_MAX, "the text is not bounded");
        }
        IncomingFrame::UserMessage(raw)
        | IncomingFrame::SessionStart { event: raw, .. }
        | IncomingFrame::SessionEnd(raw)
        | IncomingFrame::AgentStart(raw)
        | IncomingFrame::AgentEnd(raw)
        | IncomingFrame::Platform(raw)
        | IncomingFrame::Unknown(raw) => check_event(raw, bytes),
        _ => {}
    }
}

/// Checks the limits of choices and media (api.md 1, "The Reply").
fn check_lists(choices: &[ReplyChoice], media: &[ReplyMedia]) {
    assert!(choices.len() <= 100 && media.len() <= 100, "too many choices or media");
    let bytes = choices.iter().map(|choice| choice.title.len() + choice.payload.len()).sum::<usize>();
    assert!(bytes <= 64 << 10, "choices are not bounded");
}

fn check_event(event: &RawValue, frame: &[u8]) {
    let frame = str::from_utf8(frame.trim_ascii()).unwrap_or_default();
    assert_eq!(event.get(), limit_depth(frame), "the frame came through changed");
    assert!(value(event.get()).is_some(), "the event cannot be shown");
}

/// A page of history: each record is JSON that can be told.
pub fn history_page(bytes: &[u8]) {
    if let Ok(page) = decode_history_page(bytes) {
        for record in page.records {
            assert!(serde_json::from_str::<&RawValue>(record.event.get()).is_ok(), "a record is no JSON");
            check_lists(&record.choices, &record.media);
        }
    }
}

/// The answers of the three REST calls, wanted or not.
pub fn rest_answer(bytes: &[u8]) {
    if let Some(grant) = Grant::read(bytes, NOW) {
        let debug = format!("{grant:?}");
        assert!(!debug.contains("token"), "a token in debug output: {debug}");
    }
    let bot = fixtures::bot("support");
    let ticket = Ticket::parse(bytes, &bot, ConnectMode::StartNew, tokio::time::Instant::now());
    if let Some(Ok(ticket)) = ticket {
        assert!(matches!(ticket.url.scheme(), "wss" | "ws"));
    }
    let text = std::str::from_utf8(bytes).ok();
    for status in [200, 302, 401, 429, 503] {
        let refusal = PlatformRefusal {
            phase: ConnectPhase::Start,
            status,
            retry_after: text,
            date: text,
            location: text,
            body: bytes,
        };
        let _error = refusal.into_error(NOW).to_string();
    }
}
