//! Callers by token, and read tokens for browsers (api.md 6).

use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rtm_bridge::config::fixtures::caller;
use rtm_bridge::config::{CallerConfig, CallerScopes, CallerTokenConfig, Config, TokenKeySource};
use rtm_bridge::domain::Timestamp;
use rtm_bridge::store::Clock;
use rtm_sandbox::Step;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Answer, Request, TestBridge, run, spawn_bridge, until};

const ALL: CallerScopes = CallerScopes { send: true, read: true, admin: true };

/// An issuer with its key set on a port of its own.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<IssuerKey>>>,
    /// The number of requests for the key set.
    asked: Arc<Mutex<usize>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct IssuerKey {
    id: String,
    private: EncodingKey,
    public: String,
}

impl IssuerKey {
    fn new(id: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self {
            id: id.to_owned(),
            private: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
            public: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
        }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": self.public})
    }
}

impl Issuer {
    /// Starts an issuer with these keys. Without one it answers 503.
    async fn start(keys: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let keys = Arc::new(Mutex::new(keys.iter().map(|id| IssuerKey::new(id)).collect::<Vec<_>>()));
        let asked = Arc::new(Mutex::new(0));
        let (shown, counted) = (Arc::clone(&keys), Arc::clone(&asked));
        let mut server = JoinSet::new();
        server.spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                *counted.lock().unwrap() += 1;
                let keys: Vec<_> = shown.lock().unwrap().iter().map(IssuerKey::jwk).collect();
                let status = if keys.is_empty() { "503 Service Unavailable" } else { "200 OK" };
                let body = json!({"keys": keys}).to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        Self { url, keys, asked, _server: server }
    }

    /// Adds a key, which signs further tokens.
    fn add_key(&self, id: &str) {
        self.keys.lock().unwrap().push(IssuerKey::new(id));
    }

    /// Returns a token by the newest key, with these changes of its claims.
    fn token(&self, changes: Value) -> String {
        let key = self.keys.lock().unwrap().last().unwrap().clone();
        sign(&key, changes)
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    /// Returns a caller whose tokens come from this issuer.
    fn caller(&self, change: impl FnOnce(&mut CallerTokenConfig)) -> CallerConfig {
        let mut jwt = CallerTokenConfig {
            issuer: "https://idp.example".into(),
            audience: vec!["rtm-bridge".into()],
            keys: TokenKeySource::Remote { url: self.url.parse().unwrap(), ca: None, proxy: None },
            algorithms: vec![Algorithm::EdDSA],
            user_claim: None,
            scopes_claim: None,
            bots_claim: None,
            name_claim: None,
        };
        change(&mut jwt);
        CallerConfig { key_sha256: None, jwt: Some(Arc::new(jwt)), ..caller("portal", ALL) }
    }
}

fn now() -> Timestamp {
    Clock::wall().now()
}

fn sign(key: &IssuerKey, changes: Value) -> String {
    let mut claims = json!({
        "iss": "https://idp.example", "aud": "rtm-bridge", "exp": now().as_millis() / 1000 + 300,
    });
    let (Some(all), Value::Object(changes)) = (claims.as_object_mut(), changes) else { panic!() };
    all.extend(changes);
    let header = Header { kid: Some(key.id.clone()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &key.private).unwrap()
}

async fn bridge_for(callers: Vec<CallerConfig>) -> TestBridge {
    let bridge = spawn_bridge(|config: &mut Config| config.callers = callers).await;
    bridge.script.bot(|_, _| Step::reply("x"));
    bridge
}

async fn send(bridge: &TestBridge, token: &str, user: &str) -> Answer {
    let request = Request::message(user, &json!({"text": "hi", "turn": {"expectReplies": 1}}));
    bridge.send(with(request, token)).await
}

fn with(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

#[test]
fn token_of_the_issuer_is_a_caller() {
    run(async {
        let issuer = Issuer::start(&["k1"]).await;
        let bridge = bridge_for(vec![issuer.caller(|_| {}), caller("by-key", ALL)]).await;
        send(&bridge, &issuer.token(json!({})), "ann").await.message(200);
        send(&bridge, "by-key", "ann").await.message(200);
        let stranger = IssuerKey::new("k1");
        for bad in [
            issuer.token(json!({"aud": "elsewhere"})),
            issuer.token(json!({"iss": "https://other.example"})),
            issuer.token(json!({"exp": now().as_millis() / 1000 - 61})),
            issuer.token(json!({"nbf": now().as_millis() / 1000 + 300})),
            sign(&stranger, json!({})),
            "a.b.c".to_owned(),
        ] {
            let answer = send(&bridge, &bad, "ann").await;
            let problem = answer.problem(401, "unauthorized");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{answer}");
            assert!(!problem.to_string().contains(&bad), "tokens are not repeated");
        }
        let bare = bridge.send(Request::message("ann", &json!({"text": "hi"}))).await;
        bare.problem(401, "unauthorized");
        assert_eq!(
            bare.header("www-authenticate"),
            Some("Bearer"),
            "RFC 6750, 3.1: no error without credentials"
        );
        bridge.finish().await;
    });
}

#[test]
fn claims_narrow_the_configuration() {
    run(async {
        let issuer = Issuer::start(&["k1"]).await;
        let portal = issuer.caller(|jwt| {
            jwt.user_claim = Some("sub".into());
            jwt.scopes_claim = Some("scope".into());
        });
        let bridge = bridge_for(vec![portal]).await;
        let token = |scope: &str| issuer.token(json!({"sub": "ann", "scope": scope}));
        send(&bridge, &token("send openid"), "ann").await.message(200);
        send(&bridge, &token("send"), "bob").await.problem(403, "forbidden");
        let merging = Request::message("ann", &json!({"text": "hi", "mergeWith": "bob"}));
        bridge.send(with(merging, &token("send"))).await.problem(403, "forbidden");
        let narrow = send(&bridge, &token("read"), "ann").await;
        narrow.problem(403, "forbidden");
        let challenge = narrow.header("www-authenticate").unwrap();
        assert_eq!(challenge, "Bearer error=\"insufficient_scope\", scope=\"send\"");
        send(&bridge, &issuer.token(json!({"scope": "send"})), "ann").await.problem(401, "unauthorized");
        for target in ["/conversations", "/deliveries", "/bots/sandbox/rhythm"] {
            let answer = bridge.send(with(Request::get(target), &token("admin"))).await;
            answer.problem(403, "forbidden");
        }
        bridge.finish().await;
    });
}

#[test]
fn rotated_key_fails_no_request() {
    run(async {
        let issuer = Issuer::start(&["k1"]).await;
        let bridge = bridge_for(vec![issuer.caller(|_| {})]).await;
        send(&bridge, &issuer.token(json!({})), "ann").await.message(200);
        let first = issuer.asked();
        let old = issuer.token(json!({}));
        issuer.add_key("k2");
        let new = issuer.token(json!({}));
        let (one, two, three) =
            tokio::join!(send(&bridge, &new, "ann"), send(&bridge, &old, "bob"), send(&bridge, &new, "eve"));
        for answer in [one, two, three] {
            answer.message(200);
        }
        let after = issuer.asked();
        assert_eq!(after, first + 1, "requests share a fetch");
        // An invented key id causes no fetch within the minute.
        let stranger = IssuerKey::new("k3");
        for _ in 0..3 {
            send(&bridge, &sign(&stranger, json!({})), "ann").await.problem(401, "unauthorized");
        }
        assert_eq!(issuer.asked(), after);
        bridge.finish().await;
    });
}

#[test]
fn issuer_that_is_away_is_asked_again() {
    run(async {
        let issuer = Issuer::start(&[]).await;
        let bridge = bridge_for(vec![issuer.caller(|_| {}), caller("by-key", ALL)]).await;
        until("the bridge asked for the keys", async || issuer.asked() > 0).await;
        let key = IssuerKey::new("k1");
        let refused = send(&bridge, &sign(&key, json!({})), "ann").await;
        refused.problem(503, "issuer-unavailable");
        assert!(refused.retry_after() > 0);
        send(&bridge, "by-key", "ann").await.message(200);
        issuer.keys.lock().unwrap().push(key.clone());
        until("the keys are known", async || {
            send(&bridge, &sign(&key, json!({})), "ann").await.status == 200
        })
        .await;
        // Known keys stay in use while the issuer is away.
        issuer.keys.lock().unwrap().clear();
        send(&bridge, &sign(&key, json!({})), "ann").await.message(200);
        bridge.finish().await;
    });
}

#[test]
fn browser_reads_events_by_a_read_token() {
    run(async {
        let reader = CallerConfig {
            user_prefix: "a".to_owned(),
            ..caller("page", CallerScopes { send: true, read: true, admin: false })
        };
        let bridge =
            bridge_for(vec![reader, caller("sends", CallerScopes { send: true, read: false, admin: false })])
                .await;
        let ask = |key: &'static str, body: Value| {
            bridge.send(with(Request::new("POST", "/tokens").json(&body), key))
        };
        let issued = ask("page", json!({"user": "ann", "ttl": "10m"})).await.message(200);
        let token = issued["token"].as_str().unwrap().to_owned();
        assert_eq!(issued["user"], "ann");
        let ends = Timestamp::parse(issued["expiresAt"].as_str().unwrap()).unwrap();
        assert!((595..=600).contains(&ends.since(now()).as_secs()), "{issued}");
        send(&bridge, "page", "ann").await.message(200);
        let page = bridge.api.get(format!("/conversations/ann/events?token={token}")).await;
        assert!(!page.message(200)["events"].as_array().unwrap().is_empty());
        assert_eq!(page.header("access-control-allow-origin"), Some("*"));
        let stream =
            bridge.api.events(&format!("/conversations/ann/events?after=latest&token={token}")).await;
        drop(stream);
        // It serves no other user, route or method, and no other place.
        for target in [
            format!("/conversations/bob/events?token={token}"),
            format!("/conversations/ann?token={token}"),
            format!("/conversations/ann/events?token={token}x"),
            format!("/conversations/ann/events?token={token}&token={token}"),
            "/conversations/ann/events?token=a.b.c".to_owned(),
            "/conversations/ann/events?token=".to_owned(),
        ] {
            let answer = bridge.api.get(target.clone()).await;
            assert!(matches!(answer.status, 401 | 403), "{target}: {answer}");
        }
        let by_header = bridge.send(with(Request::get("/conversations/ann/events"), &token)).await;
        by_header.problem(401, "unauthorized");
        ask("page", json!({"user": "bob"})).await.problem(403, "forbidden");
        ask("sends", json!({"user": "ann"})).await.problem(403, "forbidden");
        ask("page", json!({"user": "ann", "ttl": "2h"})).await.problem(400, "invalid-request");
        ask("page", json!({"user": "ann", "bot": "nobody"})).await.problem(404, "not-found");
        bridge.finish().await;
    });
}

#[test]
fn stream_ends_with_its_read_token() {
    run(async {
        let bridge = bridge_for(vec![caller("page", ALL)]).await;
        let request = Request::new("POST", "/tokens").json(&json!({"user": "ann", "ttl": 2}));
        let issued = bridge.send(with(request, "page")).await.message(200);
        let token = issued["token"].as_str().unwrap().to_owned();
        let target = format!("/conversations/ann/events?after=latest&token={token}");
        let mut stream = bridge.api.events(&target).await;
        while stream.block().await.is_some() {}
        bridge.api.get(target).await.problem(401, "unauthorized");
        assert_eq!(bridge.metric(r#"event_streams_ended_total{reason="revoked"}"#).await, 1);
        bridge.finish().await;
    });
}
