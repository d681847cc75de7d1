//! Decodes pages of the platform's history (protocol.md 7.10), as leniently as frames.
//!
//! One thing is strict: a page without its list of messages is an error, not an empty page. A resend rests on the
//! fact that the platform does not know our message (api.md 1, "If the link breaks").

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::decode::{id, is_agent, time};
use crate::domain::lenient_json::{
    JsonMember, elements, is_true, limit_depth, members, string, whole_number,
};
use crate::domain::{ReplyChoice, ReplyMedia, Timestamp};
use crate::reply_content::{self, ReplyContent};

/// The least `clientMessageId` of the bridge: milliseconds, with a margin for wrong clocks. A smaller `userMsgId` has
/// another form and names no message.
const LEAST_ID: u64 = 1_000_000_000;

/// Error of a history answer that is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the history's answer is not a JSON object with a list of messages; read it again later")]
pub struct InvalidHistoryPage;

/// One page of the history.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Records of the user and the bot, in the page's order. Other records are left out.
    pub records: Vec<HistoryRecord>,
    /// Whether the platform has more.
    pub more: bool,
}

/// One message of the user, the bot or a human agent.
#[derive(Debug, Clone)]
pub struct HistoryRecord {
    /// The platform's id. For a record of the bot it is the `messageId` of its frame.
    pub id: Option<Box<str>>,
    /// Whether the user sent it. Otherwise the bot or a human agent did.
    pub from_user: bool,
    /// The `clientMessageId` of the user's frame, if that was a number of milliseconds.
    pub user_msg_id: Option<u64>,
    /// The text that the user saw.
    pub text: Box<str>,
    /// The answers that the bot offered.
    pub choices: Box<[ReplyChoice]>,
    /// The media of a message of the bot.
    pub media: Box<[ReplyMedia]>,
    /// Whether the record carries nothing for a person, as [`super::BotResponse::is_blank`].
    pub is_blank: bool,
    /// Whether a human agent sent it.
    pub agent: bool,
    /// The platform's time of the message.
    pub created_on: Option<Timestamp>,
    /// The platform's session of the message.
    pub session_id: Option<Box<str>>,
    /// Untouched record.
    pub event: Box<RawValue>,
}

impl HistoryRecord {
    /// Returns whether its text is this one, apart from blanks and from the platform's escapes.
    pub fn says(&self, text: &str) -> bool {
        let plain = reply_content::of_string(text);
        let words = if plain.is_empty() { text } else { &plain };
        !self.is_blank && words.split_whitespace().eq(self.text.split_whitespace())
    }
}

/// Decodes the body of a history answer with status 200.
///
/// # Errors
/// [`InvalidHistoryPage`] if the body is not UTF-8 or not one JSON object, or has no array `messages`.
pub fn decode_history_page(body: &[u8]) -> Result<HistoryPage, InvalidHistoryPage> {
    let body = std::str::from_utf8(body).map_err(|_| InvalidHistoryPage)?;
    let [messages, more] = members(body, ["messages", "moreAvailable"]).ok_or(InvalidHistoryPage)?;
    let messages = messages.and_then(elements).ok_or(InvalidHistoryPage)?;
    Ok(HistoryPage { records: messages.into_iter().filter_map(record).collect(), more: is_true(more) })
}

fn record(raw: &RawValue) -> Option<HistoryRecord> {
    let names = [
        "_id",
        "type",
        "userMsgId",
        "components",
        "tags",
        "createdOn",
        "timestampValue",
        "sessionId",
        "fromAgent",
        "author",
    ];
    let [message_id, kind, user_msg_id, components, tags, created_on, timestamp, rest @ ..] =
        members(raw.get(), names)?;
    let [session_id, from_agent, author] = rest;
    let kind = string(kind?)?;
    let from_user = kind.eq_ignore_ascii_case("incoming");
    if !from_user && !kind.eq_ignore_ascii_case("outgoing") {
        return None;
    }
    let shown = shown_text(tags);
    let content = if from_user {
        let text = reply_content::of_user_record(components, shown.as_deref());
        ReplyContent { text, ..ReplyContent::default() }
    } else {
        reply_content::of_record(components, shown.as_deref())
    };
    let event = RawValue::from_string(limit_depth(raw.get()).into_owned()).ok()?;
    let is_agent_line = components.is_some_and(reply_content::is_agent_line);
    let has_content = !is_agent_line && components.is_some_and(reply_content::has_content);
    let is_marked = is_true(from_agent) || author.is_some_and(is_person);
    Some(HistoryRecord {
        id: id(message_id),
        from_user,
        user_msg_id: user_msg_id.and_then(whole_number).filter(|id| *id >= LEAST_ID),
        is_blank: content.text.trim().is_empty() && !has_content,
        text: content.text.into_boxed_str(),
        choices: content.choices.into(),
        media: content.media.into(),
        agent: !from_user && (is_agent_line || is_marked),
        created_on: time(created_on).or_else(|| time(timestamp)),
        session_id: id(session_id),
        event,
    })
}

/// Returns the text that the user saw in place of the components' words: `tags.altText[0].value`.
fn shown_text(tags: JsonMember<'_>) -> Option<Cow<'_, str>> {
    let [alternatives] = members(tags?.get(), ["altText"])?;
    let [value] = members(elements(alternatives?)?.first()?.get(), ["value"])?;
    string(value?).filter(|text| !text.is_empty())
}

/// Returns whether the author is a human agent. History names agents without always giving their type.
fn is_person(author: &RawValue) -> bool {
    is_agent(author)
        || members(author.get(), ["type", "firstName", "lastName"]).is_some_and(|[kind, names @ ..]| {
            kind.is_none() && names.into_iter().any(|name| id(name).is_some())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(record: &str) -> HistoryRecord {
        let body = format!(r#"{{"messages":[{record}]}}"#);
        let mut records = decode_history_page(body.as_bytes()).unwrap().records;
        assert_eq!(records.len(), 1, "{record}");
        records.remove(0)
    }

    #[test]
    fn invalid_page_is_an_error() {
        for body in
            ["", "[]", "{}", "<html>", r#"{"messages":null}"#, r#"{"messages":{}}"#, r#"{"messages":[}"#]
        {
            assert_eq!(decode_history_page(body.as_bytes()).unwrap_err(), InvalidHistoryPage, "{body}");
        }
        assert_eq!(decode_history_page(b"{\"messages\":[\"\xff\"]}").unwrap_err(), InvalidHistoryPage);
    }

    #[test]
    fn page_reports_whether_more_is_available() {
        let page = decode_history_page(br#"{"total":0,"messages":[],"moreAvailable":true}"#).unwrap();
        assert!(page.records.is_empty() && page.more);
        assert!(!decode_history_page(br#"{"messages":[]}"#).unwrap().more);
    }

    #[test]
    fn deep_record_does_not_spoil_its_page() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let body = format!(r#"{{"messages":[{{"type":"outgoing","_id":"ms-1","x":{deep}}},{deep}]}}"#);
        let page = decode_history_page(body.as_bytes()).unwrap();
        assert_eq!(page.records.len(), 1);
        assert_eq!(page.records[0].id.as_deref(), Some("ms-1"));
        assert!(serde_json::from_str::<serde_json::Value>(page.records[0].event.get()).is_ok());
    }

    #[test]
    fn odd_records_are_left_out() {
        let body = br#"{"messages":[null,5,[],{},{"type":7},{"type":"note"},{"type":"OUTGOING","components":5,"userMsgId":{}}]}"#;
        let page = decode_history_page(body).unwrap();
        assert_eq!(page.records.len(), 1);
        assert!(!page.records[0].from_user && page.records[0].text.is_empty());
    }

    #[test]
    fn user_message_id_in_any_number_form_is_read() {
        for id in ["1672567190000", "1672567190000.0", "\"1672567190000\""] {
            let record = only(&format!(r#"{{"type":"incoming","userMsgId":{id}}}"#));
            assert!(record.from_user);
            assert_eq!(record.user_msg_id, Some(1_672_567_190_000));
        }
        for other in ["\"a-uuid\"", "17", "null", "{}", "1672567190000.5", "-1672567190000", "1e999"] {
            assert_eq!(
                only(&format!(r#"{{"type":"incoming","userMsgId":{other}}}"#)).user_msg_id,
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn record_says_its_text_in_any_spelling() {
        let text = |text: &str| {
            let text = serde_json::to_string(text).unwrap();
            only(&format!(r#"{{"type":"incoming","components":[{{"cT":"text","data":{{"text":{text}}}}}]}}"#))
        };
        for sent in ["5 < 7 &  \"yes\"", " 5 &lt; 7 &amp; \"yes\"\n"] {
            assert!(text("5 &lt; 7 &amp; &quot;yes&quot; ").says(sent), "{sent}");
            assert!(!text("5 < 8").says(sent), "{sent}");
        }
        assert!(text("{\"a\":1}").says("{\"a\":1}"));
        assert!(!text("").says("") && !text(" ").says(""), "a blank text tells nothing");
    }

    #[test]
    fn agent_record_is_known_by_its_author() {
        let agent = |author: &str| only(&format!(r#"{{"type":"outgoing","author":{author}}}"#)).agent;
        assert!(agent(r#"{"type":"AGENT"}"#));
        assert!(agent(r#"{"firstName":"Ada","lastName":""}"#));
        assert!(!agent(r#"{"type":"BOT","firstName":"Ada"}"#));
        assert!(!agent(r#"{"firstName":"","lastName":null}"#));
        assert!(!only(r#"{"type":"incoming","author":{"firstName":"Ada"}}"#).agent);
    }

    #[test]
    fn agent_record_is_known_by_its_template() {
        let stored = |template: &str| {
            let template =
                format!(r#"{{"type":"template","payload":{{"template_type":"{template}","text":"Hi"}}}}"#);
            let text = serde_json::to_string(&template).unwrap();
            only(&format!(
                r#"{{"type":"outgoing","components":[{{"cT":"template","data":{{"text":{text}}}}}]}}"#
            ))
        };
        assert!(stored("live_agent").agent && !stored("button").agent);
        assert_eq!(&*stored("live_agent").text, "Hi");
    }

    #[test]
    fn record_without_content_is_blank() {
        let blank =
            |components: &str| only(&format!(r#"{{"type":"outgoing","components":{components}}}"#)).is_blank;
        for components in ["[]", "null", "[{}]", r#"[{"cT":"text","data":{"text":""}}]"#] {
            assert!(blank(components), "{components}");
        }
        for components in
            [r#"[{"cT":"text","data":{"text":"Hi"}}]"#, r#"[{"cT":"image","data":{"url":"x"}}]"#]
        {
            assert!(!blank(components), "{components}");
        }
    }

    #[test]
    fn record_time_in_any_form_is_read() {
        for time in [r#""createdOn":1512722848000"#, r#""timestampValue":1512722848000"#] {
            let record = only(&format!(r#"{{"type":"outgoing",{time}}}"#));
            assert_eq!(record.created_on, Some(Timestamp::from_millis(1_512_722_848_000)), "{time}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(body: Vec<u8>) {
            let _ = decode_history_page(&body);
        }
    }
}
