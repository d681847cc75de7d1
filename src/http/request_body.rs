//! The body of a POST: a bounded read, and a validation that reports all errors at once.
//!
//! The validation ([`parse_message`]) is pure; see [`FieldValidator`]. Objects for the bot keep their text.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::ApiContext;
use super::api_error::{ApiError, FieldErrors};
use super::auth::CallerIdentity;
use super::canonical_json::JsonValue;
use super::detachable_connection::DetachableConnection;
use super::field_validator::{FieldValidator, pointer};
use super::long_work::{LongWork, PIECE_BYTES};
use crate::domain::{
    Attachment, CALLBACK_MAX_BYTES, CONTEXT_MAX_BYTES, Callback, InvalidMessage, JsonObject, MessageContent,
    MessageEvent, ProblemKind, ResendPolicy, SessionRequest, SharePermit, TurnRules, UserDetails, UserId,
    UserProfile,
};
use crate::hub::HubError;

/// The largest body, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Most attachments of a message.
pub(super) const MAX_ATTACHMENTS: usize = 20;

/// Time for a body without its bytes.
pub(super) const READ_TIME: Duration = Duration::from_secs(10);
/// Bytes for which a body has one more second.
pub(super) const BYTES_PER_SECOND: usize = 16 << 10;

/// A validated message.
#[derive(Debug)]
pub(super) struct MessageDraft {
    pub(super) content: MessageContent,
    pub(super) event: Option<MessageEvent>,
    pub(super) user_details: Option<Box<UserDetails>>,
    pub(super) session: SessionRequest,
    pub(super) rules: TurnRules,
    pub(super) resend: ResendPolicy,
    pub(super) callback: Option<Callback>,
}

/// Checks what the head says of a body: its type and its length.
///
/// # Errors
/// `unsupported-media-type`, `payload-too-large`.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), ApiError> {
    check_type(headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    Ok(())
}

/// Reads a JSON body. The request holds its memory until the answer is taken.
///
/// # Errors
/// `unsupported-media-type`, `payload-too-large`, `overloaded` without memory, and `invalid-request` for an incomplete or
/// slow body.
pub(super) async fn read(
    context: &ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Bytes, ApiError> {
    check_head(request.headers())?;
    let mut memory = context.memory().empty_permit(caller.holder());
    let body = collect(payload, &mut memory, &context.long_work).await?;
    if let Some(connection) = DetachableConnection::of_request(request) {
        connection.with_places(|places| places.body = Some(memory));
    }
    Ok(body)
}

/// Reads a body to its end. It has ten seconds, and one more for each 16 KiB that have arrived. A long body is read in turns:
/// the connection reads few bytes ahead of this function.
async fn collect<E>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    memory: &mut SharePermit,
    work: &LongWork,
) -> Result<Bytes, ApiError> {
    let begun = Instant::now();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut length = 0;
    loop {
        let time = READ_TIME + Duration::from_secs((length / BYTES_PER_SECOND) as u64);
        let chunk = match timeout_at(begun + time, payload.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(_))) => return Err(incomplete("must be complete; the connection broke")),
            Ok(None) => break,
            Err(_) => return Err(incomplete("must arrive within 10 s and 1 s more for each 16 KiB")),
        };
        length += chunk.len();
        let _turn = if length > PIECE_BYTES { Some(work.turn(memory.holder()).await) } else { None };
        if length > MAX_BODY_BYTES {
            return Err(too_large());
        }
        let before = whole.capacity();
        // Nearly every body is one chunk, which needs no copy.
        if first.is_empty() && whole.is_empty() {
            first = chunk;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&chunk);
        }
        if !memory.try_grow((whole.capacity() + first.len()).saturating_sub(before)) {
            return Err(ApiError::from(HubError::Overloaded("memory of requests")).closing_connection());
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Accepts `application/json` and `application/*+json` with any parameters, but no compression.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |detail| Err(ApiError::new(ProblemKind::UnsupportedMediaType, detail));
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    let json =
        essence.as_deref().and_then(|essence| essence.strip_prefix("application/")).is_some_and(|subtype| {
            subtype == "json" || (subtype.len() > "+json".len() && subtype.ends_with("+json"))
        });
    if !json {
        return refuse("The body must be JSON: send it with `Content-Type: application/json`.");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("The body must not be compressed: send it without `Content-Encoding`.")
        }
        _ => Ok(()),
    }
}

fn too_large() -> ApiError {
    // The rest of the body stays unread, so this connection cannot carry another request.
    ApiError::new(ProblemKind::PayloadTooLarge, "The body exceeds 1 MiB. Send a smaller one.")
        .closing_connection()
}

fn incomplete(detail: &'static str) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add("", detail);
    ApiError::from(errors).closing_connection()
}

/// Validates a message. Adds all errors, and returns `None` if there is one.
pub(super) fn parse_message(body: &[u8], errors: &mut FieldErrors) -> Option<MessageDraft> {
    FieldValidator::validate(body, errors, FieldValidator::message_draft)
}

impl FieldValidator<'_> {
    fn message_draft(&mut self, body: &str) -> Option<MessageDraft> {
        let [
            event,
            text,
            display,
            attachments,
            custom,
            tags,
            meta,
            profile,
            merge,
            session,
            turn,
            resend,
            callback,
        ] = self.object(
            "",
            body,
            [
                "event",
                "text",
                "displayText",
                "attachments",
                "customData",
                "metaTags",
                "meta",
                "profile",
                "mergeWith",
                "session",
                "turn",
                "resend",
                "callback",
            ],
        )?;
        // All fields are read before the first error ends this, so that the caller learns of all errors.
        let is_event = event.is_some();
        let event = event.and_then(|value| self.choice("/event", value, "must be `connect`"));
        let attachments = match attachments {
            Some(list) => self.attachments(list),
            None => Some(Vec::new()),
        };
        let content = if is_event {
            let files = attachments.as_ref().is_none_or(|files| !files.is_empty());
            Some(self.no_content([
                ("/text", text.filter(|text| text.get() != "\"\"")),
                ("/displayText", display),
                ("/attachments", Some(RawValue::NULL).filter(|_| files)),
                ("/meta", meta),
            ]))
        } else {
            self.content(text, attachments)
        };
        let display_text = display.and_then(|text| self.string("/displayText", text));
        let custom_data = custom.and_then(|value| self.context("/customData", value));
        let meta_tags = tags.and_then(|value| self.context("/metaTags", value));
        let meta = meta.and_then(|value| self.passed_through("/meta", value));
        let user_details = self.user_details(profile, merge);
        // A running session stays silent, so a connect begins one.
        let default = if is_event { SessionRequest::New } else { SessionRequest::Continue };
        let session = session.and_then(|value| self.session(value)).unwrap_or(default);
        let rules = turn.map(|turn| self.rules(turn)).unwrap_or_default();
        let resend = resend
            .and_then(|value| self.choice("/resend", value, "must be `never` or `auto`"))
            .unwrap_or_default();
        let callback = callback.and_then(|value| self.callback(value));
        let mut content = content?;
        content.display_text = display_text;
        content.custom_data = custom_data;
        content.meta_tags = meta_tags;
        content.meta = meta;
        Some(MessageDraft { content, event, user_details, session, rules, resend, callback })
    }

    /// Refuses the members that only a frame could carry, because an event sends none.
    fn no_content(&mut self, members: [(&'static str, Option<&RawValue>); 4]) -> MessageContent {
        for (at, _) in members.iter().filter(|(_, value)| value.is_some()) {
            self.add(*at, "must be absent beside `event`, which sends no message to the bot");
        }
        MessageContent::without_text()
    }

    /// Reads an object that becomes part of each frame of the session.
    fn context(&mut self, at: &'static str, value: &RawValue) -> Option<JsonObject> {
        if value.get().len() > CONTEXT_MAX_BYTES {
            self.add(at, format!("must have {CONTEXT_MAX_BYTES} bytes of JSON at most"));
            return None;
        }
        self.passed_through(at, value)
    }

    fn user_details(
        &mut self,
        profile: Option<&RawValue>,
        merge: Option<&RawValue>,
    ) -> Option<Box<UserDetails>> {
        let members = profile
            .and_then(|profile| self.object("/profile", profile.get(), ["firstName", "lastName"]))
            .unwrap_or_default();
        let [first, last] = members;
        let first_name = first.and_then(|name| self.user_name("/profile/firstName", name));
        let last_name = last.and_then(|name| self.user_name("/profile/lastName", name));
        let merge_with = merge.and_then(|user| {
            let user = self.string("/mergeWith", user)?;
            self.record("/mergeWith", UserId::new(&user))
        });
        let details = UserDetails { profile: UserProfile { first_name, last_name }, merge_with };
        (!details.is_empty()).then(|| Box::new(details))
    }

    fn user_name(&mut self, at: &'static str, value: &RawValue) -> Option<Box<str>> {
        let name = self.string(at, value)?;
        self.record(at, UserProfile::check(&name))?;
        Some(name)
    }

    /// `close` and `erase` are no sessions of a message: they are requests about the conversation.
    fn session(&mut self, value: &RawValue) -> Option<SessionRequest> {
        const CHOICES: &str = "must be `continue`, `new` or `newKeepAgent`";
        let session: SessionRequest = self.choice("/session", value, CHOICES)?;
        if session.is_end() {
            self.add("/session", CHOICES);
            return None;
        }
        Some(session)
    }

    /// Reads an object that the bot gets unchanged.
    fn passed_through(&mut self, at: &str, value: &RawValue) -> Option<JsonObject> {
        let object = self.record(at, JsonObject::new(value.to_owned()))?;
        self.readable(at, value).map(|()| object)
    }

    /// Checks a value that the bot gets unchanged: another parser might read an ambiguous value differently.
    fn readable(&mut self, at: &str, value: &RawValue) -> Option<()> {
        let read = serde_json::from_str::<JsonValue>(value.get());
        self.record(at, read.map(drop).map_err(|error| format!("cannot be sent to the bot: {error}")))
    }

    /// Reads the text, which may be absent beside attachments. `attachments` is `None` if they have an error.
    fn content(
        &mut self,
        text: Option<&RawValue>,
        attachments: Option<Vec<Attachment>>,
    ) -> Option<MessageContent> {
        let needs_text = attachments.as_ref().is_some_and(Vec::is_empty);
        let text = match text {
            None if !needs_text => Box::default(),
            text => self.required("/text", text).and_then(|text| self.string("/text", text))?,
        };
        if text.is_empty() && attachments.is_none() {
            return None;
        }
        self.record("/text", MessageContent::with_attachments(text, attachments.unwrap_or_default()))
    }

    fn attachments(&mut self, value: &RawValue) -> Option<Vec<Attachment>> {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
            self.add("/attachments", "must be an array of attachments");
            return None;
        };
        if items.len() > MAX_ATTACHMENTS {
            self.add("/attachments", format!("must have {MAX_ATTACHMENTS} items at most"));
            return None;
        }
        // All are read before the first error ends this.
        let check =
            |(index, item): (usize, &&RawValue)| self.attachment(&format!("/attachments/{index}"), item);
        let files: Vec<_> = items.iter().enumerate().map(check).collect();
        files.into_iter().collect()
    }

    /// Reads a file. The bot gets unknown members unchanged, because clients of the platform send different ones.
    fn attachment(&mut self, at: &str, item: &RawValue) -> Option<Attachment> {
        let (mut other_members, mut nulls) = (BTreeMap::new(), BTreeSet::new());
        let names = ["fileId", "fileName", "fileType"];
        let [id, name, kind] = self.open_object(at, item.get(), names, |check, key, value| {
            let twice = other_members.contains_key(&*key) || nulls.contains(&*key);
            if twice {
                check.add(pointer(at, &key), "must occur only once");
            } else if value.get() == "null" {
                nulls.insert(key);
            } else if let Some(()) = check.readable(&pointer(at, &key), value) {
                other_members.insert(key.into(), value.to_owned());
            }
        })?;
        let id_at = pointer(at, "fileId");
        let file_id = self.required(&id_at, id).and_then(|id| self.string(&id_at, id));
        if file_id.as_deref() == Some("") {
            self.add(id_at, "must not be empty");
        }
        let file_name = name.and_then(|name| self.string(&pointer(at, "fileName"), name));
        let file_type = kind.and_then(|kind| self.string(&pointer(at, "fileType"), kind));
        Some(Attachment { file_id: file_id?, file_name, file_type, other_members })
    }

    fn rules(&mut self, value: &RawValue) -> TurnRules {
        let members = self.object("/turn", value.get(), ["expectReplies", "quietMs", "deadlineMs"]);
        let [replies, quiet, deadline] = members.unwrap_or_default();
        // One field at a time: a constructor with all three fields reports only one error.
        let replies = self.integer("/turn/expectReplies", replies, InvalidMessage::ExpectReplies, |n| {
            TurnRules::new(Some(n), None, None)
        });
        let quiet = self
            .integer("/turn/quietMs", quiet, InvalidMessage::Quiet, |n| TurnRules::new(None, Some(n), None));
        let deadline = self.integer("/turn/deadlineMs", deadline, InvalidMessage::Deadline, |n| {
            TurnRules::new(None, None, Some(n))
        });
        TurnRules::new(replies, quiet, deadline).unwrap_or_default()
    }

    /// Reads a whole number that passes a check. `2.0` counts as one, as in JSON Schema.
    fn integer(
        &mut self,
        at: &'static str,
        value: Option<&RawValue>,
        error: InvalidMessage,
        check: impl Fn(u64) -> Result<TurnRules, InvalidMessage>,
    ) -> Option<u64> {
        let number = match serde_json::from_str::<JsonValue>(value?.get()) {
            Ok(JsonValue::Whole(number)) => u64::try_from(number).map_err(|_| error),
            _ => Err(error),
        };
        self.record(at, number.and_then(|number| check(number).map(|_| number)))
    }

    fn callback(&mut self, value: &RawValue) -> Option<Callback> {
        let [url] = self.object("/callback", value.get(), ["url"])?;
        let url = self.required("/callback/url", url)?;
        let url = self.string("/callback/url", url)?;
        if url.len() > CALLBACK_MAX_BYTES {
            self.add("/callback/url", format!("must have {CALLBACK_MAX_BYTES} bytes at most"));
            return None;
        }
        let usable =
            Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        self.record(
            "/callback/url",
            if usable { Ok(()) } else { Err("must be an absolute http or https URL") },
        )?;
        Some(Callback { url, signer: None })
    }
}

#[cfg(test)]
mod tests;
