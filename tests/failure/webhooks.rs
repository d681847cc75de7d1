//! What becomes of a delivery whose replica dies while it attempts it.

use std::time::Duration;

use rtm_bridge::sandbox::{Sandbox, Step};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    Receiver, RedisOptions, RedisServer, Reply, Request, SECRET, Served, quiet_platform, run_for, until,
};

#[test]
fn an_attempt_whose_replica_dies_is_made_again_when_its_time_is_over() {
    run_for(Duration::from_mins(1), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let platform = Sandbox::start(quiet_platform()).await.unwrap();
        platform.script().bot(|_, _| Step::reply("x"));
        let receiver = Receiver::start();
        let more = "[webhooks]\ntimeout = \"1s\"\nallow_private = [\"127.0.0.0/8\"]";
        let url = receiver.url("/in");
        let settings =
            [("BOTS__SANDBOX__WEBHOOK__URL", url.as_str()), ("BOTS__SANDBOX__WEBHOOK__SECRETS", SECRET)];
        let mut replicas = Vec::new();
        for name in ["one", "two"] {
            replicas.push(Served::start_with(name, &platform.url(), &redis.url(), more, &settings).await);
        }
        receiver.answers(|_| Reply::Nothing);
        let post = Request::message("alice", &json!({"text": "hi", "turn": {"expectReplies": 1}}));
        replicas[0].api.send(post.clone().prefer("wait=20")).await.message(200);
        replicas[0].api.send(post.prefer("wait=20")).await.message(200);
        let began = Instant::now();
        receiver.told_at_least(1).await;
        let flies = "rtm_bridge_delivery_attempts_in_flight 1";
        let mut owner = None;
        until("somebody attempts it", async || {
            for (number, replica) in replicas.iter().enumerate() {
                if replica.admin.get("/metrics").await.text().lines().any(|line| line == flies) {
                    owner = Some(number);
                }
            }
            owner.is_some()
        })
        .await;
        replicas[owner.unwrap()].kill();
        receiver.answers(|_| Reply::status(200));
        let told =
            receiver.told_when(|told| told.len() > 1 && told.last().unwrap().id() != told[0].id()).await;
        assert_eq!((told[0].id(), &told[0].body), (told[1].id(), &told[1].body));
        assert_eq!(told.len(), 3);
        // The time-out and five seconds: as long as the dead one may have been attempting it.
        assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
        let other = replicas[1 - owner.unwrap()].api;
        until("nothing is pending", async || {
            other.get("/deliveries?state=pending").await.json()["deliveries"] == json!([])
        })
        .await;
        drop(replicas);
        platform.stop().await;
    });
}
