//! The program from end to end: commands, a configuration file, signals.

use std::net::SocketAddr;

use rtm_sandbox::{Sandbox, SocketEnd, Step};
use serde_json::{Value, json};

use crate::support::{Caller, Program, Request, quiet_platform, run};

/// Writes an operator's configuration into a temporary directory.
fn config(platform: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, secret) = (path("bridge.toml"), path("secret"));
    std::fs::write(&secret, "sandbox-secret\n").unwrap();
    let text = format!(
        r#"
default_bot = "support"
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
grace = "0ms"
drain_timeout = "5s"
[store]
url = "memory://"
message_ttl = "24h"
[reply]
default_wait = "15s"
[[bots]]
name = "support"
platform = "{platform}"
api_path = "/api/1.1"
chat_bot = "Sandbox"
task_bot_id = "st-sandbox"
client_id = "cs-sandbox"
client_secret_file = "{secret}"
algorithm = "HS256"
connection_mode = "connectionMode"
quiet = "400ms"
deadline = "10s"
welcome = "500ms"
idle_ttl = "15m"
[log]
format = "json"
filter = "info"
"#
    );
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

/// Starts the service and waits until it is ready.
async fn serve(config: &str) -> (Program, Caller, Caller) {
    let mut program = Program::logging(&["serve", "--config", config]);
    let line: Value = serde_json::from_str(&program.line_with("the bridge is ready").await).unwrap();
    let address = |name: &str| -> SocketAddr { line[name].as_str().unwrap().parse().unwrap() };
    let (api, admin) = (Caller(address("api")), Caller(address("admin")));
    (program, api, admin)
}

#[test]
fn service_answers_before_the_simulated_platform() {
    run(async {
        let mut platform = Program::printing(&["sandbox", "--listen", "127.0.0.1:0"]);
        let line = platform.line_with("listens on").await;
        let url = line.trim().rsplit_once(' ').unwrap().1.to_owned();
        let (_dir, file) = config(&url);
        let (service, api, admin) = serve(&file).await;
        assert_eq!(admin.get("/readyz").await.status, 200);
        let answer = api.send(Request::message("alice", &json!({"text": "Where is my order?"}))).await;
        let message = answer.message(200);
        assert_eq!((&message["bot"], &message["endedBy"]), (&json!("support"), &json!("inputWait")));
        assert_eq!(message["replies"][0]["text"], "Let me look that up. What is your order number?");
        let answer = api.send(Request::message("alice", &json!({"text": "4711"}))).await;
        let replies = answer.message(200)["replies"].clone();
        assert!(replies[0]["text"].as_str().unwrap().contains("4711"), "{replies}");
        assert_eq!(service.terminate().await.code(), Some(0));
        assert_eq!(platform.terminate().await.code(), Some(0));
    });
}

#[test]
fn signal_stops_the_service_gracefully() {
    run(async {
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let script = sandbox.script();
        let (_dir, file) = config(&sandbox.url());
        let (service, api, _) = serve(&file).await;
        script.next("idle", Step::reply("x"));
        script.next("idle", Step::reply("x"));
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        api.send(Request::message("idle", &body)).await.message(200);
        // A turn is open at the signal.
        let gate = rtm_sandbox::Gate::new();
        let until = Step::Until(gate.clone());
        script.next("alice", vec![Step::Ack, until, Step::Say("in time".to_owned())]);
        let waiting = api.send(Request::message("alice", &body).prefer("wait=20"));
        let end = async {
            script.seen("alice", 1).await;
            let ended = service.terminate();
            let refused = async {
                // The listener closes last. Until then new requests get an answer.
                let again = Request::message("idle", &body).header("Idempotency-Key", "k");
                while api.send(again.clone()).await.status != 503 {}
                gate.open();
            };
            tokio::join!(ended, refused).0
        };
        let began = tokio::time::Instant::now();
        let (answer, status) = tokio::join!(waiting, end);
        assert_eq!(answer.message(200)["replies"][0]["text"], "in time");
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed().as_secs() < 6, "{:?}", began.elapsed());
        for user in ["alice", "idle"] {
            let seen = script.closed(user, 1).await;
            assert!(matches!(seen.closes[0].ending, SocketEnd::ByClient(Some(_))), "{:?}", seen.closes[0]);
        }
        sandbox.stop().await;
    });
}

#[test]
fn output_of_dev_can_be_pasted() {
    run(async {
        let mut dev = Program::printing(&["dev", "--port", "0", "--admin-port", "0"]);
        let first = dev.line_with("curl").await;
        let second = dev.line_with("-d '").await;
        let url = first.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
        let (address, path) = url.split_once('/').unwrap();
        let header = second.split_once("-H '").unwrap().1.split_once('\'').unwrap().0;
        let (name, value) = header.split_once(": ").unwrap();
        let body = second.split_once("-d '").unwrap().1.split_once('\'').unwrap().0;
        let request = Request::new("POST", format!("/{path}")).header(name, value).body(body);
        let message = Caller(address.parse().unwrap()).send(request).await.message(200);
        assert_eq!(message["status"], "answered");
        assert_eq!(message["replies"][0]["text"], "Let me look that up. What is your order number?");
        assert_eq!(dev.terminate().await.code(), Some(0));
    });
}
