//! Deliveries as operators use them (api.md 4): list, read, and redeliver.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use rtm_bridge::config::{CallerConfig, CallerScopes, Config, fixtures};
use rtm_sandbox::Step;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Answer, Request, TestBridge, run, spawn_bridge, until};

/// Returns a caller with a webhook secret. Its key is its name.
fn caller(name: &str, scopes: CallerScopes, user_prefix: &str) -> CallerConfig {
    CallerConfig {
        user_prefix: user_prefix.to_owned(),
        webhook_secrets: vec![format!("whsec_{}", "QUFB".repeat(8)).into()],
        ..fixtures::caller(name, scopes)
    }
}

const SEND: CallerScopes = CallerScopes { send: true, read: true, admin: false };
const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };

async fn send(bridge: &TestBridge, key: &str, request: Request) -> Answer {
    bridge.send(request.header("Authorization", &format!("Bearer {key}"))).await
}

async fn list(bridge: &TestBridge, key: &str, query: &str) -> Value {
    send(bridge, key, Request::get(format!("/deliveries{query}"))).await.message(200)
}

fn ids(page: &Value) -> Vec<&str> {
    page["deliveries"].as_array().unwrap().iter().map(|delivery| delivery["id"].as_str().unwrap()).collect()
}

#[test]
fn deliveries_without_the_scope_admin_are_forbidden() {
    run(async {
        let bridge = bridge_for_port(9).await;
        let id = "01JD9ZZZZZZZZZZZZZZZZZZZZZ";
        for (method, target) in [
            ("GET", "/deliveries".to_owned()),
            ("GET", format!("/deliveries/{id}")),
            ("POST", format!("/deliveries/{id}/redeliver")),
            ("POST", "/deliveries/redrive".to_owned()),
        ] {
            let request = || Request::new(method, target.clone()).json(&json!({"state": "dead"}));
            bridge.send(request()).await.problem(401, "unauthorized");
            send(&bridge, "crm", request()).await.problem(403, "forbidden");
            let status = send(&bridge, "ops", request()).await.status;
            assert_eq!(status, if target.contains(id) { 404 } else { 200 }, "{method} {target}");
            let other = if method == "GET" { "PUT" } else { "GET" };
            if target != "/deliveries/redrive" {
                let refused = send(&bridge, "ops", Request::new(other, target.clone())).await;
                refused.problem(405, "method-not-allowed");
            }
        }
        assert_eq!(list(&bridge, "ops", "").await, json!({"deliveries": [], "next": null}));
        send(&bridge, "eu-ops", Request::get("/deliveries?user=us-1")).await.problem(403, "forbidden");
        for query in ["?state=lost", "?after=x", "?limit=0", "?limit=1001", "?since=now", "?message=x"] {
            send(&bridge, "ops", Request::get(format!("/deliveries{query}")))
                .await
                .problem(400, "invalid-request");
        }
        for body in [json!({}), json!({"state": "pending"}), json!({"state": "dead", "all": true})] {
            let redrive = Request::new("POST", "/deliveries/redrive").json(&body);
            send(&bridge, "ops", redrive).await.problem(400, "invalid-request");
        }
        bridge.finish().await;
    });
}

/// A receiver that answers every request with the current status and records the ids.
#[derive(Clone)]
struct StatusReceiver {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl StatusReceiver {
    /// Opens a receiver and its listener. The test polls `serve` beside its own work.
    async fn open(status: u16) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self { address, status: Arc::new(status.into()), seen: Arc::default() }, listener)
    }

    async fn serve(&self, listener: &TcpListener) {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            // A closed connection is no fault in these tests.
            self.answer(connection).await.ok();
        }
    }

    async fn answer(&self, mut connection: TcpStream) -> io::Result<()> {
        let mut inbox = Vec::new();
        let head = loop {
            if let Some(at) = inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if connection.read_buf(&mut inbox).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8(inbox[..head].to_vec()).unwrap().to_lowercase();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = value("content-length:").map_or(0, |length| length.parse().unwrap());
        while inbox.len() < head + length {
            if connection.read_buf(&mut inbox).await? == 0 {
                return Ok(());
            }
        }
        self.seen.lock().unwrap().push(value("webhook-id:").unwrap().to_uppercase());
        let status = self.status.load(Ordering::Relaxed);
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthere");
        connection.write_all(answer.as_bytes()).await
    }

    fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Runs a test beside a receiver that answers with this status.
fn beside(status: u16, test: impl AsyncFnOnce(StatusReceiver)) {
    run(async {
        let (receiver, listener) = StatusReceiver::open(status).await;
        tokio::select! {
            () = test(receiver.clone()) => {}
            () = receiver.serve(&listener) => {}
        }
    });
}

/// Starts a bridge that may deliver to a receiver at this port.
async fn bridge_for_port(port: u16) -> TestBridge {
    let pattern = format!("http://127.0.0.1:{port}/");
    let bridge = spawn_bridge(|config: &mut Config| {
        config.webhooks.allowed = vec![pattern.parse().unwrap()];
        config.webhooks.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
        config.callers =
            vec![caller("crm", SEND, ""), caller("ops", ADMIN, ""), caller("eu-ops", ADMIN, "eu-")];
    })
    .await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

/// Posts a message of this user and waits until its delivery has this state.
async fn deliver(bridge: &TestBridge, receiver: &StatusReceiver, user: &str, state: &str) -> Value {
    let body = json!({"text": "hi", "turn": {"expectReplies": 1}, "callback": {"url": receiver.url()}});
    let message = send(bridge, "crm", Request::message(user, &body).prefer("wait=20")).await.message(200);
    delivery_when(bridge, &format!("?user={user}"), |delivery| {
        delivery["messageId"] == message["id"] && delivery["state"] == state
    })
    .await
}

/// Waits for a delivery of this query that meets the condition, and returns it.
async fn delivery_when(bridge: &TestBridge, query: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    until("the delivery meets the condition", async || {
        let page = list(bridge, "ops", query).await;
        found = page["deliveries"].as_array().unwrap().iter().find(|delivery| is_so(delivery)).cloned();
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[test]
fn dead_delivery_is_found_read_and_redelivered() {
    beside(410, async |receiver| {
        let bridge = bridge_for_port(receiver.address.port()).await;
        let dead = deliver(&bridge, &receiver, "alice", "dead").await;
        let id = dead["id"].as_str().unwrap();
        assert_eq!(
            (&dead["type"], &dead["user"], &dead["target"]),
            (&json!("message.answered"), &json!("alice"), &json!(receiver.url()))
        );
        assert!(dead["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{dead}");
        assert_eq!(dead["nextAttemptAt"], Value::Null);
        let attempt = &dead["attempts"][0];
        assert_eq!((&attempt["status"], &attempt["response"]), (&json!(410), &json!("there")));
        let shown = send(&bridge, "ops", Request::get(format!("/deliveries/{id}"))).await.message(200);
        assert_eq!(shown, dead);
        receiver.status.store(204, Ordering::Relaxed);
        let again = Request::new("POST", format!("/deliveries/{id}/redeliver"));
        let queued = send(&bridge, "ops", again).await.message(202);
        assert_eq!(queued["id"], id);
        let done = delivery_when(&bridge, "", |delivery| delivery["state"] == "delivered").await;
        assert_eq!((&done["id"], done["attempts"].as_array().unwrap().len()), (&json!(id), 2));
        assert_eq!(receiver.seen(), [id, id], "under the same webhook-id");
        bridge.finish().await;
    });
}

#[test]
fn deliveries_of_a_message_are_found_by_its_id() {
    beside(204, async |receiver| {
        let bridge = bridge_for_port(receiver.address.port()).await;
        let mut delivered = Vec::new();
        for user in ["eu-1", "us-1", "eu-1"] {
            delivered.push(deliver(&bridge, &receiver, user, "delivered").await);
        }
        for one in &delivered {
            let page =
                list(&bridge, "ops", &format!("?message={}", one["messageId"].as_str().unwrap())).await;
            assert_eq!(page, json!({"deliveries": [one], "next": null}));
        }
        let message = delivered[1]["messageId"].as_str().unwrap();
        let hidden = list(&bridge, "eu-ops", &format!("?message={message}")).await;
        assert_eq!(ids(&hidden), [""; 0], "the key does not cover its user");
        let dead = list(&bridge, "ops", &format!("?message={message}&state=dead")).await;
        assert_eq!(ids(&dead), [""; 0]);
        let unknown = list(&bridge, "ops", "?message=01JD9ZZZZZZZZZZZZZZZZZZZZZ").await;
        assert_eq!(unknown, json!({"deliveries": [], "next": null}));
        bridge.finish().await;
    });
}

#[test]
fn redrive_covers_only_deliveries_of_the_caller() {
    beside(410, async |receiver| {
        let bridge = bridge_for_port(receiver.address.port()).await;
        let mut written = Vec::new();
        for user in ["eu-1", "us-1", "eu-2"] {
            written.push(deliver(&bridge, &receiver, user, "dead").await["id"].as_str().unwrap().to_owned());
        }
        written.reverse();
        assert_eq!(ids(&list(&bridge, "ops", "?state=dead").await), written);
        assert_eq!(ids(&list(&bridge, "eu-ops", "?state=dead").await), [&written[0], &written[2]]);
        let first = list(&bridge, "ops", "?limit=2").await;
        let rest = list(&bridge, "ops", &format!("?limit=2&after={}", first["next"].as_str().unwrap())).await;
        assert_eq!([ids(&first), ids(&rest)].concat(), written);
        let hidden = format!("/deliveries/{}", written[1]);
        send(&bridge, "eu-ops", Request::get(hidden.clone())).await.problem(404, "not-found");
        let again = Request::new("POST", format!("{hidden}/redeliver"));
        send(&bridge, "eu-ops", again).await.problem(404, "not-found");

        receiver.status.store(200, Ordering::Relaxed);
        let redrive = async |key: &str, body: Value| {
            send(&bridge, key, Request::new("POST", "/deliveries/redrive").json(&body)).await.message(200)
        };
        let dry = json!({"state": "dead", "dryRun": true});
        assert_eq!(redrive("ops", dry).await, json!({"count": 3, "hasMore": false}));
        assert_eq!(receiver.seen().len(), 3, "only counted");
        assert_eq!(redrive("eu-ops", json!({"state": "dead"})).await["count"], 2);
        for id in [&written[0], &written[2]] {
            delivery_when(&bridge, "?state=delivered", |delivery| delivery["id"] == id.as_str()).await;
        }
        assert_eq!(ids(&list(&bridge, "ops", "?state=dead").await), [&written[1]]);
        assert_eq!(redrive("ops", json!({"state": "dead"})).await["count"], 1);
        delivery_when(&bridge, "?user=us-1", |delivery| delivery["state"] == "delivered").await;
        assert_eq!(redrive("ops", json!({"state": "dead"})).await["count"], 0);
        bridge.finish().await;
    });
}
