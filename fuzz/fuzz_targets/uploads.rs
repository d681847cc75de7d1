//! Fuzzes the parsers of uploads. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::http::fuzzing::upload_form(bytes);
    rtm_bridge::http::fuzzing::content_disposition(bytes);
});
