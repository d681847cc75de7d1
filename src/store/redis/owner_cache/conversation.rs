//! The cached state of one conversation, and the changes that an owner prepares from it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use super::super::codec::{self, AcceptStamp, CorruptData};
use super::super::hint_codec::RemoteAccept;
use super::super::script_answer::AnswerValues;
use super::open_message::CachedMessage;
use crate::domain::{AcceptedMessage, ConversationId, EntryBody, JournalEntry, MessageId, Timestamp};
use crate::store::{AcceptRequest, ConversationChange, ConversationWrite, Incarnation};

/// The limit of changes in one prepared write. A script has few thousand arguments at most.
const MAX_CHANGES: usize = 256;
/// The limits of a journal, as in `limits.lua`. At a limit a script takes out the oldest entries.
const MAX_ENTRIES: u64 = 1000;
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The part of the limits by which a journal may exceed them, so that a script takes out many entries together. Pages leave
/// out the entries above the limit of their number.
const EXCESS: u64 = 10;
/// The factor of the weight in WEIGHT, as in `limits.lua`.
const ENTRY: u64 = 65_536;

/// The state of a conversation in Redis.
#[derive(Debug)]
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
    /// `None` if the conversation never had an entry.
    journal: Option<JournalSize>,
    /// The place of the newest entry in the list; 0 without one.
    last_place: u64,
    /// The replicas that get hints at new entries, each until a time.
    observers: Vec<(Incarnation, Timestamp)>,
    activity: ConversationActivity,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct JournalSize {
    bytes: u64,
    entries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConversationActivity {
    /// The conversation expires. It must be activated before a change.
    Resting,
    /// The conversation does not expire.
    Active,
}

/// A prepared accept.
#[derive(Debug)]
pub(in super::super) struct PreparedAccept {
    pub(in super::super) known: Box<str>,
    pub(in super::super) version: Box<str>,
    pub(in super::super) accepted: Arc<AcceptedMessage>,
    /// Whether the message is marked as sent.
    pub(in super::super) sent: bool,
    /// The field `s`.
    pub(in super::super) state: String,
    pub(in super::super) activates: bool,
}

/// A prepared write.
#[derive(Debug)]
pub(in super::super) struct PreparedWrite {
    pub(in super::super) known: Box<str>,
    pub(in super::super) version: Box<str>,
    pub(in super::super) ended: Vec<EndedMessage>,
    /// The replies that came after the end of their message, with their places.
    pub(in super::super) late: Vec<(MessageId, u64)>,
    /// The field `s`.
    pub(in super::super) state: String,
    pub(in super::super) activates: bool,
    /// The replicas that get a hint at the new entries.
    pub(in super::super) observers: Vec<Incarnation>,
    pub(in super::super) now: Timestamp,
}

/// A message that ends with a write.
#[derive(Debug)]
pub(in super::super) struct EndedMessage {
    pub(in super::super) message: CachedMessage,
    /// Where in the write its end stands.
    pub(in super::super) at: usize,
}

/// Returns a version that no other change of the conversation has.
fn new_version() -> Box<str> {
    format!("{:x}", fastrand::u64(..)).into()
}

impl CachedConversation {
    /// Decodes the answer of `cached.lua`. `None` means that the store lost a message, which scripts have to judge.
    pub(in super::super) fn read(
        of: &ConversationId,
        mut told: AnswerValues,
    ) -> Result<Option<Self>, CorruptData> {
        const WHAT: CorruptData = CorruptData("what an owner caches of a conversation");
        if told.is_empty() {
            return Ok(None);
        }
        let (version, state, observers) = (told.text()?, told.text()?, told.text()?);
        let (resting, last_place) = (told.number()?, told.number_or_none()?);
        let mut words = state.split(' ');
        let mut number = || {
            let digits = words.next().unwrap_or_default();
            (!digits.is_empty()).then(|| codec::number(digits.as_bytes())).transpose()
        };
        if version.is_empty() || state.split(' ').next().is_some_and(|write| write.ends_with('!')) {
            return Ok(None);
        }
        let (write, next_position, last_client_message_id) = (number()?, number()?, number()?);
        let (weight, head_since) = (number()?, number()?);
        let mut lane = VecDeque::new();
        for word in words {
            match CachedMessage::read(of, word, &told.bytes()?)? {
                Some(open) => lane.push_back(open),
                None => return Ok(None),
            }
        }
        let observers = observers
            .split(' ')
            .filter(|note| !note.is_empty())
            .map(|note| {
                let (who, until) = note.split_once(':').ok_or(WHAT)?;
                Ok((codec::incarnation(who)?, Timestamp::from_millis(codec::number(until.as_bytes())?)))
            })
            .collect::<Result<_, CorruptData>>()?;
        Ok(Some(Self {
            version: version.into(),
            write: write.unwrap_or_default(),
            next_position: next_position.unwrap_or_default(),
            last_client_message_id,
            head_since: Timestamp::from_millis(head_since.unwrap_or_default()),
            lane,
            journal: weight.map(|weight| match last_place {
                Some(_) => JournalSize { bytes: weight / ENTRY, entries: weight % ENTRY },
                None => JournalSize::default(),
            }),
            last_place: last_place.unwrap_or_default(),
            observers,
            activity: if resting == 1 { ConversationActivity::Resting } else { ConversationActivity::Active },
        }))
    }

    /// Prepares the accept of a new message. In an empty lane it is marked as sent if the request allows it.
    pub(in super::super) fn accept(
        &mut self,
        accept: &AcceptRequest,
        key: Option<&str>,
        now: Timestamp,
    ) -> Option<PreparedAccept> {
        if self.lane.len() >= accept.max_open || self.lane.iter().any(|message| message.id() == accept.id) {
            return None;
        }
        let client_message_id =
            self.last_client_message_id.map_or(now.as_millis(), |last| now.as_millis().max(last + 1));
        let stamp = AcceptStamp { position: self.next_position, client_message_id, accepted_at: now };
        let accepted = Arc::new(stamp.on(accept.id, accept.message.clone()));
        let sent = accept.send_at_accept && self.lane.is_empty();
        let watchers = if accept.watched { vec![accept.by] } else { Vec::new() };
        let sent_at = sent.then_some(now);
        self.enqueue(CachedMessage::new(Arc::clone(&accepted), sent_at, key.map(Into::into), watchers));
        let activates = self.activate();
        let (known, version) = self.advance();
        Some(PreparedAccept { known, version, accepted, sent, state: self.state_field(), activates })
    }

    /// Adds a message that a script accepted. Returns `false` if the script found another version.
    pub(super) fn accepted_by_script(
        &mut self,
        accepted: &Arc<AcceptedMessage>,
        sent: bool,
        change: RemoteAccept,
    ) -> bool {
        if self.version != change.known {
            return false;
        }
        let sent_at = sent.then_some(accepted.accepted_at);
        let watchers = change.watcher.into_iter().collect();
        self.activity = if self.lane.is_empty() { ConversationActivity::Active } else { self.activity };
        self.enqueue(CachedMessage::new(Arc::clone(accepted), sent_at, change.key, watchers));
        self.version = change.version;
        true
    }

    fn enqueue(&mut self, message: CachedMessage) {
        if self.lane.is_empty() {
            self.head_since = message.accepted.accepted_at;
        }
        self.next_position = message.accepted.position + 1;
        self.last_client_message_id = Some(message.accepted.client_message_id);
        self.lane.push_back(message);
    }

    /// Adds a watcher that a script noted. Returns `false` if the script found another version.
    pub(super) fn note_watcher(
        &mut self,
        id: MessageId,
        watcher: Incarnation,
        known: &str,
        version: &str,
    ) -> bool {
        let open = self.lane.iter_mut().find(|open| open.id() == id);
        let Some(open) = open.filter(|_| *self.version == *known) else { return false };
        open.watchers.push(watcher);
        self.version = version.into();
        true
    }

    /// Prepares a write of the owner. `None` leaves it to the script, also if a change does not fit an open message. The
    /// cached state is half changed then.
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
        let entries = |of: &Self| of.journal.map_or(0, |journal| journal.entries);
        let before = entries(self);
        let (mut ended, mut late) = (Vec::new(), Vec::new());
        for (at, change) in write.changes.iter().enumerate() {
            self.apply(at, change, owner, &mut ended, &mut late)?;
        }
        let size = self.journal.unwrap_or_default();
        if size.entries > MAX_ENTRIES + MAX_ENTRIES / EXCESS || size.bytes > MAX_BYTES + MAX_BYTES / EXCESS {
            return None;
        }
        let mut observers = Vec::new();
        if entries(self) > before {
            let told = self.observers.iter().filter(|(observer, until)| *observer != owner && now < *until);
            observers.extend(told.map(|(observer, _)| *observer));
        }
        self.write = write.record.write;
        if self.lane.is_empty() {
            // An idle conversation holds no empty table.
            self.lane = VecDeque::new();
        }
        let activates = self.activate();
        let (known, version) = self.advance();
        Some(PreparedWrite {
            known,
            version,
            ended,
            late,
            state: self.state_field(),
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
        ended: &mut Vec<EndedMessage>,
        late: &mut Vec<(MessageId, u64)>,
    ) -> Option<()> {
        match change {
            ConversationChange::Sent { message, at } => _ = self.open(*message)?.sent_at.get_or_insert(*at),
            ConversationChange::Acked { message, at } => _ = self.open(*message)?.acked_at.get_or_insert(*at),
            ConversationChange::Answering { message, at } => {
                _ = self.open(*message)?.first_reply_at.get_or_insert(*at);
            }
            ConversationChange::HeadSince { at } => {
                if let Some(head) = self.lane.front_mut() {
                    head.sent_at = None;
                    self.head_since = *at;
                }
            }
            ConversationChange::Deliver(_) => {}
            ConversationChange::Append(entry) => self.append(at, entry, owner, ended, late)?,
        }
        Some(())
    }

    fn append(
        &mut self,
        at: usize,
        entry: &JournalEntry,
        owner: Incarnation,
        ended: &mut Vec<EndedMessage>,
        late: &mut Vec<(MessageId, u64)>,
    ) -> Option<()> {
        // A list without a weight is from before the conversation was forgotten.
        if entry.seq <= self.last_place || (self.journal.is_none() && self.last_place > 0) {
            return None;
        }
        match &entry.body {
            EntryBody::Reply(reply) => {
                if let Some(id) = reply.in_reply_to {
                    match self.open(id) {
                        Some(open) => {
                            open.first_reply_at.get_or_insert(entry.at);
                            open.replies.push(entry.seq);
                        }
                        None => late.push((id, entry.seq)),
                    }
                }
            }
            EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. } => {
                let index = self.lane.iter().position(|open| open.id() == *message)?;
                let mut message = self.lane.remove(index).filter(|message| !message.moved)?;
                if index == 0 {
                    self.head_since = entry.at;
                }
                message.watchers.retain(|watcher| *watcher != owner);
                ended.push(EndedMessage { message, at });
            }
            EntryBody::UserMessage(_)
            | EntryBody::Platform(_)
            | EntryBody::Gap(_)
            | EntryBody::Stuck { .. } => {}
        }
        self.last_place = entry.seq;
        let journal = self.journal.get_or_insert_default();
        journal.entries += 1;
        journal.bytes += entry.weight() as u64;
        Some(())
    }

    fn open(&mut self, id: MessageId) -> Option<&mut CachedMessage> {
        self.lane.iter_mut().find(|open| open.id() == id)
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

    /// Returns the field `s`, as `conversation.lua` describes it.
    fn state_field(&self) -> String {
        let mut field = String::with_capacity(64 + 96 * self.lane.len());
        write!(field, "{} {} ", self.write, self.next_position).ok();
        if let Some(last) = self.last_client_message_id {
            write!(field, "{last}").ok();
        }
        field.push(' ');
        if let Some(JournalSize { bytes, entries }) = self.journal {
            write!(field, "{}", bytes * ENTRY + entries).ok();
        }
        field.push(' ');
        if !self.lane.is_empty() {
            write!(field, "{}", self.head_since.as_millis()).ok();
            for message in &self.lane {
                field.push(' ');
                message.write_word(&mut field).ok();
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
