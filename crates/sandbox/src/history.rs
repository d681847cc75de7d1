//! The messages of a conversation, as the history API returns them (protocol.md 7.10).

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::clock;

/// One message of a user or of the bot.
#[derive(Debug, Clone)]
pub(super) struct HistoryEntry {
    pub(super) id: String,
    /// The user's own id of the message, as written. A bot's message has none.
    pub(super) user_message_id: Option<Box<RawValue>>,
    pub(super) from_user: bool,
    pub(super) by_agent: bool,
    pub(super) text: String,
    /// The template as JSON text, if the message is one. `text` is then the alternative.
    pub(super) template: Option<String>,
    pub(super) at: Timestamp,
    /// Time from which the history shows the message.
    pub(super) visible_at: Timestamp,
    pub(super) session: String,
}

/// Part of the history that a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HistorySelection {
    pub(super) limit: usize,
    /// Number of newest messages to skip.
    pub(super) offset: usize,
    /// Whether the page holds the messages after `message_id`, oldest first, instead of those before it.
    pub(super) forward: bool,
    pub(super) message_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryAnswer {
    total: usize,
    more_available: bool,
    icon: &'static str,
    messages: Vec<Value>,
}

/// Returns the selected page, oldest message first. An unknown message has no messages before or after it.
pub(super) fn page(
    said: &VecDeque<HistoryEntry>,
    bot_id: &str,
    query: &HistorySelection,
    now: Timestamp,
) -> HistoryAnswer {
    let visible: Vec<&HistoryEntry> = said.iter().filter(|said| said.visible_at <= now).collect();
    let total = visible.len();
    let at = query.message_id.as_ref().map(|id| visible.iter().position(|said| said.id == *id));
    let (candidates, newest_first) = match (at, query.forward) {
        (None, forward) => (visible.as_slice(), !forward),
        (Some(Some(at)), true) => (visible.get(at + 1..).unwrap_or_default(), false),
        (Some(Some(at)), false) => (visible.get(..at).unwrap_or_default(), true),
        (Some(None), _) => (Default::default(), false),
    };
    let left = candidates.len().saturating_sub(query.offset);
    let taken = left.min(query.limit);
    let from = if newest_first { left - taken } else { query.offset.min(candidates.len()) };
    let chosen = candidates.get(from..from + taken).unwrap_or_default();
    HistoryAnswer {
        total,
        more_available: left > taken,
        icon: "https://example.com/bot.png",
        messages: chosen.iter().map(|said| record_json(said, bot_id)).collect(),
    }
}

fn record_json(said: &HistoryEntry, bot_id: &str) -> Value {
    let alternative: Vec<Value> = said.template.iter().map(|_| json!({"value": said.text})).collect();
    let mut record = json!({
        "_id": said.id,
        "type": if said.from_user { "incoming" } else { "outgoing" },
        "components": [{"cT": "text", "data": {"text": said.template.as_ref().unwrap_or(&said.text)}}],
        "createdOn": clock::rfc3339(said.at),
        "timestampValue": said.at.as_millisecond(),
        "sessionId": said.session,
        "botId": bot_id,
        "chnl": "rtm",
        "status": 0,
        "lang": "en",
        "tags": {"altText": alternative},
    });
    let id = said.user_message_id.as_deref().and_then(|id| serde_json::from_str(id.get()).ok());
    if let (Some(id), Some(fields)) = (id, record.as_object_mut()) {
        fields.insert("userMsgId".to_owned(), id);
    }
    if said.by_agent
        && let Some(fields) = record.as_object_mut()
    {
        fields.insert("author".to_owned(), json!({"firstName": "Alex", "lastName": "Agent"}));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(n: i64) -> HistoryEntry {
        HistoryEntry {
            id: format!("ms-{n}"),
            user_message_id: (n % 2 == 0).then(|| RawValue::from_string(format!("{n}.5")).unwrap()),
            from_user: n % 2 == 0,
            by_agent: false,
            text: format!("text {n}"),
            template: (n == 3).then(|| "{}".to_owned()),
            at: Timestamp::from_millisecond(n).unwrap(),
            visible_at: Timestamp::from_millisecond(n).unwrap(),
            session: "5".to_owned(),
        }
    }

    fn page_at(
        said: impl Iterator<Item = HistoryEntry>,
        query: &HistorySelection,
        now: i64,
    ) -> HistoryAnswer {
        page(&said.collect(), "st-1", query, Timestamp::from_millisecond(now).unwrap())
    }

    fn first(limit: usize) -> HistorySelection {
        HistorySelection { limit, ..HistorySelection::default() }
    }

    fn ids(query: &HistorySelection, now: i64) -> (Vec<String>, bool, usize) {
        let page = page_at((0..10).map(said), query, now);
        let ids = page.messages.iter().map(|m| m["_id"].as_str().unwrap()[3..].to_owned()).collect();
        (ids, page.more_available, page.total)
    }

    fn some(ids: &[u32]) -> Vec<String> {
        ids.iter().map(u32::to_string).collect()
    }

    #[test]
    fn page_goes_back_from_the_newest() {
        let query = first(3);
        assert_eq!(ids(&query, 99), (some(&[7, 8, 9]), true, 10));
        assert_eq!(ids(&HistorySelection { offset: 8, ..query.clone() }, 99), (some(&[0, 1]), false, 10));
        assert_eq!(ids(&HistorySelection { offset: 80, ..query.clone() }, 99), (some(&[]), false, 10));
        assert_eq!(ids(&query, 4), (some(&[2, 3, 4]), true, 5), "an invisible message does not count");
        let before = HistorySelection { message_id: Some("ms-2".into()), ..query };
        assert_eq!(ids(&before, 99), (some(&[0, 1]), false, 10));
    }

    #[test]
    fn page_goes_forward_from_a_message() {
        let query = HistorySelection { forward: true, message_id: Some("ms-4".into()), ..first(3) };
        assert_eq!(ids(&query, 99), (some(&[5, 6, 7]), true, 10));
        assert_eq!(ids(&HistorySelection { offset: 3, ..query.clone() }, 99), (some(&[8, 9]), false, 10));
        let unknown = HistorySelection { message_id: Some("ms-x".into()), ..query };
        assert_eq!(ids(&unknown, 99), (some(&[]), false, 10));
    }

    #[test]
    fn user_record_keeps_its_id_unchanged() {
        let page = page_at((0..3).map(said), &first(9), 9);
        assert_eq!(page.messages[2]["userMsgId"], json!(2.5));
        assert_eq!(page.messages[2]["type"], "incoming");
        assert_eq!(page.messages[1].get("userMsgId"), None);
        assert_eq!(page.messages[1]["type"], "outgoing");
        assert_eq!(page.messages[1]["tags"]["altText"], json!([]));
    }

    #[test]
    fn template_record_is_json_text_with_an_alternative() {
        let page = page_at([said(3)].into_iter(), &first(9), 9);
        assert_eq!(page.messages[0]["components"][0]["data"]["text"], "{}");
        assert_eq!(page.messages[0]["tags"]["altText"], json!([{"value": "text 3"}]));
    }
}
