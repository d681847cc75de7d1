//! Pages of the platform's history (protocol.md 7.10), as leniently read as frames.
//!
//! One thing is strict: a page without its list of messages is an error and not an empty page, because "the
//! platform does not know our message" is what a resend rests on (api.md 1, "If the link breaks").

use serde_json::value::RawValue;

use super::decode::{id, is_agent, time};
use super::lenient_json::{Member, elements, is_too_deep, is_true, number, pick, string};
use super::text_extraction as text;
use crate::domain::Timestamp;

/// The answer of the history API is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the history's answer is not a JSON object with a list of messages; read it again later")]
pub struct InvalidHistoryPage;

/// One page.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// What it lists, in its order. Records that are neither the user's nor the bot's are left out.
    pub records: Vec<HistoryRecord>,
    /// Whether the platform has more.
    pub more: bool,
}

/// What the user or the bot once said.
#[derive(Debug, Clone)]
pub struct HistoryRecord {
    /// The platform's id of it: of the bot's records, the `messageId` that their frame had.
    pub id: Option<Box<str>>,
    /// Whether the user said it; else the bot or a human agent did.
    pub from_user: bool,
    /// Of the user's records, the `clientMessageId` that their frame had, where that was a number.
    pub user_msg_id: Option<u64>,
    /// The best plain text (protocol.md 7.3).
    pub text: Box<str>,
    /// Whether a human agent said it.
    pub agent: bool,
    /// The platform's time of it.
    pub created_on: Option<Timestamp>,
    /// The platform's session it was said in.
    pub session_id: Option<Box<str>>,
    /// The record, untouched.
    pub event: Box<RawValue>,
}

/// Reads the body of a history answer that has status 200.
///
/// # Errors
/// [`InvalidHistoryPage`] where it is not UTF-8, not one JSON object, has no array `messages`, or nests deeper than 128
/// levels.
pub fn history_page(body: &[u8]) -> Result<HistoryPage, InvalidHistoryPage> {
    let body = std::str::from_utf8(body).map_err(|_| InvalidHistoryPage)?;
    if is_too_deep(body) {
        return Err(InvalidHistoryPage);
    }
    let [messages, more] = pick(body, ["messages", "moreAvailable"]).ok_or(InvalidHistoryPage)?;
    let messages = messages.and_then(elements).ok_or(InvalidHistoryPage)?;
    Ok(HistoryPage { records: messages.into_iter().filter_map(record).collect(), more: is_true(more) })
}

fn record(raw: &RawValue) -> Option<HistoryRecord> {
    let names =
        ["_id", "type", "userMsgId", "components", "tags", "createdOn", "sessionId", "fromAgent", "author"];
    let [message_id, kind, user_msg_id, components, tags, created_on, session_id, from_agent, author] =
        pick(raw.get(), names)?;
    let kind = string(kind?)?;
    let from_user = kind.eq_ignore_ascii_case("incoming");
    if !from_user && !kind.eq_ignore_ascii_case("outgoing") {
        return None;
    }
    let text = shown(tags).or_else(|| components.map(text::of_message)).unwrap_or_default();
    Some(HistoryRecord {
        id: id(message_id),
        from_user,
        user_msg_id: user_msg_id.and_then(number),
        text: text.into_boxed_str(),
        agent: !from_user && (is_true(from_agent) || author.is_some_and(is_person)),
        created_on: time(created_on),
        session_id: id(session_id),
        event: raw.to_owned(),
    })
}

/// What the user was shown in place of the components: `tags.altText[0].value`.
fn shown(tags: Member<'_>) -> Option<String> {
    let [alternatives] = pick(tags?.get(), ["altText"])?;
    let [value] = pick(elements(alternatives?)?.first()?.get(), ["value"])?;
    text::of_string(&string(value?)?)
}

/// History names an agent without always saying that it is one.
fn is_person(author: &RawValue) -> bool {
    is_agent(author)
        || pick(author.get(), ["type", "firstName", "lastName"]).is_some_and(|[kind, names @ ..]| {
            kind.is_none() && names.into_iter().any(|name| id(name).is_some())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(record: &str) -> HistoryRecord {
        let body = format!(r#"{{"messages":[{record}]}}"#);
        let mut records = history_page(body.as_bytes()).unwrap().records;
        assert_eq!(records.len(), 1, "{record}");
        records.remove(0)
    }

    #[test]
    fn what_is_no_page_is_an_error_and_no_empty_page() {
        let deep = format!(r#"{{"messages":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for body in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"messages":null}"#,
            r#"{"messages":{}}"#,
            r#"{"messages":[}"#,
            &deep,
        ] {
            assert_eq!(history_page(body.as_bytes()).unwrap_err(), InvalidHistoryPage, "{body}");
        }
        assert_eq!(history_page(b"{\"messages\":[\"\xff\"]}").unwrap_err(), InvalidHistoryPage);
    }

    #[test]
    fn pages_say_whether_there_is_more() {
        let page = history_page(br#"{"total":0,"messages":[],"moreAvailable":true}"#).unwrap();
        assert!(page.records.is_empty() && page.more);
        assert!(!history_page(br#"{"messages":[]}"#).unwrap().more);
    }

    #[test]
    fn odd_records_are_left_out_and_spoil_nothing() {
        let body = br#"{"messages":[null,5,[],{},{"type":7},{"type":"note"},{"type":"OUTGOING","components":5,"userMsgId":{}}]}"#;
        let page = history_page(body).unwrap();
        assert_eq!(page.records.len(), 1);
        assert!(!page.records[0].from_user && page.records[0].text.is_empty());
    }

    #[test]
    fn user_message_ids_come_in_every_shape_of_a_number() {
        for id in ["1672567190000", "1672567190000.0", "\"1672567190000\""] {
            let record = only(&format!(r#"{{"type":"incoming","userMsgId":{id}}}"#));
            assert!(record.from_user);
            assert_eq!(record.user_msg_id, Some(1_672_567_190_000));
        }
        assert_eq!(only(r#"{"type":"incoming","userMsgId":"a-uuid"}"#).user_msg_id, None);
    }

    #[test]
    fn agents_are_told_by_their_author() {
        let agent = |author: &str| only(&format!(r#"{{"type":"outgoing","author":{author}}}"#)).agent;
        assert!(agent(r#"{"type":"AGENT"}"#));
        assert!(agent(r#"{"firstName":"Ada","lastName":""}"#));
        assert!(!agent(r#"{"type":"BOT","firstName":"Ada"}"#));
        assert!(!agent(r#"{"firstName":"","lastName":null}"#));
        assert!(!only(r#"{"type":"incoming","author":{"firstName":"Ada"}}"#).agent);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = history_page(&body);
        }
    }
}
