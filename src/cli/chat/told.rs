//! What the bridge tells, as far as people are told of it (docs/api.md). Fields that are not needed are not read.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

use super::sse::Event;

/// One event of a conversation.
#[derive(Debug)]
pub(super) enum Told {
    /// The bot, or a person, said something.
    Reply(Reply),
    /// A piece of what is being said.
    Chunk(Chunk),
    /// A message ended, well or not.
    Ended(Message),
    /// The user said something elsewhere.
    Elsewhere(String),
    /// Another event of the platform, by its type in lower case.
    Platform(String),
    /// Events may be missing here.
    Gap,
    /// Something that this version does not know, or cannot read.
    Unknown,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Reply {
    pub(super) message_id: Option<String>,
    pub(super) correlation: String,
    pub(super) late: bool,
    pub(super) text: String,
    pub(super) agent: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk {
    pub(super) message_id: Option<String>,
    pub(super) index: u32,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) complete: Option<bool>,
    #[serde(default)]
    pub(super) ended_by: Option<String>,
    #[serde(default)]
    pub(super) replies: Vec<IgnoredAny>,
    #[serde(default)]
    pub(super) error: Option<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    Answered,
    Failed,
    #[serde(other)]
    Running,
}

/// Why something failed (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Problem {
    pub(super) title: String,
    pub(super) detail: String,
}

impl Told {
    /// What an event of the stream says.
    pub(super) fn of(event: &Event) -> Self {
        let read = match event.kind.as_str() {
            "reply" => data(event).map(Self::Reply),
            "chunk" => data(event).map(Self::Chunk),
            "message.answered" | "message.failed" => data(event).map(Self::Ended),
            "userMessage" => data(event).map(|frame: UserMessage| Self::Elsewhere(frame.message.body)),
            "platform" => data(event).map(|told: Platform| {
                let kind = told.event.kind.trim_start_matches('/').to_ascii_lowercase();
                Self::Platform(kind)
            }),
            "gap" => Some(Self::Gap),
            _ => None,
        };
        read.unwrap_or(Self::Unknown)
    }
}

/// The `data` of the entry that an event carries.
fn data<T: DeserializeOwned>(event: &Event) -> Option<T> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let entry: Entry<'_> = serde_json::from_str(&event.data).ok()?;
    serde_json::from_str(entry.data.get()).ok()
}

#[derive(Deserialize)]
struct UserMessage {
    message: Body,
}

#[derive(Deserialize)]
struct Body {
    body: String,
}

#[derive(Deserialize)]
struct Platform {
    event: Frame,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, data: &str) -> Told {
        let data = format!(r#"{{"seq":1,"type":"{kind}","at":"2026-01-01T00:00:00.000Z","data":{data}}}"#);
        Told::of(&Event { kind: kind.to_owned(), data, id: String::new() })
    }

    #[test]
    fn fields_that_are_new_do_no_harm() {
        let reply = told("reply", r#"{"seq":1,"text":"hi","late":true,"mood":"good","event":{}}"#);
        assert!(matches!(reply, Told::Reply(Reply { late: true, agent: false, .. })), "{reply:?}");
        let ended =
            told("message.answered", r#"{"id":"a","status":"answered","complete":true,"replies":[{}]}"#);
        assert!(matches!(&ended, Told::Ended(message) if message.replies.len() == 1), "{ended:?}");
        let running = told("message.answered", r#"{"id":"a","status":"dreaming"}"#);
        assert!(matches!(&running, Told::Ended(message) if message.status == Status::Running), "{running:?}");
    }

    #[test]
    fn platform_events_go_by_their_type() {
        let started = told("platform", r#"{"event":{"type":"/Agent_Session_Start"}}"#);
        assert!(matches!(&started, Told::Platform(kind) if kind == "agent_session_start"), "{started:?}");
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for (kind, data) in
            [("reply", "null"), ("chunk", "{}"), ("weather", "{}"), ("message.failed", "null")]
        {
            assert!(matches!(told(kind, data), Told::Unknown), "{kind}");
        }
        assert!(matches!(Told::of(&Event { kind: "reply".into(), ..Event::default() }), Told::Unknown));
    }
}
