//! Fuzzes the parsers of queries, limits and cursors. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::http::fuzzing::query(bytes);
    rtm_bridge::http::fuzzing::cursor(bytes);
});
