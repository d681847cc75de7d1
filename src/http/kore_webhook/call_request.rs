//! The body of a call, read as a message of the bridge (protocol.md 9.3).
//!
//! Pure. Clients differ in where they put files, in types, and in members that the platform ignores. The reading is as
//! lenient as the platform's: an optional member of the wrong type counts as absent.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

use super::super::canonical_json::JsonValue;
use super::super::request_body::MAX_ATTACHMENTS;
use super::ApiVersion;
use crate::domain::lenient_json::{
    JsonMember, boolean, elements, entries, is_true, members, string, string_or_number,
};
use crate::domain::{
    Attachment, CONTEXT_MAX_BYTES, JsonObject, MessageContent, MessageEvent, SessionRequest, Sha256,
    UserDetails, UserId, UserProfile,
};

/// Members at the top that a frame must not take over. The bridge reads some of them itself, and a frame has the others.
const OWN_MEMBERS: [&str; 17] = [
    "message",
    "from",
    "to",
    "session",
    "token",
    "customData",
    "metaTags",
    "attachments",
    "clientMessageId",
    "id",
    "resourceid",
    "botInfo",
    "client",
    "meta",
    "type",
    "event",
    "replyto",
];

/// A byte order mark, which some clients write.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A call after its validation.
#[derive(Debug)]
pub(super) struct ChannelCall {
    pub(super) user: UserId,
    pub(super) content: CallAction,
    /// The digest of the whole body. Equal bodies have equal ones.
    pub(super) digest: [u8; 32],
}

/// The action that a call asks for.
#[derive(Debug)]
pub(super) enum CallAction {
    /// A message, or the event `ON_CONNECT`.
    Message(Box<CallMessage>),
    /// The event `SESSION_CLOSURE`.
    SessionClosure,
}

/// The message of a call.
#[derive(Debug)]
pub(super) struct CallMessage {
    pub(super) content: MessageContent,
    pub(super) event: Option<MessageEvent>,
    pub(super) session: SessionRequest,
    pub(super) details: UserDetails,
    /// Whether the identity that the token names is to be folded into the user.
    pub(super) merges_identity: bool,
}

/// The reason why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidCall {
    #[error("must be a JSON object in which no member occurs twice and no text has half a surrogate pair")]
    Body,
    #[error("must be the id of a user, 1 to 256 bytes without control characters")]
    User,
    #[error("must have a text in `text` (version 1), or a value in `val` (version 2)")]
    Message,
    #[error("must be ON_CONNECT or SESSION_CLOSURE")]
    Event,
    #[error("must be 1 byte to 64 KiB of text, or have attachments beside it")]
    Text,
    #[error("must have 20 files at most")]
    Attachments,
    #[error("must be a file, or a list of files; each has a `fileId` or a `url`")]
    Attachment,
    #[error("must have 64 KiB of JSON at most")]
    Size(&'static str),
}

impl InvalidCall {
    /// Returns the place of the error, as a JSON pointer.
    pub(super) const fn pointer(self) -> &'static str {
        match self {
            Self::Body => "",
            Self::User => "/from/id",
            Self::Message | Self::Text => "/message",
            Self::Event => "/message/val",
            Self::Attachments | Self::Attachment => "/message/attachments",
            Self::Size(pointer) => pointer,
        }
    }
}

/// Reads the body of a call.
///
/// # Errors
/// [`InvalidCall`].
pub(super) fn read(body: &[u8], version: ApiVersion) -> Result<ChannelCall, InvalidCall> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let body = std::str::from_utf8(body).map_err(|_| InvalidCall::Body)?;
    let digest = digest(body)?;
    let top = entries(body).ok_or(InvalidCall::Body)?;
    let [message, from, session, custom_data, meta_tags, attachments, merge, language] = members(
        body,
        [
            "message",
            "from",
            "session",
            "customData",
            "metaTags",
            "attachments",
            "mergeIdentity",
            "interactiveLanguage",
        ],
    )
    .ok_or(InvalidCall::Body)?;
    let [id, user_info] =
        from.and_then(|from| members(from.get(), ["id", "userInfo"])).ok_or(InvalidCall::User)?;
    let user = id.and_then(string_or_number).ok_or(InvalidCall::User)?;
    let user = UserId::new(&user).map_err(|_| InvalidCall::User)?;
    let message = message.ok_or(InvalidCall::Message)?;
    let [kind, val, text, files, form] =
        members(message.get(), ["type", "val", "text", "attachments", "formData"])
            .ok_or(InvalidCall::Message)?;
    let kind = kind.and_then(string).unwrap_or_default();
    let new = session.and_then(|session| members(session.get(), ["new"])).and_then(|[new]| boolean(new?));

    let event = match (&*kind, val.and_then(string).as_deref()) {
        ("event", Some("ON_CONNECT")) => Some(MessageEvent::Connect),
        ("event", Some("SESSION_CLOSURE")) => {
            return Ok(ChannelCall { user, content: CallAction::SessionClosure, digest });
        }
        ("event", _) => return Err(InvalidCall::Event),
        _ => None,
    };
    let session = match (event, new) {
        // A bot greets in a new session only, so a connect begins one unless the client refuses it.
        (_, Some(true)) | (Some(_), None) => SessionRequest::New,
        _ => SessionRequest::Continue,
    };
    let mut content = if event.is_some() {
        MessageContent::without_text()
    } else {
        let files = read_attachments([files, attachments])?;
        let value = match version {
            ApiVersion::V1 => text.or(form).or(val),
            ApiVersion::V2 => val.or(form),
        };
        let text = match value {
            Some(value) => text_of(value),
            // Clients of version 1 send files alone.
            None if version == ApiVersion::V1 && !files.is_empty() => Cow::Borrowed(""),
            None => return Err(InvalidCall::Message),
        };
        MessageContent::with_attachments(text, files).map_err(|_| InvalidCall::Text)?
    };
    let language = language.filter(|language| language.get().starts_with('"'));
    content.custom_data = context("/customData", with_language(object(custom_data), language))?;
    content.meta_tags = context("/metaTags", object(meta_tags))?;
    if event.is_none() {
        let form = form.or_else(|| val.filter(|_| kind == "formData"));
        content.payload_members = context("", payload_members(&top, user_info.and(from), form))?;
    }
    let details = UserDetails { profile: user_info.map(profile).unwrap_or_default(), merge_with: None };
    let message = CallMessage { content, event, session, details, merges_identity: is_true(merge) };
    Ok(ChannelCall { user, content: CallAction::Message(Box::new(message)), digest })
}

/// Returns the digest of a body by its value, so that white space and the order of members make no difference.
fn digest(body: &str) -> Result<[u8; 32], InvalidCall> {
    let value = serde_json::from_str::<JsonValue>(body).map_err(|_| InvalidCall::Body)?;
    let mut hash = Sha256::default();
    value.hash(&mut hash);
    Ok(hash.finish())
}

/// Returns a value as the user's text: a text itself, and the JSON of a template or of form data.
fn text_of(value: &RawValue) -> Cow<'_, str> {
    string(value).unwrap_or_else(|| value.get().into())
}

/// Returns an object, or nothing for any other value.
fn object(raw: JsonMember<'_>) -> Option<JsonObject> {
    raw.and_then(|raw| JsonObject::new(raw.to_owned()).ok())
}

/// Adds the language to the custom data, where bots look for it by agreement (protocol.md 14).
fn with_language(custom_data: Option<JsonObject>, language: JsonMember<'_>) -> Option<JsonObject> {
    let Some(language) = language else { return custom_data };
    let added = of_members([("interactiveLanguage", language)])?;
    Some(match custom_data {
        Some(own) => JsonObject::new(own.with_defaults(&added).into_owned()).unwrap_or(own),
        None => added,
    })
}

/// Returns the members that the frame takes over. The bot reads the frame as its `messagePayload`, and finds them there as it
/// does with calls of the channel.
fn payload_members(
    top: &[(Cow<'_, str>, &RawValue)],
    from: JsonMember<'_>,
    form: JsonMember<'_>,
) -> Option<JsonObject> {
    let others = top.iter().filter(|(name, _)| !OWN_MEMBERS.contains(&&**name));
    let others = others.map(|(name, value)| (&**name, *value));
    let known = [("from", from), ("formData", form)];
    of_members(others.chain(known.into_iter().filter_map(|(name, value)| Some((name, value?)))))
}

/// Returns an object with these members, or `None` without any.
fn of_members<'a>(all: impl IntoIterator<Item = (&'a str, &'a RawValue)>) -> Option<JsonObject> {
    let all: BTreeMap<&str, &RawValue> = all.into_iter().collect();
    if all.is_empty() {
        return None;
    }
    JsonObject::new(to_raw_value(&all).ok()?).ok()
}

fn context(at: &'static str, object: Option<JsonObject>) -> Result<Option<JsonObject>, InvalidCall> {
    match object {
        Some(object) if object.raw().get().len() > CONTEXT_MAX_BYTES => Err(InvalidCall::Size(at)),
        object => Ok(object),
    }
}

/// Returns the name of the user, without parts that no grant could carry.
fn profile(user_info: &RawValue) -> UserProfile {
    let [first, last] = members(user_info.get(), ["firstName", "lastName"]).unwrap_or_default();
    let name = |raw: JsonMember<'_>| {
        let name = raw.and_then(string)?;
        UserProfile::check(&name).is_ok().then(|| name.into())
    };
    UserProfile { first_name: name(first), last_name: name(last) }
}

/// Reads the files of a message. Clients put a list or a single one into the message, or beside it. `null` and an empty value
/// are no file.
fn read_attachments(places: [JsonMember<'_>; 2]) -> Result<Vec<Attachment>, InvalidCall> {
    let list = |raw| elements(raw).unwrap_or_else(|| vec![raw]);
    let is_file = |raw: &&RawValue| {
        !matches!(raw.get(), "null" | r#""""#) && entries(raw.get()).is_none_or(|members| !members.is_empty())
    };
    let all: Vec<_> = places.into_iter().flatten().flat_map(list).filter(is_file).collect();
    if all.len() > MAX_ATTACHMENTS {
        return Err(InvalidCall::Attachments);
    }
    all.into_iter().map(|raw| attachment(raw).ok_or(InvalidCall::Attachment)).collect()
}

/// Reads a file. One without an id and a URL is none.
fn attachment(raw: &RawValue) -> Option<Attachment> {
    let mut other_members: BTreeMap<Box<str>, Box<RawValue>> = entries(raw.get())?
        .into_iter()
        .filter(|(_, value)| value.get() != "null")
        .map(|(name, value)| (name.into(), value.to_owned()))
        .collect();
    let mut take =
        |name: &str| other_members.remove(name).and_then(|raw| Some(string_or_number(&raw)?.into_owned()));
    let [id, name, kind] = ["fileId", "fileName", "fileType"].map(&mut take);
    let url = other_members.get("url").and_then(|raw| string(raw)).map(Cow::into_owned);
    // A frame knows files by their id. A file that has a URL alone goes by it.
    let file_id = id.or_else(|| url.clone())?;
    if let Some(url) = &url {
        other_members.entry("fileUrl".into()).or_insert(to_raw_value(url).ok()?);
    }
    let last = |url: String| url.rsplit('/').next().map(str::to_owned).filter(|name| !name.is_empty());
    let file_name = name.or_else(|| url.and_then(last));
    Some(Attachment {
        file_id: file_id.into(),
        file_name: file_name.map(Into::into),
        file_type: kind.map(Into::into),
        other_members,
    })
}

#[cfg(test)]
mod tests;
