//! Deliveries as receivers of webhooks get them (api.md 4).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rtm_bridge::config::{BotWebhookConfig, Config};
use rtm_bridge::domain::Timestamp;
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use crate::support::{
    Fleet, OTHER_SECRET, ReceivedRequest, Receiver, ReceiverAnswer, RedisOptions, RedisServer, Request,
    SECRET, TestBridge, bot, run, spawn_bridge, until,
};

/// Configures this receiver as the webhook of the bot and allows it for callbacks.
fn configure(config: &mut Config, receiver: &Receiver) {
    config.webhooks.allowed = vec![receiver.url("/").parse().unwrap()];
    config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    bot(config).webhooks = vec![BotWebhookConfig {
        url: Some(receiver.url("/bot").parse().unwrap()),
        secrets: vec![SECRET.into()],
        bearer_token: Some("a-bearer-token".into()),
        headers: vec![("x-tenant".into(), "acme".into())],
        ..BotWebhookConfig::default()
    }];
}

async fn bridge_for(receiver: &Receiver) -> TestBridge {
    let bridge = spawn_bridge(|config| configure(config, receiver)).await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

fn body() -> Value {
    json!({"text": "hi", "turn": {"expectReplies": 1}})
}

/// Waits until the newest delivery meets the condition and returns it.
async fn delivery_when(bridge: &TestBridge, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut first = Value::Null;
    until("the delivery meets the condition", async || {
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
fn ended_message_is_delivered_to_the_bot_webhook() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let request = Request::message("alice", &body())
            .prefer("wait=20")
            .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
        let message = bridge.send(request).await.message(200);
        let request = receiver.requests_at_least(1).await.remove(0);
        assert_eq!(request.path, "/bot");
        assert!(request.is_signed_with(SECRET) && !request.is_signed_with(OTHER_SECRET));
        let expected = json!({
            "type": "message.answered", "timestamp": message["endedAt"], "data": message,
        });
        assert_eq!(request.json(), expected);
        assert_eq!((request.attempt(), request.header("content-type")), (1, "application/json"));
        assert_eq!(request.header("user-agent"), format!("rtm-bridge/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(request.header("authorization"), "Bearer a-bearer-token");
        assert_eq!(request.header("x-tenant"), "acme");
        let parent: Vec<_> = request.header("traceparent").split('-').collect();
        assert_eq!((parent[0], parent[1], parent[3]), ("00", trace, "01"));
        assert_ne!(parent[2], "00f067aa0ba902b7", "an attempt is a span of its own");

        let delivery = delivery_when(&bridge, |delivery| delivery["state"] == "delivered").await;
        assert_eq!((&delivery["id"], &delivery["messageId"]), (&json!(request.id()), &message["id"]));
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
fn message_with_a_callback_is_delivered_only_there() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        let mut with_callback = body();
        with_callback["callback"] = json!({"url": receiver.url("/crm?case=7")});
        bridge.post("alice", &with_callback).await.message(200);
        bridge.script.next("alice", vec![Step::Ack]);
        with_callback["turn"] = json!({"deadlineMs": 500});
        bridge.post("alice", &with_callback).await.problem(504, "no-reply");
        let requests = receiver.requests_at_least(2).await;
        let types: Vec<_> = requests.iter().map(|request| request.json()["type"].clone()).collect();
        assert_eq!(types, ["message.answered", "message.failed"]);
        for request in &requests {
            assert_eq!((request.path.as_str(), request.is_signed_with(SECRET)), ("/crm?case=7", true));
            assert_eq!((request.optional("authorization"), request.optional("x-tenant")), (None, None));
        }
        bridge.finish().await;
        assert_eq!(receiver.requests().len(), 2, "the bot webhook gets no delivery");
    });
}

#[test]
fn late_reply_follows_its_message_to_the_callback() {
    run(async {
        let receiver = Receiver::start();
        let bridge = spawn_bridge(|config| {
            configure(config, &receiver);
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
        let requests = receiver.requests_at_least(2).await;
        let unsolicited = r#"replies_outside_turns_total{bot="sandbox",kind="unsolicited"}"#;
        while bridge.metric(unsolicited).await == 0 {
            bridge.script.push("alice", vec![say("unasked")]);
        }
        let all =
            receiver.requests_when(|requests| requests.iter().any(|request| request.path == "/bot")).await;
        let late = requests[1].json();
        assert_eq!((requests[1].path.as_str(), &late["type"]), ("/crm", &json!("reply.late")));
        assert_eq!((&late["data"]["inReplyTo"], &late["data"]["text"]), (&message["id"], &json!("late")));
        assert_eq!((&late["data"]["bot"], &late["data"]["user"]), (&json!("sandbox"), &json!("alice")));
        let unasked = all.iter().find(|request| request.path == "/bot").unwrap().json();
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
fn failed_delivery_is_retried_under_its_id_in_order() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        let calls = AtomicUsize::new(0);
        receiver.answers(move |_| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            ReceiverAnswer::status(if first { 500 } else { 200 })
        });
        for _ in 0..3 {
            bridge.post("alice", &body()).await.message(200);
        }
        let requests = receiver.requests_at_least(4).await;
        assert_eq!((requests[0].id(), &requests[0].body), (requests[1].id(), &requests[1].body));
        assert_eq!(requests.iter().map(ReceivedRequest::attempt).collect::<Vec<_>>(), [1, 2, 1, 1]);
        let sequence: Vec<_> = requests.iter().map(|request| at(&request.json()["timestamp"])).collect();
        assert!(sequence.is_sorted(), "{sequence:?}");
        let delivery = bridge.api.get(format!("/deliveries/{}", requests[0].id())).await;
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
fn delivery_answered_410_is_dead_lettered() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        receiver.answers(|_| ReceiverAnswer::status(410));
        bridge.post("alice", &body()).await.message(200);
        let dead = delivery_when(&bridge, |delivery| delivery["state"] == "dead").await;
        assert_eq!(dead["attempts"].as_array().unwrap().len(), 1);
        assert!(dead["reason"].as_str().unwrap().contains("410"), "{dead}");
        // The endpoint is off until an operator switches it on.
        let gauge = r#"webhook_endpoint_off{bot="sandbox",webhook="main"}"#;
        until("the endpoint is off", async || bridge.metric(gauge).await == 1).await;
        let enable = Request::new("POST", "/webhooks/sandbox/main/enable");
        bridge.send(enable).await.message(200);
        until("the endpoint is on", async || bridge.metric(gauge).await == 0).await;
        receiver.answers(|_| ReceiverAnswer::status(200));
        bridge.post("alice", &body()).await.message(200);
        assert_ne!(receiver.requests_at_least(2).await[1].id(), dead["id"]);
        let dead_lettered = r#"deliveries_total{bot="sandbox",outcome="dead",type="message.answered"}"#;
        assert_eq!(bridge.metric(dead_lettered).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn retry_after_is_obeyed_up_to_ten_steps() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        receiver.answers(|_| ReceiverAnswer::Status(503, vec![("Retry-After", "3600".to_owned())]));
        bridge.post("alice", &body()).await.message(200);
        let waits = |delivery: &Value| delivery["attempts"][0]["status"] == 503;
        let delivery = delivery_when(&bridge, waits).await;
        assert_eq!(delivery["state"], "pending");
        // The first step is a second.
        let wait = at(&delivery["nextAttemptAt"]).since(at(&delivery["attempts"][0]["at"]));
        assert!((10_000..11_000).contains(&wait.as_millis()), "{wait:?}");
        // The pending delivery does not delay the shutdown.
        bridge.finish_leaving(1).await;
    });
}

#[test]
fn slow_receiver_of_a_conversation_delays_no_other() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        receiver.answers(|request| {
            if request.user() == "alice" { ReceiverAnswer::Silence } else { ReceiverAnswer::status(200) }
        });
        for user in ["alice", "bob", "alice", "bob", "carol"] {
            bridge.post(user, &body()).await.message(200);
        }
        let requests = receiver
            .requests_when(|requests| {
                requests.iter().filter(|request| request.user() != "alice").count() == 3
            })
            .await;
        let of_alice = requests.iter().filter(|request| request.user() == "alice").count();
        assert_eq!(of_alice, 1, "one at a time");
        until("the others' are over", async || bridge.undelivered() == 2).await;
        bridge.finish_leaving(2).await;
    });
}

#[test]
fn hanging_target_delays_no_other() {
    run(async {
        let (hangs, lives) = (Receiver::start(), Receiver::start());
        let bridge = spawn_bridge(|config| {
            configure(config, &lives);
            config.webhooks.allowed.push(hangs.url("/").parse().unwrap());
            (config.webhooks.max_in_flight, config.webhooks.max_per_host) = (6, 4);
        })
        .await;
        bridge.script.bot(|_, _| Step::reply("x"));
        hangs.answers(|_| ReceiverAnswer::Silence);
        for number in 0..20 {
            let mut message = body();
            message["callback"] = json!({"url": hangs.url("/")});
            bridge.post(&format!("waits-{number}"), &message).await.message(200);
        }
        for number in 0..20 {
            bridge.post(&format!("goes-{number}"), &body()).await.message(200);
        }
        lives.requests_at_least(20).await;
        // The hanging target leaves room for other hosts.
        assert_eq!(hangs.requests().len(), 3);
        let in_flight = async || bridge.metric("delivery_attempts_in_flight").await;
        until("the others' are over", async || in_flight().await == 3 && bridge.undelivered() == 20).await;
        bridge.finish_leaving(20).await;
    });
}

#[test]
fn deleted_conversation_is_not_delivered() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        bridge.post("alice", &body()).await.message(200);
        let closed = bridge.send(Request::new("DELETE", "/conversations/alice")).await;
        assert_eq!(closed.status, 204, "{closed}");
        bridge.post("bob", &body()).await.message(200);
        receiver.requests_at_least(2).await;
        bridge.finish().await;
        assert_eq!(
            receiver.requests().iter().map(ReceivedRequest::user).collect::<Vec<_>>(),
            ["alice", "bob"]
        );
    });
}

#[test]
fn delivered_delivery_is_redelivered_on_request() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        bridge.post("alice", &body()).await.message(200);
        let delivered = delivery_when(&bridge, |delivery| delivery["state"] == "delivered").await;
        let id = delivered["id"].as_str().unwrap();
        let again = bridge.send(Request::new("POST", format!("/deliveries/{id}/redeliver"))).await;
        assert_eq!(again.message(202)["id"], id);
        let requests = receiver.requests_at_least(2).await;
        assert_eq!((requests[1].id(), requests[1].attempt(), &requests[1].body), (id, 2, &requests[0].body));
        bridge.finish().await;
    });
}

#[test]
fn shutdown_with_the_memory_store_attempts_due_deliveries() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_for(&receiver).await;
        for number in 0..50 {
            bridge.post_async(&format!("user-{number}"), &body()).await;
        }
        let (stop, _, _, _, platform) = bridge.into_stop();
        stop.await;
        platform.stop().await;
        let mut users = HashMap::new();
        for request in receiver.requests() {
            *users.entry(request.user()).or_insert(0) += 1;
        }
        assert_eq!((users.len(), users.values().sum::<i32>()), (50, 50));
    });
}

#[test]
fn handoff_cancels_an_attempt_and_retries_it_at_once() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let mut fleet = Fleet::start(redis.config(), 1, |config| configure(config, &receiver)).await;
        fleet.script.bot(|_, _| Step::reply("x"));
        receiver.answers(|_| ReceiverAnswer::Silence);
        let post = Request::message("alice", &body()).prefer("wait=20");
        fleet.replicas[0].api.send(post.clone()).await.message(200);
        fleet.replicas[0].api.send(post).await.message(200);
        receiver.requests_at_least(1).await;
        // The new replica may be the next owner as soon as it is ready.
        receiver.answers(|_| ReceiverAnswer::status(200));
        fleet.join().await;
        fleet.leave(0).await;
        // The next owner does not wait for the end of the cancelled attempt's window.
        let requests = receiver.requests_at_least(3).await;
        assert_eq!((requests[0].id(), &requests[0].body), (requests[1].id(), &requests[1].body));
        assert_eq!(requests.iter().map(ReceivedRequest::attempt).collect::<Vec<_>>(), [1, 2, 1]);
        let page = fleet.replicas[1].api.get("/deliveries?state=pending").await;
        assert_eq!(page.message(200), json!({"deliveries": [], "next": null}));
        fleet.finish().await;
    });
}

#[test]
fn attempt_during_a_store_outage_is_finished_after_it() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let fleet = Fleet::start(redis.config(), 1, |config| {
            configure(config, &receiver);
            // There is no other replica, and the outage is long.
            config.cluster.lease_ttl = Duration::from_secs(20);
        })
        .await;
        fleet.script.bot(|_, _| Step::reply("x"));
        receiver.answers(|_| ReceiverAnswer::Silence);
        let replica = &fleet.replicas[0];
        for user in ["alice", "bob", "carol", "alice", "bob", "carol"] {
            let post = Request::message(user, &body()).prefer("wait=20");
            replica.api.send(post).await.message(200);
        }
        receiver.requests_at_least(3).await;
        replica.way_to_redis().cut().await;
        receiver.hang_up();
        receiver.answers(|_| ReceiverAnswer::status(200));
        // The replica notices the outage when it reports the end of the attempts.
        until("the store is away", async || replica.admin.get("/readyz").await.status == 503).await;
        assert_eq!(receiver.requests().len(), 3, "no attempt begins");
        replica.way_to_redis().heal().await;
        let requests = receiver.requests_at_least(9).await;
        for user in ["alice", "bob", "carol"] {
            let of_user: Vec<_> = requests.iter().filter(|request| request.user() == user).collect();
            let attempts: Vec<_> = of_user.iter().map(|request| request.attempt()).collect();
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
fn message_on_redis_is_delivered_once_and_in_order() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let fleet = Fleet::start(redis.config(), 2, |config| configure(config, &receiver)).await;
        fleet.script.bot(|_, _| Step::reply("x"));
        let mut expected = Vec::new();
        for _ in 0..3 {
            for number in 0..20 {
                let post = Request::message(&format!("user-{number}"), &body()).prefer("wait=20");
                let caller = fleet.replicas[number % 2].api;
                expected.push(caller.send(post).await.message(200)["id"].clone());
            }
        }
        let requests = receiver.requests_at_least(60).await;
        let mut messages: Vec<_> =
            requests.iter().map(|request| request.json()["data"]["id"].clone()).collect();
        for number in 0..20 {
            let user = format!("user-{number}");
            let of_user: Vec<_> = requests
                .iter()
                .filter(|request| request.user() == user)
                .map(|request| at(&request.json()["timestamp"]))
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
