//! The encoding of published hints: a letter for the kind, then netstrings.

use std::sync::Arc;

use super::codec::{self, CorruptData};
use crate::domain::Partition;
use crate::store::Hint;

const WHAT: CorruptData = CorruptData("a hint");

/// Decodes a hint. An unreadable one is logged and skipped, because any hint may be lost.
pub(super) fn decode(payload: &[u8]) -> Option<Hint> {
    read(payload).inspect_err(|error| tracing::warn!(%error, "an unreadable hint is skipped")).ok()
}

/// Encodes [`Hint::Appended`] of the conversation with this name.
pub(super) fn appended(name: &str) -> String {
    format!("J{}:{name}", name.len())
}

fn read(payload: &[u8]) -> Result<Hint, CorruptData> {
    let (kind, rest) = payload.split_first().ok_or(WHAT)?;
    let mut parts = HintParts(rest);
    Ok(match kind {
        b'A' => {
            let conversation = codec::conversation(parts.text()?)?;
            let id = codec::id(parts.text()?)?;
            Hint::Accepted(Arc::new(codec::accepted(conversation, id, parts.bytes()?)?))
        }
        b'W' => Hint::Woken(codec::conversation(parts.text()?)?),
        b'E' => {
            let conversation = codec::conversation(parts.text()?)?;
            let id = codec::id(parts.text()?)?;
            Hint::Ended(codec::message(&conversation, id, parts.pairs())?)
        }
        b'L' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::EndedLarge { conversation, id: codec::id(parts.text()?)? }
        }
        b'J' => Hint::Appended(codec::conversation(parts.text()?)?),
        b'C' => {
            let conversation = codec::conversation(parts.text()?)?;
            Hint::Chunk(conversation, Arc::new(codec::read_chunk(parts.bytes()?)?))
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
        b'R' => {
            let number = codec::number(parts.bytes()?)?;
            Hint::Redelivered(Partition::from_byte(u8::try_from(number).map_err(|_| WHAT)?))
        }
        b'F' => Hint::Fleet,
        b'B' => Hint::Echo(codec::number(parts.bytes()?)?),
        _ => return Err(WHAT),
    })
}

/// Encodes a hint that replicas give themselves; `None` for a hint that only scripts give.
pub(super) fn encode(hint: &Hint) -> Option<Vec<u8>> {
    match hint {
        Hint::Chunk(conversation, chunk) => {
            let chunk = codec::chunk(chunk).ok()?;
            Some(packed(b'C', &[conversation.to_string().as_bytes(), &chunk]))
        }
        Hint::Answered(number, connection) => {
            let connection = codec::connection(connection).ok()?;
            Some(packed(b'S', &[number.to_string().as_bytes(), &connection]))
        }
        _ => None,
    }
}

fn packed(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut packed = vec![kind];
    for part in parts {
        packed.extend_from_slice(part.len().to_string().as_bytes());
        packed.push(b':');
        packed.extend_from_slice(part);
    }
    packed
}

/// A sequence of netstrings.
struct HintParts<'a>(&'a [u8]);

impl<'a> HintParts<'a> {
    fn bytes(&mut self) -> Result<&'a [u8], CorruptData> {
        let colon = self.0.iter().position(|&byte| byte == b':').ok_or(WHAT)?;
        let (digits, rest) = self.0.split_at(colon);
        let length = usize::try_from(codec::number(digits)?).map_err(|_| WHAT)?;
        let (part, rest) = rest.get(1..).and_then(|rest| rest.split_at_checked(length)).ok_or(WHAT)?;
        self.0 = rest;
        Ok(part)
    }

    fn text(&mut self) -> Result<&'a str, CorruptData> {
        str::from_utf8(self.bytes()?).map_err(|_| WHAT)
    }

    fn pairs(mut self) -> impl Iterator<Item = Result<(&'a [u8], &'a [u8]), CorruptData>> {
        std::iter::from_fn(move || (!self.0.is_empty()).then(|| Ok((self.bytes()?, self.bytes()?))))
    }
}
