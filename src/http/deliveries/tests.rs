use std::sync::Arc;
use std::time::Duration;

use actix_web::test::TestRequest;
use serde_json::{Value, json};

use super::redrive::parse;
use super::*;
use crate::config::{CallerScopes, Config};
use crate::domain::fixtures::{START, conversation, new_delivery, raw_json};
use crate::domain::{
    ConversationRecord, DeliveryAttempt, EntryBody, GapReason, JournalEntry, NewDelivery, Partition,
};
use crate::http::tests::{Answer, caller, config, post, send_all, send_all_on, send_to, with_key};
use crate::store::{
    BeginResult, ClaimMode, Clock, ConversationChange, ConversationWrite, Fence, FinishRequest, Incarnation,
    ManualClock, MemoryLimits, MemoryStore, QueueId, RetryDecision, Store,
};

const ADMIN: CallerScopes = CallerScopes { send: false, read: false, admin: true };
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
fn store_without_deliveries_has_empty_pages() {
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
fn invalid_query_is_refused_with_every_fault() {
    for (query, pointers) in [
        ("state=lost", &["query/state"][..]),
        ("bot=a%20b", &["query/bot"]),
        ("user=", &["query/user"]),
        ("user=a%0A", &["query/user"]),
        ("webhook=a%2Fb", &["query/webhook"]),
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
fn invalid_redrive_is_refused_with_every_fault() {
    let read = |body: &str| {
        let mut errors = FieldErrors::default();
        let request = parse(body.as_bytes(), &mut errors);
        let pointers: Vec<_> = errors.into_vec().into_iter().map(|mistake| mistake.pointer).collect();
        assert_eq!(request.is_some(), pointers.is_empty());
        pointers
    };
    let whole = r#"{"state":"dead","bot":"b","user":"u","webhook":"crm","since":"2026-11-23T10:30:00+01:00","dryRun":true}"#;
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
            r#"{"bot":"a b","user":"","webhook":"a\"b","since":"yesterday","dryRun":0}"#,
            &["/state", "/bot", "/user", "/webhook", "/since", "/dryRun"],
        ),
    ] {
        assert_eq!(read(body), pointers, "{body}");
    }
    send(post("/deliveries/redrive", "{}")).problem("invalid-request");
    send(TestRequest::post().uri("/deliveries/redrive").set_payload(whole)).problem("unsupported-media-type");
}

#[test]
fn deliveries_without_the_scope_admin_are_forbidden() {
    let guarded = || {
        let others = CallerScopes { send: true, read: true, admin: false };
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
fn caller_sees_deliveries_of_its_bots_and_users() {
    let sales = caller("sales", ADMIN, Some(&["sales"]), "eu-");
    let known = CallerIdentity::single(&sales);
    let bot = |name| BotName::new(name).unwrap();
    let user = |name| UserId::new(name).unwrap();
    let covers = |query: &DeliveryQuery, of, name| query.covers(&conversation(of, name));
    let all = visible(&known, None, None).unwrap();
    assert!(covers(&all, "sales", "eu-1"));
    assert!(!covers(&all, "support", "eu-1") && !covers(&all, "sales", "us-1"));
    let one = visible(&known, Some(bot("sales")), Some(user("eu-1"))).unwrap();
    assert!(covers(&one, "sales", "eu-1") && !covers(&one, "sales", "eu-2"));
    assert!(visible(&known, Some(bot("support")), None).is_err());
    assert!(visible(&known, None, Some(user("us-1"))).is_err());
    let open = visible(&CallerIdentity::Anonymous, None, None).unwrap();
    assert!(covers(&open, "support", "us-1"));
}

const HOOK: &str = "https://hooks.example/in";

/// A store with deliveries.
struct DeliveryStore {
    store: Arc<MemoryStore>,
    clock: ManualClock,
}

impl DeliveryStore {
    fn new() -> Self {
        let (clock, manual_clock) = Clock::manual(START);
        let limits = MemoryLimits::new(64 << 20, Duration::from_hours(24));
        Self { store: MemoryStore::new(limits, clock), clock: manual_clock }
    }

    /// Writes a delivery of this conversation a second after the last one, and attempts it once.
    fn deliver(&self, bot: &str, user: &str, verdict: RetryDecision) -> DeliveryId {
        self.clock.advance(Duration::from_secs(1));
        let at = self.store.now();
        let conversation = conversation(bot, user);
        let partition = Partition::of(&conversation);
        let lease = Duration::from_mins(1);
        let fence = self.store.claim(partition, Incarnation(1), lease, ClaimMode::Expired).fence().unwrap();
        let data = raw_json(r#"{"text":"hello"}"#);
        let new = NewDelivery { data, ..new_delivery(&conversation, 1, at, HOOK) };
        let id = new.id;
        let entry = JournalEntry { seq: 1, at, body: EntryBody::Gap(GapReason::HistoryTooShort) };
        let record = ConversationRecord { epoch: 1, seq: 1, write: 1, ..ConversationRecord::default() };
        let changes = vec![ConversationChange::Append(entry), ConversationChange::Deliver(Box::new(new))];
        let write = ConversationWrite { record, follows: 0, changes, warm_until: None };
        self.store.write(fence, &conversation, &write).unwrap();
        self.attempt(id, QueueId::of(&conversation, Some("main"), HOOK), fence, verdict);
        id
    }

    fn attempt(&self, id: DeliveryId, queue: QueueId, fence: Fence, verdict: RetryDecision) {
        let (partition, window) = (id.partition(), Duration::from_secs(20));
        let BeginResult::Taken(taken) = self.store.begin(partition, fence, queue, 1, window).unwrap() else {
            panic!("nothing is due")
        };
        let attempt = DeliveryAttempt {
            at: taken.now,
            status: Some(410),
            error: Some("answered 410".into()),
            duration: Duration::from_millis(7),
            response: Some("gone".into()),
        };
        let finish = FinishRequest { claimed: taken, attempt, decision: verdict, reports: Vec::new() };
        self.store.finish(partition, fence, queue, &finish).unwrap();
    }

    fn send(&self, config: Config, requests: impl IntoIterator<Item = TestRequest>) -> Vec<Answer> {
        send_all_on(Store::Memory(Arc::clone(&self.store)), config, requests)
    }

    fn state(&self, id: DeliveryId) -> DeliveryState {
        self.store.delivery(id).unwrap().state
    }
}

fn dead_letter() -> RetryDecision {
    RetryDecision::DeadLetter("the receiver wants no more (410)".into())
}

fn ids(page: &Value) -> Vec<String> {
    let deliveries = page["deliveries"].as_array().unwrap().iter();
    deliveries.map(|delivery| delivery["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn deliveries_in_pages_come_newest_first() {
    let store = DeliveryStore::new();
    let user = |index| format!("user-{index}");
    let written: Vec<_> =
        (0..25).map(|index| store.deliver("support", &user(index), dead_letter())).collect();
    let delivered = store.deliver("support", "served", RetryDecision::Delivered);
    let mut expected: Vec<_> = written.iter().map(ToString::to_string).collect();
    expected.reverse();
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let request = get(&format!("/deliveries?state=dead&limit=7{next}"));
        let page = json(&store.send(config(), [request])[0]);
        assert!(ids(&page).len() <= 7);
        seen.extend(ids(&page));
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&after={cursor}");
    }
    assert_eq!(seen, expected);
    let all = json(&store.send(config(), [get("/deliveries?limit=1000")])[0]);
    assert_eq!((ids(&all).len(), &ids(&all)[0]), (26, &delivered.to_string()));
    let one = json(&store.send(config(), [get("/deliveries?user=user-3")])[0]);
    assert_eq!(ids(&one), [written[3].to_string()]);
    assert_eq!(
        ids(&json(&store.send(config(), [get("/deliveries?state=pending")])[0])),
        Vec::<String>::new()
    );
}

#[test]
fn dead_delivery_is_shown_and_queued_again() {
    let store = DeliveryStore::new();
    let id = store.deliver("support", "alice", dead_letter());
    let shown = json(&store.send(config(), [get(&format!("/deliveries/{id}"))])[0]);
    let at = store.store.now().to_string();
    assert_eq!(
        shown,
        json!({
            "id": id.to_string(), "type": "reply.unsolicited", "bot": "support", "user": "alice", "messageId": null,
            "webhook": "main", "target": HOOK, "state": "dead", "createdAt": at, "nextAttemptAt": null,
            "reason": "the receiver wants no more (410)",
            "attempts": [
                {"at": at, "status": 410, "error": "answered 410", "durationMs": 7, "response": "gone"}
            ],
        })
    );
    // Lower case and escapes are allowed in an id.
    let lower = id.to_string().to_lowercase().replacen('0', "%30", 1);
    let again = || TestRequest::post().uri(&format!("/deliveries/{lower}/redeliver"));
    for answer in store.send(config(), [again(), again()]) {
        assert_eq!(answer.status, 202);
        let delivery: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&delivery["id"], &delivery["state"]), (&json!(id.to_string()), &json!("pending")));
        assert_eq!(delivery["nextAttemptAt"], at);
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    }
    let head = TestRequest::default().method(actix_web::http::Method::HEAD).uri("/deliveries");
    assert_eq!(store.send(config(), [head])[0].status, 200);
}

#[test]
fn redrive_queues_only_dead_deliveries() {
    let store = DeliveryStore::new();
    let early: Vec<_> =
        (0..3).map(|index| store.deliver("support", &format!("early-{index}"), dead_letter())).collect();
    let since = store.store.now() + Duration::from_millis(1);
    let late: Vec<_> =
        (0..130).map(|index| store.deliver("support", &format!("user-{index}"), dead_letter())).collect();
    let other = store.deliver("sales", "user-1", dead_letter());
    let served = store.deliver("support", "served", RetryDecision::Delivered);
    let redrive = |body: Value| {
        let answers = store.send(config(), [post("/deliveries/redrive", body.to_string())]);
        json(&answers[0])
    };
    let count = |count: usize| json!({"count": count, "hasMore": false});
    let bot = json!({"state": "dead", "bot": "support", "since": since.to_string()});
    let mut dry = bot.clone();
    dry["dryRun"] = true.into();
    assert_eq!(redrive(dry), count(130));
    assert!(late.iter().all(|&id| store.state(id) == DeliveryState::Dead), "only counted");
    assert_eq!(redrive(bot.clone()), count(130));
    assert!(late.iter().all(|&id| store.state(id) == DeliveryState::Pending));
    for id in early.iter().copied().chain([other]) {
        assert_eq!(store.state(id), DeliveryState::Dead);
    }
    assert_eq!(store.state(served), DeliveryState::Delivered);
    assert_eq!(redrive(bot), count(0));
    assert_eq!(redrive(json!({"state": "dead", "user": "user-1"})), count(1));
    assert_eq!(redrive(json!({"state": "dead"})), count(3));
}

#[test]
fn redrive_after_its_time_limit_has_more() {
    let store = DeliveryStore::new();
    for index in 0..60 {
        store.deliver("support", &format!("user-{index}"), dead_letter());
    }
    let hub = crate::hub::Hub::closed(Store::Memory(Arc::clone(&store.store)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let query =
            || DeliveryQuery { state: Some(DeliveryState::Dead), limit: 50, ..DeliveryQuery::default() };
        let now = tokio::time::Instant::now();
        let redriven = redrive::redrive(&hub, query(), false, now).await.unwrap();
        let redriven = serde_json::to_value(redriven).unwrap();
        assert_eq!(redriven["hasMore"], true);
        let first = redriven["count"].as_u64().unwrap();
        assert!((1..60).contains(&first), "{first}");
        let later = now + Duration::from_mins(1);
        let rest = redrive::redrive(&hub, query(), false, later).await.unwrap();
        assert_eq!(serde_json::to_value(rest).unwrap(), json!({"count": 60 - first, "hasMore": false}));
    });
}

#[test]
fn delivery_outside_the_caller_is_not_found() {
    let store = DeliveryStore::new();
    let [mine, others, elsewhere] = [("sales", "eu-1"), ("support", "eu-1"), ("sales", "us-1")]
        .map(|(bot, user)| store.deliver(bot, user, dead_letter()));
    let guarded = || Config { callers: vec![caller("sales", ADMIN, Some(&["sales"]), "eu-")], ..config() };
    let send = |request| store.send(guarded(), [with_key(request, "sales")]).remove(0);
    assert_eq!(ids(&json(&send(get("/deliveries")))), [mine.to_string()]);
    assert_eq!(send(get(&format!("/deliveries/{mine}"))).status, 200);
    for hidden in [others, elsewhere] {
        let there = send(get(&format!("/deliveries/{hidden}"))).problem("not-found");
        let nowhere = send(get(&format!("/deliveries/{ID}"))).problem("not-found");
        assert_eq!(there["detail"], nowhere["detail"]);
        let again = TestRequest::post().uri(&format!("/deliveries/{hidden}/redeliver"));
        send(again).problem("not-found");
    }
    let redriven = json(&send(post("/deliveries/redrive", r#"{"state":"dead"}"#)));
    assert_eq!(redriven["count"], 1);
    let states = [mine, others, elsewhere].map(|id| store.state(id));
    assert_eq!(states, [DeliveryState::Pending, DeliveryState::Dead, DeliveryState::Dead]);
}
