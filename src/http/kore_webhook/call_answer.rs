//! The answers of both versions (protocol.md 9.4, 9.6).
//!
//! Pure. Clients need the exact types: `data` is always a list, and `text` of version 1 is a text for one reply.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use crate::config::V1TextForm;
use crate::domain::{Message, Reply, TraceId, TurnOutcome};
use crate::reply_content::{ChannelElement, ChannelEnd, ChannelReply, ChannelText};

const VERSION: &str = "v2";

/// A message as its client gets it.
pub(super) struct CallAnswer<'a> {
    user: &'a str,
    /// The bot's id on the platform.
    bot: &'a str,
    replies: Vec<ChannelReply<'a>>,
    /// The time of replies that have none.
    happened: String,
    /// The end of the turn, if it has ended.
    end: Option<ChannelEnd<'a>>,
}

#[derive(Serialize)]
struct V2Answer<'a> {
    to: &'a str,
    from: &'a str,
    data: Vec<ChannelElement<'a>>,
    #[serde(rename = "_v")]
    version: &'static str,
    #[serde(rename = "pollId", skip_serializing_if = "Option::is_none")]
    poll: Option<&'a str>,
    #[serde(flatten)]
    end: Option<&'a ChannelEnd<'a>>,
}

#[derive(Serialize)]
struct V1Answer<'a> {
    text: ChannelText<'a>,
    #[serde(flatten)]
    end: Option<&'a ChannelEnd<'a>>,
}

impl<'a> CallAnswer<'a> {
    /// Returns the answer with the replies of a message behind the first `told`.
    pub(super) fn new(message: &'a Message, bot: &'a str, told: usize) -> Self {
        let progress = &message.progress;
        let replies = progress.replies.get(told..).unwrap_or_default();
        let end = match &progress.outcome {
            Some(TurnOutcome::Answered(by)) => {
                let frame = progress.replies.last().map(|reply| &*reply.event);
                Some(ChannelEnd::of_turn(by.is_complete(), frame))
            }
            // A failed message is answered by its problem.
            Some(TurnOutcome::Failed(_)) | None => None,
        };
        Self {
            user: message.accepted.new.conversation.user().as_str(),
            bot,
            replies: replies.iter().map(channel_reply).collect(),
            happened: progress.ended_at.unwrap_or(message.accepted.accepted_at).to_string(),
            end,
        }
    }

    /// Returns the answer of version 2. `poll` brings the replies that follow.
    pub(super) fn v2(&'a self, poll: Option<&'a str>) -> impl Serialize {
        V2Answer {
            to: self.user,
            from: self.bot,
            data: self.elements(),
            version: VERSION,
            poll,
            end: self.end.as_ref(),
        }
    }

    /// Returns the answer of version 1.
    pub(super) fn v1(&'a self, form: V1TextForm) -> impl Serialize {
        let text = ChannelText::of(self.elements(), form == V1TextForm::Array);
        V1Answer { text, end: self.end.as_ref() }
    }

    fn elements(&'a self) -> Vec<ChannelElement<'a>> {
        self.replies.iter().flat_map(|reply| reply.elements(&self.happened)).collect()
    }
}

fn channel_reply(reply: &Arc<Reply>) -> ChannelReply<'_> {
    ChannelReply {
        message_id: reply.message_id.as_deref().map(Cow::Borrowed),
        text: Cow::Borrowed(&reply.text),
        created_on: reply.created_on.map(|at| at.to_string().into()),
        frame: Some(&reply.event),
    }
}

/// Returns the answer of a call whose replies are posted.
pub(super) fn acknowledgement(trace: TraceId) -> impl Serialize {
    #[derive(Serialize)]
    struct Acknowledgement {
        status: &'static str,
        #[serde(rename = "_v")]
        version: &'static str,
        #[serde(rename = "traceId")]
        trace: String,
    }
    Acknowledgement { status: "ok", version: VERSION, trace: format!("RTM-TRACE-{trace}") }
}

/// Returns the answer of a poll without news.
pub(super) fn in_progress(poll: &str) -> impl Serialize {
    #[derive(Serialize)]
    struct InProgress<'a> {
        status: &'static str,
        #[serde(rename = "pollId")]
        poll: &'a str,
        #[serde(rename = "_v")]
        version: &'static str,
    }
    InProgress { status: "Inprogress", poll, version: VERSION }
}

/// Returns the answer of a `SESSION_CLOSURE`. `had_session` says whether there was a session to end.
pub(super) fn closure<'a>(user: &'a str, bot: &'a str, had_session: bool) -> impl Serialize {
    #[derive(Serialize)]
    struct ClosureAnswer<'a> {
        to: &'a str,
        from: &'a str,
        data: [ClosureElement; 1],
        #[serde(rename = "_v")]
        version: &'static str,
    }
    #[derive(Serialize)]
    struct ClosureElement {
        r#type: &'static str,
        val: &'static str,
        #[serde(rename = "eventType")]
        event_type: &'static str,
        description: &'static str,
    }
    let (event_type, description) = if had_session {
        ("SESSION_CLOSURE_SUCCESS", "The session was closed.")
    } else {
        ("SESSION_CLOSURE_IGNORED", "There was no session.")
    };
    let element = ClosureElement { r#type: "event", val: "SESSION_CLOSURE", event_type, description };
    ClosureAnswer { to: user, from: bot, data: [element], version: VERSION }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::fixtures::{accepted_message, conversation, new_message, reply};
    use crate::domain::{EndedBy, MessageProgress};

    /// Returns a message with replies of these frames' elements. An element is a text, or a template.
    fn message(elements: &[Value], outcome: Option<EndedBy>) -> Message {
        let accepted = accepted_message(new_message(conversation("support", "ann"), "hi"));
        let replies = elements.iter().zip(1..).map(|(element, seq)| {
            let (text, payload) = match element {
                Value::String(text) => (text.as_str(), json!({ "text": text })),
                template => ("", template.clone()),
            };
            let frame = json!({"type": "bot_response", "message": [{"type": "text", "component": {"payload": payload}}]});
            let event = RawValue::from_string(frame.to_string()).unwrap();
            Arc::new(Reply { event, message_id: Some("ms-1".into()), ..reply(seq, Some(accepted.id), text) })
        });
        let progress = MessageProgress {
            replies: replies.collect(),
            outcome: outcome.map(TurnOutcome::Answered),
            ..MessageProgress::default()
        };
        Message { accepted: Arc::new(accepted), progress }
    }

    fn v1(message: &Message, form: V1TextForm) -> Value {
        serde_json::to_value(CallAnswer::new(message, "st-1", 0).v1(form)).unwrap()
    }

    fn v2(message: &Message, told: usize, poll: Option<&str>) -> Value {
        serde_json::to_value(CallAnswer::new(message, "st-1", told).v2(poll)).unwrap()
    }

    #[test]
    fn v1_writes_one_reply_as_text_and_several_as_list() {
        let end = Some(EndedBy::InputWait);
        let one = message(&[json!("Hi")], end);
        assert_eq!(
            v1(&one, V1TextForm::String),
            json!({"text": "Hi", "endOfTask": true, "endReason": "Fulfilled"})
        );
        assert_eq!(v1(&one, V1TextForm::Array)["text"], json!(["Hi"]));
        let two = message(&[json!("One"), json!("Two")], end);
        assert_eq!(v1(&two, V1TextForm::String)["text"], json!(["One", "Two"]));
        assert_eq!(v1(&message(&[], end), V1TextForm::String)["text"], json!([]));
        let template = json!({"type": "template", "payload": {"text": "<a & 'b'>"}});
        let escaped = v1(&message(&[template], end), V1TextForm::String)["text"].as_str().unwrap().to_owned();
        assert_eq!(
            escaped,
            "{&quot;payload&quot;:{&quot;text&quot;:&quot;&lt;a &amp; &#39;b&#39;&gt;&quot;},&quot;type&quot;:&quot;template&quot;}"
        );
    }

    #[test]
    fn v2_writes_data_and_the_end_or_a_poll() {
        let template = json!({"type": "template", "payload": {"text": "Pick"}});
        let ended = message(&[json!("Hi"), template.clone()], Some(EndedBy::Deadline));
        let answer = v2(&ended, 0, None);
        assert_eq!(
            (&answer["to"], &answer["from"], &answer["_v"]),
            (&json!("ann"), &json!("st-1"), &json!("v2"))
        );
        assert_eq!((&answer["endOfTask"], &answer["endReason"]), (&json!(true), &json!("interrupted")));
        assert_eq!(answer.get("pollId"), None);
        assert_eq!((&answer["data"][0]["type"], &answer["data"][0]["val"]), (&json!("text"), &json!("Hi")));
        assert_eq!((&answer["data"][1]["type"], &answer["data"][1]["val"]), (&json!("template"), &template));
        assert_eq!(answer["data"][0]["messageId"], "ms-1");
        assert!(answer["data"][0]["createdOn"].is_string());
        let running = message(&[json!("One"), json!("Two")], None);
        let answer = v2(&running, 1, Some("abc"));
        assert_eq!((&answer["pollId"], answer.get("endOfTask")), (&json!("abc"), None));
        assert_eq!(answer["data"].as_array().unwrap().len(), 1);
        assert_eq!(v2(&running, 7, None)["data"], json!([]));
    }

    #[test]
    fn closure_and_progress_have_the_platforms_words() {
        let word = |had_session| serde_json::to_value(closure("ann", "st-1", had_session)).unwrap();
        assert_eq!(word(true)["data"][0]["eventType"], "SESSION_CLOSURE_SUCCESS");
        assert_eq!(word(false)["data"][0]["eventType"], "SESSION_CLOSURE_IGNORED");
        let progress = serde_json::to_value(in_progress("abc")).unwrap();
        assert_eq!(progress, json!({"status": "Inprogress", "pollId": "abc", "_v": "v2"}));
    }
}
