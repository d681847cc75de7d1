//! Entries of the journal: `AT WEIGHT BODY`, under a letter for their kind.
//!
//! The weight stands there so that the script that trims can count without reading the body.

use serde_json::value::RawValue;

use super::{Corrupt, outcome, reply, time, word};
use crate::domain::{EntryBody, GapReason, JournalEntry, Timestamp};

const WHAT: Corrupt = Corrupt("an entry of a journal");

/// Writes an entry: the letter, and `AT WEIGHT BODY`.
pub(in super::super) fn tell(entry: &JournalEntry) -> Result<(&'static str, Vec<u8>), Corrupt> {
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

/// Reads an entry of this kind that stands at this place.
pub(in super::super) fn entry(kind: &[u8], seq: u64, text: &[u8]) -> Result<JournalEntry, Corrupt> {
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

/// The time of an entry, and its body.
pub(super) fn stamped(text: &[u8]) -> Result<(Timestamp, &[u8]), Corrupt> {
    let (at, rest) = word(text).ok_or(WHAT)?;
    let (_weight, body) = word(rest).ok_or(WHAT)?;
    Ok((time(at)?, body))
}
