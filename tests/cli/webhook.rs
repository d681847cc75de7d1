//! `rtm-bridge webhook`: what people see who build a receiver.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::SystemTime;

use rtm_bridge::webhook::signature::{SigningSecret, sign};
use serde_json::{Value, json};

use super::{CONFIG, config, outcome, rtm_bridge, run};
use crate::support::{Caller, Program, Request};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the program under test has the wall clock too")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The arguments that tell of a signature of this body, made so many seconds ago.
fn signed(secret: &str, body: &str, ago: u64) -> [String; 3] {
    let secret = SigningSecret::parse(&secret.into()).unwrap();
    let at = now() - ago;
    [
        "--id=01M".to_owned(),
        format!("--timestamp={at}"),
        format!("--signature={}", sign(&[secret], "01M", at, body.as_bytes())),
    ]
}

/// Verifies this body from standard input.
fn verify(arguments: &[&str], body: &str) -> (Option<i32>, String, String) {
    let mut verify = rtm_bridge(&[&["webhook", "verify"], arguments].concat());
    verify.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut verify = verify.spawn().unwrap();
    // Where it has ended already, its output says why.
    let _told = verify.stdin.take().unwrap().write_all(body.as_bytes());
    outcome(&verify.wait_with_output().unwrap())
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn a_new_secret_is_a_file_of_secrets_for_both_sides() {
    let (code, out, err) = run(&["webhook", "secret"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_ne!(out, run(&["webhook", "secret"]).1);
    let (_file, path) = file(&out);
    let (_dir, bridge) = config(&format!("{CONFIG}[bots.webhook]\nsecrets_file = \"{path}\"\n"));
    let (code, _, err) = run(&["check-config", "--config", &bridge]);
    assert_eq!(code, Some(0), "{err}");
    let secret = out.lines().find(|line| line.starts_with("whsec_")).unwrap();
    let arguments = signed(secret, "{}", 3);
    let arguments = [&arguments[0], &arguments[1], &arguments[2], "--secret-file", &path];
    let (code, out, err) = verify(&arguments, "{}");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("verified: signed ") && out.ends_with(" s ago with secret 1 of 1\n"), "{out}");
}

#[test]
fn what_is_wrong_with_a_delivery_is_said_with_what_to_do() {
    let (_file, path) = file(SECRET);
    let other = SECRET.replace("AAEC", "BBEC");
    for (secret, ago, body, words) in [
        (SECRET, 0, "{} ", "byte for byte"),
        (SECRET, 0, "{}\n", "no editor in between"),
        (&other, 0, "{}", "compare the secret"),
        (SECRET, 3600, "{}", "--any-age"),
    ] {
        let told = signed(secret, "{}", ago);
        let (code, out, err) = verify(&[&told[0], &told[1], &told[2], "--secret-file", &path], body);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words}");
        assert!(err.starts_with("rtm-bridge: not verified: ") && err.contains(words), "{words}: {err}");
    }
    let told = signed(SECRET, "{}", 3600);
    let old = [&told[0], &told[1], &told[2], "--any-age", "--secret-file", &path];
    assert_eq!(verify(&old, "{}").0, Some(0));
    let (code, _, err) = verify(&["--secret-file", &path], "{}");
    assert!(code == Some(1) && err.contains("webhook-id is missing; give --headers FILE"), "{err}");
    let (code, _, err) = verify(&["--id=1"], "{}");
    assert!(code == Some(1) && err.contains("--secret-file FILE, or set RTM_BRIDGE_WEBHOOK_SECRET"), "{err}");
    let (code, _, err) = verify(&["--secret-file", "/nowhere/secret"], "{}");
    assert!(code == Some(1) && err.contains("/nowhere/secret cannot be read"), "{err}");
    assert_eq!(verify(&["--headers=x", "--id=1"], "").0, Some(2));
}

#[test]
fn headers_and_body_come_from_files_and_a_secret_in_sight_is_warned_of() {
    let told = signed(SECRET, "{\"a\":1}", 1)
        .map(|argument| argument.trim_start_matches("--").replacen('=', ": ", 1));
    let (_headers, headers) =
        file(&format!("POST / HTTP/1.1\nWebhook-{}\nwebhook-{}\nwebhook-{}\n", told[0], told[1], told[2]));
    let (_body, body) = file("{\"a\":1}");
    let (code, out, err) = run(&["webhook", "verify", "--secret", SECRET, "--headers", &headers, &body]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(err.contains("--secret-file FILE is safer") && !err.contains(SECRET), "{err}");
    let verified = rtm_bridge(&["webhook", "verify", "--headers", &headers, &body])
        .env("RTM_BRIDGE_WEBHOOK_SECRET", SECRET)
        .output()
        .unwrap();
    assert_eq!(outcome(&verified).0, Some(0), "{verified:?}");
    let (code, _, err) = run(&["webhook", "verify", "--secret", "whsec_hush!", "--headers", &headers, &body]);
    assert!(
        code == Some(1) && err.contains("--secret: a webhook secret is whsec_") && !err.contains("hush"),
        "{err}"
    );
}

/// A running `listen`, and where.
async fn listen(arguments: &[&str]) -> (Program, Caller) {
    let mut program =
        Program::printing(&[&["webhook", "listen", "--addr", "127.0.0.1:0"], arguments].concat());
    let line = program.line_with("Listening for deliveries on").await;
    let address = line.split_once("http://").unwrap().1.split_once(". ").unwrap().0;
    (program, Caller(address.parse::<SocketAddr>().unwrap()))
}

fn delivery(id: &str, body: &str) -> Request {
    let at = now();
    let signature = sign(&[SigningSecret::parse(&SECRET.into()).unwrap()], id, at, body.as_bytes());
    Request::new("POST", "/any/path?x=1")
        .header("Webhook-Id", id)
        .header("Webhook-Timestamp", &at.to_string())
        .header("Webhook-Signature", &signature)
        .header("Webhook-Attempt", "1")
        .body(body)
}

#[test]
fn deliveries_are_shown_verified_and_answered_as_asked_for() {
    crate::support::run(async {
        let (_file, path) = file(SECRET);
        let (mut program, receiver) = listen(&["--secret-file", &path, "--status", "500,204"]).await;
        let body = json!({"type": "reply.unsolicited", "data": {"user": "alice", "text": "It left today."}})
            .to_string();
        for (status, words) in
            [(500, "attempt 1  verified  -> 500"), (204, "verified  -> 204"), (204, "-> 204  (taken before")]
        {
            assert_eq!(receiver.send(delivery("01M", &body)).await.status, status);
            let line = program.line_with("01M").await;
            assert!(line.contains("  reply.unsolicited  01M") && line.contains(words), "{words}: {line}");
            assert_eq!(program.line_with("bot").await, "    bot, to alice: It left today.\n");
        }
        let forged = delivery("01N", &body).body(body.replace("today", "never"));
        assert_eq!(receiver.send(forged).await.status, 401);
        assert!(program.line_with("01N").await.contains("NOT VERIFIED  -> 401"));
        let long = delivery("01O", "").body("x".repeat((16 << 20) + 1));
        // Who is refused before all is read may not hear the answer.
        if let Ok(answer) = receiver.try_send(long).await {
            assert_eq!(answer.status, 401);
        }
        assert!(program.line_with("longer than").await.contains("16777216 bytes"));
        let browser = receiver.get("/").await;
        assert_eq!((browser.status, browser.header("allow")), (405, Some("POST")));
        assert_eq!(program.terminate().await.code(), Some(0));
    });
}

#[test]
fn programs_get_a_line_of_json_for_each() {
    crate::support::run(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (code, _, err) = run(&["webhook", "listen", "--addr", &address.to_string()]);
        assert!(code == Some(1) && err.contains("with --addr"), "{err}");
        drop(taken);

        let mut program = Program::printing(&["webhook", "listen", "--json", "--addr", &address.to_string()]);
        let receiver = Caller(address);
        crate::support::until("it listens", async || tokio::net::TcpStream::connect(address).await.is_ok())
            .await;
        let body =
            json!({"type": "message.answered", "data": {"user": "alice", "text": "hi", "replies": []}});
        let request = delivery("01M", &body.to_string()).header("Authorization", "Bearer hush");
        assert_eq!(receiver.send(request).await.status, 204);
        let line: Value = serde_json::from_str(&program.line_with("01M").await).unwrap();
        assert_eq!(line["body"], body);
        assert_eq!(
            (&line["path"], &line["status"], &line["verified"]),
            (&json!("/any/path"), &json!(204), &Value::Null)
        );
        assert_eq!(
            (&line["headers"]["webhook-id"], &line["headers"]["authorization"]),
            (&json!("01M"), &json!("…"))
        );
        assert_eq!(program.terminate().await.code(), Some(0));
    });
}

#[test]
fn dev_takes_callbacks_to_what_listens_and_nowhere_else() {
    crate::support::run(async {
        let mut dev = Program::printing(&["dev", "--port", "0", "--admin-port", "0"]);
        let line = dev.line_with("RTM_BRIDGE_WEBHOOK_SECRET=").await;
        let secret = line.split_once('=').unwrap().1.trim_end_matches(" \\\n");
        assert!(SigningSecret::parse(&secret.into()).is_ok(), "{line}");
        let curl = dev.line_with("curl").await;
        let address = curl.split_once("http://").unwrap().1.split_once('/').unwrap().0;
        let api = Caller(address.parse().unwrap());
        let data = dev.line_with("callback").await;
        let body: Value = serde_json::from_str(data.split('\'').nth(1).unwrap()).unwrap();
        assert_eq!(body["callback"]["url"], "http://127.0.0.1:9099/");
        for (url, status) in [
            ("http://127.0.0.1:9099/", 202),
            ("http://localhost:9099/x", 202),
            ("http://127.0.0.1:9098/", 422),
        ] {
            let body = json!({"text": "/silent", "callback": {"url": url}});
            assert_eq!(api.send(Request::message("alice", &body)).await.status, status, "{url}");
        }
    });
}
