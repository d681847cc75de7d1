//! Reads of a conversation's journal: positions, cursors and pages.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use super::{JournalEntry, Message, Timestamp};

/// A position in a conversation's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// The journal's epoch.
    pub epoch: u64,
    /// The entry's position.
    pub seq: u64,
}

/// A reader's position in a conversation's journal: behind the entry with this `seq`. The API shows it as opaque text.
///
/// A conversation that expired starts again with position 1. After a loss of data in the store, a position may hold
/// another entry. The epoch tells the journals apart. Within one epoch the time of the entry reveals an unnoticed
/// loss. A cursor that does not match the stored journal leads to a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The journal's epoch; 0 for a conversation without a journal.
    pub epoch: u64,
    /// The position of the last entry that was read; 0 before the first.
    pub seq: u64,
    /// The time of that entry, if it was read and still exists.
    pub at: Option<Timestamp>,
}

impl Cursor {
    /// Returns the cursor behind this entry.
    pub const fn behind(epoch: u64, entry: &JournalEntry) -> Self {
        Self { epoch, seq: entry.seq, at: Some(entry.at) }
    }
}

/// The error for text that is no cursor of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor; take one from `next` of a page or from the `id` of an event")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.at.map(|at| at.as_millis().to_be_bytes()).iter().flatten());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Cursor {
    /// The length of the longest cursor as text.
    const MAX_TEXT: usize = 32;
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_TEXT {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        let (epoch, seq, at) = match bytes.as_chunks::<8>() {
            ([epoch, seq], []) => (epoch, seq, None),
            ([epoch, seq, at], []) => (epoch, seq, Some(Timestamp::from_millis(number(at)))),
            _ => return Err(InvalidCursor),
        };
        Ok(Self { epoch: number(epoch), seq: number(seq), at })
    }
}

/// The start of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// The oldest entry that the store still has.
    Oldest,
    /// The entry behind this cursor.
    Cursor(Cursor),
    /// The end: only entries that are written later.
    Latest,
}

/// One entry as a read returns it.
#[derive(Clone, Debug)]
pub struct EntryWithMessage {
    /// The entry.
    pub entry: JournalEntry,
    /// The message as it is now, if the entry is the end of a message that has not expired.
    pub message: Option<Message>,
}

/// A page of journal entries.
#[derive(Clone, Debug, Default)]
pub struct JournalPage {
    /// The entries, oldest first.
    pub entries: Vec<EntryWithMessage>,
    /// The cursor for the next read.
    pub next: Cursor,
    /// Whether more entries follow.
    pub more: bool,
    /// Whether entries between the cursor and the first entry of the page have expired or may have been lost.
    pub gap: bool,
}

impl JournalPage {
    /// Returns the approximate number of bytes in memory.
    pub fn weight(&self) -> usize {
        let message = |message: &Message| {
            let replies = message.progress.replies.iter().map(|reply| reply.weight());
            message.accepted.new.content.text().len() + replies.sum::<usize>()
        };
        let entry = |item: &EntryWithMessage| item.entry.weight() + item.message.as_ref().map_or(0, message);
        self.entries.iter().map(entry).sum()
    }
}

/// A part of a streamed reply for live subscribers. The store never keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyChunk {
    /// The platform's id of the reply.
    pub message_id: Option<Box<str>>,
    /// The number of the part, from 0.
    pub index: u32,
    /// The text of the part.
    pub text: Box<str>,
    /// Whether it is the last one.
    pub last: bool,
}

/// A signal to a live subscriber between two pages.
#[derive(Clone, Debug)]
pub enum LiveSignal {
    /// There may be new entries: read the next page.
    Look,
    /// A part of a streamed reply.
    Chunk(std::sync::Arc<ReplyChunk>),
    /// A frame of the platform that the journal does not keep: a human agent types.
    Platform(std::sync::Arc<RawValue>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursor_as_text_reads_back(epoch: u64, seq: u64, at: Option<u64>) {
            let cursor = Cursor { epoch, seq, at: at.map(Timestamp::from_millis) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn cursor_from_other_text_is_refused(text in "\\PC{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn cursor_cut_or_extended_is_refused() {
        for at in [None, Some(Timestamp::from_millis(11))] {
            let word = Cursor { epoch: 7, seq: 9, at }.to_string();
            for bad in
                ["", "latest", &word[1..], &format!("{word}A"), &format!("{word}=="), &format!("{word}AAAA")]
            {
                assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
            }
        }
    }
}
