//! All refusals that need no turn, through the real routes.
//!
//! The hub is draining, so it refuses every valid message as `draining`.

use std::time::Duration;

use actix_web::App;
use actix_web::body::MessageBody as _;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service};
use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::domain::BotName;
use crate::metrics::LabelSets;
use crate::store::{Clock, MemoryLimits, Store};

const PASSES: &str = r#"{"text":"hi"}"#;
const ALICE: &str = "/conversations/alice/messages";

fn store() -> Store {
    Store::memory(MemoryLimits::new(0, Duration::ZERO))
}

fn bot(name: &str) -> Arc<config::BotConfig> {
    Arc::new(config::fixtures::bot(name))
}

pub(super) fn caller(
    name: &str,
    scopes: config::CallerScopes,
    bots: Option<&[&str]>,
    user_prefix: &str,
) -> config::CallerConfig {
    config::CallerConfig {
        bots: bots.map(|bots| bots.iter().map(|bot| BotName::new(bot).unwrap()).collect()),
        user_prefix: user_prefix.to_owned(),
        ..config::fixtures::caller(name, scopes)
    }
}

pub(super) fn config() -> Config {
    let second = Duration::from_secs(1);
    Config {
        default_bot: None,
        server: config::ServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            grace: second,
            drain_timeout: second,
            ready_without_store: Duration::ZERO,
            metrics_token: None,
            tls: None,
            max_sockets: 10,
            max_connections: 64,
            memory_limit: 32 << 20,
            max_requests: 10,
            max_streams: 10,
            threads: 1,
        },
        store: config::StoreConfig {
            url: config::StoreUrl::Memory,
            key_prefix: "rtm".to_owned(),
            message_ttl: second,
            command_timeout: second,
            wait_replicas: 0,
            memory_limit: 1 << 20,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            tls: config::StoreTls::default(),
        },
        cluster: config::ClusterConfig { replica_id: "one".to_owned(), lease_ttl: second },
        reply: config::ReplyConfig { default_wait: second },
        bots: vec![bot("support")],
        callers: Vec::new(),
        webhooks: config::WebhooksConfig {
            allowed: Vec::new(),
            allow_private: Vec::new(),
            timeout: second,
            ..config::WebhooksConfig::default()
        },
        log: config::LogConfig::default(),
    }
}

/// A complete response.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Vec<u8>,
    closes: bool,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Checks that the response is this problem, and returns its body.
    pub(super) fn problem(&self, slug: &str) -> Value {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let kind = ProblemKind::from_slug(slug).unwrap();
        assert_eq!(body["type"], format!("/problems/{slug}"), "{body}");
        assert_eq!(self.status, kind.status(), "{body}");
        assert_eq!(body["status"], kind.status());
        assert_eq!(body["title"], kind.title());
        assert!(!body["detail"].as_str().unwrap().is_empty());
        assert!(body["instance"].as_str().unwrap().starts_with('/'));
        assert_eq!(body["traceId"].as_str().unwrap().len(), 32);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(body.get("errors").is_some(), slug == "invalid-request");
        body
    }

    /// Returns the pointers of a 400.
    pub(super) fn pointers(&self) -> Vec<String> {
        let body = self.problem("invalid-request");
        let errors = body["errors"].as_array().unwrap();
        assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(LabelSets { frames_in: &[], frames_out: &[], routes: ROUTES }).unwrap())
}

pub(super) fn send_to(config: Config, request: TestRequest) -> Answer {
    let mut answers = send_all(config, [request]);
    answers.pop().unwrap()
}

/// Sends requests to one bridge, one after the other.
pub(super) fn send_all(config: Config, requests: impl IntoIterator<Item = TestRequest>) -> Vec<Answer> {
    send_all_on(store(), config, requests)
}

/// Sends requests to a bridge on this store.
pub(super) fn send_all_on(
    store: Store,
    config: Config,
    requests: impl IntoIterator<Item = TestRequest>,
) -> Vec<Answer> {
    let context = Arc::new(ApiContext::new(Hub::closed(store), Arc::new(config), metrics(), Clock::wall()));
    actix_web::rt::System::new().block_on(async move {
        let app = init_service(App::new().configure(configure(context))).await;
        let mut answers = Vec::new();
        for request in requests {
            let response = call_service(&app, request.to_request()).await.into_parts().1;
            answers.push(Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                closes: response.head().connection_type() == actix_web::http::ConnectionType::Close,
                body: response.into_body().try_into_bytes().unwrap().to_vec(),
            });
        }
        answers
    })
}

fn send(request: TestRequest) -> Answer {
    send_to(config(), request)
}

pub(super) fn post(uri: &str, body: impl Into<bytes::Bytes>) -> TestRequest {
    TestRequest::post().uri(uri).insert_header(("content-type", "application/json")).set_payload(body)
}

pub(super) fn with_key(request: TestRequest, name: &str) -> TestRequest {
    request.insert_header(("authorization", format!("Bearer {name}")))
}

#[test]
fn unknown_path_is_a_problem() {
    for path in ["/", "/conversations/", "/conversations/alice/", &format!("{ALICE}/"), "/problems/", "/DOCS"]
    {
        let body = send(TestRequest::get().uri(path)).problem("not-found");
        assert_eq!(body["instance"], path);
    }
    send(TestRequest::get().uri("/problems/nonsense")).problem("not-found");
}

#[test]
fn wrong_method_names_the_allowed_ones() {
    for (method, path, allow) in [
        (Method::GET, ALICE, "POST"),
        (Method::OPTIONS, ALICE, "POST"),
        (Method::POST, "/conversations/alice/messages/1", "GET, HEAD"),
        (Method::DELETE, "/docs", "GET, HEAD"),
        (Method::PUT, "/openapi.json", "GET, HEAD"),
        (Method::PATCH, "/problems/internal", "GET, HEAD"),
        (Method::POST, "/deliveries", "GET, HEAD"),
        (Method::DELETE, "/deliveries/01JD9ZZZZZZZZZZZZZZZZZZZZZ", "GET, HEAD"),
        (Method::GET, "/deliveries/01JD9ZZZZZZZZZZZZZZZZZZZZZ/redeliver", "POST"),
        (Method::GET, "/deliveries/redrive", "POST"),
    ] {
        let answer = send(TestRequest::default().method(method).uri(path));
        answer.problem("method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}

#[test]
fn body_must_be_declared_as_json() {
    for kind in ["text/plain", "application/jsonp", "application/+json", "json", "text/json", ""] {
        send(TestRequest::post().uri(ALICE).insert_header(("content-type", kind)).set_payload(PASSES))
            .problem("unsupported-media-type");
    }
    send(TestRequest::post().uri(ALICE).set_payload(PASSES)).problem("unsupported-media-type");
    send(post(ALICE, PASSES).insert_header(("content-encoding", "gzip"))).problem("unsupported-media-type");
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.crm+json;v=1"] {
        send(TestRequest::post().uri(ALICE).insert_header(("content-type", kind)).set_payload(PASSES))
            .problem("draining");
    }
}

#[test]
fn body_size_is_limited() {
    let most = format!("{PASSES}{}", " ".repeat(request_body::MAX_BODY_BYTES - PASSES.len()));
    send(post(ALICE, most.clone())).problem("draining");
    let answer = send(post(ALICE, most + " "));
    answer.problem("payload-too-large");
    assert!(answer.closes);
    let announced = post(ALICE, PASSES).insert_header(("content-length", "1048577"));
    send(announced).problem("payload-too-large");
}

#[test]
fn unreadable_body_has_an_error() {
    for body in
        [&b""[..], b"{", b"{\"text\":\"a\"} x", b"[\"hi\"]", b"\"hi\"", b"null", b"{\"text\":\"\xff\"}"]
    {
        assert_eq!(send(post(ALICE, body.to_vec())).pointers(), [""], "{body:?}");
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let body = json!({
        "text": 5, "color": 1, "session": "later", "turn": {"quietMs": 1, "expectReplies": 1.5, "x": null},
        "attachments": [{"fileId": "f"}, {"fileName": 5}],
    });
    let request = post("/conversations/a%zz/messages?bott=support", body.to_string())
        .insert_header(("prefer", "wait=soon"))
        .insert_header(("idempotency-key", "a b"));
    let mut pointers = send(request).pointers();
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/attachments/1/fileId",
            "/attachments/1/fileName",
            "/color",
            "/session",
            "/text",
            "/turn/expectReplies",
            "/turn/quietMs",
            "/turn/x",
            "header/Idempotency-Key",
            "path/user",
            "query/bott",
        ]
    );
}

#[test]
fn answer_to_a_hostile_request_is_small() {
    let long = "x".repeat(60_000);
    let bodies = [
        format!("{{{}\"text\":1}}", r#""\u0001\u0001":1,"#.repeat(60_000)),
        format!(r#"{{"{}":1}}"#, "\\u0001".repeat(150_000)),
        format!(r#"{{"text":"{}","session":"{0}","resend":"{0}"}}"#, "\\u0001".repeat(50_000)),
        format!(r#"{{"text":"a","callback":{{"url":"{long}"}},"meta":"{long}"}}"#),
    ];
    let requests = bodies.map(|body| post(ALICE, body)).into_iter().chain([
        post(&format!("/conversations/{long}/messages"), PASSES),
        post(&format!("{ALICE}?{}", "a&".repeat(30_000)), PASSES),
        post(&format!("{ALICE}?{long}=1"), PASSES),
        TestRequest::get().uri(&format!("/deliveries/x?{}", "a&".repeat(30_000))),
        TestRequest::get().uri(&format!("/conversations/a/events?after={}&limit={0}", &long[..30_000])),
        TestRequest::get().uri(&format!("/{long}")),
        TestRequest::delete().uri(&format!("/problems/{long}")),
    ]);
    for answer in send_all(config(), requests) {
        assert!((400..500).contains(&answer.status));
        assert!(answer.body.len() < 40_000, "{} bytes", answer.body.len());
    }
}

#[test]
fn single_error_is_named_in_the_detail() {
    let body = send(post(ALICE, "{}")).problem("invalid-request");
    assert_eq!(body["detail"], "/text: is required");
}

#[test]
fn user_is_decoded_once_and_checked() {
    for user in ["a%2Fb", "a%252Fb", "Zo%C3%AB", "%20", "%2E%2E%2E", "+49", "a;b=c", &"x".repeat(256)] {
        send(post(&format!("/conversations/{user}/messages"), PASSES)).problem("draining");
    }
    for user in ["%", "%4", "%gg", "%ff", "a%0Ab", "%7F", ".", "..", "%2e", "%2E.", &"x".repeat(257)] {
        let answer = send(post(&format!("/conversations/{user}/messages"), PASSES));
        assert_eq!(answer.pointers(), ["path/user"], "{user}");
    }
}

#[test]
fn user_of_dots_is_refused_in_every_route() {
    for dots in [".", "%2E%2e"] {
        for request in [
            TestRequest::get().uri(&format!("/conversations/{dots}")),
            TestRequest::delete().uri(&format!("/conversations/{dots}")),
            TestRequest::get().uri(&format!("/conversations/{dots}/events")),
            TestRequest::get().uri(&format!("/conversations/{dots}/messages/01JD9ZZZZZZZZZZZZZZZZZZZZZ")),
        ] {
            let answer = send(request);
            assert_eq!(answer.pointers(), ["path/user"]);
            assert!(answer.problem("invalid-request")["detail"].as_str().unwrap().contains("neither `.`"));
        }
        assert_eq!(
            send(TestRequest::get().uri(&format!("/deliveries?user={dots}"))).pointers(),
            ["query/user"]
        );
    }
    let redrive = post("/deliveries/redrive", r#"{"state":"dead","user":".."}"#);
    assert_eq!(send(redrive).pointers(), ["/user"]);
}

#[test]
fn without_callers_only_this_machine_is_served() {
    let evil = || TestRequest::get().uri(&format!("{ALICE}/1")).insert_header(("host", "evil.example:8080"));
    send(evil()).problem("misdirected-request");
    send(TestRequest::get().uri("/docs").insert_header(("host", "evil.example")))
        .problem("misdirected-request");
    send(TestRequest::get().uri("http://evil.example/docs").insert_header(("host", "localhost")))
        .problem("misdirected-request");
    let twice = TestRequest::get().uri("/docs").append_header(("host", "localhost"));
    send(twice.append_header(("host", "evil.example"))).problem("misdirected-request");
    for host in ["localhost:8080", "127.0.0.1", "[::1]:9"] {
        send(TestRequest::get().uri(&format!("{ALICE}/1")).insert_header(("host", host)))
            .problem("not-found");
    }
    let scopes = config::CallerScopes { read: true, ..config::CallerScopes::default() };
    let closed = Config { callers: vec![caller("crm", scopes, None, "")], ..config() };
    send_to(closed, with_key(evil(), "crm")).problem("not-found");
}

#[test]
fn user_with_a_decoded_slash_gets_a_hint() {
    for path in ["/conversations/a/b", "/conversations/a/b/messages", "/conversations/a/b/messages/1"] {
        let body = send(TestRequest::get().uri(path)).problem("not-found");
        assert!(body["detail"].as_str().unwrap().contains("`%2F`"), "{path}");
    }
    let body = send(TestRequest::get().uri("/nowhere")).problem("not-found");
    assert!(!body["detail"].as_str().unwrap().contains("%2F"));
}

#[test]
fn bot_is_chosen_by_name_or_default() {
    send(post(&format!("{ALICE}?bot=support"), PASSES)).problem("draining");
    send(post(&format!("{ALICE}?bot=sales"), PASSES)).problem("not-found");
    let two = || Config { bots: vec![bot("support"), bot("sales")], ..config() };
    assert_eq!(send_to(two(), post(ALICE, PASSES)).pointers(), ["query/bot"]);
    let default = Config { default_bot: BotName::new("sales").ok(), ..two() };
    send_to(default, post(ALICE, PASSES)).problem("draining");
}

#[test]
fn invalid_id_is_not_found() {
    for id in ["1", "nonsense", "01JD9%2F", "%zz"] {
        send(TestRequest::get().uri(&format!("{ALICE}/{id}"))).problem("not-found");
    }
    let bad_wait = TestRequest::get().uri(&format!("{ALICE}/1")).insert_header(("prefer", "wait=x"));
    send(bad_wait).problem("not-found");
}

#[test]
fn key_is_required_if_callers_are_configured() {
    let all = config::CallerScopes { send: true, read: true, admin: false };
    let closed = || Config { callers: vec![caller("crm", all, None, "")], ..config() };
    let unknown = "Bearer error=\"invalid_token\"";
    for (request, challenge) in [
        (post(ALICE, PASSES), "Bearer"),
        (post("/conversations/%zz/messages?bot=sales", "{"), "Bearer"),
        (with_key(post(ALICE, PASSES), "nobody"), unknown),
        (post(ALICE, PASSES).insert_header(("authorization", "Basic a2V5")), "Bearer"),
        (TestRequest::get().uri(&format!("{ALICE}/1")), "Bearer"),
    ] {
        let answer = send_to(closed(), request);
        answer.problem("unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
    }
    send_to(closed(), with_key(post(ALICE, PASSES), "crm")).problem("draining");
    assert_eq!(send_to(closed(), TestRequest::get().uri("/docs")).status, 200);
}

#[test]
fn key_covers_its_scopes_bots_and_users() {
    let (send_only, read_only) = (
        config::CallerScopes { send: true, ..config::CallerScopes::default() },
        config::CallerScopes { read: true, admin: true, ..config::CallerScopes::default() },
    );
    let callers = || {
        vec![
            caller("sender", send_only, None, ""),
            caller("reader", read_only, None, ""),
            caller("sales", send_only, Some(&["sales"]), ""),
            caller("crm", send_only, None, "crm-"),
        ]
    };
    let check = |request, name: &str, word: &str| {
        let closed = Config { callers: callers(), ..config() };
        let body = send_to(closed, with_key(request, name)).problem("forbidden");
        assert!(body["detail"].as_str().unwrap().contains(word), "{body}");
    };
    check(post(ALICE, PASSES), "reader", "`send`");
    check(TestRequest::get().uri(&format!("{ALICE}/1")), "sender", "`read`");
    check(post(ALICE, PASSES), "sales", "bot");
    check(post(&format!("{ALICE}?bot=unknown"), PASSES), "sales", "bot");
    check(post(ALICE, PASSES), "crm", "user");
    let crm = with_key(post("/conversations/crm%2D7/messages", PASSES), "crm");
    send_to(Config { callers: callers(), ..config() }, crm).problem("draining");
}

#[test]
fn callback_must_be_allowed_and_signed() {
    let body = r#"{"text":"hi","callback":{"url":"https://hooks.example/in"}}"#;
    let of = |pattern: &str, signs: bool| {
        let mut config = config();
        config.webhooks.allowed = vec![pattern.parse().unwrap()];
        let scopes = config::CallerScopes { send: true, ..config::CallerScopes::default() };
        let mut crm = caller("crm", scopes, None, "");
        crm.webhook_secrets = signs.then(|| "whsec_x".into()).into_iter().collect();
        config.callers = vec![crm];
        send_to(config, with_key(post(ALICE, body), "crm"))
    };
    of("https://hooks.example/", true).problem("draining");
    of("https://hooks.example/in", true).problem("draining");
    of("https://hooks.example/", false).problem("callback-refused");
    let refused = of("https://*.hooks.example/", true).problem("callback-refused");
    assert!(refused["detail"].as_str().unwrap().contains("https://*.hooks.example/"), "{refused}");
    send(post(ALICE, body)).problem("callback-refused");
    let long = format!(r#"{{"text":"hi","callback":{{"url":"https://h.example/{}"}}}}"#, "x".repeat(2048));
    assert_eq!(send(post(ALICE, long)).pointers(), ["/callback/url"]);
}

#[test]
fn answers_to_a_limited_key_carry_its_limit() {
    let mut config = config();
    let scopes = config::CallerScopes { send: true, ..config::CallerScopes::default() };
    let limited = config::CallerConfig { rate_per_minute: 7, ..caller("few", scopes, None, "") };
    config.callers = vec![limited, caller("free", scopes, None, "")];
    let requests = [
        with_key(post(ALICE, PASSES), "few"),
        with_key(post(ALICE, "{"), "few"),
        with_key(TestRequest::get().uri(&format!("{ALICE}/1")), "few"),
        with_key(TestRequest::get().uri("/nowhere"), "few"),
        with_key(TestRequest::get().uri(ALICE), "few"),
        with_key(TestRequest::get().uri("/docs"), "few"),
        with_key(TestRequest::get().uri("/deliveries"), "few"),
        with_key(post(ALICE, PASSES), "few"),
        with_key(TestRequest::get().uri("/docs"), "few"),
        with_key(post(ALICE, PASSES), "free"),
        with_key(post(ALICE, PASSES), "nobody"),
        TestRequest::get().uri("/docs"),
    ];
    let answers = send_all(config, requests);
    let seen: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(seen, [503, 400, 403, 404, 405, 200, 403, 429, 429, 503, 401, 200]);
    for (index, answer) in answers.iter().enumerate() {
        let limit = answer.header("ratelimit");
        assert_eq!(answer.header("ratelimit-policy").is_some(), limit.is_some());
        if index < 9 {
            assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=7;w=60"));
            assert!(
                limit.unwrap().starts_with(&format!("\"default\";r={};t=", 6_usize.saturating_sub(index)))
            );
        } else {
            assert_eq!(limit, None);
        }
        if answer.status == 429 {
            let detail = answer.problem("rate-limited");
            assert!(detail["detail"].as_str().unwrap().contains("7 requests a minute"), "{detail}");
            let (wait, reset) = (answer.header("retry-after").unwrap(), limit.unwrap());
            assert!(reset.ends_with(&format!(";t={wait}")), "{wait}: {reset}");
        }
    }
}

#[test]
fn trace_of_the_caller_continues() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = send(post(ALICE, "").insert_header(("traceparent", parent))).problem("invalid-request");
    assert_eq!(body["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[test]
fn full_replica_sends_retry_after() {
    let mut full = config();
    full.server.max_requests = 0;
    let answer = send_to(full, post(ALICE, PASSES));
    answer.problem("overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn hub_refusals_have_their_headers() {
    let trace = trace_context::TraceContext::from_headers(&HeaderMap::new());
    let response = ApiError::from(HubError::Draining).response("/", trace);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "1");
    assert_eq!(response.head().connection_type(), actix_web::http::ConnectionType::Close);
}

#[test]
fn pages_load_no_other_resource() {
    let page = send(TestRequest::get().uri("/docs"));
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.contains("href=\"/openapi.json\""), "{text}");
    assert!(!text.contains("src=") && !text.contains("http://"), "the page loads no other resource");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    for kind in ProblemKind::ALL {
        let page = send(TestRequest::get().uri(&format!("/problems/{}", kind.slug())));
        assert_eq!(page.status, 200);
        assert!(String::from_utf8(page.body).unwrap().contains(kind.title()));
    }
    let document: Value =
        serde_json::from_slice(&send(TestRequest::get().uri("/openapi.json")).body).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn requests_are_counted_by_route_pattern() {
    let metrics = metrics();
    let clock = Clock::wall();
    let context =
        Arc::new(ApiContext::new(Hub::closed(store()), Arc::new(config()), Arc::clone(&metrics), clock));
    actix_web::rt::System::new().block_on(async move {
        let app = init_service(App::new().configure(configure(context))).await;
        call_service(&app, post("/conversations/someone/messages", "").to_request()).await;
    });
    let text = metrics.text().unwrap();
    let series = format!(
        "rtm_bridge_http_request_duration_seconds_count{{code=\"400\",method=\"POST\",route=\"{MESSAGES}\"}} 1"
    );
    assert!(text.contains(&series), "{text}");
    assert!(!text.contains("someone"));
}
