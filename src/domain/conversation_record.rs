//! The state of a conversation that survives a handoff or failover to another replica.

use std::collections::VecDeque;

use super::{AcceptedMessage, Callback, MessageId, RateWindow, Sha256, Timestamp, TraceId};

/// A fingerprint of a platform id: 64 bits of its SHA-256, the same in every version of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Returns the fingerprint of an id.
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(id);
        Self(digest.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte)))
    }

    /// Returns the fingerprint with these bits, which [`Fingerprint::bits`] returned.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The fingerprints of the newest replies, for dedup. The platform repeats frames after a reconnect (protocol.md 5.6),
/// possibly to another owner than the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentReplies(VecDeque<Fingerprint>);

impl RecentReplies {
    /// The usual size: enough for the start of the next gap. A new owner reads further ids from the journal.
    pub(crate) const KEPT: usize = 16;
    /// The size during a backfill, which must recognise all replies since an earlier message.
    pub(crate) const MOST: usize = 128;

    /// Adds a reply. The oldest is dropped beyond 16 replies, or beyond 128 while `repairing`.
    pub fn push(&mut self, reply: Fingerprint, repairing: bool) {
        let most = if repairing { Self::MOST } else { Self::KEPT };
        let over = (self.0.len() + 1).saturating_sub(most);
        self.0.drain(..over);
        self.0.push_back(reply);
    }

    /// Returns the fingerprints, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Fingerprint> {
        self.0.iter().copied()
    }
}

impl FromIterator<Fingerprint> for RecentReplies {
    fn from_iter<I: IntoIterator<Item = Fingerprint>>(replies: I) -> Self {
        let mut recent = Self::default();
        replies.into_iter().for_each(|reply| recent.push(reply, true));
        recent
    }
}

/// The last turn that ended. Late replies belong to it and go to its callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTurn {
    /// The message.
    pub message: MessageId,
    /// The end of the turn.
    pub ended_at: Timestamp,
    /// The id that a bot may echo in its replies. Empty in records of earlier versions.
    pub client_message_id: Option<u64>,
    /// The callback of the message.
    pub callback: Option<Callback>,
    /// The trace of the message.
    pub trace: TraceId,
    /// The late replies that the message got.
    pub late: LateReplies,
}

/// The number and the bytes of a message's late replies. They are limited, because a message is one value of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateReplies {
    /// The number of replies.
    pub count: u32,
    /// The bytes of their events and texts.
    pub bytes: u64,
}

impl LateReplies {
    /// The greatest number of late replies of one message.
    const MAX_COUNT: u32 = 100;
    /// Above this number of bytes a message gets no more late replies.
    const MAX_BYTES: u64 = 4 << 20;

    /// Counts a reply of so many bytes. Returns whether the message had room for it.
    pub fn take(&mut self, bytes: u64) -> bool {
        let has_room = self.count < Self::MAX_COUNT && self.bytes < Self::MAX_BYTES;
        if has_room {
            self.count += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        }
        has_room
    }
}

impl LastTurn {
    /// Creates the record of a turn of this message that ended at `ended_at`.
    pub fn of(message: &AcceptedMessage, ended_at: Timestamp) -> Self {
        Self {
            message: message.id,
            ended_at,
            client_message_id: Some(message.client_message_id),
            callback: message.new.callback.clone(),
            trace: message.new.trace,
            late: LateReplies::default(),
        }
    }

    /// Returns whether a reply with this echoed id answers the turn's message.
    pub fn is_echoed(&self, id: Option<u64>) -> bool {
        id.is_some() && id == self.client_message_id
    }
}

/// The start of an open gap before which no reply is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstGap {
    /// Its start by the store's clock.
    pub since: Timestamp,
    /// The `clientMessageId` of the conversation's message with which it begins.
    pub own: Option<u64>,
}

/// The record of a conversation. The owner writes the whole record with every write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationRecord {
    /// The journal's epoch in milliseconds: the time of its first entry, or of the last loss that was noticed. Positions
    /// with another epoch are void.
    pub epoch: u64,
    /// The position of the newest journal entry; 0 for an empty journal.
    pub seq: u64,
    /// The number of the owner's last write. The store does not apply a number twice.
    pub write: u64,
    /// The last time at which the platform showed that the session lives. Empty before the first connect and after the
    /// session's end; the next connect may then bring a welcome.
    pub connected_at: Option<Timestamp>,
    /// The message whose new session was started already, so that a failover does not start another one.
    pub session_done: Option<MessageId>,
    /// The message whose custom data and tags the session's frames carry. A new owner reads them there.
    pub context: Option<MessageId>,
    /// The platform's id of the newest reply. A backfill reads history forward from it.
    pub last_platform_message: Option<Box<str>>,
    /// The gap before that reply, until it is closed. A backfill then reads the history before it too.
    pub first_gap: Option<FirstGap>,
    /// The platform's time of that reply, or of an earlier one if it had none. A backfill reads no history from before
    /// this time.
    pub said_at: Option<Timestamp>,
    /// The newest replies, for dedup.
    pub recent: RecentReplies,
    /// The platform's id of the running session, if the platform gave one.
    pub session_id: Option<Box<str>>,
    /// The turn that ended last.
    pub last_turn: Option<LastTurn>,
    /// Whether a human agent has the conversation.
    pub agent: bool,
    /// The end of a block by the platform after close code 1008.
    pub blocked_until: Option<Timestamp>,
    /// The user's sends of the last minute.
    pub sends: RateWindow,
}

impl ConversationRecord {
    /// Numbers the write that begins now: above the last number, and at least the time in milliseconds.
    ///
    /// So a number is unique even if the store or an owner forgot the last ones. The store cannot confuse a delayed write
    /// with another one.
    pub fn number_write(&mut self, now: Timestamp) {
        self.begin_journal(now);
        self.write = now.as_millis().max(self.write + 1);
    }

    /// Sets the epoch of a journal that begins with this write. Epoch and position identify an entry.
    pub fn begin_journal(&mut self, now: Timestamp) {
        if self.epoch == 0 {
            self.epoch = now.as_millis();
        }
    }

    /// Starts a new epoch, because the stored journal may differ from the entries that readers got.
    pub fn renew_epoch(&mut self, now: Timestamp) {
        self.epoch = now.as_millis().max(self.epoch + 1);
    }
}
