//! What receivers of webhooks are told, and how (api.md 4).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rtm_bridge::config::{BotWebhookConfig, Config, PayloadFormat};
use rtm_bridge::domain::Timestamp;
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{
    Fleet, OTHER_SECRET, Receiver, RedisOptions, RedisServer, Reply, Request, SECRET, TestBridge, Told, bot,
    run, spawn_bridge, until,
};

/// Has the bot tell this receiver, and lets callers name it.
fn telling(config: &mut Config, receiver: &Receiver) {
    config.webhooks.allowed = vec![receiver.url("/").parse().unwrap()];
    config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    bot(config).webhook = Some(BotWebhookConfig {
        url: Some(receiver.url("/bot").parse().unwrap()),
        secrets: vec![SECRET.into()],
        form: PayloadFormat::Standard,
        bearer_token: Some("a-bearer-token".into()),
        headers: vec![("x-tenant".into(), "acme".into())],
        legacy_signature: None,
    });
}

async fn bridge_telling(receiver: &Receiver) -> TestBridge {
    let bridge = spawn_bridge(|config| telling(config, receiver)).await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

fn body() -> Value {
    json!({"text": "hi", "turn": {"expectReplies": 1}})
}

/// The delivery at the top of the list, as soon as it is so.
async fn delivery_when(bridge: &TestBridge, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut first = Value::Null;
    until("the delivery is so", async || {
        first = bridge.api.get("/deliveries").await.message(200)["deliveries"][0].clone();
        is_so(&first)
    })
    .await;
    first
}

fn at(time: &Value) -> Timestamp {
    Timestamp::parse(time.as_str().unwrap()).unwrap()
}

#[test]
fn an_end_is_told_to_the_bots_webhook_as_the_message_reads() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let request = Request::message("alice", &body())
            .prefer("wait=20")
            .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
        let message = bridge.send(request).await.message(200);
        let told = receiver.told_at_least(1).await.remove(0);
        assert_eq!(told.path, "/bot");
        assert!(told.is_signed_with(SECRET) && !told.is_signed_with(OTHER_SECRET));
        let expected = json!({
            "type": "message.answered", "timestamp": message["endedAt"], "data": message,
        });
        assert_eq!(told.json(), expected);
        assert_eq!((told.attempt(), told.header("content-type")), (1, "application/json"));
        assert_eq!(told.header("user-agent"), format!("rtm-bridge/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(told.header("authorization"), "Bearer a-bearer-token");
        assert_eq!(told.header("x-tenant"), "acme");
        let parent: Vec<_> = told.header("traceparent").split('-').collect();
        assert_eq!((parent[0], parent[1], parent[3]), ("00", trace, "01"));
        assert_ne!(parent[2], "00f067aa0ba902b7", "an attempt is a span of its own");

        let delivery = delivery_when(&bridge, |delivery| delivery["state"] == "delivered").await;
        assert_eq!((&delivery["id"], &delivery["messageId"]), (&json!(told.id()), &message["id"]));
        assert_eq!(
            (&delivery["attempts"][0]["status"], &delivery["nextAttemptAt"]),
            (&json!(204), &Value::Null)
        );
        let ended = r#"deliveries_total{bot="sandbox",outcome="delivered",type="message.answered"}"#;
        assert_eq!(bridge.metric(ended).await, 1);
        assert_eq!(bridge.metric(r#"delivery_attempts_total{result="delivered"}"#).await, 1);
        assert_eq!(bridge.metric("delivery_first_attempt_delay_seconds_count").await, 1);
        bridge.finish().await;
    });
}

#[test]
fn a_callback_is_told_instead_and_nothing_of_the_bots_webhook_but_its_signature() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        let mut with_callback = body();
        with_callback["callback"] = json!({"url": receiver.url("/crm?case=7")});
        bridge.post("alice", &with_callback).await.message(200);
        bridge.script.next("alice", vec![Step::Ack]);
        with_callback["turn"] = json!({"deadlineMs": 500});
        bridge.post("alice", &with_callback).await.problem(504, "no-reply");
        let told = receiver.told_at_least(2).await;
        let types: Vec<_> = told.iter().map(|told| told.json()["type"].clone()).collect();
        assert_eq!(types, ["message.answered", "message.failed"]);
        for told in &told {
            assert_eq!((told.path.as_str(), told.is_signed_with(SECRET)), ("/crm?case=7", true));
            assert_eq!((told.optional("authorization"), told.optional("x-tenant")), (None, None));
        }
        bridge.finish().await;
        assert_eq!(receiver.told().len(), 2, "and nobody else is told");
    });
}

#[test]
fn late_replies_follow_their_message_and_unsolicited_ones_go_to_the_bots_webhook() {
    run(async {
        let receiver = Receiver::start();
        let bridge = spawn_bridge(|config| {
            telling(config, &receiver);
            bot(config).late_window = Duration::from_millis(500);
        })
        .await;
        let gate = Gate::new();
        let say = |text: &str| Step::Say(text.to_owned());
        let steps = vec![Step::Ack, say("a"), Step::WaitingForInput, Step::Until(gate.clone()), say("late")];
        bridge.script.next("alice", steps);
        let message = json!({"text": "hi", "callback": {"url": receiver.url("/crm")}});
        let message = bridge.post("alice", &message).await.message(200);
        gate.open();
        let told = receiver.told_at_least(2).await;
        let unsolicited = r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#;
        while bridge.metric(unsolicited).await == 0 {
            bridge.script.push("alice", vec![say("unasked")]);
        }
        let all = receiver.told_when(|told| told.iter().any(|told| told.path == "/bot")).await;
        let late = told[1].json();
        assert_eq!((told[1].path.as_str(), &late["type"]), ("/crm", &json!("reply.late")));
        assert_eq!((&late["data"]["inReplyTo"], &late["data"]["text"]), (&message["id"], &json!("late")));
        assert_eq!((&late["data"]["bot"], &late["data"]["user"]), (&json!("sandbox"), &json!("alice")));
        let unasked = all.iter().find(|told| told.path == "/bot").unwrap().json();
        assert_eq!(unasked["type"], "reply.unsolicited");
        assert_eq!(
            (&unasked["data"]["text"], &unasked["data"]["inReplyTo"]),
            (&json!("unasked"), &Value::Null)
        );
        assert_eq!((&unasked["data"]["bot"], &unasked["data"]["user"]), (&json!("sandbox"), &json!("alice")));
        bridge.finish().await;
    });
}

#[test]
fn what_fails_is_told_again_under_its_id_and_before_what_came_after_it() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        let calls = AtomicUsize::new(0);
        receiver.answers(move |_| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            Reply::status(if first { 500 } else { 200 })
        });
        for _ in 0..3 {
            bridge.post("alice", &body()).await.message(200);
        }
        let told = receiver.told_at_least(4).await;
        assert_eq!((told[0].id(), &told[0].body), (told[1].id(), &told[1].body));
        assert_eq!(told.iter().map(Told::attempt).collect::<Vec<_>>(), [1, 2, 1, 1]);
        let sequence: Vec<_> = told.iter().map(|told| at(&told.json()["timestamp"])).collect();
        assert!(sequence.is_sorted(), "{sequence:?}");
        let delivery = bridge.api.get(format!("/deliveries/{}", told[0].id())).await;
        let attempts: Vec<_> = delivery.message(200)["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| attempt["status"].clone())
            .collect();
        assert_eq!(attempts, [500, 200]);
        bridge.finish().await;
    });
}

#[test]
fn who_wants_no_more_has_it_buried_and_is_told_what_comes_after() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        receiver.answers(|_| Reply::status(410));
        bridge.post("alice", &body()).await.message(200);
        let dead = delivery_when(&bridge, |delivery| delivery["state"] == "dead").await;
        assert_eq!(dead["attempts"].as_array().unwrap().len(), 1);
        assert!(dead["reason"].as_str().unwrap().contains("410"), "{dead}");
        receiver.answers(|_| Reply::status(200));
        bridge.post("alice", &body()).await.message(200);
        assert_ne!(receiver.told_at_least(2).await[1].id(), dead["id"]);
        let buried = r#"deliveries_total{bot="sandbox",outcome="dead",type="message.answered"}"#;
        assert_eq!(bridge.metric(buried).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn who_asks_for_time_has_it_up_to_ten_steps() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        receiver.answers(|_| Reply::Status(503, vec![("Retry-After", "3600".to_owned())]));
        bridge.post("alice", &body()).await.message(200);
        let waits = |delivery: &Value| delivery["attempts"][0]["status"] == 503;
        let delivery = delivery_when(&bridge, waits).await;
        assert_eq!(delivery["state"], "pending");
        // The first step is a second.
        let wait = at(&delivery["nextAttemptAt"]).since(at(&delivery["attempts"][0]["at"]));
        assert!((10_000..11_000).contains(&wait.as_millis()), "{wait:?}");
        // It holds nothing up.
        bridge.finish_leaving(1).await;
    });
}

#[test]
fn a_conversation_that_waits_for_its_receiver_holds_up_no_other() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        receiver.answers(|told| if told.user() == "alice" { Reply::Nothing } else { Reply::status(200) });
        for user in ["alice", "bob", "alice", "bob", "carol"] {
            bridge.post(user, &body()).await.message(200);
        }
        let told =
            receiver.told_when(|told| told.iter().filter(|told| told.user() != "alice").count() == 3).await;
        let of_alice = told.iter().filter(|told| told.user() == "alice").count();
        assert_eq!(of_alice, 1, "one at a time");
        until("the others' are over", async || bridge.undelivered() == 2).await;
        bridge.finish_leaving(2).await;
    });
}

#[test]
fn a_target_that_hangs_delays_no_other_however_much_waits_for_it() {
    run(async {
        let (hangs, lives) = (Receiver::start(), Receiver::start());
        let bridge = spawn_bridge(|config| {
            telling(config, &lives);
            config.webhooks.allowed.push(hangs.url("/").parse().unwrap());
            (config.webhooks.max_in_flight, config.webhooks.max_per_host) = (6, 4);
        })
        .await;
        bridge.script.bot(|_, _| Step::reply("x"));
        hangs.answers(|_| Reply::Nothing);
        for number in 0..20 {
            let mut message = body();
            message["callback"] = json!({"url": hangs.url("/")});
            bridge.post(&format!("waits-{number}"), &message).await.message(200);
        }
        for number in 0..20 {
            bridge.post(&format!("goes-{number}"), &body()).await.message(200);
        }
        lives.told_at_least(20).await;
        // Room that it could have taken is left to others.
        assert_eq!(hangs.told().len(), 3);
        let in_flight = async || bridge.metric("delivery_attempts_in_flight").await;
        until("the others' are over", async || in_flight().await == 3 && bridge.undelivered() == 20).await;
        bridge.finish_leaving(20).await;
    });
}

#[test]
fn who_closes_a_conversation_tells_nobody() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        bridge.post("alice", &body()).await.message(200);
        let closed = bridge.send(Request::new("DELETE", "/conversations/alice")).await;
        assert_eq!(closed.status, 204, "{closed}");
        bridge.post("bob", &body()).await.message(200);
        receiver.told_at_least(2).await;
        bridge.finish().await;
        assert_eq!(receiver.told().iter().map(Told::user).collect::<Vec<_>>(), ["alice", "bob"]);
    });
}

#[test]
fn what_was_delivered_is_delivered_once_more_if_somebody_asks() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        bridge.post("alice", &body()).await.message(200);
        let delivered = delivery_when(&bridge, |delivery| delivery["state"] == "delivered").await;
        let id = delivered["id"].as_str().unwrap();
        let again = bridge.send(Request::new("POST", format!("/deliveries/{id}/redeliver"))).await;
        assert_eq!(again.message(202)["id"], id);
        let told = receiver.told_at_least(2).await;
        assert_eq!((told[1].id(), told[1].attempt(), &told[1].body), (id, 2, &told[0].body));
        bridge.finish().await;
    });
}

#[test]
fn a_process_that_ends_makes_the_attempts_that_are_due() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_telling(&receiver).await;
        for number in 0..50 {
            bridge.post_async(&format!("user-{number}"), &body()).await;
        }
        let (stop, _, _, _, platform) = bridge.into_stop();
        stop.await;
        platform.stop().await;
        let mut users = HashMap::new();
        for told in receiver.told() {
            *users.entry(told.user()).or_insert(0) += 1;
        }
        assert_eq!((users.len(), users.values().sum::<i32>()), (50, 50));
    });
}

#[test]
fn a_replica_that_goes_breaks_its_attempt_off_and_the_next_one_makes_it() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let mut fleet = Fleet::start(redis.config(), 1, |config| telling(config, &receiver)).await;
        fleet.script.bot(|_, _| Step::reply("x"));
        receiver.answers(|_| Reply::Nothing);
        let post = Request::message("alice", &body()).prefer("wait=20");
        fleet.replicas[0].api.send(post.clone()).await.message(200);
        fleet.replicas[0].api.send(post).await.message(200);
        receiver.told_at_least(1).await;
        fleet.join().await;
        receiver.answers(|_| Reply::status(200));
        fleet.leave(0).await;
        // Not when the window of the attempt that was broken off is over, but at once.
        let told = receiver.told_at_least(3).await;
        assert_eq!((told[0].id(), &told[0].body), (told[1].id(), &told[1].body));
        assert_eq!(told.iter().map(Told::attempt).collect::<Vec<_>>(), [1, 2, 1]);
        let page = fleet.replicas[1].api.get("/deliveries?state=pending").await;
        assert_eq!(page.message(200), json!({"deliveries": [], "next": null}));
        fleet.finish().await;
    });
}

#[test]
fn what_was_being_attempted_as_the_store_went_away_is_finished_when_it_is_back() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let fleet = Fleet::start(redis.config(), 1, |config| {
            telling(config, &receiver);
            // Nobody else is there to take over, and the outage is long.
            config.cluster.lease_ttl = Duration::from_secs(20);
        })
        .await;
        fleet.script.bot(|_, _| Step::reply("x"));
        receiver.answers(|_| Reply::Nothing);
        let replica = &fleet.replicas[0];
        for user in ["alice", "bob", "carol", "alice", "bob", "carol"] {
            let post = Request::message(user, &body()).prefer("wait=20");
            replica.api.send(post).await.message(200);
        }
        receiver.told_at_least(3).await;
        replica.way_to_redis().cut().await;
        receiver.hang_up();
        receiver.answers(|_| Reply::status(200));
        // It learns that the store is away from trying to say how the attempts ended.
        until("the store is away", async || replica.admin.get("/readyz").await.status == 503).await;
        assert_eq!(receiver.told().len(), 3, "nothing is begun");
        replica.way_to_redis().heal().await;
        let told = receiver.told_at_least(9).await;
        for user in ["alice", "bob", "carol"] {
            let of_user: Vec<_> = told.iter().filter(|told| told.user() == user).collect();
            let attempts: Vec<_> = of_user.iter().map(|told| told.attempt()).collect();
            assert_eq!((attempts, of_user[0].id()), (vec![1, 2, 1], of_user[1].id()));
        }
        until("nothing is pending", async || {
            let page = replica.api.get("/deliveries?state=pending").await;
            page.status == 200 && page.json()["deliveries"] == json!([])
        })
        .await;
        fleet.finish().await;
    });
}

#[test]
fn on_redis_everything_is_told_once_and_in_order_by_whoever_owns_it() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let fleet = Fleet::start(redis.config(), 2, |config| telling(config, &receiver)).await;
        fleet.script.bot(|_, _| Step::reply("x"));
        let mut expected = Vec::new();
        for _ in 0..3 {
            for number in 0..20 {
                let post = Request::message(&format!("user-{number}"), &body()).prefer("wait=20");
                let caller = fleet.replicas[number % 2].api;
                expected.push(caller.send(post).await.message(200)["id"].clone());
            }
        }
        let told = receiver.told_at_least(60).await;
        let mut messages: Vec<_> = told.iter().map(|told| told.json()["data"]["id"].clone()).collect();
        for number in 0..20 {
            let user = format!("user-{number}");
            let of_user: Vec<_> = told
                .iter()
                .filter(|told| told.user() == user)
                .map(|told| at(&told.json()["timestamp"]))
                .collect();
            assert!(of_user.len() == 3 && of_user.is_sorted(), "{of_user:?}");
        }
        messages.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(messages, expected);
        until("nothing is pending", async || {
            let page = fleet.replicas[0].api.get("/deliveries?state=pending").await;
            page.message(200)["deliveries"] == json!([])
        })
        .await;
        fleet.finish().await;
    });
}
