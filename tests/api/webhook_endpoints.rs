//! Several endpoints of one bot (api.md 4).

use std::collections::BTreeMap;
use std::time::Duration;

use rtm_bridge::config::{BotWebhookConfig, PayloadExtent};
use rtm_bridge::domain::DeliveryKind;
use rtm_sandbox::Step;
use serde_json::{Value, json};

use crate::support::{
    OTHER_SECRET, ReceivedRequest, Receiver, ReceiverAnswer, RedisOptions, RedisServer, Request, SECRET,
    TestBridge, bot, run, spawn_bridge, until,
};

/// Returns an endpoint with this path as its name.
fn endpoint(receiver: &Receiver, name: &str, secret: &str) -> BotWebhookConfig {
    BotWebhookConfig {
        name: name.into(),
        url: Some(receiver.url(&format!("/{name}")).parse().unwrap()),
        secrets: vec![secret.into()],
        ..BotWebhookConfig::default()
    }
}

async fn bridge_with(endpoints: Vec<BotWebhookConfig>) -> TestBridge {
    let bridge = spawn_bridge(|config| {
        config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        bot(config).webhooks = endpoints;
    })
    .await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

async fn say(bridge: &TestBridge, user: &str) -> Value {
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
    bridge.send(Request::message(user, &body).prefer("wait=20")).await.message(200)
}

async fn deliveries(bridge: &TestBridge, query: &str) -> Vec<Value> {
    let page = bridge.api.get(&format!("/deliveries?{query}")).await.message(200);
    page["deliveries"].as_array().unwrap().clone()
}

#[test]
fn each_endpoint_gets_its_own_signed_delivery_of_its_types() {
    run(async {
        let receiver = Receiver::start();
        let failures = BotWebhookConfig {
            types: vec![DeliveryKind::MessageFailed],
            ..endpoint(&receiver, "failures", SECRET)
        };
        let bridge = bridge_with(vec![
            endpoint(&receiver, "crm", SECRET),
            endpoint(&receiver, "audit", OTHER_SECRET),
            failures,
        ])
        .await;
        let message = say(&bridge, "alice").await;
        let requests = receiver.requests_at_least(2).await;
        let by_path: BTreeMap<_, _> = requests.iter().map(|request| (&*request.path, request)).collect();
        let (crm, audit) = (by_path["/crm"], by_path["/audit"]);
        assert_ne!(crm.id(), audit.id());
        assert_eq!(crm.body, audit.body);
        assert_eq!(crm.json()["data"], message);
        assert!(crm.is_signed_with(SECRET) && !crm.is_signed_with(OTHER_SECRET));
        assert!(audit.is_signed_with(OTHER_SECRET) && !audit.is_signed_with(SECRET));
        until("both are delivered", async || deliveries(&bridge, "state=delivered").await.len() == 2).await;
        let [delivery] = &deliveries(&bridge, "webhook=audit").await[..] else { panic!("one delivery") };
        assert_eq!((&delivery["webhook"], &delivery["id"]), (&json!("audit"), &json!(audit.id())));
        assert_eq!(delivery["target"], receiver.url("/audit"));
        assert!(deliveries(&bridge, "webhook=failures").await.is_empty());
        assert_eq!(receiver.requests().len(), 2, "no event for the third endpoint");
        bridge.finish().await;
    });
}

#[test]
fn endpoint_that_hangs_delays_no_other() {
    run(async {
        let receiver = Receiver::start();
        let bridge =
            bridge_with(vec![endpoint(&receiver, "slow", SECRET), endpoint(&receiver, "quick", SECRET)])
                .await;
        receiver.answers(|request| match &*request.path {
            "/slow" => ReceiverAnswer::Silence,
            _ => ReceiverAnswer::status(204),
        });
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(say(&bridge, "alice").await["id"].clone());
        }
        let of_path = |requests: &[ReceivedRequest], path: &str| -> Vec<Value> {
            let of_path = requests.iter().filter(|request| request.path == path);
            of_path.map(|request| request.json()["data"]["id"].clone()).collect()
        };
        let requests = receiver.requests_when(|all| of_path(all, "/quick").len() == 3).await;
        assert_eq!(of_path(&requests, "/quick"), messages, "in order");
        assert!(of_path(&receiver.requests(), "/slow").len() <= 1, "the first one is unanswered");
        receiver.answers(|_| ReceiverAnswer::status(204));
        receiver.hang_up();
        receiver
            .requests_when(|all| {
                let slow = of_path(all, "/slow");
                slow.len() == 4 && slow[1..] == messages
            })
            .await;
        bridge.finish().await;
    });
}

/// Switches an endpoint, and returns it.
async fn switch(bridge: &TestBridge, name: &str, way: &str) -> Value {
    let request = Request::new("POST", format!("/webhooks/sandbox/{name}/{way}"));
    bridge.send(request).await.message(200)
}

/// Returns an endpoint of the list.
async fn listed(bridge: &TestBridge, name: &str) -> Value {
    let list = bridge.api.get("/webhooks").await.message(200);
    let found = list["webhooks"].as_array().unwrap().iter().find(|endpoint| endpoint["name"] == name);
    found.unwrap().clone()
}

/// Returns the warnings of the operator's probe about endpoints.
async fn warnings(bridge: &TestBridge) -> Vec<String> {
    let ready = bridge.admin.get("/readyz").await.message(200);
    let checks = ready["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "webhooks").unwrap();
    assert_eq!(check["ok"], true);
    let warnings = check["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning.as_str().unwrap().to_owned()).collect()
}

/// The sentences on an endpoint that is switched off by 410 and on again with nothing lost, on this bridge.
async fn off_and_on_again(bridge: &TestBridge, receiver: &Receiver) {
    say(bridge, "zoe").await;
    until("the first one is delivered", async || deliveries(bridge, "state=delivered").await.len() == 1)
        .await;
    assert!(warnings(bridge).await.is_empty());
    // Bob's delivery waits for a retry when the endpoint is switched off.
    receiver.answers(|request| match request.user().as_str() {
        "bob" => ReceiverAnswer::Status(503, vec![("retry-after", "600".to_owned())]),
        _ => ReceiverAnswer::status(410),
    });
    let mut messages = vec![say(bridge, "bob").await["id"].clone()];
    until("bob's attempt failed", async || {
        let pending = deliveries(bridge, "state=pending&user=bob").await;
        pending.len() == 1 && pending[0]["attempts"].as_array().unwrap().len() == 1
    })
    .await;
    messages.push(say(bridge, "alice").await["id"].clone());
    until("it is off", async || listed(bridge, "crm").await["state"] == "disabled").await;
    let attempts = receiver.requests().len();
    messages.push(say(bridge, "carol").await["id"].clone());
    messages.push(say(bridge, "alice").await["id"].clone());
    until("all are dead letters", async || deliveries(bridge, "state=dead&webhook=crm").await.len() == 4)
        .await;
    assert_eq!(receiver.requests().len(), attempts, "no attempt is made to an endpoint that is off");
    let off = listed(bridge, "crm").await;
    assert!(off["reason"].as_str().unwrap().contains("410"), "{off}");
    assert!(off["disabledAt"].is_string() && off["lastSuccessAt"].is_string(), "{off}");
    until("its failure is reported", async || listed(bridge, "crm").await["lastFailureAt"].is_string()).await;
    assert_eq!(off["backlog"], 0);
    let dead = deliveries(bridge, "state=dead&user=carol").await;
    assert_eq!(dead[0]["reason"], "its endpoint is switched off");
    let warned = warnings(bridge).await;
    assert!(warned.len() == 1 && warned[0].contains("crm") && warned[0].contains("410"), "{warned:?}");
    let metrics = bridge.admin.get("/metrics").await;
    let gauge = "rtm_bridge_webhook_endpoint_off{bot=\"sandbox\",webhook=\"crm\"}";
    assert!(metrics.text().contains(&format!("{gauge} 1")), "{}", metrics.text());

    receiver.answers(|_| ReceiverAnswer::status(204));
    let on = switch(bridge, "crm", "enable").await;
    assert_eq!((&on["state"], &on["reason"]), (&json!("enabled"), &Value::Null));
    until("the replica follows", async || {
        bridge.admin.get("/metrics").await.text().contains(&format!("{gauge} 0"))
    })
    .await;
    assert!(warnings(bridge).await.is_empty());
    let body = json!({"state": "dead", "webhook": "crm"});
    let redriven = bridge.send(Request::new("POST", "/deliveries/redrive").json(&body)).await.message(200);
    assert_eq!(redriven, json!({"count": 4, "hasMore": false}));
    messages.push(say(bridge, "dave").await["id"].clone());
    until("nothing is lost", async || deliveries(bridge, "state=delivered").await.len() == 6).await;
    let took = receiver.requests().split_off(attempts);
    let mut took: Vec<_> = took.iter().map(|request| request.json()["data"]["id"].clone()).collect();
    took.sort_by_key(Value::to_string);
    messages.sort_by_key(Value::to_string);
    assert_eq!(took, messages);
}

#[test]
fn endpoint_off_by_410_and_on_again_loses_nothing() {
    run(async {
        let receiver = Receiver::start();
        let bridge = bridge_with(vec![endpoint(&receiver, "crm", SECRET)]).await;
        off_and_on_again(&bridge, &receiver).await;
        bridge.finish().await;
    });
}

#[test]
fn endpoint_on_redis_off_and_on_again_loses_nothing() {
    run(async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let receiver = Receiver::start();
        let bridge = spawn_bridge(|config| {
            config.store = redis.config();
            config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
            bot(config).webhooks = vec![endpoint(&receiver, "crm", SECRET)];
        })
        .await;
        bridge.script.bot(|_, _| Step::reply("x"));
        off_and_on_again(&bridge, &receiver).await;
        bridge.finish().await;
    });
}

#[test]
fn endpoint_that_fails_for_disable_after_is_switched_off() {
    run(async {
        let receiver = Receiver::start();
        let brief = BotWebhookConfig {
            disable_after: Some(Duration::from_secs(1)),
            ..endpoint(&receiver, "crm", SECRET)
        };
        let bridge = bridge_with(vec![brief, endpoint(&receiver, "audit", SECRET)]).await;
        receiver.answers(|request| match &*request.path {
            "/crm" => ReceiverAnswer::status(500),
            _ => ReceiverAnswer::status(204),
        });
        say(&bridge, "alice").await;
        until("it is off", async || listed(&bridge, "crm").await["state"] == "disabled").await;
        let off = listed(&bridge, "crm").await;
        assert!(off["reason"].as_str().unwrap().starts_with("every attempt failed for "), "{off}");
        assert!(off["failingSince"].is_string() && off["lastError"] == "the receiver answered 500", "{off}");
        until("what waited is a dead letter", async || deliveries(&bridge, "state=dead").await.len() == 1)
            .await;
        assert_eq!(listed(&bridge, "audit").await["state"], "enabled");
        bridge.finish().await;
    });
}

#[test]
fn dead_letter_is_reported_to_another_endpoint() {
    run(async {
        let receiver = Receiver::start();
        let ops = |name: &str, payload| BotWebhookConfig {
            types: vec![DeliveryKind::DeliveryDead],
            payload,
            ..endpoint(&receiver, name, SECRET)
        };
        let bridge = bridge_with(vec![
            endpoint(&receiver, "crm", SECRET),
            ops("ops", PayloadExtent::Full),
            ops("gone", PayloadExtent::Thin),
        ])
        .await;
        receiver.answers(|request| match &*request.path {
            "/ops" => ReceiverAnswer::status(204),
            _ => ReceiverAnswer::status(410),
        });
        let message = say(&bridge, "alice").await;
        let requests = receiver.requests_when(|all| all.iter().any(|request| request.path == "/ops")).await;
        let told = requests.iter().find(|request| request.path == "/ops").unwrap();
        assert!(told.is_signed_with(SECRET));
        assert_eq!(told.json()["type"], "delivery.dead");
        let data = &told.json()["data"];
        assert_eq!((&data["webhook"], &data["messageId"]), (&json!("crm"), &message["id"]));
        assert_eq!((&data["type"], &data["user"]), (&json!("message.answered"), &json!("alice")));
        let dead = data["deliveryId"].as_str().unwrap();
        let dead = bridge.api.get(&format!("/deliveries/{dead}")).await.message(200);
        assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &data["reason"]));
        // The report to the third endpoint died too, and no one is told.
        until("its report is dead", async || deliveries(&bridge, "state=dead&webhook=gone").await.len() == 1)
            .await;
        until("all has ended", async || deliveries(&bridge, "state=pending").await.is_empty()).await;
        let reports = receiver.requests().iter().filter(|request| request.path == "/ops").count();
        assert_eq!(reports, 1);
        bridge.finish().await;
    });
}

#[test]
fn test_event_is_signed_and_answered_with_what_the_receiver_said() {
    run(async {
        let receiver = Receiver::start();
        let signer = BotWebhookConfig { url: None, ..endpoint(&receiver, "signer", SECRET) };
        let bridge = bridge_with(vec![endpoint(&receiver, "crm", SECRET), signer]).await;
        let test = |name: &str| Request::new("POST", format!("/webhooks/sandbox/{name}/test"));
        let answer = bridge.send(test("crm")).await.message(200);
        assert_eq!(
            (&answer["delivered"], &answer["status"], &answer["error"]),
            (&json!(true), &json!(204), &Value::Null)
        );
        assert!(answer["durationMs"].is_u64(), "{answer}");
        let request = receiver.requests_at_least(1).await.remove(0);
        assert!(request.is_signed_with(SECRET));
        assert_eq!(request.json()["type"], "test");
        assert_eq!(request.json()["data"]["webhook"], "crm");
        receiver.answers(|_| ReceiverAnswer::status(401));
        let answer = bridge.send(test("crm")).await.message(200);
        assert_eq!((&answer["delivered"], &answer["status"]), (&json!(false), &json!(401)));
        assert_eq!(answer["error"], "the receiver answered 401");
        // A test changes no state, and nothing is stored.
        receiver.answers(|_| ReceiverAnswer::status(410));
        bridge.send(test("crm")).await.message(200);
        assert_eq!(listed(&bridge, "crm").await["state"], "enabled");
        assert!(deliveries(&bridge, "limit=10").await.is_empty());
        bridge.send(test("signer")).await.problem(404, "not-found");
        bridge.send(test("nobody")).await.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn dead_letters_of_one_endpoint_are_redriven_alone() {
    run(async {
        let receiver = Receiver::start();
        let bridge =
            bridge_with(vec![endpoint(&receiver, "crm", SECRET), endpoint(&receiver, "audit", SECRET)]).await;
        receiver.answers(|_| ReceiverAnswer::status(410));
        say(&bridge, "alice").await;
        until("both are dead", async || deliveries(&bridge, "state=dead").await.len() == 2).await;
        receiver.answers(|_| ReceiverAnswer::status(204));
        for name in ["crm", "audit"] {
            switch(&bridge, name, "enable").await;
        }
        let redrive = async |body: &Value| {
            bridge.send(Request::new("POST", "/deliveries/redrive").json(body)).await.message(200)
        };
        let dry = redrive(&json!({"state": "dead", "webhook": "crm", "dryRun": true})).await;
        assert_eq!(dry, json!({"count": 1, "hasMore": false}));
        let redriven = redrive(&json!({"state": "dead", "webhook": "crm"})).await;
        assert_eq!(redriven, json!({"count": 1, "hasMore": false}));
        until("it is delivered", async || deliveries(&bridge, "state=delivered").await.len() == 1).await;
        let [dead] = &deliveries(&bridge, "state=dead").await[..] else { panic!("one dead letter") };
        assert_eq!(dead["webhook"], "audit");
        let faulty = Request::get("/deliveries?webhook=a%2Fb");
        bridge.send(faulty).await.problem(400, "invalid-request");
        bridge.finish().await;
    });
}
