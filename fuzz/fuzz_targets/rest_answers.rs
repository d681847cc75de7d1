//! Fuzzes the parsers of the answers of grant and start. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::rtm::fuzzing::rest_answer(bytes);
});
