//! The encoding of journal entries: `AT WEIGHT BODY`, under a letter for their kind.
//!
//! The script that trims a journal reads the weight alone, not the body.

use serde_json::value::RawValue;

use super::{CorruptData, outcome, reply, time, word};
use crate::domain::{EntryBody, GapReason, JournalEntry, Timestamp};

const WHAT: CorruptData = CorruptData("an entry of a journal");

/// Encodes an entry as its letter and `AT WEIGHT BODY`.
pub(in super::super) fn encode_entry(entry: &JournalEntry) -> Result<(&'static str, Vec<u8>), CorruptData> {
    let mut text = format!("{} {} ", entry.at.as_millis(), entry.weight()).into_bytes();
    let kind = match &entry.body {
        EntryBody::Reply(said) => {
            reply::write(said, &mut text)?;
            "r"
        }
        EntryBody::Ended { message, outcome } => {
            outcome::write(*message, outcome, false, &mut text)?;
            "e"
        }
        EntryBody::Closed { message, outcome } => {
            outcome::write(*message, outcome, true, &mut text)?;
            "e"
        }
        EntryBody::UserMessage(raw) => {
            text.extend_from_slice(raw.get().as_bytes());
            "u"
        }
        EntryBody::Platform(raw) => {
            text.extend_from_slice(raw.get().as_bytes());
            "p"
        }
        EntryBody::Gap(gap) => {
            text.extend_from_slice(gap.as_str().as_bytes());
            "g"
        }
    };
    Ok((kind, text))
}

/// Decodes an entry of this kind at this place.
pub(in super::super) fn entry(kind: &[u8], seq: u64, text: &[u8]) -> Result<JournalEntry, CorruptData> {
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
