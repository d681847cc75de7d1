//! A Redis that is full, or that may lose data by its configuration: refused messages, open turns, warnings.

use std::time::Duration;

use rtm_bridge::config::QuietRule;
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use super::store_load::all_ready;
use crate::support::{
    Fleet, Ledger, RedisOptions, RedisServer, Request, Resp, ServedReplica, bot, quiet_platform, run_for,
    until,
};

const GUARD: Duration = Duration::from_mins(1);
const MAXMEMORY: usize = 12 << 20;

#[test]
fn full_store_refuses_messages_and_ends_open_turns() {
    run_for(GUARD, async {
        let options = RedisOptions { maxmemory: MAXMEMORY, ..RedisOptions::default() };
        let redis = RedisServer::start(options).await;
        let fleet = Fleet::start(redis.config(), 2, |config| {
            bot(config).quiet = QuietRule::Fixed(Duration::from_secs(5))
        })
        .await;
        let ledger = Ledger::default();
        let gate = Gate::new();
        let turn = json!({"turn": {"expectReplies": 1}});
        let users: Vec<_> = (0..8).map(|number| format!("user{number}")).collect();
        let mut locations = Vec::new();
        for (number, user) in users.iter().enumerate() {
            let text = format!("{user}-{number}, reply 1");
            fleet.script.next(&**user, vec![Step::Ack, Step::Until(gate.clone()), Step::Say(text)]);
            let api = fleet.replicas[number % 2].api;
            let answer = ledger.post(api, user, &turn, "respond-async").await.unwrap();
            answer.message(202);
            locations.push(answer.header("location").unwrap().to_owned());
        }
        for user in &users {
            fleet.script.seen(&**user, 1).await;
        }
        // Foreign data up to the limit, so that the end of a turn exceeds it.
        let piece = "x".repeat(64 << 10);
        let mut pieces = 0;
        until("it is full", async || {
            pieces += 1;
            let answer = redis.command(&["SET", &format!("foreign:{pieces}"), &piece]).await;
            matches!(answer, Resp::Error(error) if error.starts_with("OOM"))
        })
        .await;
        for replica in &fleet.replicas {
            until("new messages are refused", async || {
                let new = Request::message("late", &turn_with("hi")).prefer("respond-async");
                // The bridge may learn of the limit a moment later.
                let answer = replica.api.send(new).await;
                if answer.status == 202 {
                    return false;
                }
                answer.problem(503, "overloaded");
                assert!(answer.retry_after() >= 1, "{answer}");
                true
            })
            .await;
            // The replica stays useful: accepted messages can be read, and open turns end.
            assert_eq!(replica.admin.get("/readyz").await.status, 200);
        }
        gate.open();
        for location in &locations {
            let ended =
                fleet.replicas[0].api.send(Request::get(location).prefer("wait=20")).await.message(200);
            assert_eq!(ended["status"], "answered", "{ended}");
        }
        ledger.check(&fleet.callers(), &fleet.script).await;
        for number in 1..=pieces {
            redis.command(&["DEL", &format!("foreign:{number}")]).await;
        }
        for replica in &fleet.replicas {
            until("there is room again", async || {
                let new = Request::message("early", &turn_with("hi")).prefer("wait=20");
                replica.api.send(new).await.status == 200
            })
            .await;
        }
        all_ready(&fleet).await;
        fleet.finish().await;
    });
}

fn turn_with(text: &str) -> Value {
    json!({"text": text, "turn": {"expectReplies": 1}})
}

#[test]
fn unsafe_redis_settings_are_reported() {
    run_for(GUARD, async {
        for (policy, appendonly, words) in [
            ("allkeys-lru", false, ["maxmemory-policy is allkeys-lru", "appendonly yes"].as_slice()),
            ("allkeys-lru", true, &["set it to noeviction"]),
            ("noeviction", true, &[]),
        ] {
            let options = RedisOptions { appendonly, ..RedisOptions::default() };
            let redis = RedisServer::start(options.line(format!("maxmemory-policy {policy}"))).await;
            let sandbox = rtm_sandbox::Sandbox::start(quiet_platform()).await.unwrap();
            let mut served = ServedReplica::start("one", &sandbox.url(), &redis.url(), "").await;
            let mut told = Vec::new();
            until("it has looked", async || {
                let ready = served.admin.get("/readyz").await;
                assert_eq!(ready.status, 200, "it is of use as it is: {ready}");
                let check = ready.json()["checks"][0].clone();
                told = check["warnings"].as_array().cloned().unwrap_or_default();
                told.len() == words.len()
            })
            .await;
            let log = served.log();
            let warnings: Vec<_> = log.lines().filter(|line| line.contains("\"WARN\"")).collect();
            for word in words {
                assert!(told.iter().any(|warning| warning.as_str().unwrap().contains(word)), "{told:?}");
                assert!(warnings.iter().any(|line| line.contains(word)), "{word}: {log}");
            }
            if words.is_empty() {
                assert!(!log.contains("noeviction") && !log.contains("appendonly"), "{log}");
            }
            assert_eq!(served.terminate().await, 0);
            sandbox.stop().await;
        }
    });
}
