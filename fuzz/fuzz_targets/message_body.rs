//! Fuzzes the parsers of the bodies of requests. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::http::fuzzing::message_body(bytes);
    rtm_bridge::http::fuzzing::redrive_body(bytes);
});
