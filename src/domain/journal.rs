//! Reading a conversation's journal: where a reader stands, and what it is given.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{JournalEntry, Message, Timestamp};

/// A place in a conversation's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// Which journal.
    pub epoch: u64,
    /// Which of its entries.
    pub seq: u64,
}

/// Where a reader stands in a conversation's journal: behind the entry with this `seq`. Outside it is an opaque word.
///
/// Places begin anew where a conversation was forgotten, and what stood at one may be another entry where the store
/// lost data. The epoch tells the journals apart, and within one, where nobody noticed the loss, the time of the entry
/// that was read: a cursor of another journal or entry than is kept is answered with a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which journal; 0 is that of a conversation that has none yet.
    pub epoch: u64,
    /// The place of the last entry that was read; 0 before the first.
    pub seq: u64,
    /// When that entry was written; none where it was not read, or is not kept.
    pub at: Option<Timestamp>,
}

impl Cursor {
    /// Behind this entry of a journal.
    pub const fn behind(epoch: u64, entry: &JournalEntry) -> Self {
        Self { epoch, seq: entry.seq, at: Some(entry.at) }
    }
}

/// What is no cursor of ours.
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

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
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

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStart {
    /// At the oldest entry that is kept.
    Oldest,
    /// Behind this place.
    Cursor(Cursor),
    /// Behind the newest entry.
    Latest,
}

/// One entry as it is read.
#[derive(Clone, Debug)]
pub struct EntryWithMessage {
    /// The entry.
    pub entry: JournalEntry,
    /// Where it tells the end of a message: the message as it stands now. None where that has expired.
    pub message: Option<Message>,
}

/// Some of a journal's entries.
#[derive(Clone, Debug, Default)]
pub struct JournalPage {
    /// The entries, oldest first.
    pub entries: Vec<EntryWithMessage>,
    /// Where the next read begins.
    pub next: Cursor,
    /// Whether there are more entries behind these.
    pub more: bool,
    /// Whether entries between the place that was asked for and the first of these are not kept any more, or may
    /// have been lost.
    pub gap: bool,
}

/// A piece of a streamed reply, for those who read live; it is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyChunk {
    /// The platform's id of the reply.
    pub message_id: Option<Box<str>>,
    /// Counts the pieces of the reply, from 0.
    pub index: u32,
    /// The piece.
    pub text: Box<str>,
    /// Whether it is the last one.
    pub last: bool,
}

/// What a live reader is told between two pages.
#[derive(Clone, Debug)]
pub enum LiveSignal {
    /// There may be new entries: read the next page.
    Look,
    /// A piece of a streamed reply.
    Chunk(std::sync::Arc<ReplyChunk>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(epoch: u64, seq: u64, at: Option<u64>) {
            let cursor = Cursor { epoch, seq, at: at.map(Timestamp::from_millis) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn nothing_else_is_a_cursor(text in "\\PC{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn cut_and_stretched_ones_are_refused() {
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
