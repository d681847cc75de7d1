//! The cost of the other doors. A caller by token is measured beside one by key. A call of the platform's webhook channel is
//! measured beside the plain API. All run against one bridge, in turn.

use std::fmt;
use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::bench_error::BenchError;
use crate::load;
use crate::run_meter::{MeteredRun, RunProcesses, figures, spread};
use crate::setup::{self, BenchSizes, BridgeTerms, CLIENT_ID, CLIENT_SECRET, TASK_BOT_ID};
use crate::turns::HttpCallers;

/// The key of the caller by key.
const KEY: &str = "bench-key";
const ISSUER: &str = "https://issuer.example";
/// A key pair of 2048 bits for tests.
const PRIVATE_KEY: &[u8] = include_bytes!("../../sandbox/src/tests/rsa_private.pem");
const PUBLIC_KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox/src/tests/rsa_public.pem");

/// The doors, each with the one that it is compared with.
const DOORS: [(&str, usize); 4] = [
    ("read by key", 0),
    ("read by token (RS256)", 0),
    ("turn, plain API", 2),
    ("turn, webhook channel, version 2", 2),
];

/// The results.
pub(crate) struct DoorFigures {
    sizes: BenchSizes,
    runs: Vec<Vec<MeteredRun>>,
}

/// Measures all doors.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<DoorFigures, BenchError> {
    let sandbox = setup::sandbox(binary).await?;
    let tables = format!(
        "\n[[callers]]\nname = \"portal\"\nscopes = [\"send\", \"read\"]\n\
         jwt = {{ issuer = \"{ISSUER}\", audience = \"rtm-bridge\", public_key_file = \"{PUBLIC_KEY_FILE}\" }}\n\
         [bots.kore_webhook]\nhold = \"10s\"\n"
    );
    // The door waits for the quiet time of the bot, so both turns do.
    let terms = BridgeTerms {
        callers: vec![("bench", KEY)],
        bot_keys: "quiet = \"50ms\"",
        tables,
        ..BridgeTerms::new(sandbox.address)
    };
    let bridge = [setup::bridge(binary, &terms).await?];
    let [running] = &bridge;
    let addresses = [running.address];
    let mut doors = Vec::new();
    for requests in requests(sizes.users)? {
        doors.push(HttpCallers::asking(&addresses, sizes.callers, requests.into()).await?);
    }
    let parties = RunProcesses { subject: &bridge, store: None, sandbox: &sandbox };
    let mut runs: Vec<Vec<MeteredRun>> = DOORS.map(|_| Vec::new()).into();
    for door in doors.iter_mut().skip(2) {
        load::each(door, 0..sizes.users).await?;
    }
    for round in 0..sizes.rounds {
        eprintln!("doors: round {}", round + 1);
        for (door, runs) in doors.iter_mut().zip(&mut runs) {
            runs.push(parties.metered(load::pace(door, sizes.users, sizes.rate, sizes.paced)).await?);
        }
    }
    Ok(DoorFigures { sizes, runs })
}

/// Returns the requests of each door, one for each user.
fn requests(users: usize) -> Result<[Vec<Vec<u8>>; 4], BenchError> {
    let expires = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() + 86_400);
    let sign = |header: Header, claims: Value, key: &EncodingKey| {
        jsonwebtoken::encode(&header, &claims, key).map_err(std::io::Error::other)
    };
    let private = EncodingKey::from_rsa_pem(PRIVATE_KEY).map_err(std::io::Error::other)?;
    let claims = json!({"iss": ISSUER, "aud": "rtm-bridge", "exp": expires});
    let token = sign(Header::new(Algorithm::RS256), claims, &private)?;
    let secret = EncodingKey::from_secret(CLIENT_SECRET.as_bytes());
    let client = sign(Header::new(Algorithm::HS256), json!({"sub": "bench", "appId": CLIENT_ID}), &secret)?;
    let all = |request: &dyn Fn(&str) -> Vec<u8>| -> Vec<_> {
        (0..users).map(|user| request(&setup::user("doors", user))).collect()
    };
    let read =
        |key: &str, user: &str| http("GET", &format!("/conversations/{user}?bot={}", setup::BOT), key, "");
    let say = |user: &str| {
        let body = json!({"text": "/echo quack"}).to_string();
        http("POST", &format!("/conversations/{user}/messages?bot={}", setup::BOT), KEY, &body)
    };
    let call = |user: &str| {
        let body = json!({
            "session": {"new": false}, "message": {"type": "text", "val": "/echo quack"}, "from": {"id": user},
        });
        http("POST", &format!("/chatbot/v2/webhook/{TASK_BOT_ID}"), &client, &body.to_string())
    };
    Ok([all(&|user| read(KEY, user)), all(&|user| read(&token, user)), all(&say), all(&call)])
}

fn http(method: &str, target: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nPrefer: wait=30\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl fmt::Display for DoorFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchSizes { rate, rounds, .. } = self.sizes;
        writeln!(
            f,
            "Doors of one bridge with the memory store, {rate} requests a second; {rounds} rounds, median (least to most).\n"
        )?;
        writeln!(f, "| door | bridge CPU µs per request | ratio |\n| --- | --- | --- |")?;
        let median = |door: usize| {
            let runs = self.runs.get(door).map(Vec::as_slice).unwrap_or_default();
            crate::run_meter::median(figures(runs, MeteredRun::micros))
        };
        for ((name, other), (door, runs)) in DOORS.iter().zip(self.runs.iter().enumerate()) {
            let cost = spread(figures(runs, MeteredRun::micros), 1);
            writeln!(f, "| {name} | {cost} | {:.2} |", median(door) / median(*other))?;
        }
        writeln!(f)
    }
}
