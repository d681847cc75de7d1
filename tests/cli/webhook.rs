//! `rtm-bridge webhook` as a process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::SystemTime;

use rtm_bridge::webhook::signature::{SigningSecret, sign};
use serde_json::{Value, json};

use super::{CONFIG, config, outcome, rtm_bridge, run};
use crate::support::{Caller, Program, Request};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Returns the seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the program under test has the wall clock too")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Returns the arguments with a signature of this body, `ago` seconds old.
fn signed(secret: &str, body: &str, ago: u64) -> [String; 3] {
    let secret = SigningSecret::parse(&secret.into()).unwrap();
    let at = now() - ago;
    [
        "--id=01M".to_owned(),
        format!("--timestamp={at}"),
        format!("--signature={}", sign(&[secret], "01M", at, body.as_bytes())),
    ]
}

/// Runs `verify` with this body as its input.
fn verify(arguments: &[&str], body: &str) -> (Option<i32>, String, String) {
    let mut verify = rtm_bridge(&[&["webhook", "verify"], arguments].concat());
    verify.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut verify = verify.spawn().unwrap();
    // The program may have stopped already; its output says why.
    let _written = verify.stdin.take().unwrap().write_all(body.as_bytes());
    outcome(&verify.wait_with_output().unwrap())
}

fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn new_secret_is_a_file_for_bridge_and_receiver() {
    let (code, out, err) = run(&["webhook", "secret"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_ne!(out, run(&["webhook", "secret"]).1);
    let (_file, path) = file(&out);
    let (_dir, bridge) =
        config(&format!("{CONFIG}[[bots.webhooks]]\nname = \"main\"\nsecrets_file = \"{path}\"\n"));
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
fn unverified_delivery_exits_1_with_the_next_step() {
    let (_file, path) = file(SECRET);
    let other = SECRET.replace("AAEC", "BBEC");
    for (secret, ago, body, words) in [
        (SECRET, 0, "{} ", "byte for byte"),
        (SECRET, 0, "{}\n", "without `echo` or an editor"),
        (&other, 0, "{}", "compare the secret"),
        (SECRET, 3600, "{}", "--any-age"),
    ] {
        let arguments = signed(secret, "{}", ago);
        let (code, out, err) =
            verify(&[&arguments[0], &arguments[1], &arguments[2], "--secret-file", &path], body);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words}");
        assert!(err.starts_with("rtm-bridge: not verified: ") && err.contains(words), "{words}: {err}");
    }
    let arguments = signed(SECRET, "{}", 3600);
    let old = [&arguments[0], &arguments[1], &arguments[2], "--any-age", "--secret-file", &path];
    assert_eq!(verify(&old, "{}").0, Some(0));
    let (code, _, err) = verify(&["--secret-file", &path], "{}");
    assert!(code == Some(1) && err.contains("webhook-id is missing; give --headers FILE"), "{err}");
    let (code, _, err) = verify(&["--id=1"], "{}");
    assert!(code == Some(1) && err.contains("--secret-file FILE, or set RTM_BRIDGE_WEBHOOK_SECRET"), "{err}");
    let (code, _, err) = verify(&["--secret-file", "/nowhere/secret"], "{}");
    assert!(code == Some(1) && err.contains("cannot read /nowhere/secret"), "{err}");
    assert_eq!(verify(&["--headers=x", "--id=1"], "").0, Some(2));
}

#[test]
fn files_are_verified_and_visible_secret_gets_a_warning() {
    let arguments = signed(SECRET, "{\"a\":1}", 1)
        .map(|argument| argument.trim_start_matches("--").replacen('=', ": ", 1));
    let (_headers, headers) = file(&format!(
        "POST / HTTP/1.1\nWebhook-{}\nwebhook-{}\nwebhook-{}\n",
        arguments[0], arguments[1], arguments[2]
    ));
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

/// Starts `listen`, and returns it with a caller of its address.
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
fn deliveries_are_verified_printed_and_answered() {
    crate::support::run(async {
        let (_file, path) = file(SECRET);
        let (mut program, receiver) = listen(&["--secret-file", &path, "--status", "500,204"]).await;
        let body = json!({"type": "reply.unsolicited", "data": {"user": "alice", "text": "It left today."}})
            .to_string();
        for (status, words) in
            [(500, "attempt 1  verified  -> 500"), (204, "verified  -> 204"), (204, "-> 204  (repeated")]
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
        // The connection may close before the whole body is sent.
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
fn json_option_prints_one_line_for_each_delivery() {
    crate::support::run(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (code, _, err) = run(&["webhook", "listen", "--addr", &address.to_string()]);
        assert!(code == Some(1) && err.contains("with --addr"), "{err}");
        drop(taken);

        let mut program = Program::printing(&["webhook", "listen", "--json", "--addr", &address.to_string()]);
        let receiver = Caller(address);
        crate::support::until("the receiver listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
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
fn dev_allows_callbacks_to_the_local_receiver_only() {
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

#[test]
fn asymmetric_key_signs_and_its_public_key_verifies() {
    let (code, file, _) = run(&["webhook", "secret", "--asymmetric"]);
    assert_eq!(code, Some(0));
    let private = file.lines().find(|line| line.starts_with("whsk_")).unwrap();
    let public = file.split_whitespace().find(|word| word.starts_with("whpk_")).unwrap();
    assert_eq!(file.lines().filter(|line| !line.starts_with('#')).count(), 1);
    let arguments = signed(private, "{}", 5);
    assert!(arguments[2].contains("v1a,"), "{arguments:?}");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for key in [public, private] {
        let (code, text, _) = verify(&[&["--secret", key], &arguments[..]].concat(), "{}");
        assert_eq!((code, text.starts_with("verified: ")), (Some(0), true), "{text}");
    }
    let (code, _, error) = verify(&[&["--secret", public], &arguments[..]].concat(), "{ }");
    assert!(code == Some(1) && error.contains("no signature matches"), "{error}");
    // The configuration takes the private key, and no public one.
    for (secret, exit) in [(private, Some(0)), (public, Some(78))] {
        let endpoint = format!("{CONFIG}[[bots.webhooks]]\nname = \"main\"\nsecrets = [\"{secret}\"]\n");
        let (_dir, bridge) = config(&endpoint);
        let (code, _, error) = run(&["check-config", "--config", &bridge]);
        assert_eq!(code, exit, "{error}");
        assert!(!error.contains(secret));
    }
}

#[test]
fn test_event_of_the_configuration_prints_the_answer() {
    crate::support::run(async {
        let receiver = crate::support::Receiver::start();
        let endpoint = |name: &str, path: &str| {
            format!(
                "[[bots.webhooks]]\nname = \"{name}\"\nurl = \"{}\"\nsecrets = [\"{SECRET}\"]\n",
                receiver.url(path)
            )
        };
        let private = "[webhooks]\nallow_private = [\"127.0.0.0/8\"]\n";
        let text = format!("{CONFIG}{}{}{private}", endpoint("crm", "/crm"), endpoint("audit", "/audit"));
        let (_dir, path) = config(&text);
        let try_endpoint = async |arguments: &[&str]| {
            let arguments: Vec<String> = [&["webhook", "test", "--config", &path], arguments]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect();
            tokio::task::spawn_blocking(move || {
                run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .await
            .unwrap()
        };
        let bot = "support";
        let (code, out, err) = try_endpoint(&[bot, "crm"]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("204 in ") && out.ends_with(" ms\n"), "{out}");
        let request = receiver.requests_at_least(1).await.remove(0);
        assert_eq!((&*request.path, &request.json()["type"]), ("/crm", &json!("test")));
        assert!(request.is_signed_with(SECRET));
        receiver.answers(|_| crate::support::ReceiverAnswer::status(401));
        let (code, out, err) = try_endpoint(&[bot, "audit"]).await;
        assert_eq!(code, Some(1), "{out}");
        assert!(out.starts_with("401 in ") && err.contains("the receiver answered 401"), "{out}{err}");
        let (code, _, err) = try_endpoint(&[]).await;
        assert!(code == Some(1) && err.contains("several endpoints") && err.contains("audit"), "{err}");
        let (code, _, err) = try_endpoint(&[bot, "gone"]).await;
        assert!(code == Some(1) && err.contains("no such endpoint"), "{err}");
        // Without the range the guard refuses the address.
        let (_dir, path) = config(&format!("{CONFIG}{}", endpoint("crm", "/crm")));
        let (code, _, err) = run(&["webhook", "test", "--config", &path]);
        assert!(code == Some(1) && err.contains("not public"), "{err}");
    });
}
