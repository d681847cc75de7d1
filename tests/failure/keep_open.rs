//! Bots that speak unasked reach the bridge while a replica runs (`idle_ttl = "never"`).

use std::time::Duration;

use rtm_sandbox::Step;
use serde_json::json;

use crate::support::{Fleet, RedisOptions, RedisServer, Request, bot, run_for};

const USERS: [&str; 3] = ["alice", "bob", "carol"];

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
        crate::support::until("the alerts are heard", async || {
            admin.get("/metrics").await.text().lines().any(|line| line == heard)
        })
        .await;
        fleet.finish().await;
    });
}
