//! Event streams (api.md 3): bytes on the wire, resumption, and ends.

use std::time::Duration;

use rtm_sandbox::{Gate, Step, StreamEndMarker};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::events::turn;
use crate::support::{Request, bot, run, spawn_bridge};

const EVENTS: &str = "/conversations/alice/events";

#[test]
fn stream_has_the_same_events_as_pages() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one\ntwo"]).await;
        let page = bridge.api.get(EVENTS).await.message(200);
        // One event per page, with the cursor behind each.
        let mut ids = Vec::new();
        let mut query = "?limit=1".to_owned();
        for _ in 0..page["events"].as_array().unwrap().len() {
            let one = bridge.api.get(format!("{EVENTS}{query}")).await.message(200);
            ids.push(one["next"].as_str().unwrap().to_owned());
            query = format!("?limit=1&after={}", one["next"].as_str().unwrap());
        }
        let mut stream = bridge.api.events(EVENTS).await;
        let header = |name: &str| {
            let mut lines = stream.head.iter().filter_map(|line| line.split_once(": "));
            lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
        assert_eq!(header("cache-control").as_deref(), Some("no-store, no-transform"));
        assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
        assert_eq!(header("transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(header("connection").as_deref(), Some("close"));

        let retry = stream.block().await.unwrap();
        let retry: u32 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1000..=3000).contains(&retry), "{retry}");
        for (event, id) in page["events"].as_array().unwrap().iter().zip(ids) {
            let block = stream.block().await.unwrap();
            let (head, data) = block.split_once("\ndata: ").unwrap();
            let kind = event["type"].as_str().unwrap();
            assert_eq!(head, format!("id: {id}\nevent: {kind}"));
            assert_eq!(data.lines().count(), 1);
            assert_eq!(&serde_json::from_str::<serde_json::Value>(data).unwrap(), event);
        }

        // New events arrive live, and equal those of a page.
        let message = turn(&bridge, &["three"]).await;
        assert_eq!(stream.expect("reply").await, message["replies"][0]);
        assert_eq!(stream.expect("message.answered").await, message);
        let page = bridge.api.get(EVENTS).await.message(200);
        assert_eq!(stream.last_id.as_deref(), page["next"].as_str());
        assert_eq!(bridge.metric("event_streams").await, 1);
        drop(stream);
        while bridge.metric("event_streams").await > 0 {}
        assert_eq!(bridge.metric(r#"event_streams_ended_total{reason="gone"}"#).await, 1);
        bridge.finish().await;
    });
}

#[test]
fn resumed_stream_has_no_gap_and_no_repeat() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["before"]).await;
        // A client that starts at the end learns its cursor before the first event.
        let stream = bridge.api.events(&format!("{EVENTS}?after=latest")).await.begun().await;
        let start = stream.last_id.clone().unwrap();
        let mut id = start.clone();
        drop(stream);
        let mut seqs = Vec::new();
        for round in 0..6 {
            let text = round.to_string();
            let says = [text.as_str(), text.as_str()];
            let telling = turn(&bridge, &says);
            let reading = async {
                // This client reads one of the three events of each turn, so it always lags behind.
                let request = Request::get(format!("{EVENTS}?after=latest")).header("Last-Event-ID", &id);
                let mut stream = bridge.api.events_with(request).await;
                let event = stream.next().await.unwrap();
                seqs.push(event.data["seq"].as_u64().unwrap());
                id = event.id.unwrap();
            };
            tokio::join!(telling, reading);
        }
        let mut stream = bridge.api.events_with(Request::get(EVENTS).header("Last-Event-ID", &id)).await;
        let page = bridge.api.get(format!("{EVENTS}?after={start}")).await.message(200);
        let all: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert!(all.len() >= 18, "{page}");
        while seqs.len() < all.len() {
            seqs.push(stream.next().await.unwrap().data["seq"].as_u64().unwrap());
        }
        assert_eq!(seqs, all);
        // An empty id means no id: the stream begins at the place in the URL.
        let empty = Request::get(EVENTS).header("Last-Event-ID", "");
        assert_eq!(bridge.api.events_with(empty).await.expect("reply").await["text"], "before");
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn many_readers_read_the_same() {
    run(async {
        let whole = spawn_bridge(|_| {}).await;
        let bridge = &whole;
        let open = (0..20).map(|_| async { bridge.api.events(EVENTS).await });
        let mut streams = futures_util::future::join_all(open).await;
        let message = turn(bridge, &["one"]).await;
        for stream in &mut streams {
            assert_eq!(stream.expect("reply").await, message["replies"][0]);
            assert_eq!(stream.expect("message.answered").await, message);
        }
        drop(streams);
        whole.finish().await;
    });
}

#[test]
fn unsolicited_replies_are_streamed_too() {
    run(async {
        let bridge = spawn_bridge(|config| bot(config).late_window = Duration::ZERO).await;
        turn(&bridge, &["one"]).await;
        let mut stream = bridge.api.events(&format!("{EVENTS}?after=latest")).await.begun().await;
        bridge.script.push("alice", vec![Step::Say("By the way".to_owned())]);
        let reply = stream.expect("reply").await;
        assert_eq!((&reply["text"], &reply["correlation"]), (&json!("By the way"), &json!("unsolicited")));
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn filtered_stream_has_the_named_types_only() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one", "two"]).await;
        let mut stream = bridge.api.events(&format!("{EVENTS}?types=message.answered,platform")).await;
        let answered = stream.expect("message.answered").await;
        let behind = stream.last_id.clone().unwrap();
        let agent = vec![Step::AgentStart, Step::AgentSay("Hello".to_owned())];
        bridge.script.push("alice", agent);
        let mut seen = Vec::new();
        while !["typing", "agent_connected"].iter().all(|kind| seen.contains(&json!(kind))) {
            let event = stream.next().await.unwrap();
            assert_eq!(event.kind, "platform", "{event:?}");
            let kind = event.data["data"]["event"]["message"]["type"].clone();
            if kind == "typing" {
                assert_eq!((event.id, event.data.get("seq")), (None, None), "the journal does not keep it");
            }
            seen.push(kind);
        }
        drop(stream);
        // Its ids are cursors for any filter.
        let resumed = Request::get(format!("{EVENTS}?types=reply")).header("Last-Event-ID", &behind);
        let mut resumed = bridge.api.events_with(resumed).await;
        assert_eq!(resumed.expect("reply").await["text"], "Hello");
        assert_eq!(answered["replies"].as_array().unwrap().len(), 2);
        drop(resumed);
        bridge.finish().await;
    });
}

#[test]
fn whole_reply_follows_its_chunks() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        let mut stream = bridge.api.events(&format!("{EVENTS}?after=latest")).await.begun().await;
        let chunks = ["It ", "left ", "the warehouse."].map(str::to_owned).to_vec();
        let gap = Duration::from_millis(30);
        bridge
            .script
            .next("alice", vec![Step::Ack, Step::Stream { chunks, gap, end: StreamEndMarker::Marked }]);
        bridge.post("alice", &json!({"text": "hi", "turn": {"expectReplies": 1}})).await.message(200);
        let mut pieces = Vec::new();
        let reply = loop {
            let event = stream.next().await.unwrap();
            match event.kind.as_str() {
                "platform" => {}
                "chunk" => {
                    assert_eq!(event.id, None, "a piece moves no cursor");
                    pieces.push(event.data["data"].clone());
                }
                _ => break event,
            }
        };
        assert_eq!(
            (reply.kind.as_str(), &reply.data["data"]["text"]),
            ("reply", &json!("It left the warehouse."))
        );
        // Chunks may be lost, but are never reordered or doubled.
        assert!(!pieces.is_empty(), "it is told as it comes");
        let indexes: Vec<_> = pieces.iter().map(|piece| piece["index"].as_u64().unwrap()).collect();
        assert!(indexes.is_sorted_by(|a, b| a < b), "{indexes:?}");
        drop(stream);
        bridge.finish().await;
    });
}

#[test]
fn stopping_bridge_closes_its_streams_gracefully() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.drain_timeout = Duration::from_secs(6)).await;
        turn(&bridge, &["one"]).await;
        let gate = Gate::new();
        let steps = vec![Step::Ack, Step::Until(gate.clone()), Step::Say("two".to_owned())];
        bridge.script.next("alice", steps);
        let stream = bridge.api.events(&format!("{EVENTS}?after=latest")).await;
        let mut stream = stream.begun().await;
        let latest = bridge.api.get(format!("{EVENTS}?after=latest")).await.message(200);
        let held =
            Request::get(format!("{EVENTS}?after={}", latest["next"].as_str().unwrap())).prefer("wait=50");
        let (stop, _, api, _, sandbox) = bridge.into_stop();
        let held = api.send(held);
        let (held, last, ()) = tokio::join!(
            held,
            async {
                while stream.next().await.is_some() {}
                stream.last_id.clone()
            },
            stop
        );
        assert_eq!(held.message(200)["events"], json!([]), "a wait is answered as things stand");
        assert_eq!(last.as_deref(), latest["next"].as_str());
        gate.open();
        sandbox.stop().await;
    });
}

#[test]
fn http_1_0_caller_gets_no_chunks() {
    run(async {
        let bridge = spawn_bridge(|_| {}).await;
        turn(&bridge, &["one"]).await;
        let mut caller = TcpStream::connect(bridge.api.0).await.unwrap();
        // A kept connection would need a length.
        let head = "Accept: text/event-stream\r\nConnection: keep-alive\r\n";
        caller.write_all(format!("GET {EVENTS} HTTP/1.0\r\n{head}\r\n").as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while !said.windows(4).any(|four| four == b"id: ") {
            assert_ne!(caller.read_buf(&mut said).await.unwrap(), 0);
        }
        let said = String::from_utf8(said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("transfer-encoding") && !head.contains("keep-alive"), "{head}");
        assert!(body.starts_with("retry: ") && !body.contains('\r'), "{body}");
        drop(caller);
        bridge.finish().await;
    });
}

#[test]
fn streams_over_the_limit_are_refused() {
    run(async {
        let bridge = spawn_bridge(|config| config.server.max_streams = 2).await;
        let one = bridge.api.events(EVENTS).await;
        let two = bridge.api.events(EVENTS).await;
        let request = || Request::get(EVENTS).header("Accept", "text/event-stream");
        let refused = bridge.send(request()).await;
        let problem = refused.problem(503, "overloaded");
        assert!(problem["detail"].as_str().unwrap().contains("streams"), "{problem}");
        assert_eq!(refused.retry_after(), 1);
        // Pages do not count as streams.
        bridge.api.get(EVENTS).await.message(200);
        drop(one);
        while bridge.metric("event_streams").await > 1 {}
        let three = bridge.api.events(EVENTS).await;
        drop((two, three));
        bridge.finish().await;
    });
}
