//! The time of each parser grows with the length of its input, not with its square.
//!
//! Each kind of input is read at one length and at ten times that length. Linear reading takes ten times as long then,
//! and quadratic reading a hundred times. The CPU time of this thread is compared, within one run, so that the speed and
//! the load of the machine do not count.

use std::time::Duration;

use super::{FuzzTarget, TARGETS, TOKENS, seeds};

/// The bytes of the shorter input. The longer one has ten times as many.
const BYTES: usize = 8 * 1024;
/// The ratio lies between that of linear and of quadratic reading, in the middle by order of magnitude.
const MAX_RATIO: u32 = 32;
/// A longer input that is read in less time is not compared: such times are noise.
const NOISE: Duration = Duration::from_millis(4);
/// The least time of so many runs counts.
const RUNS: usize = 3;

/// The text around repeated parts: of JSON, TOML, queries, headers and PEM.
const FRAMES: [(&str, &str); 8] = [
    ("", ""),
    ("[", "]"),
    ("{\"text\":\"", "\"}"),
    ("{\"type\":\"bot_response\",\"message\":[", "]}"),
    ("[[bots]]\nname = \"", "\"\n"),
    ("after=", "&limit=1"),
    ("https://", ".example.com/"),
    ("-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"),
];

/// Returns parts with a number of their own: members, parameters, sections, preferences.
const NUMBERED: [fn(usize) -> String; 9] = [
    |number| format!("\"k{number}\":1,"),
    |number| format!("\"text\":\"{number}\","),
    |number| format!("k{number}=1&"),
    |number| format!("k{number} = 1\n"),
    |number| format!("[k{number}]\n"),
    |number| format!("[[bots]]\nname = \"b{number}\"\n"),
    |number| format!("k{number}=\"1\";a, "),
    |number| format!("{{\"component\":{{\"payload\":\"{number}\"}}}},"),
    |number| format!("k{number}."),
];

#[test]
fn reading_time_grows_with_the_length() {
    for (name, parsers) in TARGETS {
        for (at, parse) in parsers.iter().enumerate() {
            for (kind, input) in inputs(name) {
                check(&format!("{name}, parser {at}, {kind}"), *parse, &*input);
            }
        }
    }
}

/// An input of some length.
type Input = Box<dyn Fn(usize) -> Vec<u8>>;

/// Returns kinds of input, each with its name.
fn inputs(target: &str) -> Vec<(String, Input)> {
    let mut kinds: Vec<(String, Input)> = Vec::new();
    for frame in FRAMES {
        for token in TOKENS {
            let name = format!("{:?} in {frame:?}", String::from_utf8_lossy(token));
            kinds.push((name, Box::new(move |bytes| framed(frame, &token.repeat(bytes / token.len())))));
        }
        for (at, part) in NUMBERED.iter().enumerate() {
            let name = format!("numbered parts like {:?} in {frame:?}", part(0));
            let part = NUMBERED[at];
            kinds.push((
                name,
                Box::new(move |bytes| {
                    let parts: String = (0..bytes / part(1000).len()).map(part).collect();
                    framed(frame, parts.as_bytes())
                }),
            ));
        }
    }
    for seed in seeds(target).into_iter().filter(|seed| !seed.is_empty()) {
        let name = format!("repeated {:?}", String::from_utf8_lossy(&seed));
        kinds.push((name, Box::new(move |bytes| seed.repeat((bytes / seed.len()).max(1)))));
    }
    kinds
}

fn framed((before, after): (&str, &str), middle: &[u8]) -> Vec<u8> {
    [before.as_bytes(), middle, after.as_bytes()].concat()
}

/// Compares the least times of both lengths.
fn check(kind: &str, parse: FuzzTarget, input: &dyn Fn(usize) -> Vec<u8>) {
    let (short, long) = (input(BYTES), input(10 * BYTES));
    let (mut least, mut most) = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        most = most.min(time(parse, &long));
        if most < NOISE {
            return;
        }
        least = least.min(time(parse, &short));
        if most <= least * MAX_RATIO {
            return;
        }
    }
    // A seed may be longer than the shorter input.
    let longer = u32::try_from(long.len() / short.len()).unwrap();
    assert!(
        longer < 10 || most <= least * MAX_RATIO,
        "{longer} times the input take {most:?} instead of {least:?}: {kind}"
    );
}

/// Returns the CPU time of this thread for one reading.
fn time(parse: FuzzTarget, input: &[u8]) -> Duration {
    let before = cpu();
    parse(input);
    cpu().saturating_sub(before)
}

/// Returns the CPU time of this thread. The kernel brings it up to date as the thread yields.
fn cpu() -> Duration {
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}
