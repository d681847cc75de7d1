//! A bounded run of each fuzz target, without the fuzzer: its seeds, and changes of them that are drawn from fixed numbers.
//!
//! `scripts/fuzz TARGET SECONDS` runs a target with libFuzzer, which follows the coverage. What it finds becomes a seed in
//! `fuzz/seeds`, and so a case of this test.

mod growth;

use std::path::Path;

use rtm_bridge::{config, domain, http, rtm};

/// The number of changed inputs of each target.
const INPUTS: u64 = 3000;
/// The longest input, in bytes.
const MAX_BYTES: usize = 4096;

/// Texts that parsers have trouble with.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"null",
    b"-0",
    b"1e999",
    b"18446744073709551616",
    b"\xef\xbb\xbf",
    b"\xff",
    b"%2f",
    b"%00",
    b"\r\n",
    b"=",
    b"&",
    b";q=",
    b"../",
    b"\\n",
    b"-----BEGIN ",
];

/// The parsers of a target, as in `fuzz/fuzz_targets`.
type FuzzTarget = fn(&[u8]);

const TARGETS: [(&str, &[FuzzTarget]); 9] = [
    ("configuration", &[config::fuzzing::configuration]),
    ("frames", &[rtm::fuzzing::frame, rtm::fuzzing::history_page]),
    ("message_body", &[http::fuzzing::message_body, http::fuzzing::redrive_body]),
    ("pem", &[config::fuzzing::pem]),
    ("receivers", &[domain::fuzzing::receiver]),
    ("request_headers", &[http::fuzzing::headers]),
    ("request_line", &[http::fuzzing::query, http::fuzzing::cursor]),
    ("rest_answers", &[rtm::fuzzing::rest_answer]),
    ("uploads", &[http::fuzzing::upload_form, http::fuzzing::content_disposition]),
];

#[test]
fn every_target_takes_its_seeds_and_their_changes() {
    for (name, parsers) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut chance = fastrand::Rng::with_seed(7);
        let changed = (0..INPUTS).map(|_| change(&seeds, &mut chance));
        for input in seeds.iter().cloned().chain(changed) {
            let run = || parsers.iter().for_each(|parse| parse(&input));
            let result = std::panic::catch_unwind(run);
            assert!(result.is_ok(), "{name} fails with {:?}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn targets_of_the_fuzzer_are_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort_unstable();
    assert_eq!(files, TARGETS.map(|(name, _)| name));
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Returns a seed with one to four changes.
fn change(seeds: &[Vec<u8>], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seeds[chance.usize(..seeds.len())].clone();
    for _ in 0..chance.u32(1..=4) {
        let at = chance.usize(..=input.len());
        match chance.u32(..6) {
            0 if at < input.len() => input[at] = chance.u8(..),
            1 => input.truncate(at),
            2 => {
                let until = chance.usize(at..=input.len());
                input.drain(at..until);
            }
            3 => {
                let other = &seeds[chance.usize(..seeds.len())];
                let from = chance.usize(..=other.len());
                input.splice(at..at, other[from..].iter().copied());
            }
            4 => {
                let token = TOKENS[chance.usize(..TOKENS.len())].repeat(chance.usize(1..200));
                input.splice(at..at, token);
            }
            _ => {
                let token = TOKENS[chance.usize(..TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
        }
        input.truncate(MAX_BYTES);
    }
    input
}
