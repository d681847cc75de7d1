//! Fuzzes the parsers of frames of the platform and pages of history. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::rtm::fuzzing::frame(bytes);
    rtm_bridge::rtm::fuzzing::history_page(bytes);
});
