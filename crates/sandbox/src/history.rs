//! The messages of a conversation, as the history API returns them (protocol.md 7.10).

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::clock;
use super::history_content::HistoryContent;

/// One message of a user or of the bot.
#[derive(Debug, Clone)]
pub(super) struct HistoryEntry {
    pub(super) id: String,
    /// The user's own id of the message, as written. A bot's message has none.
    pub(super) user_message_id: Option<Box<RawValue>>,
    pub(super) from_user: bool,
    pub(super) by_agent: bool,
    pub(super) content: HistoryContent,
    pub(super) at: Timestamp,
    /// Time from which the history shows the message.
    pub(super) visible_at: Timestamp,
    pub(super) session: String,
}

/// Conversation whose history is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistoryOwner<'a> {
    pub(super) bot_id: &'a str,
    pub(super) user_id: &'a str,
    /// URL of the bot's picture.
    pub(super) icon: &'a str,
    /// Channel of the records.
    pub(super) channel: &'a str,
}

/// Part of the history that a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HistorySelection {
    pub(super) limit: usize,
    /// Number of newest messages to skip.
    pub(super) offset: usize,
    /// Whether the page holds the messages after `message_id`, instead of those before it. Without a message, both
    /// mean the newest page.
    pub(super) forward: bool,
    pub(super) message_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryAnswer {
    total: usize,
    more_available: bool,
    icon: String,
    messages: Vec<Value>,
}

/// Returns the selected page, oldest message first. An unknown message has no messages before or after it.
pub(super) fn page(
    said: &VecDeque<HistoryEntry>,
    owner: HistoryOwner<'_>,
    query: &HistorySelection,
    now: Timestamp,
) -> HistoryAnswer {
    let visible: Vec<&HistoryEntry> = said.iter().filter(|said| said.visible_at <= now).collect();
    let total = visible.len();
    let at = query.message_id.as_ref().map(|id| visible.iter().position(|said| said.id == *id));
    let (candidates, newest_first) = match (at, query.forward) {
        (None, _) => (visible.as_slice(), true),
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
        icon: owner.icon.to_owned(),
        messages: chosen.iter().map(|said| record_json(said, owner)).collect(),
    }
}

#[expect(clippy::indexing_slicing, reason = "the value is an object")]
fn record_json(said: &HistoryEntry, owner: HistoryOwner<'_>) -> Value {
    let created = clock::rfc3339(said.at);
    let mut channel = json!({"type": owner.channel});
    let mut record = json!({
        "_id": said.id,
        "type": if said.from_user { "incoming" } else { "outgoing" },
        "components": said.content.components(),
        "createdOn": created,
        "createdBy": owner.user_id,
        "lmodifiedOn": created,
        "lmodifiedBy": owner.user_id,
        "timestampValue": said.at.as_millisecond(),
        "sessionId": said.session,
        "botId": owner.bot_id,
        "resourceid": "/bot.message",
        "chnl": owner.channel,
        "status": 0,
        "lang": "en",
        "tN": "sandbox",
        "tags": {"altText": said.content.alternatives()},
    });
    if let Some(id) =
        said.user_message_id.as_deref().and_then(|id| serde_json::from_str::<Value>(id.get()).ok())
    {
        record["userMsgId"] = id;
    }
    if said.by_agent {
        record["author"] = json!({"firstName": "Alex", "lastName": "Agent"});
    }
    // Each client looks for files in a place of its own.
    if let Some(files) = said.content.attachments() {
        record["attachments"] = files.clone();
        channel["attachments"] = files.clone();
    }
    record["channels"] = json!([channel]);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::HistoryTextStyle;
    use crate::message_elements;

    const OWNER: HistoryOwner<'_> =
        HistoryOwner { bot_id: "st-1", user_id: "u-1", icon: "http://sandbox/bot.png", channel: "rtm" };

    fn said(n: i64) -> HistoryEntry {
        HistoryEntry {
            id: format!("ms-{n}"),
            user_message_id: (n % 2 == 0).then(|| RawValue::from_string(format!("{n}.5")).unwrap()),
            from_user: n % 2 == 0,
            by_agent: false,
            content: match n {
                3 => HistoryContent::of_elements(
                    &[message_elements::template(&json!({"template_type": "list"}), "text 3")],
                    HistoryTextStyle::Payload,
                ),
                4 => HistoryContent::of_user("text 4", Some(&json!([{"fileId": "f-1"}]))),
                n => HistoryContent::text(&format!("text {n}")),
            },
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
        page(&said.collect(), OWNER, query, Timestamp::from_millisecond(now).unwrap())
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
        let unknown = HistorySelection { message_id: Some("ms-x".into()), ..query.clone() };
        assert_eq!(ids(&unknown, 99), (some(&[]), false, 10));
        let newest = HistorySelection { message_id: None, ..query };
        assert_eq!(ids(&newest, 99), (some(&[7, 8, 9]), true, 10));
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
        let stored = page.messages[0]["components"][0]["data"]["text"].as_str().unwrap();
        assert_eq!(stored, r#"{"payload":{"template_type":"list"},"type":"template"}"#);
        assert_eq!(page.messages[0]["tags"]["altText"], json!([{"value": "text 3"}]));
    }

    #[test]
    fn record_has_the_members_that_clients_read() {
        let page = page_at((3..5).map(said), &first(9), 9);
        let record = &page.messages[1];
        assert_eq!((&record["resourceid"], &record["createdBy"]), (&json!("/bot.message"), &json!("u-1")));
        let files = json!([{"fileId": "f-1"}]);
        assert_eq!(record["channels"], json!([{"type": "rtm", "attachments": files}]));
        assert_eq!(
            (&record["attachments"], &record["components"][0]["data"]["attachments"]),
            (&files, &files)
        );
        assert_eq!(page.messages[0]["channels"], json!([{"type": "rtm"}]));
        assert_eq!(page.messages[0].get("attachments"), None);
        assert_eq!(page.icon, "http://sandbox/bot.png");
    }
}
