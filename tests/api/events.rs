//! Pages of a conversation's events, and long polls (api.md 3).

use rtm_sandbox::Step;
use serde_json::{Value, json};

use crate::support::{Answer, Request, TestBridge, bot, run, spawn_bridge};

const EVENTS: &str = "/conversations/alice/events";

/// Runs a turn of alice's with these replies.
pub(super) async fn turn(bridge: &TestBridge, says: &[&str]) -> Value {
    let say = says.iter().map(|text| Step::Say((*text).to_owned()));
    bridge.script.next("alice", [Step::Ack].into_iter().chain(say).collect());
    let body = json!({"text": "hi", "turn": {"expectReplies": says.len()}});
    bridge.post("alice", &body).await.message(200)
}

async fn page(bridge: &TestBridge, query: &str) -> Value {
    let answer = bridge.api.get(format!("{EVENTS}{query}")).await;
    let page = answer.message(200);
    let keys: Vec<_> = page.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["events", "gap", "hasMore", "next"], "{answer}");
    page
}

/// Returns the events of a page without those of the platform.
pub(super) fn told(page: &Value) -> Vec<&Value> {
    page["events"].as_array().unwrap().iter().filter(|event| event["type"] != "platform").collect()
}

pub(super) fn types(page: &Value) -> Vec<&str> {
    told(page).iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn next(page: &Value) -> String {
    format!("?after={}", page["next"].as_str().unwrap())
}

#[test]
fn page_has_events_in_order() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let empty = page(&bridge, "").await;
        assert_eq!(types(&empty), [""; 0]);
        assert_eq!((&empty["hasMore"], &empty["gap"]), (&json!(false), &json!(false)));

        let message = turn(&bridge, &["one", "two"]).await;
        bridge.script.next("alice", vec![Step::Ack]);
        let silent = json!({"text": "hi", "turn": {"deadlineMs": 500}});
        let failed = bridge.post("alice", &silent).await.problem(504, "no-reply")["message"].clone();
        let all = page(&bridge, "").await;
        assert_eq!(types(&all), ["reply", "reply", "message.answered", "message.failed"]);
        let events = told(&all);
        for (event, data) in
            events.iter().zip([&message["replies"][0], &message["replies"][1], &message, &failed])
        {
            assert_eq!(event["data"], *data);
            assert!(event["at"].as_str().unwrap().ends_with('Z'), "{event}");
        }
        let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        assert_eq!(events[0]["data"]["seq"], seqs[0]);
        // The first page begins at the cursor of the empty one.
        assert_eq!(page(&bridge, &next(&empty)).await, all);
        // Reading consumes nothing, and each user has a journal of its own.
        assert_eq!(page(&bridge, "").await, all);
        let other = bridge.api.get("/conversations/bob/events").await;
        assert_eq!(types(&other.message(200)), [""; 0]);
        assert_eq!(other.header("cache-control"), Some("no-store"));
        assert_eq!(other.header("vary"), Some("Accept"));
        assert_eq!(other.header("preference-applied"), None);
        assert_eq!(bridge.metric(r#"events_sent_total{type="reply"}"#).await, 6);
        bridge.finish().await;
    });
}

#[test]
fn pages_continue_to_the_end() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for _ in 0..4 {
            turn(&bridge, &["one"]).await;
        }
        let all = page(&bridge, "?limit=1000").await;
        let count = all["events"].as_array().unwrap().len();
        for limit in [1, 3, count, count + 1] {
            let mut seen = Vec::new();
            let mut query = format!("?limit={limit}");
            loop {
                let read = page(&bridge, &query).await;
                let events = read["events"].as_array().unwrap();
                seen.extend_from_slice(events);
                assert_eq!(read["gap"], false);
                assert!(events.len() <= limit);
                query = format!("{}&limit={limit}", next(&read));
                if read["hasMore"] == false {
                    break;
                }
                assert_eq!(events.len(), limit);
            }
            assert_eq!(Value::from(seen), all["events"]);
            // The cursor at the end finds the next entries.
            let end = page(&bridge, &query).await;
            assert_eq!(types(&end), [""; 0]);
            assert_eq!(end["hasMore"], false);
            assert_eq!(next(&end), next(&all));
        }
        let latest = page(&bridge, "?after=latest").await;
        assert_eq!((types(&latest), next(&latest)), (vec![], next(&all)));
        turn(&bridge, &["more"]).await;
        assert_eq!(types(&page(&bridge, &next(&latest)).await), ["reply", "message.answered"]);
        bridge.finish().await;
    });
}

#[test]
fn invalid_parameters_are_refused() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        let pointers = |answer: Answer| {
            let problem = answer.problem(400, "invalid-request");
            let errors = problem["errors"].as_array().unwrap().clone();
            errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for (query, expected) in [
            ("?after=x", &["query/after"][..]),
            ("?after=", &["query/after"]),
            ("?after=LATEST", &["query/after"]),
            ("?after=17", &["query/after"]),
            ("?after=AAAAAAAAAAAAAAAAAAAAAAA", &["query/after"]),
            ("?limit=0", &["query/limit"]),
            ("?limit=1001", &["query/limit"]),
            ("?limit=-1", &["query/limit"]),
            ("?limit=%2B5", &["query/limit"]),
            ("?limit=1e2", &["query/limit"]),
            ("?limit=99999999999999999999999", &["query/limit"]),
            ("?limit=5&limit=5", &["query/limit"]),
            ("?types=", &["query/types"]),
            ("?types=replies", &["query/types"]),
            ("?types=reply,,gap", &["query/types"]),
            ("?types=reply&types=gap", &["query/types"]),
            ("?since=1&after=x", &["query/after", "query/since"]),
        ] {
            let mut found = pointers(bridge.api.get(format!("{EVENTS}{query}")).await);
            found.sort();
            assert_eq!(found, expected, "{query}");
        }
        let request = || Request::get(EVENTS);
        let odd = bridge.send(request().prefer("wait=soon")).await;
        assert_eq!((odd.status, odd.header("preference-applied")), (200, None));
        let streams = request().header("Accept", "text/event-stream");
        let bad = streams.header("Last-Event-ID", "latest");
        assert_eq!(pointers(bridge.send(bad).await), ["header/Last-Event-ID"]);
        // This header does not resume a page.
        let page = request().header("Last-Event-ID", "latest");
        bridge.send(page).await.message(200);
        bridge.api.get(format!("{EVENTS}?bot=nobody")).await.problem(404, "not-found");
        let put = bridge.send(Request::new("PUT", EVENTS)).await;
        put.problem(405, "method-not-allowed");
        assert_eq!(put.header("allow"), Some("GET, HEAD"));
        bridge.finish().await;
    });
}

#[test]
fn unknown_type_is_refused_with_the_known_ones() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let problem = bridge.api.get(format!("{EVENTS}?types=reply,typing")).await;
        let problem = problem.problem(400, "invalid-request");
        let detail = problem["errors"][0]["detail"].as_str().unwrap();
        for known in
            ["reply", "message.answered", "message.failed", "userMessage", "platform", "gap", "chunk"]
        {
            assert!(detail.contains(known), "{detail}");
        }
        bridge.finish().await;
    });
}

#[test]
fn filtered_pages_fill_up_behind_other_events() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        for _ in 0..3 {
            turn(&bridge, &["one", "two"]).await;
        }
        while types(&page(&bridge, "").await).len() < 9 {}
        let whole = page(&bridge, "?types=message.answered").await;
        assert_eq!(types(&whole), ["message.answered"; 3]);
        assert_eq!(whole["hasMore"], false);
        // A page holds as many events of the types as it may, and its cursor is one for any filter.
        let mut seen = Vec::new();
        let mut query = String::new();
        for more in [true, true, false] {
            let one = page(&bridge, &format!("?types=message.answered,gap&limit=1{query}")).await;
            assert_eq!((types(&one), &one["hasMore"]), (vec!["message.answered"], &json!(more)));
            seen.push(one["events"][0]["data"]["id"].clone());
            query = format!("&after={}", one["next"].as_str().unwrap());
        }
        let ids: Vec<_> = told(&whole).iter().map(|event| event["data"]["id"].clone()).collect();
        assert_eq!(seen, ids);
        let rest = page(&bridge, &format!("?limit=5{query}")).await;
        assert_eq!((types(&rest), &rest["gap"]), (vec![], &json!(false)));
        // The cursor passes what the filter leaves out.
        let none = page(&bridge, "?types=userMessage").await;
        assert_eq!((types(&none), &none["hasMore"]), (vec![], &json!(false)));
        assert_eq!(types(&page(&bridge, &next(&none)).await), [""; 0]);
        let first = page(&bridge, "?limit=1&types=reply").await;
        let then = page(&bridge, &next(&first)).await;
        assert_eq!(told(&then)[0]["data"]["text"], "two", "no event is skipped for another filter");
        bridge.finish().await;
    });
}

#[test]
fn long_poll_waits_for_the_named_types() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        let ask = |types: &str| {
            bridge.send(Request::get(format!("{EVENTS}?after=latest&types={types}")).prefer("wait=20"))
        };
        let (failed, silent) = tokio::join!(ask("message.failed"), async {
            turn(&bridge, &["two"]).await;
            bridge.script.next("alice", vec![Step::Ack]);
            let silent = json!({"text": "hi", "turn": {"deadlineMs": 500}});
            bridge.post("alice", &silent).await.problem(504, "no-reply")["message"].clone()
        });
        let failed = failed.message(200);
        assert_eq!((types(&failed), &failed["events"][0]["data"]), (vec!["message.failed"], &silent));
        // An answer at the end of the wait lies behind what was left out.
        let waiting = bridge.send(Request::get(format!("{EVENTS}?types=gap")).prefer("wait=1")).await;
        let empty = waiting.message(200);
        assert_eq!(types(&empty), [""; 0]);
        assert_eq!(types(&page(&bridge, &next(&empty)).await), [""; 0]);
        bridge.finish().await;
    });
}

#[test]
fn typing_of_an_agent_reaches_a_poll_that_names_platform() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        bridge.script.next("alice", vec![Step::AgentStart, Step::Say("one".to_owned())]);
        bridge.post("alice", &json!({"text": "hi", "turn": {"expectReplies": 1}})).await.message(200);
        let typing = json!({"type": "events", "from": "bot", "message": {"type": "typing"}});
        let latest = page(&bridge, "?after=latest").await;
        let ask = |types: &str, wait: &str| {
            let target = format!("{EVENTS}?after={}{types}", latest["next"].as_str().unwrap());
            bridge.send(Request::get(target).prefer(wait))
        };
        let (asked, others, ()) = tokio::join!(ask("&types=platform", "wait=20"), ask("", "wait=2"), async {
            for _ in 0..40 {
                tokio::time::sleep(std::time::Duration::from_millis(40)).await;
                bridge.script.push("alice", vec![Step::Frame(typing.clone())]);
            }
        });
        let asked = asked.message(200);
        assert_eq!(asked["events"], json!([{"type": "platform", "data": {"event": typing}}]));
        assert_eq!(asked["next"], latest["next"], "no cursor counts it");
        assert_eq!(others.message(200)["events"], json!([]), "it is for readers that name its type");
        assert_eq!(types(&page(&bridge, &next(&latest)).await), [""; 0], "the journal does not keep it");
        bridge.finish().await;
    });
}

#[test]
fn late_reader_gets_a_gap() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).late_window = std::time::Duration::ZERO).await;
        turn(&bridge, &["one"]).await;
        let first = page(&bridge, "?limit=1").await;
        // These replies exceed the 4 MiB that are kept. Each counts its text and its frame.
        let large = "x".repeat(300_000);
        bridge.script.push("alice", vec![Step::Say(large); 8]);
        bridge.script.push("alice", vec![Step::Say("last".to_owned())]);
        let last = async || {
            let read = page(&bridge, "").await;
            told(&read).last().map(|event| (event["data"]["text"].clone(), read.clone()))
        };
        let read = loop {
            match last().await {
                Some((text, read)) if text == "last" => break read,
                _ => {}
            }
        };
        assert_eq!(read["gap"], false, "the oldest is the oldest");
        let seq = |event: &Value| event["seq"].as_u64().unwrap();
        let (oldest, newest) = (seq(told(&read)[0]), seq(told(&read).last().unwrap()));
        assert!(oldest > 3, "{oldest}");
        let late = page(&bridge, &format!("{}&limit=2", next(&first))).await;
        assert_eq!((&late["gap"], &late["events"][0]["seq"]), (&json!(true), &json!(oldest)));
        // From there on no entry is missing.
        let rest = page(&bridge, &next(&late)).await;
        assert_eq!((&rest["gap"], &rest["events"][0]["seq"]), (&json!(false), &json!(oldest + 2)));

        // A stream reports the gap once.
        let after = first["next"].as_str().unwrap();
        let request = Request::get(format!("{EVENTS}?after=latest")).header("Last-Event-ID", after);
        let mut stream = bridge.api.events_with(request).await;
        assert_eq!(stream.expect("gap").await, json!({"reason": "notKept"}));
        let id = stream.last_id.clone().unwrap();
        let mut again = bridge.api.events_with(Request::get(EVENTS).header("Last-Event-ID", &id)).await;
        for stream in [&mut stream, &mut again] {
            for seq in oldest..=newest {
                assert_eq!(stream.expect("reply").await["seq"], seq);
            }
        }
        drop((stream, again));
        bridge.finish().await;
    });
}

#[test]
fn empty_page_waits_for_an_event() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        let latest = page(&bridge, "?after=latest").await;
        let held = bridge.send(Request::get(format!("{EVENTS}{}", next(&latest))).prefer("wait=20"));
        let (held, message) = tokio::join!(held, turn(&bridge, &["two"]));
        assert_eq!(held.header("preference-applied"), Some("wait=20"));
        let held = held.message(200);
        assert_eq!(held["events"][0]["data"], message["replies"][0]);

        // `latest` means the end at the start of the wait.
        let held = bridge.send(Request::get(format!("{EVENTS}?after=latest")).prefer("wait=20"));
        let told = async {
            while bridge.metric("open_messages").await > 0 {}
            turn(&bridge, &["three"]).await
        };
        let (held, message) = tokio::join!(held, told);
        assert_eq!(held.message(200)["events"][0]["data"], message["replies"][0]);

        // Existing entries need no wait, and an expired wait gives an empty page.
        while types(&page(&bridge, "").await).len() < 6 {}
        let full = bridge.send(Request::get(EVENTS).prefer("wait=55")).await;
        assert_eq!(types(&full.message(200)).len(), 6);
        let query = next(&full.message(200));
        for (prefer, applied) in
            [("wait=0", Some("wait=0")), ("wait=1", Some("wait=1")), ("respond-async", None)]
        {
            let empty = bridge.send(Request::get(format!("{EVENTS}{query}")).prefer(prefer)).await;
            assert_eq!(empty.header("preference-applied"), applied);
            let empty = empty.message(200);
            assert_eq!((types(&empty), next(&empty)), (vec![], query.clone()));
        }
        bridge.finish().await;
    });
}

#[test]
fn head_of_page_and_stream_has_no_body() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        let get = bridge.api.get(EVENTS).await;
        let head = bridge.send(Request::new("HEAD", EVENTS)).await;
        for header in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(header), get.header(header), "{header}");
        }
        assert_eq!((head.status, head.body.len()), (200, 0));
        let head = bridge.send(Request::new("HEAD", EVENTS).header("Accept", "text/event-stream")).await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head}");
        assert_eq!(head.header("content-length"), None);
        assert_eq!(bridge.metric("event_streams").await, 0);
        bridge.finish().await;
    });
}
