//! An open message in the owner's cache, and its word in the lane (`conversation.lua`).

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::super::codec::{self, CorruptData};
use crate::domain::{AcceptedMessage, ConversationId, MessageId, Timestamp};
use crate::store::Incarnation;

/// An open message.
#[derive(Debug)]
pub(in super::super) struct CachedMessage {
    pub(in super::super) accepted: Arc<AcceptedMessage>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) acked_at: Option<Timestamp>,
    pub(super) first_reply_at: Option<Timestamp>,
    /// The digest of its idempotency key.
    pub(in super::super) key: Option<Box<str>>,
    /// The replicas that get a hint at its end.
    pub(in super::super) watchers: Vec<Incarnation>,
    /// The places of its replies.
    pub(in super::super) replies: Vec<u64>,
    /// Whether the journal no longer holds all replies. A script has to end such a message.
    pub(super) moved: bool,
}

impl CachedMessage {
    pub(super) const fn new(
        accepted: Arc<AcceptedMessage>,
        sent_at: Option<Timestamp>,
        key: Option<Box<str>>,
        watchers: Vec<Incarnation>,
    ) -> Self {
        Self {
            accepted,
            sent_at,
            acked_at: None,
            first_reply_at: None,
            key,
            watchers,
            replies: Vec::new(),
            moved: false,
        }
    }

    pub(super) fn id(&self) -> MessageId {
        self.accepted.id
    }

    /// Decodes a message from its word and its accepted part. `None` means that the store lost it.
    pub(super) fn read(
        of: &ConversationId,
        word: &str,
        accepted: &[u8],
    ) -> Result<Option<Self>, CorruptData> {
        const WHAT: CorruptData = CorruptData("an open message");
        if accepted.is_empty() {
            return Ok(None);
        }
        let parts: Vec<&str> = word.split(':').collect();
        let &[id, signs, key, watchers, replies, moved, ..] = &*parts else { return Err(WHAT) };
        let mut times = signs.split(',').map(|digits| {
            let time = (!digits.is_empty()).then(|| codec::number(digits.as_bytes())).transpose();
            time.map(|time| time.map(Timestamp::from_millis))
        });
        let mut next = || times.next().unwrap_or(Err(WHAT));
        Ok(Some(Self {
            accepted: Arc::new(codec::accepted(of.clone(), codec::id(id)?, accepted)?),
            sent_at: next()?,
            acked_at: next()?,
            first_reply_at: next()?,
            key: (!key.is_empty()).then(|| key.into()),
            watchers: words(watchers).map(codec::incarnation).collect::<Result<_, _>>()?,
            replies: words(replies).map(|word| codec::number(word.as_bytes())).collect::<Result<_, _>>()?,
            moved: !moved.is_empty(),
        }))
    }

    /// Returns `SIGNS REPLIES`, with which the turn of an ended message begins.
    pub(in super::super) fn turn(&self) -> String {
        let mut turn = String::with_capacity(48);
        self.write_signs(&mut turn).ok();
        turn.push(' ');
        self.write_replies(&mut turn).ok();
        turn
    }

    fn write_signs(&self, into: &mut String) -> fmt::Result {
        for (index, at) in [self.sent_at, self.acked_at, self.first_reply_at].into_iter().enumerate() {
            if index > 0 {
                into.push(',');
            }
            if let Some(at) = at {
                write!(into, "{}", at.as_millis())?;
            }
        }
        Ok(())
    }

    fn write_replies(&self, into: &mut String) -> fmt::Result {
        for (index, place) in self.replies.iter().enumerate() {
            write!(into, "{}{place}", if index > 0 { "+" } else { "" })?;
        }
        Ok(())
    }

    /// Writes its word in the lane.
    pub(super) fn write_word(&self, into: &mut String) -> fmt::Result {
        write!(into, "{}:", self.accepted.id)?;
        self.write_signs(into)?;
        write!(into, ":{}:", self.key.as_deref().unwrap_or_default())?;
        for (index, watcher) in self.watchers.iter().enumerate() {
            write!(into, "{}{watcher}", if index > 0 { "+" } else { "" })?;
        }
        into.push(':');
        self.write_replies(into)?;
        into.push_str(if self.moved { ":+" } else { ":" });
        Ok(())
    }
}

/// Returns the words of a list with `+` between them.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split('+').filter(|word| !word.is_empty())
}
