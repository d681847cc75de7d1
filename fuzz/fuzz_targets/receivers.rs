//! Fuzzes the parsers of callback URLs, their patterns, and `Retry-After` of receivers. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::domain::fuzzing::receiver(bytes);
});
