use actix_web::test::TestRequest;
use serde_json::{Value, json};

use super::redrive::parse;
use super::*;
use crate::config::{Config, Scopes};
use crate::domain::ConversationId;
use crate::http::tests::{Answer, caller, config, post, send_all, send_to, with_key};

const ADMIN: Scopes = Scopes { send: false, read: false, admin: true };
const ID: &str = "01JD9ZZZZZZZZZZZZZZZZZZZZZ";

fn get(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

fn send(request: TestRequest) -> Answer {
    send_to(config(), request)
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn where_nothing_was_told_there_is_nothing_to_see() {
    for query in ["", "?state=dead&bot=gone&user=al%2Fice&limit=1000", &format!("?after={ID}")] {
        let page = json(&send(get(&format!("/deliveries{query}"))));
        assert_eq!(page, json!({"deliveries": [], "next": null}));
    }
    let redriven = json(&send(post("/deliveries/redrive", r#"{"state":"dead","dryRun":false}"#)));
    assert_eq!(redriven, json!({"count": 0, "hasMore": false}));
    for id in [ID, "1", "%zz", "01JD9ZZZZZZZZZZZZZZZZZZZZ%5A", "redeliver"] {
        send(get(&format!("/deliveries/{id}"))).problem("not-found");
        send(TestRequest::post().uri(&format!("/deliveries/{id}/redeliver"))).problem("not-found");
    }
}

#[test]
fn every_mistake_of_a_query_is_told() {
    for (query, pointers) in [
        ("state=lost", &["query/state"][..]),
        ("bot=a%20b", &["query/bot"]),
        ("user=", &["query/user"]),
        ("user=a%0A", &["query/user"]),
        ("after=x", &["query/after"]),
        ("limit=0", &["query/limit"]),
        ("limit=1001", &["query/limit"]),
        ("limit=%2B1", &["query/limit"]),
        ("since=2026-11-23T09:30:00Z", &["query/since"]),
        ("state=dead&state=dead", &["query/state"]),
        ("state=x&limit=y&after=z&bot=%2F", &["query/bot", "query/state", "query/after", "query/limit"]),
    ] {
        assert_eq!(send(get(&format!("/deliveries?{query}"))).pointers(), pointers, "{query}");
    }
    assert_eq!(send(get(&format!("/deliveries/{ID}?bot=support"))).pointers(), ["query/bot"]);
    let again = TestRequest::post().uri("/deliveries/1/redeliver?now");
    assert_eq!(send(again).pointers(), ["query/now"]);
}

#[test]
fn every_mistake_of_a_redrive_is_told() {
    let read = |body: &str| {
        let mut mistakes = Mistakes::default();
        let wish = parse(body.as_bytes(), &mut mistakes);
        let pointers: Vec<_> = mistakes.into_vec().into_iter().map(|mistake| mistake.pointer).collect();
        assert_eq!(wish.is_some(), pointers.is_empty());
        pointers
    };
    let whole = r#"{"state":"dead","bot":"b","user":"u","since":"2026-11-23T10:30:00+01:00","dryRun":true}"#;
    for (body, pointers) in [
        (whole, &[][..]),
        (r#"{"state":"dead","bot":null,"user":null,"since":null,"dryRun":null}"#, &[]),
        ("", &[""]),
        ("[]", &[""]),
        ("{}", &["/state"]),
        (r#"{"state":"pending"}"#, &["/state"]),
        (r#"{"state":["dead"]}"#, &["/state"]),
        (r#"{"state":"dead","dryrun":true}"#, &["/dryrun"]),
        (r#"{"state":"dead","dryRun":"true"}"#, &["/dryRun"]),
        (r#"{"state":"dead","limit":1}"#, &["/limit"]),
        (
            r#"{"bot":"a b","user":"","since":"yesterday","dryRun":0}"#,
            &["/state", "/bot", "/user", "/since", "/dryRun"],
        ),
    ] {
        assert_eq!(read(body), pointers, "{body}");
    }
    send(post("/deliveries/redrive", "{}")).problem("invalid-request");
    send(TestRequest::post().uri("/deliveries/redrive").set_payload(whole)).problem("unsupported-media-type");
}

#[test]
fn deliveries_are_for_administrators_of_their_bots_and_users() {
    let guarded = || {
        let others = Scopes { send: true, read: true, admin: false };
        let callers = vec![
            caller("all", ADMIN, None, ""),
            caller("none", others, None, ""),
            caller("sales", ADMIN, Some(&["sales"]), ""),
            caller("eu", ADMIN, None, "eu-"),
        ];
        Config { callers, ..config() }
    };
    let redrive = |body: &'static str| post("/deliveries/redrive", body);
    let all: [fn() -> TestRequest; 4] = [
        || get("/deliveries"),
        || get("/deliveries/1"),
        || TestRequest::post().uri("/deliveries/1/redeliver"),
        || post("/deliveries/redrive", r#"{"state":"dead"}"#),
    ];
    for request in all {
        send_to(guarded(), request()).problem("unauthorized");
        let body = send_to(guarded(), with_key(request(), "none")).problem("forbidden");
        assert!(body["detail"].as_str().unwrap().contains("`admin`"), "{body}");
        let status = send_to(guarded(), with_key(request(), "all")).status;
        assert!(matches!(status, 200 | 404), "{status}");
    }
    let requests = [
        ("sales", get("/deliveries?bot=sales"), 200),
        ("sales", get("/deliveries?bot=support"), 403),
        ("sales", get("/deliveries"), 200),
        ("sales", redrive(r#"{"state":"dead","bot":"support"}"#), 403),
        ("sales", redrive(r#"{"state":"dead"}"#), 200),
        ("eu", get("/deliveries?user=eu-1"), 200),
        ("eu", get("/deliveries?user=us-1"), 403),
        ("eu", redrive(r#"{"state":"dead","user":"us-1"}"#), 403),
    ];
    let (expected, requests): (Vec<_>, Vec<_>) =
        requests.into_iter().map(|(key, request, status)| (status, with_key(request, key))).unzip();
    let seen: Vec<_> = send_all(guarded(), requests).iter().map(|answer| answer.status).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_caller_sees_what_its_configuration_covers() {
    let sales = caller("sales", ADMIN, Some(&["sales"]), "eu-");
    let known = Caller::Known { caller: &sales, place: 0 };
    let bot = |name| BotName::new(name).unwrap();
    let user = |name| UserId::new(name).unwrap();
    let covers = |query: &DeliveryQuery, of, name| query.covers(&ConversationId::new(bot(of), user(name)));
    let all = visible(known, None, None).unwrap();
    assert!(covers(&all, "sales", "eu-1"));
    assert!(!covers(&all, "support", "eu-1") && !covers(&all, "sales", "us-1"));
    let one = visible(known, Some(bot("sales")), Some(user("eu-1"))).unwrap();
    assert!(covers(&one, "sales", "eu-1") && !covers(&one, "sales", "eu-2"));
    assert!(visible(known, Some(bot("support")), None).is_err());
    assert!(visible(known, None, Some(user("us-1"))).is_err());
    let open = visible(Caller::Anonymous, None, None).unwrap();
    assert!(covers(&open, "support", "us-1"));
}
