//! Fuzzes the parsers of keys and certificates. The promises are checked in the library's modules `fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rtm_bridge::config::fuzzing::pem(bytes);
});
