//! The format `kore-v2`: the body of the platform's own webhook channel, version 2 (protocol.md 9.4).
//!
//! `reply_content` tells which facts of that channel RTM lacks. Beside that, one post carries the whole turn. The channel
//! posts each message alone, and the end after them. `to` and `from` are those of the channel's synchronous answers.
//!
//! The platform's frames are read leniently, as in `rtm`: any frame that was accepted has a body.

use serde::Serialize;
use serde_json::value::RawValue;

use super::PayloadError;
use crate::domain::lenient_json::{elements, is_true, members, string};
use crate::domain::{DeliveryKind, NewDelivery};
use crate::reply_content::{ChannelElement, ChannelEnd, ChannelReply};

#[derive(Serialize)]
struct KorePayload<'a> {
    to: &'a str,
    from: &'a str,
    data: Vec<ChannelElement<'a>>,
    #[serde(rename = "_v")]
    version: &'static str,
    #[serde(flatten)]
    end: KoreEnd<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum KoreEnd<'a> {
    Turn(ChannelEnd<'a>),
    /// The delivery is a reply alone, behind the end of its turn.
    Reply {
        #[serde(rename = "endOfTask")]
        end_of_task: bool,
    },
}

/// Returns the body. `bot` is the id of the bot on the platform.
///
/// # Errors
/// The data is neither a Message nor a Reply.
pub(super) fn body(delivery: &NewDelivery, bot: &str) -> Result<Vec<u8>, PayloadError> {
    let (replies, complete) = match delivery.kind {
        DeliveryKind::MessageAnswered | DeliveryKind::MessageFailed => {
            let [replies, complete] =
                members(delivery.data.get(), ["replies", "complete"]).ok_or(PayloadError::Data)?;
            let replies = replies.and_then(elements).ok_or(PayloadError::Data)?;
            (replies, Some(is_true(complete)))
        }
        // The data of a test has the text of a reply.
        DeliveryKind::ReplyLate | DeliveryKind::ReplyUnsolicited | DeliveryKind::Test => {
            (vec![&*delivery.data], None)
        }
        // The configuration admits none of these for this form. It may have changed since.
        DeliveryKind::AgentStarted
        | DeliveryKind::AgentEnded
        | DeliveryKind::SessionStarted
        | DeliveryKind::SessionEnded
        | DeliveryKind::Gap
        | DeliveryKind::UserMessage
        | DeliveryKind::DeliveryDead
        | DeliveryKind::Reply => return Err(PayloadError::Data),
    };
    let replies: Option<Vec<_>> = replies.into_iter().map(reply).collect();
    let replies = replies.ok_or(PayloadError::Data)?;
    let happened = delivery.created_at.to_string();
    let last_frame = replies.last().and_then(|reply| reply.frame);
    let payload = KorePayload {
        to: delivery.conversation.user().as_str(),
        from: bot,
        data: replies.iter().flat_map(|reply| reply.elements(&happened)).collect(),
        version: "v2",
        end: match complete {
            Some(complete) => KoreEnd::Turn(ChannelEnd::of_turn(complete, last_frame)),
            None => KoreEnd::Reply { end_of_task: false },
        },
    };
    serde_json::to_vec(&payload).map_err(|_| PayloadError::Data)
}

/// Reads a Reply. Returns `None` if it has no text.
pub(super) fn reply(raw: &RawValue) -> Option<ChannelReply<'_>> {
    let [message_id, text, created_on, frame] =
        members(raw.get(), ["messageId", "text", "createdOn", "event"])?;
    Some(ChannelReply {
        message_id: message_id.and_then(string),
        text: text.and_then(string)?,
        created_on: created_on.and_then(string),
        frame,
    })
}
