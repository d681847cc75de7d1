//! A bot that says more than the store takes at a time.

use std::time::Duration;

use rtm_sandbox::Step;
use serde_json::{Value, json};

use crate::support::{Fleet, RedisOptions, RedisServer, Request, run, until};

/// More than wait for a write, and more than a journal keeps.
const TEXTS: usize = 1500;
const LENGTH: usize = 4000;

#[test]
fn bot_that_floods_keeps_its_socket_and_its_order() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 1, |config| {
            // A build for tests takes long for so many frames.
            config.cluster.lease_ttl = Duration::from_secs(40);
            config.store.command_timeout = Duration::from_secs(10);
        })
        .await;
        let bridge = fleet.replicas[0].api;
        let turn = json!({"text": "/echo first", "turn": {"expectReplies": 1}});
        let first = bridge.send(Request::message("alice", &turn).prefer("wait=10")).await.message(200);
        let text = |number: usize| format!("{number} {}", "m".repeat(LENGTH));
        fleet.script.push("alice", (0..TEXTS).map(|number| Step::Say(text(number))).collect());

        let replies = async || {
            let (mut numbers, mut after) = (Vec::new(), String::new());
            loop {
                let page = bridge.get(&format!("/conversations/alice/events?limit=1000{after}")).await;
                assert_eq!(page.status, 200, "{page}");
                let page = page.json();
                let events = page["events"].as_array().unwrap();
                assert!(events.iter().all(|event| event["type"] != "gap"), "a gap");
                let number =
                    |event: &Value| event["data"]["text"].as_str()?.split(' ').next()?.parse::<usize>().ok();
                numbers.extend(events.iter().filter_map(number));
                if page["hasMore"] == false {
                    return numbers;
                }
                after = format!("&after={}", page["next"].as_str().unwrap());
            }
        };
        until("the last text is there", async || replies().await.last() == Some(&(TEXTS - 1))).await;
        let kept: Vec<usize> = replies().await;
        let expected: Vec<usize> = (TEXTS - kept.len()..TEXTS).collect();
        assert_eq!(kept, expected);
        assert_eq!(fleet.script.totals().starts, 1, "another socket");

        // A message takes a bounded number of late replies.
        let id = first["id"].as_str().unwrap();
        let message = bridge.get(&format!("/conversations/alice/messages/{id}")).await.message(200);
        assert_eq!(message["replies"].as_array().unwrap().len(), 101);
        fleet.finish().await;
    });
}
