//! The encoding of published hints: a letter for the kind, then netstrings.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::codec::{self, CorruptData};
use super::netstring::{self, NetstringReader};
use crate::domain::{MessageId, Partition};
use crate::store::{Hint, Incarnation};

const WHAT: CorruptData = CorruptData("a hint");

/// From this size on a hint has only names, as in `hint.lua`.
const LARGE: usize = 65_536;

/// The change of a conversation by an accept that a script decided, here or at another replica.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RemoteAccept {
    /// The version of the conversation before the accept.
    pub(super) known: Box<str>,
    /// The version after it.
    pub(super) version: Box<str>,
    /// The replica on which a caller waits for the end.
    pub(super) watcher: Option<Incarnation>,
    /// The digest of the idempotency key.
    pub(super) key: Option<Box<str>>,
}

/// Decodes a hint. An unreadable one is logged and skipped, because any hint may be lost.
pub(super) fn decode(payload: &[u8]) -> Option<(Hint, Option<RemoteAccept>)> {
    read(payload).inspect_err(|error| tracing::warn!(%error, "an unreadable hint is skipped")).ok()
}

/// Encodes [`Hint::Ended`] from the parts of a message, or [`Hint::EndedLarge`] if these are too many bytes or unknown.
pub(super) fn ended(name: &str, id: MessageId, message: Option<&[&[u8]]>) -> Vec<u8> {
    let id = id.to_string();
    let names = [name.as_bytes(), id.as_bytes()];
    let size = message.map(|parts| parts.iter().map(|part| part.len()).sum::<usize>());
    match message {
        Some(parts) if size.is_some_and(|size| size < LARGE) => packed(b'E', &[&names, parts].concat()),
        _ => packed(b'L', &names),
    }
}

/// Encodes [`Hint::Appended`] of the conversation with this name.
pub(super) fn appended(name: &str) -> String {
    format!("J{}:{name}", name.len())
}

fn read(payload: &[u8]) -> Result<(Hint, Option<RemoteAccept>), CorruptData> {
    let (kind, rest) = payload.split_first().ok_or(WHAT)?;
    let mut parts = NetstringReader::new(rest);
    let hint = match kind {
        b'A' => {
            let conversation = codec::conversation(parts.text()?)?;
            let id = codec::id(parts.text()?)?;
            let accepted = Arc::new(codec::accepted(conversation, id, parts.bytes()?)?);
            let (known, version) = (parts.text()?.into(), parts.text()?.into());
            let (watcher, key) = (parts.text()?, parts.text()?);
            let watcher = (!watcher.is_empty()).then(|| codec::incarnation(watcher)).transpose()?;
            let key = (!key.is_empty()).then(|| key.into());
            return Ok((Hint::Accepted(accepted), Some(RemoteAccept { known, version, watcher, key })));
        }
        b'W' => Hint::Woken(codec::conversation(parts.text()?)?),
        b'E' => {
            let conversation = codec::conversation(parts.text()?)?;
            let id = codec::id(parts.text()?)?;
            Hint::Ended(codec::message(&conversation, id, parts)?.ok_or(WHAT)?)
        }
        b'L' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::EndedLarge { conversation, id: codec::id(parts.text()?)? }
        }
        b'X' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::Erased(conversation, codec::id(parts.text()?)?)
        }
        b'U' => Hint::UserErased(codec::conversation(parts.text()?)?),
        b'J' => Hint::Appended(codec::conversation(parts.text()?)?),
        b'C' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::Chunk(conversation, Arc::new(codec::read_chunk(parts.bytes()?)?))
        }
        b'P' => {
            let conversation = codec::conversation(parts.text()?)?;
            let frame: Box<RawValue> = serde_json::from_slice(parts.bytes()?).map_err(|_| WHAT)?;
            Hint::Platform(conversation, Arc::from(frame))
        }
        b'T' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::Signal(conversation, serde_json::from_slice(parts.bytes()?).map_err(|_| WHAT)?)
        }
        b'O' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::Observed(conversation, codec::incarnation(parts.text()?)?)
        }
        b'Q' => {
            let conversation = codec::conversation(parts.text()?)?;
            let by = codec::incarnation(parts.text()?)?;
            Hint::Asked { conversation, by, number: codec::number(parts.bytes()?)? }
        }
        b'S' => {
            let number = codec::number(parts.bytes()?)?;
            Hint::Answered(number, Box::new(codec::read_connection(parts.bytes()?)?))
        }
        b'K' => {
            let by = codec::incarnation(parts.text()?)?;
            let number = codec::number(parts.bytes()?)?;
            let conversations = parts.map(|name| codec::conversation(text(name?)?));
            Hint::AskedList { conversations: conversations.collect::<Result<_, _>>()?, by, number }
        }
        b'N' => {
            let number = codec::number(parts.bytes()?)?;
            let mut answer = Vec::new();
            while let Some(name) = parts.next() {
                let conversation = codec::conversation(text(name?)?)?;
                answer.push((conversation, codec::read_connection(parts.bytes()?)?));
            }
            Hint::AnsweredList(number, answer)
        }
        b'R' => {
            let number = codec::number(parts.bytes()?)?;
            Hint::Redelivered(Partition::from_byte(u8::try_from(number).map_err(|_| WHAT)?))
        }
        b'F' => Hint::Fleet,
        b'B' => Hint::Echo(codec::number(parts.bytes()?)?),
        _ => return Err(WHAT),
    };
    Ok((hint, None))
}

/// Encodes a hint that replicas give themselves; `None` for a hint that only scripts give.
pub(super) fn encode(hint: &Hint) -> Option<Vec<u8>> {
    match hint {
        Hint::Chunk(conversation, chunk) => {
            let chunk = codec::chunk(chunk).ok()?;
            Some(packed(b'C', &[conversation.to_string().as_bytes(), &chunk]))
        }
        Hint::Platform(conversation, frame) => {
            let name = conversation.to_string();
            Some(packed(b'P', &[name.as_bytes(), frame.get().as_bytes()]))
        }
        Hint::Signal(conversation, signal) => {
            let signal = serde_json::to_vec(signal).ok()?;
            Some(packed(b'T', &[conversation.to_string().as_bytes(), &signal]))
        }
        Hint::UserErased(conversation) => Some(packed(b'U', &[conversation.to_string().as_bytes()])),
        Hint::Answered(number, connection) => {
            let connection = codec::connection(connection).ok()?;
            Some(packed(b'S', &[number.to_string().as_bytes(), &connection]))
        }
        Hint::AskedList { conversations, by, number } => {
            let mut payload = packed(b'K', &[by.to_string().as_bytes(), number.to_string().as_bytes()]);
            for conversation in conversations {
                netstring::push(&mut payload, conversation.to_string().as_bytes());
            }
            Some(payload)
        }
        Hint::AnsweredList(number, answer) => {
            let mut payload = packed(b'N', &[number.to_string().as_bytes()]);
            for (conversation, connection) in answer {
                netstring::push(&mut payload, conversation.to_string().as_bytes());
                netstring::push(&mut payload, &codec::connection(connection).ok()?);
            }
            Some(payload)
        }
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Result<&str, CorruptData> {
    str::from_utf8(bytes).map_err(|_| WHAT)
}

fn packed(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut packed = vec![kind];
    for part in parts {
        netstring::push(&mut packed, part);
    }
    packed
}
