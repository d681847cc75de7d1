//! Several endpoints of one bot (api.md 4).

use std::collections::BTreeMap;

use rtm_bridge::config::BotWebhookConfig;
use rtm_bridge::domain::DeliveryKind;
use rtm_sandbox::Step;
use serde_json::{Value, json};

use crate::support::{
    OTHER_SECRET, ReceivedRequest, Receiver, ReceiverAnswer, Request, SECRET, TestBridge, bot, run,
    spawn_bridge, until,
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
