//! Fuzzes the parsers of configurations. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::config::fuzzing::configuration(bytes);
});
