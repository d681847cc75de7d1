//! Netstrings: the length in bytes, `:`, the bytes. They need no escapes, so scripts and the bridge copy the bytes unread.

use super::codec::{self, CorruptData};

const WHAT: CorruptData = CorruptData("a sequence of netstrings");

/// Adds a part.
pub(super) fn push(into: &mut Vec<u8>, part: &[u8]) {
    into.extend_from_slice(part.len().to_string().as_bytes());
    into.push(b':');
    into.extend_from_slice(part);
}

/// Returns a sequence of these parts.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        push(&mut bytes, part);
    }
    bytes
}

/// The parts of a sequence, one after the other.
#[derive(Debug, Clone)]
pub(super) struct NetstringReader<'a>(&'a [u8]);

impl<'a> NetstringReader<'a> {
    /// Reads a sequence.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next part.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CorruptData> {
        let colon = self.0.iter().position(|&byte| byte == b':').ok_or(WHAT)?;
        let (digits, rest) = self.0.split_at(colon);
        let length = usize::try_from(codec::number(digits)?).map_err(|_| WHAT)?;
        let (part, rest) = rest.get(1..).and_then(|rest| rest.split_at_checked(length)).ok_or(WHAT)?;
        self.0 = rest;
        Ok(part)
    }

    /// Returns the next part as text.
    pub(super) fn text(&mut self) -> Result<&'a str, CorruptData> {
        str::from_utf8(self.bytes()?).map_err(|_| WHAT)
    }
}

impl<'a> Iterator for NetstringReader<'a> {
    type Item = Result<&'a [u8], CorruptData>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.bytes();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}
