//! The encoding of journal entries: `PLACE KIND AT WEIGHT BODY`, with a letter for the kind.
//!
//! The script that trims a journal reads the weight alone, not the body.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{CorruptData, number, outcome, reply, time, word};
use crate::domain::{EntryBody, GapReason, JournalEntry, Timestamp};

const WHAT: CorruptData = CorruptData("an entry of a journal");

/// An encoded entry.
#[derive(Debug)]
pub(in super::super) struct EncodedEntry {
    bytes: Vec<u8>,
    seq: u64,
    kind: &'static str,
    /// Where the text begins.
    text_at: usize,
}

impl EncodedEntry {
    /// Returns the entry as the journal holds it.
    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its place.
    pub(in super::super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns its place in digits.
    pub(in super::super) fn place(&self) -> &[u8] {
        word(&self.bytes).map_or(&[], |(place, _)| place)
    }

    /// Returns the letter of its kind.
    pub(in super::super) const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns `AT WEIGHT BODY`.
    pub(in super::super) fn text(&self) -> &[u8] {
        self.bytes.get(self.text_at..).unwrap_or_default()
    }
}

/// Encodes an entry.
pub(in super::super) fn encode_entry(entry: &JournalEntry) -> Result<EncodedEntry, CorruptData> {
    let kind = match &entry.body {
        EntryBody::Reply(_) => "r",
        EntryBody::Ended { .. } | EntryBody::Closed { .. } => "e",
        EntryBody::UserMessage(_) => "u",
        EntryBody::Platform(_) => "p",
        EntryBody::Gap(_) => "g",
        EntryBody::Stuck { .. } => "s",
    };
    let mut bytes = format!("{} {kind} ", entry.seq).into_bytes();
    let text_at = bytes.len();
    bytes.extend_from_slice(format!("{} {} ", entry.at.as_millis(), entry.weight()).as_bytes());
    match &entry.body {
        EntryBody::Reply(said) => reply::write(said, &mut bytes)?,
        EntryBody::Ended { message, outcome } => outcome::write(*message, outcome, false, &mut bytes)?,
        EntryBody::Closed { message, outcome } => outcome::write(*message, outcome, true, &mut bytes)?,
        EntryBody::UserMessage(raw) | EntryBody::Platform(raw) => {
            bytes.extend_from_slice(raw.get().as_bytes());
        }
        EntryBody::Gap(gap) => bytes.extend_from_slice(gap.as_str().as_bytes()),
        EntryBody::Stuck { message, waited } => {
            bytes.extend_from_slice(format!("{message} {}", waited.as_millis()).as_bytes());
        }
    }
    Ok(EncodedEntry { bytes, seq: entry.seq, kind, text_at })
}

/// Decodes an entry as the journal holds it.
pub(in super::super) fn read_entry(bytes: &[u8]) -> Result<JournalEntry, CorruptData> {
    let (place, rest) = word(bytes).ok_or(WHAT)?;
    let (kind, text) = word(rest).ok_or(WHAT)?;
    read_text(kind, number(place)?, text)
}

/// Decodes an entry of this kind at this place.
pub(super) fn read_text(kind: &[u8], seq: u64, text: &[u8]) -> Result<JournalEntry, CorruptData> {
    let (at, body) = stamped(text)?;
    let raw = || {
        let text = str::from_utf8(body).map_err(|_| WHAT)?;
        RawValue::from_string(text.to_owned()).map_err(|_| WHAT)
    };
    let body = match kind {
        b"r" => EntryBody::Reply(reply::read(seq, body)?.into()),
        b"e" => {
            let (message, outcome, closes) = outcome::read(body)?;
            if closes {
                EntryBody::Closed { message, outcome }
            } else {
                EntryBody::Ended { message, outcome }
            }
        }
        b"u" => EntryBody::UserMessage(raw()?),
        b"p" => EntryBody::Platform(raw()?),
        b"g" => EntryBody::Gap(
            GapReason::ALL.into_iter().find(|gap| gap.as_str().as_bytes() == body).ok_or(WHAT)?,
        ),
        b"s" => {
            let (message, waited) = word(body).ok_or(WHAT)?;
            let message = str::from_utf8(message).ok().and_then(|id| id.parse().ok()).ok_or(WHAT)?;
            EntryBody::Stuck { message, waited: Duration::from_millis(number(waited)?) }
        }
        _ => return Err(WHAT),
    };
    Ok(JournalEntry { seq, at, body })
}

/// Splits an entry into its time and its body.
pub(super) fn stamped(text: &[u8]) -> Result<(Timestamp, &[u8]), CorruptData> {
    let (at, rest) = word(text).ok_or(WHAT)?;
    let (_weight, body) = word(rest).ok_or(WHAT)?;
    Ok((time(at)?, body))
}
