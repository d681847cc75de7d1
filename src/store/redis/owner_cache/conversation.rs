//! One conversation in the owner's cache: its state in Redis, and the changes that its owner prepares. No I/O.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::super::codec::{self, AcceptStamp, CorruptData};
use super::super::script_answer::AnswerValues;
use crate::domain::{EntryBody, JournalEntry, MessageId, Timestamp};
use crate::store::{ConversationChange, ConversationWrite, Incarnation};

/// The limit of changes of a prepared write. Longer ones are rare, and Lua passes some thousands of words at most.
const MAX_CHANGES: usize = 256;
/// The limits of a journal, as in `limits.lua`. At a limit a script takes out the oldest entries.
const MAX_ENTRIES: u64 = 1000;
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The factor of the weight in the field `b`, as in `limits.lua`.
const ENTRY: u64 = 65_536;

/// The state of a conversation in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct CachedConversation {
    /// The version that stands for all of it.
    version: Box<str>,
    /// The number of the last write.
    write: u64,
    next_position: u64,
    last_client_message_id: Option<u64>,
    /// When the first message became the head.
    head_since: Timestamp,
    lane: VecDeque<CachedMessage>,
    journal: JournalSize,
    /// The replicas that get hints at new entries, each until a time.
    observers: Vec<(Incarnation, Timestamp)>,
    activity: ConversationActivity,
}

/// An open message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CachedMessage {
    id: MessageId,
    sent_at: Option<Timestamp>,
    acked_at: Option<Timestamp>,
    first_reply_at: Option<Timestamp>,
    /// The digest of its idempotency key.
    key: Option<Box<str>>,
    watchers: Vec<Incarnation>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct JournalSize {
    bytes: u64,
    entries: u64,
    last_place: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConversationActivity {
    /// The conversation expires. It must be activated before a change.
    Resting,
    /// The conversation does not expire.
    Active,
}

/// A prepared accept.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct PreparedAccept {
    pub(in super::super) known: Box<str>,
    pub(in super::super) version: Box<str>,
    pub(in super::super) stamp: AcceptStamp,
    /// Whether the message is marked as sent.
    pub(in super::super) sent: bool,
    pub(in super::super) lane: String,
    pub(in super::super) activates: bool,
}

/// A prepared write.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct PreparedWrite {
    pub(in super::super) known: Box<str>,
    pub(in super::super) version: Box<str>,
    pub(in super::super) messages: Vec<MessageUpdate>,
    pub(in super::super) lane: String,
    /// The field `b` if entries are appended.
    pub(in super::super) journal: Option<u64>,
    /// Whether the journal has entries before the write.
    pub(in super::super) has_journal: bool,
    pub(in super::super) activates: bool,
    /// The replicas that get a hint at the new entries.
    pub(in super::super) observers: Vec<Incarnation>,
    pub(in super::super) now: Timestamp,
}

/// The changes of one open message.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct MessageUpdate {
    pub(in super::super) id: MessageId,
    /// The field `p`.
    pub(in super::super) signs: String,
    /// The places of its new replies.
    pub(in super::super) replies: Vec<u64>,
    /// Where in the write its end stands.
    pub(in super::super) ended_by: Option<usize>,
    /// The digest of the idempotency key, which expires with the message.
    pub(in super::super) key: Option<Box<str>>,
}

/// Returns a version that no other change of the conversation has.
fn new_version() -> Box<str> {
    format!("{:x}", fastrand::u64(..)).into()
}

impl CachedConversation {
    /// Decodes the answer of `cached.lua`. `None` means that the store lost a message, which scripts have to judge.
    pub(in super::super) fn read(mut told: AnswerValues) -> Result<Option<Self>, CorruptData> {
        const WHAT: CorruptData = CorruptData("what an owner caches of a conversation");
        if told.is_empty() {
            return Ok(None);
        }
        let (version, write, positions, lane) = (told.text()?, told.text()?, told.text()?, told.text()?);
        let (weight, observers, resting, last_place) =
            (told.text()?, told.text()?, told.number()?, told.text()?);
        let or_zero = |digits: &str| if digits.is_empty() { Ok(0) } else { codec::number(digits.as_bytes()) };
        if version.is_empty() || write.ends_with('!') {
            return Ok(None);
        }
        let (next, last) = positions.split_once(' ').unwrap_or_default();
        let weight = or_zero(&weight)?;
        let mut words = lane.split(' ').filter(|word| !word.is_empty());
        let head_since = words.next().map_or(Ok(0), or_zero)?;
        let lane = words
            .map(|id| CachedMessage::read(codec::id(id)?, &told.text()?, &told.text()?, &told.text()?))
            .collect::<Result<_, CorruptData>>()?;
        let observers = observers
            .split(' ')
            .filter(|note| !note.is_empty())
            .map(|note| {
                let (who, until) = note.split_once(':').ok_or(WHAT)?;
                Ok((codec::incarnation(who)?, Timestamp::from_millis(or_zero(until)?)))
            })
            .collect::<Result<_, CorruptData>>()?;
        Ok(Some(Self {
            version: version.into(),
            write: or_zero(&write)?,
            next_position: or_zero(next)?,
            last_client_message_id: (!last.is_empty()).then(|| or_zero(last)).transpose()?,
            head_since: Timestamp::from_millis(head_since),
            lane,
            journal: JournalSize {
                bytes: weight / ENTRY,
                entries: weight % ENTRY,
                last_place: or_zero(&last_place)?,
            },
            observers,
            activity: if resting == 1 { ConversationActivity::Resting } else { ConversationActivity::Active },
        }))
    }

    /// Prepares the accept of a new message. In an empty lane it is marked as sent.
    pub(in super::super) fn accept(
        &mut self,
        id: MessageId,
        key: Option<&str>,
        watcher: Option<Incarnation>,
        max_open: usize,
        now: Timestamp,
    ) -> Option<PreparedAccept> {
        if self.lane.len() >= max_open || self.lane.iter().any(|message| message.id == id) {
            return None;
        }
        let client_message_id =
            self.last_client_message_id.map_or(now.as_millis(), |last| now.as_millis().max(last + 1));
        let stamp = AcceptStamp { position: self.next_position, client_message_id, accepted_at: now };
        let sent = self.lane.is_empty();
        if sent {
            self.head_since = now;
        }
        self.lane.push_back(CachedMessage {
            id,
            sent_at: sent.then_some(now),
            acked_at: None,
            first_reply_at: None,
            key: key.map(Into::into),
            watchers: watcher.into_iter().collect(),
        });
        self.next_position += 1;
        self.last_client_message_id = Some(client_message_id);
        let activates = self.activate();
        let (known, version) = self.advance();
        Some(PreparedAccept { known, version, stamp, sent, lane: self.lane_field(), activates })
    }

    /// Prepares a write of the owner. `None` leaves it to the script, also if a change does not fit an open message.
    pub(in super::super) fn write(
        &mut self,
        write: &ConversationWrite,
        owner: Incarnation,
        now: Timestamp,
    ) -> Option<PreparedWrite> {
        if write.follows != self.write
            || write.record.write <= self.write
            || write.changes.len() > MAX_CHANGES
        {
            return None;
        }
        let mut after = self.clone();
        let mut messages = Vec::with_capacity(1);
        for (at, change) in write.changes.iter().enumerate() {
            after.apply(at, change, owner, &mut messages)?;
        }
        let appended = after.journal.entries - self.journal.entries;
        if after.journal.entries > MAX_ENTRIES || after.journal.bytes > MAX_BYTES {
            return None;
        }
        let observers = after.observers.iter().filter(|(observer, until)| *observer != owner && now < *until);
        let observers =
            if appended > 0 { observers.map(|(observer, _)| *observer).collect() } else { Vec::new() };
        after.write = write.record.write;
        if after.lane.is_empty() {
            // An idle conversation holds no empty table.
            after.lane = VecDeque::new();
        }
        let activates = after.activate();
        let (known, version) = after.advance();
        let has_journal = self.journal.entries > 0;
        let lane = after.lane_field();
        let journal = (appended > 0).then_some(after.journal.bytes * ENTRY + after.journal.entries);
        *self = after;
        Some(PreparedWrite {
            known,
            version,
            messages,
            lane,
            journal,
            has_journal,
            activates,
            observers,
            now,
        })
    }

    fn apply(
        &mut self,
        at: usize,
        change: &ConversationChange,
        owner: Incarnation,
        messages: &mut Vec<MessageUpdate>,
    ) -> Option<()> {
        match change {
            ConversationChange::Sent { message, at } => {
                self.sign(*message, messages, |open| _ = open.sent_at.get_or_insert(*at))?;
            }
            ConversationChange::Acked { message, at } => {
                self.sign(*message, messages, |open| _ = open.acked_at.get_or_insert(*at))?;
            }
            ConversationChange::Answering { message, at } => {
                self.sign(*message, messages, |open| _ = open.first_reply_at.get_or_insert(*at))?;
            }
            ConversationChange::HeadSince { at } => {
                if !self.lane.is_empty() {
                    self.head_since = *at;
                }
            }
            ConversationChange::Deliver(_) => {}
            ConversationChange::Append(entry) => self.append(at, entry, owner, messages)?,
        }
        Some(())
    }

    fn append(
        &mut self,
        at: usize,
        entry: &JournalEntry,
        owner: Incarnation,
        messages: &mut Vec<MessageUpdate>,
    ) -> Option<()> {
        if entry.seq <= self.journal.last_place {
            return None;
        }
        match &entry.body {
            EntryBody::Reply(reply) => {
                if let Some(id) = reply.in_reply_to {
                    let update =
                        self.sign(id, messages, |open| _ = open.first_reply_at.get_or_insert(entry.at))?;
                    update.replies.push(entry.seq);
                }
            }
            EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. } => {
                let update = self.sign(*message, messages, |_| {})?;
                update.ended_by = Some(at);
                let index = self.lane.iter().position(|open| open.id == *message)?;
                let ended = self.lane.remove(index)?;
                if ended.watchers.iter().any(|&watcher| watcher != owner) {
                    return None;
                }
                if index == 0 {
                    self.head_since = entry.at;
                }
                update.key = ended.key;
            }
            EntryBody::UserMessage(_) | EntryBody::Platform(_) | EntryBody::Gap(_) => {}
        }
        self.journal.last_place = entry.seq;
        self.journal.entries += 1;
        self.journal.bytes += entry.weight() as u64;
        Some(())
    }

    /// Notes a sign of an open message and returns the update of that message.
    fn sign<'a>(
        &mut self,
        id: MessageId,
        messages: &'a mut Vec<MessageUpdate>,
        sign: impl FnOnce(&mut CachedMessage),
    ) -> Option<&'a mut MessageUpdate> {
        let open = self.lane.iter_mut().find(|open| open.id == id)?;
        sign(open);
        let index = messages.iter().position(|update| update.id == id).unwrap_or_else(|| {
            messages.push(MessageUpdate {
                id,
                signs: String::new(),
                replies: Vec::new(),
                ended_by: None,
                key: None,
            });
            messages.len() - 1
        });
        let update = messages.get_mut(index)?;
        update.signs = open.signs();
        Some(update)
    }

    /// Makes the conversation active. Returns whether it was at rest.
    fn activate(&mut self) -> bool {
        std::mem::replace(&mut self.activity, ConversationActivity::Active) == ConversationActivity::Resting
    }

    /// Returns the version before and after a change.
    fn advance(&mut self) -> (Box<str>, Box<str>) {
        let next = new_version();
        (std::mem::replace(&mut self.version, next.clone()), next)
    }

    /// Returns the field `l`: `SINCE ID ID ..`, empty without open messages.
    fn lane_field(&self) -> String {
        let mut field = String::new();
        if !self.lane.is_empty() {
            field = self.head_since.as_millis().to_string();
            for message in &self.lane {
                write!(field, " {}", message.id).ok();
            }
        }
        field
    }

    /// Returns whether the conversation expires.
    pub(super) fn is_at_rest(&self) -> bool {
        self.activity == ConversationActivity::Resting
    }

    /// Returns the version of an active conversation without an open message.
    pub(super) fn version_to_rest(&self) -> Option<Box<str>> {
        (!self.is_at_rest() && self.lane.is_empty()).then(|| self.version.clone())
    }

    /// Returns whether the conversation has this version.
    pub(super) fn has_version(&self, version: &str) -> bool {
        *self.version == *version
    }

    /// Notes that the conversation is at rest under this version.
    pub(super) fn rest(&mut self, version: &str) {
        self.version = version.into();
        self.activity = ConversationActivity::Resting;
    }
}

impl CachedMessage {
    fn read(id: MessageId, signs: &str, key: &str, watchers: &str) -> Result<Self, CorruptData> {
        let mut times = signs.split(',').map(|digits| {
            let time = (!digits.is_empty()).then(|| codec::number(digits.as_bytes())).transpose();
            time.map(|time| time.map(Timestamp::from_millis))
        });
        let mut next = || times.next().unwrap_or(Ok(None));
        let watchers = watchers.split(' ').filter(|watcher| !watcher.is_empty());
        Ok(Self {
            id,
            sent_at: next()?,
            acked_at: next()?,
            first_reply_at: next()?,
            key: (!key.is_empty()).then(|| key.into()),
            watchers: watchers.map(codec::incarnation).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the field `p`: the times of sent, acknowledged and first reply.
    fn signs(&self) -> String {
        let mut field = String::new();
        for (index, at) in [self.sent_at, self.acked_at, self.first_reply_at].into_iter().enumerate() {
            if index > 0 {
                field.push(',');
            }
            if let Some(at) = at {
                write!(field, "{}", at.as_millis()).ok();
            }
        }
        field
    }
}
