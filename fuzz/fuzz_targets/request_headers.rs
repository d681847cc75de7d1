//! Fuzzes the parsers of the headers of requests. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::http::fuzzing::headers(bytes);
});
