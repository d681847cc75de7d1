//! Whatever a platform sends: nothing panics, and what is handed on came through unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtm_bridge::rtm::{IncomingFrame, history_page, translate};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let incoming = translate(bytes);
    assert!(IncomingFrame::KINDS.contains(&incoming.kind()));
    match &incoming {
        IncomingFrame::Response(response) => whole(&response.event, bytes),
        IncomingFrame::UserMessage(raw)
        | IncomingFrame::SessionStart { event: raw, .. }
        | IncomingFrame::SessionEnd(raw)
        | IncomingFrame::AgentStart(raw)
        | IncomingFrame::AgentEnd(raw)
        | IncomingFrame::Platform(raw)
        | IncomingFrame::Unknown(raw) => whole(raw, bytes),
        _ => {}
    }
    if let Ok(page) = history_page(bytes) {
        for record in page.records {
            serde_json::from_str::<&RawValue>(record.event.get()).expect("a record is JSON");
        }
    }
});

fn whole(event: &RawValue, frame: &[u8]) {
    assert_eq!(event.get().as_bytes(), frame.trim_ascii(), "the frame came through changed");
}
