//! Fuzzes the decoding of frames and history: it must not panic, and events must be the untouched frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtm_bridge::rtm::{IncomingFrame, decode_frame, decode_history_page};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let incoming = decode_frame(bytes);
    assert!(IncomingFrame::KINDS.contains(&incoming.kind()));
    match &incoming {
        IncomingFrame::Response(response) => assert_unchanged(&response.event, bytes),
        IncomingFrame::UserMessage(raw)
        | IncomingFrame::SessionStart { event: raw, .. }
        | IncomingFrame::SessionEnd(raw)
        | IncomingFrame::AgentStart(raw)
        | IncomingFrame::AgentEnd(raw)
        | IncomingFrame::Platform(raw)
        | IncomingFrame::Unknown(raw) => assert_unchanged(raw, bytes),
        _ => {}
    }
    if let Ok(page) = decode_history_page(bytes) {
        for record in page.records {
            serde_json::from_str::<&RawValue>(record.event.get()).expect("a record is JSON");
        }
    }
});

fn assert_unchanged(event: &RawValue, frame: &[u8]) {
    assert_eq!(event.get().as_bytes(), frame.trim_ascii(), "the frame came through changed");
}
