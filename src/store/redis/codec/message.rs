//! The encoding of accepted messages, and of the value with a message and its turn.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::netstring::NetstringReader;
use super::{CorruptData, entry, is_default, number, reply, time, word};
use crate::domain::{
    AcceptedMessage, Attachment, Callback, ConversationId, JsonObject, Message, MessageContent, MessageEvent,
    MessageId, MessageProgress, NewMessage, ResendPolicy, SessionRequest, Timestamp, TraceId, TurnRules,
    UserDetails, UserId, UserProfile,
};

const WHAT: CorruptData = CorruptData("an accepted message");

#[derive(Serialize, Deserialize)]
struct StoredMessage<'a> {
    #[serde(rename = "t", borrow)]
    text: Cow<'a, str>,
    #[serde(rename = "d", borrow, default, skip_serializing_if = "Option::is_none")]
    display_text: Option<Cow<'a, str>>,
    #[serde(rename = "f", borrow, default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<StoredAttachment<'a>>,
    #[serde(rename = "cd", borrow, default, skip_serializing_if = "Option::is_none")]
    custom_data: Option<&'a RawValue>,
    #[serde(rename = "mt", borrow, default, skip_serializing_if = "Option::is_none")]
    meta_tags: Option<&'a RawValue>,
    #[serde(rename = "me", borrow, default, skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    #[serde(rename = "pm", borrow, default, skip_serializing_if = "Option::is_none")]
    payload_members: Option<&'a RawValue>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    event: Option<MessageEvent>,
    #[serde(rename = "fn", borrow, default, skip_serializing_if = "Option::is_none")]
    first_name: Option<Cow<'a, str>>,
    #[serde(rename = "ln", borrow, default, skip_serializing_if = "Option::is_none")]
    last_name: Option<Cow<'a, str>>,
    #[serde(rename = "mw", borrow, default, skip_serializing_if = "Option::is_none")]
    merge_with: Option<Cow<'a, str>>,
    #[serde(rename = "s", default, skip_serializing_if = "is_default")]
    session: SessionRequest,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    expect_replies: Option<u64>,
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    quiet_ms: Option<u64>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(rename = "r", default, skip_serializing_if = "is_default")]
    resend: ResendPolicy,
    #[serde(rename = "cb", borrow, default, skip_serializing_if = "Option::is_none")]
    callback: Option<Cow<'a, str>>,
    #[serde(rename = "cs", borrow, default, skip_serializing_if = "Option::is_none")]
    signer: Option<Cow<'a, str>>,
    /// 32 hexadecimal digits.
    #[serde(rename = "tr", borrow, default, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, str>>,
    #[serde(rename = "ca", borrow, default, skip_serializing_if = "Option::is_none")]
    caller: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredAttachment<'a> {
    #[serde(rename = "i", borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "n", borrow, default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(rename = "t", borrow, default, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "o", borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    other_members: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

/// The values that the accept adds to a new message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct AcceptStamp {
    pub(in super::super) position: u64,
    pub(in super::super) client_message_id: u64,
    pub(in super::super) accepted_at: Timestamp,
}

impl AcceptStamp {
    /// Returns the accepted message.
    pub(in super::super) fn on(self, id: MessageId, new: NewMessage) -> AcceptedMessage {
        let Self { position, client_message_id, accepted_at } = self;
        AcceptedMessage { id, position, client_message_id, accepted_at, new }
    }
}

/// Encodes an accepted message: position, `clientMessageId` and time, then the posted message.
pub(in super::super) fn accepted_message(message: &AcceptedMessage) -> Result<Vec<u8>, CorruptData> {
    let AcceptedMessage { position, client_message_id, accepted_at, .. } = message;
    let mut bytes = format!("{position} {client_message_id} {} ", accepted_at.as_millis()).into_bytes();
    write_new_message(&message.new, &mut bytes)?;
    Ok(bytes)
}

/// Encodes a new message without its conversation.
pub(in super::super) fn new_message(new: &NewMessage) -> Result<Vec<u8>, CorruptData> {
    let mut bytes = Vec::new();
    write_new_message(new, &mut bytes)?;
    Ok(bytes)
}

fn write_new_message<'a>(new: &'a NewMessage, into: &mut Vec<u8>) -> Result<(), CorruptData> {
    let content = &new.content;
    let file = |file: &'a Attachment| StoredAttachment {
        id: Cow::Borrowed(&file.file_id),
        name: file.file_name.as_deref().map(Cow::Borrowed),
        kind: file.file_type.as_deref().map(Cow::Borrowed),
        other_members: file
            .other_members
            .iter()
            .map(|(name, value)| (Cow::Borrowed(&**name), &**value))
            .collect(),
    };
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let details = new.user_details.as_deref();
    let profile = details.map(|details| &details.profile);
    let stored = StoredMessage {
        text: Cow::Borrowed(content.text()),
        display_text: content.display_text.as_deref().map(Cow::Borrowed),
        attachments: content.attachments.iter().map(file).collect(),
        custom_data: content.custom_data.as_ref().map(JsonObject::raw),
        meta_tags: content.meta_tags.as_ref().map(JsonObject::raw),
        meta: content.meta.as_ref().map(JsonObject::raw),
        payload_members: content.payload_members.as_ref().map(JsonObject::raw),
        event: new.event,
        first_name: profile.and_then(|profile| profile.first_name.as_deref()).map(Cow::Borrowed),
        last_name: profile.and_then(|profile| profile.last_name.as_deref()).map(Cow::Borrowed),
        merge_with: details
            .and_then(|details| details.merge_with.as_ref())
            .map(|user| Cow::Borrowed(user.as_str())),
        session: new.session,
        expect_replies: new.rules.expect_replies().map(|replies| replies as u64),
        quiet_ms: new.rules.quiet().map(millis),
        deadline_ms: new.rules.deadline().map(millis),
        resend: new.resend,
        callback: new.callback.as_ref().map(|callback| Cow::Borrowed(&*callback.url)),
        signer: new.callback.as_ref().and_then(|callback| callback.signer.as_deref()).map(Cow::Borrowed),
        trace: (new.trace != TraceId::default()).then(|| Cow::Owned(new.trace.to_string())),
        caller: new.caller.as_deref().map(Cow::Borrowed),
    };
    serde_json::to_writer(into, &stored).map_err(|_| WHAT)
}

/// Decodes an accepted message: position, `clientMessageId` and time, then the posted message.
pub(in super::super) fn accepted(
    conversation: ConversationId,
    id: MessageId,
    bytes: &[u8],
) -> Result<AcceptedMessage, CorruptData> {
    let (position, rest) = word(bytes).ok_or(WHAT)?;
    let (client_message_id, rest) = word(rest).ok_or(WHAT)?;
    let (accepted_at, body) = word(rest).ok_or(WHAT)?;
    let stamp = AcceptStamp {
        position: number(position)?,
        client_message_id: number(client_message_id)?,
        accepted_at: time(accepted_at)?,
    };
    let stored: StoredMessage<'_> = serde_json::from_slice(body).map_err(|_| WHAT)?;
    let object =
        |raw: Option<&RawValue>| raw.map(|raw| JsonObject::new(raw.to_owned()).map_err(|_| WHAT)).transpose();
    let boxed = |text: Option<Cow<'_, str>>| text.map(|text| text.into_owned().into_boxed_str());
    let file = |file: StoredAttachment<'_>| Attachment {
        file_id: file.id.into(),
        file_name: boxed(file.name),
        file_type: boxed(file.kind),
        other_members: file
            .other_members
            .into_iter()
            .map(|(name, value)| (name.into(), value.to_owned()))
            .collect(),
    };
    let attachments = stored.attachments.into_iter().map(file).collect();
    let mut content = match stored.event {
        Some(MessageEvent::Connect) => MessageContent::without_text(),
        None => MessageContent::with_attachments(stored.text, attachments).map_err(|_| WHAT)?,
    };
    content.display_text = boxed(stored.display_text);
    content.custom_data = object(stored.custom_data)?;
    content.meta_tags = object(stored.meta_tags)?;
    content.meta = object(stored.meta)?;
    content.payload_members = object(stored.payload_members)?;
    let trace = stored.trace.map(|trace| u128::from_str_radix(&trace, 16).map(TraceId).map_err(|_| WHAT));
    let merge_with = stored.merge_with.map(|user| UserId::new(&user).map_err(|_| WHAT)).transpose()?;
    let profile = UserProfile { first_name: boxed(stored.first_name), last_name: boxed(stored.last_name) };
    let details = UserDetails { profile, merge_with };
    let new = NewMessage {
        conversation,
        content,
        event: stored.event,
        user_details: (!details.is_empty()).then(|| Box::new(details)),
        session: stored.session,
        rules: TurnRules::new(stored.expect_replies, stored.quiet_ms, stored.deadline_ms)
            .map_err(|_| WHAT)?,
        resend: stored.resend,
        callback: stored
            .callback
            .map(|url| Callback { url: url.into(), signer: stored.signer.map(Into::into) }),
        trace: trace.transpose()?.unwrap_or_default(),
        caller: stored.caller.map(Into::into),
    };
    Ok(stamp.on(id, new))
}

/// Decodes a message from its value, its signs if it is open, and place and text of each reply in the journal, in turn.
/// Returns `None` without a value. `message_value.lua` describes the value.
pub(in super::super) fn message<B: AsRef<[u8]>>(
    conversation: &ConversationId,
    id: MessageId,
    mut parts: impl Iterator<Item = Result<B, CorruptData>>,
) -> Result<Option<Message>, CorruptData> {
    let Some(value) = parts.next().transpose()? else { return Ok(None) };
    let open = parts.next().transpose()?.ok_or(WHAT)?;
    let mut value = NetstringReader::new(value.as_ref());
    value.bytes()?;
    let accepted = Arc::new(accepted(conversation.clone(), id, value.bytes()?)?);
    let turn = value.bytes()?;
    let mut progress = MessageProgress::default();
    if turn.is_empty() {
        signs(open.as_ref(), &mut progress)?;
    } else {
        let (times, rest) = word(turn).ok_or(WHAT)?;
        let (_replies, end) = word(rest).ok_or(WHAT)?;
        signs(times, &mut progress)?;
        let end = entry::read_text(b"e", 0, end)?;
        if let Some((_, outcome)) = end.ended() {
            (progress.ended_at, progress.outcome) = (Some(end.at), Some(outcome.clone()));
        }
    }
    let mut add = |place: &[u8], text: &[u8]| {
        let (_, body) = entry::stamped(text)?;
        progress.replies.push(Arc::new(reply::read(number(place)?, body)?));
        Ok(())
    };
    for reply in value {
        // The place of a reply that the journal holds stands alone.
        if let Some((place, text)) = word(reply?) {
            add(place, text)?;
        }
    }
    while let Some(place) = parts.next().transpose()? {
        add(place.as_ref(), parts.next().transpose()?.ok_or(WHAT)?.as_ref())?;
    }
    progress.replies.sort_unstable_by_key(|reply| reply.seq);
    Ok(Some(Message { accepted, progress }))
}

/// Parses the times of the first signs, `sent,acked,reply`. Each may be missing.
fn signs(bytes: &[u8], progress: &mut MessageProgress) -> Result<(), CorruptData> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut times = bytes
        .split(|&byte| byte == b',')
        .map(|digits| (!digits.is_empty()).then(|| time(digits)).transpose());
    let mut next = || times.next().unwrap_or(Err(CorruptData("a message's progress")));
    (progress.sent_at, progress.acked_at, progress.first_reply_at) = (next()?, next()?, next()?);
    Ok(())
}
