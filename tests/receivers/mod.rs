//! Runs the receivers of docs/getting-started.md on the official libraries of Standard Webhooks.
//!
//! `scripts/test receivers` installs the libraries below `target/receivers`, so other runs ignore these tests.

mod language;

use std::time::SystemTime;

use rtm_bridge::config::BotWebhookConfig;
use rtm_bridge::webhook::signature::{SigningSecret, sign};
use serde_json::json;

use self::language::{NODE, PYTHON, ReceiverLanguage};
use crate::support::{Caller, Request, bot, spawn_bridge, until};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEWER: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const STRANGE: &str = "whsec_QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";

/// Returns the seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the receivers have the wall clock too")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns a request as a bridge posts it, signed with these secrets.
fn delivery(id: &str, secrets: &[&str], at: u64, user: &str) -> Request {
    // Characters of two and four bytes show that the signature covers bytes.
    let data = json!({"user": user, "text": "Où est ma commande ? 📦", "replies": []});
    let body = json!({"type": "message.answered", "timestamp": "2026-11-23T09:30:00.123Z", "data": data})
        .to_string();
    let secrets: Vec<_> =
        secrets.iter().map(|secret| SigningSecret::parse(&(*secret).into()).unwrap()).collect();
    let signature = sign(&secrets, id, at, body.as_bytes());
    Request::new("POST", "/")
        .header("Content-Type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", &at.to_string())
        .header("webhook-signature", &signature)
        .body(body)
}

/// Checks that the documented receiver accepts genuine requests and refuses others.
fn receiver_accepts_only_genuine_requests(language: &'static ReceiverLanguage) {
    crate::support::run(async {
        let mut receiver = language.receiver(SECRET).await;
        let at = now();
        let answers = async |request| Caller(receiver.address).send(request).await.status;
        for (what, request, status) in [
            ("genuine", delivery("01A", &[SECRET], at, "alice"), 204),
            ("the same once more", delivery("01A", &[SECRET], at, "alice"), 204),
            ("signed with a newer secret too", delivery("01B", &[NEWER, SECRET], at, "bob"), 204),
            ("signed four minutes ago", delivery("01C", &[SECRET], at - 240, "carol"), 204),
            ("signed six minutes ago", delivery("01D", &[SECRET], at - 360, "mallory"), 401),
            ("signed six minutes from now", delivery("01E", &[SECRET], at + 360, "mallory"), 401),
            ("signed with another secret", delivery("01F", &[STRANGE], at, "mallory"), 401),
            ("with another body", delivery("01G", &[SECRET], at, "mallory").body("{}"), 401),
            ("unsigned", Request::new("POST", "/").json(&json!({})), 401),
            ("the last", delivery("01H", &[SECRET], at, "zoë"), 204),
        ] {
            assert_eq!(answers(request).await, status, "{}: {what}", language.name);
        }
        for user in ["alice", "bob", "carol", "zoë"] {
            assert_eq!(receiver.line().await, format!("message.answered {user}"), "{}", language.name);
        }
    });
}

/// Checks that the documented receiver accepts a delivery of a real bridge during a rotation of the secret.
fn receiver_accepts_a_delivery_of_a_bridge(language: &'static ReceiverLanguage) {
    crate::support::run(async {
        let mut receiver = language.receiver(SECRET).await;
        let callback = format!("http://{}/", receiver.address);
        let bridge = spawn_bridge(|config| {
            bot(config).webhooks = vec![BotWebhookConfig {
                secrets: vec![NEWER.into(), SECRET.into()],
                ..BotWebhookConfig::default()
            }];
            config.webhooks.allowed = vec![callback.parse().unwrap()];
            config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let message = json!({"text": "/echo Où est ma commande ? 📦", "callback": {"url": callback}});
        assert_eq!(
            bridge.send(Request::message("zo%C3%AB", &message)).await.status,
            202,
            "{}",
            language.name
        );
        assert_eq!(receiver.line().await, "message.answered zoë", "{}", language.name);
        // The bridge stores the result after the answer.
        until("it is delivered", async || {
            let page = bridge.api.get("/deliveries?state=delivered").await.json();
            page["deliveries"][0]["attempts"][0]["status"] == 204
        })
        .await;
        bridge.finish().await;
    });
}

/// Checks that `rtm-bridge webhook verify` accepts signatures of the library of this language.
fn verify_accepts_a_library_signature(language: &'static ReceiverLanguage) {
    let body = "{\"type\":\"message.answered\",\"data\":{\"text\":\"Où est ma commande ? 📦\"}}";
    let at = now();
    let signature = language.sign(SECRET, "01A", at, body);
    let verify = |secret: &str, body: &str| {
        let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_rtm-bridge"));
        let at = at.to_string();
        verify.args([
            "webhook",
            "verify",
            "--id",
            "01A",
            "--timestamp",
            &at,
            "--signature",
            &signature,
            "--secret",
            secret,
        ]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), body).unwrap();
        verify.arg(file.path()).output().unwrap().status.code()
    };
    assert_eq!(verify(SECRET, body), Some(0), "{}: {signature}", language.name);
    assert_eq!(verify(STRANGE, body), Some(1), "{}", language.name);
    assert_eq!(verify(SECRET, &body.replace("ma", "ta")), Some(1), "{}", language.name);
}

#[test]
#[ignore = "needs libraries of Python: scripts/test receivers"]
fn python_receiver_accepts_only_genuine_requests() {
    receiver_accepts_only_genuine_requests(&PYTHON);
}

#[test]
#[ignore = "needs libraries of Node: scripts/test receivers"]
fn node_receiver_accepts_only_genuine_requests() {
    receiver_accepts_only_genuine_requests(&NODE);
}

#[test]
#[ignore = "needs libraries of Python: scripts/test receivers"]
fn python_receiver_accepts_a_delivery_of_a_bridge() {
    receiver_accepts_a_delivery_of_a_bridge(&PYTHON);
}

#[test]
#[ignore = "needs libraries of Node: scripts/test receivers"]
fn node_receiver_accepts_a_delivery_of_a_bridge() {
    receiver_accepts_a_delivery_of_a_bridge(&NODE);
}

#[test]
#[ignore = "needs libraries of Python and Node: scripts/test receivers"]
fn verify_accepts_signatures_of_the_official_libraries() {
    for language in [&PYTHON, &NODE] {
        verify_accepts_a_library_signature(language);
    }
}
