//! The posts of the platform's webhook channel in its asynchronous form (protocol.md 9.4).
//!
//! Each reply is a post of its own, and the end of the turn is another one behind them. The form has no id of the request, so
//! the bridge's own headers stand beside it.

use serde::Serialize;

use super::PayloadError;
use super::kore::reply;
use crate::config::KoreApiVersion;
use crate::domain::lenient_json::{elements, is_true, members};
use crate::domain::{DeliveryKind, NewDelivery};
use crate::reply_content::{ChannelElement, ChannelEnd, ChannelReply, ChannelText};

#[derive(Serialize)]
struct V2Post<'a> {
    data: Vec<ChannelElement<'a>>,
    #[serde(rename = "_v")]
    version: &'static str,
    #[serde(flatten)]
    end: Option<ChannelEnd<'a>>,
}

#[derive(Serialize)]
struct V1Post<'a> {
    to: &'a str,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<ChannelText<'a>>,
    #[serde(flatten)]
    end: Option<ChannelEnd<'a>>,
}

/// Returns the body. `bot` is the id of the bot on the platform.
///
/// # Errors
/// The data is neither a Message nor a Reply.
pub(super) fn body(
    delivery: &NewDelivery,
    bot: &str,
    version: KoreApiVersion,
) -> Result<Vec<u8>, PayloadError> {
    let happened = delivery.created_at.to_string();
    let (posted, end) = if delivery.kind.is_end() {
        let [replies, complete] =
            members(delivery.data.get(), ["replies", "complete"]).ok_or(PayloadError::Data)?;
        let last = replies.and_then(elements).and_then(|replies| reply(replies.last().copied()?));
        (None, Some(ChannelEnd::of_turn(is_true(complete), last.and_then(|last| last.frame))))
    } else {
        (Some(posted(delivery)?), None)
    };
    let elements = posted.as_ref().map(|reply| reply.elements(&happened));
    let written = match version {
        KoreApiVersion::V1 => serde_json::to_vec(&V1Post {
            to: delivery.conversation.user().as_str(),
            from: bot,
            text: elements.map(|elements| ChannelText::of(elements, false)),
            end,
        }),
        KoreApiVersion::V2 => {
            serde_json::to_vec(&V2Post { data: elements.unwrap_or_default(), version: "v2", end })
        }
    };
    written.map_err(|_| PayloadError::Data)
}

/// Reads the reply of a delivery. Posts name no ids of replies.
fn posted(delivery: &NewDelivery) -> Result<ChannelReply<'_>, PayloadError> {
    let is_reply = matches!(
        delivery.kind,
        DeliveryKind::Reply | DeliveryKind::ReplyLate | DeliveryKind::ReplyUnsolicited | DeliveryKind::Test
    );
    let reply = reply(&delivery.data).filter(|_| is_reply).ok_or(PayloadError::Data)?;
    Ok(ChannelReply { message_id: None, ..reply })
}
