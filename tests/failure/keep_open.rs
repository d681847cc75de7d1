//! Bots that speak unasked reach the bridge while a replica runs (`idle_ttl = "never"`).

use std::time::Duration;

use rtm_sandbox::Step;
use serde_json::json;

use crate::support::{Fleet, RedisOptions, RedisServer, Replica, Request, bot, run_for, until};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// The number of replies that the platform repeats: far more than a record has.
const REPEATED: usize = 60;

#[test]
fn new_owner_tells_no_repeated_reply_again() {
    run_for(Duration::from_mins(1), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let mut fleet = Fleet::start(redis.config(), 1, |config| bot(config).idle_ttl = None).await;
        fleet.script.behave(|behaviour| behaviour.repeats = REPEATED);
        let say = |n: usize| Step::Say(format!("Part {n}"));
        fleet.script.next("alice", [Step::Ack].into_iter().chain((0..REPEATED).map(say)).collect());
        let body = json!({"text": "hi", "turn": {"expectReplies": REPEATED.min(50)}});
        let request = Request::message("alice", &body).prefer("wait=55");
        fleet.replicas[0].api.send(request).await.message(200);
        let replies = async |replica: &Replica| {
            let page = replica.api.get("/conversations/alice/events?limit=1000").await.json();
            let events = page["events"].as_array().unwrap().clone();
            events.iter().filter(|event| event["type"] == "reply").count()
        };
        until("all is told", async || replies(&fleet.replicas[0]).await == REPEATED).await;
        fleet.leave(0).await;
        let next = fleet.join().await;
        fleet.script.connected("alice", 2).await;
        let admin = fleet.replicas[next].admin;
        let repeated =
            format!(r#"rtm_bridge_replies_outside_turns_total{{bot="sandbox",kind="duplicate"}} {REPEATED}"#);
        until("all is repeated", async || {
            admin.get("/metrics").await.text().lines().any(|line| line == repeated)
        })
        .await;
        assert_eq!(replies(&fleet.replicas[next]).await, REPEATED);
        fleet.finish().await;
    });
}

#[test]
fn restart_reopens_kept_sockets() {
    run_for(Duration::from_mins(1), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let mut fleet = Fleet::start(redis.config(), 1, |config| {
            bot(config).idle_ttl = None;
            bot(config).late_window = Duration::ZERO;
        })
        .await;
        for user in USERS {
            fleet.script.next(user, Step::reply("Hello."));
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
            let request = Request::message(user, &body).prefer("wait=55");
            fleet.replicas[0].api.send(request).await.message(200);
        }
        // A user without a conversation has no socket, nor has one that never spoke.
        fleet.leave(0).await;
        for user in USERS {
            fleet.script.closed(user, 1).await;
        }
        let next = fleet.join().await;
        for user in USERS {
            let observed = fleet.script.connected(user, 2).await;
            assert_eq!(observed.connects[1].mode.as_deref(), Some("Reconnect"), "{user} is not greeted");
            fleet.script.push(user, vec![Step::Say("Your parcel is here.".to_owned())]);
        }
        let heard = r#"rtm_bridge_replies_outside_turns_total{bot="sandbox",kind="unsolicited"} 3"#;
        let admin = fleet.replicas[next].admin;
        until("the alerts are heard", async || {
            admin.get("/metrics").await.text().lines().any(|line| line == heard)
        })
        .await;
        fleet.finish().await;
    });
}
