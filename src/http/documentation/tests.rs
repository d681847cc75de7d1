use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::domain::fixtures::{accepted_message, conversation, new_delivery, new_message, reply};
use crate::domain::{
    ConnectionStatus, Delivery, DeliveryAttempt, DeliveryKind, DeliveryState, EndedBy, EventKind, FileKind,
    LinkState, MediaKind, Message, MessageEvent, MessageProgress, NewDelivery, Problem, QuietSource,
    QuietWait, Reply, ReplyChoice, ReplyMedia, Timestamp, TurnOutcome, UploadedFile,
};
use crate::http::{OTHER, ROUTES, kore_webhook};

fn parsed() -> Value {
    serde_json::from_str(openapi_document()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn words(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn document_lists_exactly_the_routes() {
    // The platform defines the routes of its webhook channel. from-kore-webhooks.md describes them.
    let is_own = |route: &&str| *route != OTHER && !kore_webhook::is_route(route);
    let routes: BTreeSet<_> = ROUTES.iter().copied().filter(is_own).collect();
    assert_eq!(keys(&parsed()["paths"]), routes);
}

#[test]
fn every_reference_has_a_target() {
    fn check(document: &Value, value: &Value) {
        if let Some(Value::String(target)) = value.get("$ref") {
            assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            Value::Object(members) => members.values().for_each(|member| check(document, member)),
            _ => {}
        }
    }
    let document = parsed();
    check(&document, &document);
}

#[test]
fn document_knows_every_enum_value() {
    let document = parsed();
    let slugs = ProblemKind::ALL.iter().map(|kind| kind.slug()).collect();
    assert_eq!(words(&document["components"]["schemas"]["ProblemSlug"]["enum"]), slugs);
    let kinds = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words(&document["components"]["schemas"]["Event"]["properties"]["type"]["enum"]), kinds);
    let states = LinkState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(
        words(&document["components"]["schemas"]["Connection"]["properties"]["state"]["enum"]),
        states
    );
    let delivery = &document["components"]["schemas"]["Delivery"]["properties"];
    let kinds = DeliveryKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words(&delivery["type"]["enum"]), kinds);
    let states = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(words(&delivery["state"]["enum"]), states);
    let media = MediaKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words(&document["components"]["schemas"]["ReplyMedia"]["properties"]["kind"]["enum"]), media);
    let ends = EndedBy::ALL.iter().map(|by| by.as_str()).collect();
    assert_eq!(words(&document["components"]["schemas"]["Message"]["properties"]["endedBy"]["enum"]), ends);
    let sources = QuietSource::ALL.iter().map(|by| by.as_str()).collect();
    assert_eq!(words(&document["components"]["schemas"]["QuietWait"]["properties"]["by"]["enum"]), sources);
}

#[test]
fn document_describes_resources_as_written() {
    let mut accepted = accepted_message(new_message(conversation("b", "u"), "hi"));
    accepted.new.event = Some(MessageEvent::Connect);
    let id = accepted.id;
    let reply = Reply {
        partial: true,
        choices: [ReplyChoice { title: "Yes".into(), payload: "y".into() }].into(),
        media: [ReplyMedia { kind: MediaKind::File, url: None, title: None }].into(),
        ..reply(1, Some(id), "hi")
    };
    let message = Message {
        accepted: Arc::new(accepted),
        progress: MessageProgress {
            replies: vec![Arc::new(reply)],
            outcome: Some(TurnOutcome::Failed(Problem::new(ProblemKind::NoReply, "nothing"))),
            ..MessageProgress::default()
        },
    };
    let written = serde_json::to_value(&message).unwrap();
    let document = parsed();
    let schemas = &document["components"]["schemas"];
    let connection = serde_json::to_value(ConnectionStatus::default()).unwrap();
    let delivery = Delivery {
        new: NewDelivery {
            kind: DeliveryKind::MessageFailed,
            message: Some(id),
            ..new_delivery(
                &message.accepted.new.conversation,
                1,
                Timestamp::from_millis(1),
                "https://hooks.example/",
            )
        },
        state: DeliveryState::Pending,
        next_attempt_at: None,
        reason: None,
        attempts: vec![DeliveryAttempt {
            at: Timestamp::from_millis(1),
            status: None,
            error: None,
            duration: std::time::Duration::ZERO,
            response: None,
        }],
    };
    let delivery = serde_json::to_value(&delivery).unwrap();
    let file = UploadedFile {
        file_id: "f".into(),
        file_name: "a.png".into(),
        file_type: FileKind::Image,
        size: 1,
        file_url: None,
    };
    let file = serde_json::to_value(&file).unwrap();
    let quiet = QuietWait { wait: std::time::Duration::ZERO, by: QuietSource::Learned };
    let quiet = serde_json::to_value(quiet).unwrap();
    let rhythm = serde_json::to_value(crate::http::rhythm::fixture()).unwrap();
    let (endpoint, tested) = crate::http::webhooks::fixtures();
    for (name, resource) in [
        ("Message", &written),
        ("Reply", &written["replies"][0]),
        ("ReplyChoice", &written["replies"][0]["choices"][0]),
        ("ReplyMedia", &written["replies"][0]["media"][0]),
        ("ProblemCore", &written["error"]),
        ("QuietWait", &quiet),
        ("Rhythm", &rhythm),
        ("ReplyKind", &rhythm["kinds"][0]),
        ("Connection", &connection),
        ("Delivery", &delivery),
        ("Attempt", &delivery["attempts"][0]),
        ("UploadedFile", &file),
        ("Endpoint", &endpoint),
        ("EndpointTest", &tested),
    ] {
        assert_eq!(keys(resource), keys(&schemas[name]["properties"]), "{name}");
        // Only a reply with a missing part, and a message that is an event, say so.
        let mut required = words(&schemas[name]["required"]);
        required.extend(Some("partial").filter(|_| name == "Reply"));
        required.extend(Some("event").filter(|_| name == "Message"));
        assert_eq!(keys(resource), required, "{name}");
    }
}

#[test]
fn every_problem_has_its_own_page() {
    let pages: BTreeSet<_> = ProblemKind::ALL.iter().map(|&kind| problem_page(kind)).collect();
    assert_eq!(pages.len(), ProblemKind::ALL.len());
    assert!(pages.iter().all(|page| page.contains("What to do")));
}

#[test]
fn problem_pages_name_every_cause() {
    for (kind, causes) in [
        (ProblemKind::RateLimited, &["rate_per_minute", "max_open_requests"][..]),
        (ProblemKind::CallbackRefused, &["webhooks.allowed", "secret"]),
        (ProblemKind::StoreUnavailable, &["in time", "refused", "replicas"]),
        (ProblemKind::Overloaded, &["requests", "streams", "uploads", "sockets", "memory"]),
        (ProblemKind::NotFound, &["route", "bot", "message", "delivery", "%2F"]),
        (ProblemKind::PlatformRejected, &["credentials", "1007"]),
        (ProblemKind::PlatformUnavailable, &["deadline", "connects_per_minute", "DELETE"]),
        (ProblemKind::UnsupportedMediaType, &["JSON", "compressed"]),
        (ProblemKind::PayloadTooLarge, &["1 MiB", "1009", "max_attachment_bytes"]),
    ] {
        let page = problem_page(kind);
        assert!(causes.iter().all(|cause| page.contains(cause)), "{kind}: {page}");
    }
}
