//! Recorded frames and history pages of the platform, each with its expected decoding.
//!
//! `frames/*.json` and `history/*.json` hold three members: `source` (the section of protocol.md), `frame` or `body`,
//! and `expected`. A frame's `expected` lists `kind` and the fields of that kind, with `isBlank` only if it is true. A
//! record's `expected` lists all other fields. `choices` and `media` are there only if they are not empty.

mod properties;

use std::fs;
use std::path::{Path, PathBuf};

use rtm_bridge::domain::{ReplyChoice, ReplyMedia};
use rtm_bridge::rtm::{HistoryRecord, IncomingFrame, decode_frame, decode_history_page};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    source: String,
    #[serde(alias = "body")]
    frame: Box<RawValue>,
    expected: Value,
}

fn recordings(folder: &str) -> Vec<(PathBuf, Recording)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no recordings in {}", folder.display());
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let recording: Recording =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(recording.source.starts_with("protocol.md "), "{}", path.display());
            (path, recording)
        })
        .collect()
}

/// Returns the decoded frame in the form of `expected`.
fn frame_as_json(incoming: &IncomingFrame) -> Value {
    let mut seen = match incoming {
        IncomingFrame::Ack { reply_to } => json!({ "replyTo": reply_to }),
        IncomingFrame::Active { session_id, session_continues } => {
            json!({ "sessionId": session_id, "sessionContinues": session_continues })
        }
        IncomingFrame::SessionStart { session_id, .. } => json!({ "sessionId": session_id }),
        IncomingFrame::Response(response) => json!({
            "messageId": response.message_id,
            "text": response.text,
            "agent": response.agent,
            "createdOn": response.created_on,
            "stream": response.stream.as_ref().map(|stream| json!({ "last": stream.last, "complete": stream.complete })),
            "moreFollows": response.more_follows,
            "sessionId": response.session_id,
            "correlationId": response.correlation_id,
        }),
        _ => json!({}),
    };
    if let IncomingFrame::Response(response) = incoming
        && response.is_blank
    {
        seen["isBlank"] = true.into();
    }
    if let IncomingFrame::Response(response) = incoming {
        add_lists(&mut seen, &response.choices, &response.media);
    }
    seen["kind"] = incoming.kind().into();
    seen
}

const fn event(incoming: &IncomingFrame) -> Option<&RawValue> {
    match incoming {
        IncomingFrame::Response(response) => Some(&response.event),
        IncomingFrame::UserMessage(raw)
        | IncomingFrame::SessionStart { event: raw, .. }
        | IncomingFrame::SessionEnd(raw)
        | IncomingFrame::AgentStart(raw)
        | IncomingFrame::AgentEnd(raw)
        | IncomingFrame::Platform(raw)
        | IncomingFrame::Unknown(raw) => Some(raw),
        _ => None,
    }
}

#[test]
fn recorded_frames_decode_as_expected() {
    for (path, recording) in recordings("frames") {
        let incoming = decode_frame(recording.frame.get().as_bytes());
        assert_eq!(frame_as_json(&incoming), recording.expected, "{}", path.display());
        if let Some(event) = event(&incoming) {
            assert_eq!(event.get(), recording.frame.get(), "{} came through changed", path.display());
        }
    }
}

#[test]
fn recordings_cover_every_kind_except_malformed() {
    let seen: Vec<Value> =
        recordings("frames").into_iter().map(|(_, recording)| recording.expected["kind"].clone()).collect();
    for kind in IncomingFrame::KINDS {
        assert!(kind == "malformed" || seen.contains(&kind.into()), "no recording of kind {kind}");
    }
}

/// Adds the lists that are not empty.
fn add_lists(seen: &mut Value, choices: &[ReplyChoice], media: &[ReplyMedia]) {
    if !choices.is_empty() {
        seen["choices"] = json!(choices);
    }
    if !media.is_empty() {
        seen["media"] = json!(media);
    }
}

fn record_as_json(record: &HistoryRecord) -> Value {
    let mut seen = json!({
        "id": record.id,
        "fromUser": record.from_user,
        "userMsgId": record.user_msg_id,
        "text": record.text,
        "agent": record.agent,
        "createdOn": record.created_on,
        "sessionId": record.session_id,
    });
    add_lists(&mut seen, &record.choices, &record.media);
    seen
}

#[test]
fn recorded_history_decodes_as_expected() {
    for (path, recording) in recordings("history") {
        let page = decode_history_page(recording.frame.get().as_bytes()).unwrap();
        let records: Vec<Value> = page.records.iter().map(record_as_json).collect();
        let seen = json!({ "more": page.more, "records": records });
        assert_eq!(seen, recording.expected, "{}", path.display());
        for record in page.records {
            assert!(recording.frame.get().contains(record.event.get()), "{}", path.display());
        }
    }
}
