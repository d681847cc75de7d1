//! An owner's writes.

use super::accept::activate;
use super::codec::{self, CorruptData, EncodedEntry};
use super::key_names::PartitionKeys;
use super::netstring;
use super::owner_cache::{EndedMessage, PreparedWrite};
use super::script::ScriptCall;
use super::scripts::SCRIPTS;
use super::{JOURNAL_TTL, RedisStore, hint_codec, millis};
use crate::domain::{ConversationId, EntryBody, MessageId, NewDelivery, Partition, Timestamp};
use crate::store::{
    ConversationChange, ConversationWrite, Fence, Incarnation, QueueId, StoreError, WriteResult,
};

impl RedisStore {
    pub(in crate::store) async fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<WriteResult, StoreError> {
        match self.write_as_owner(fence, conversation, write).await? {
            Some(result) => Ok(result),
            None => Box::pin(self.write_by_script(fence, conversation, write)).await,
        }
    }

    /// Carries out a write by the script that decides for itself.
    async fn write_by_script(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<WriteResult, StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let mut call = SCRIPTS
            .write
            .call(&[
                &keys.lease,
                &keys.activity,
                &keys.warm,
                &keys.conversation(conversation),
                &keys.journal(conversation),
            ])
            .fence(fence)
            .arg(write.record.write)
            .arg(write.follows)
            .arg(codec::record(&write.record)?)
            .arg(write.warm_until.map_or_else(String::new, |until| until.as_millis().to_string()))
            .arg(millis(self.0.message_ttl));
        let weights = write.changes.iter().map(ConversationChange::weight).sum::<usize>();
        call = call.arg(weights).arg(self.journal_ttl());
        for group in ChangeGroup::all(&write.changes)? {
            call = group.add_to(call);
        }
        if write.changes.iter().any(must_be_durable) {
            call = call.durable();
        }
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let lost = rest.number()? == 1;
        // The write is carried out, so an unreadable message of the lane is not its failure.
        if let Err(error) = self.keep(fence, conversation, rest.values()?) {
            tracing::warn!(%error, "the owner cannot cache a conversation");
            self.0.cache.forget(conversation);
        }
        Ok(WriteResult { now, lost })
    }

    /// Carries out a write by prepared commands. `None` means that a script has to decide.
    async fn write_as_owner(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
    ) -> Result<Option<WriteResult>, StoreError> {
        let owner = fence.incarnation;
        let cache = &self.0.cache;
        let prepared = cache.prepare(fence, conversation, |cached, now| cached.write(write, owner, now));
        let Some(prepared) = prepared else { return Ok(None) };
        let now = prepared.now;
        let done = match self.guarded_write(fence, conversation, write, prepared) {
            Ok(call) => self.run_guarded(call).await,
            Err(corrupt) => Err(corrupt.into()),
        };
        if !matches!(done, Ok(true)) {
            cache.forget(conversation);
        }
        Ok(done?.then_some(WriteResult { now, lost: false }))
    }

    fn guarded_write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &ConversationWrite,
        prepared: PreparedWrite,
    ) -> Result<ScriptCall<'_>, CorruptData> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let name = conversation.to_string();
        let key = keys.conversation(conversation);
        let entries = EncodedEntries::of(&write.changes)?;

        // A delivery that is there already must not be queued again, so a script has to look.
        let deliveries: Vec<_> = deliveries(&write.changes).map(|new| keys.delivery(new.id)).collect();
        let mut names = vec![&*keys.lease, &*key];
        names.extend(deliveries.iter().map(|key| &**key));
        let mut call = SCRIPTS
            .guarded_write
            .call(&names)
            .arg(fence.to_string())
            .arg(&*prepared.known)
            .arg(&*prepared.version);
        let mut hints = Vec::new();
        for ended in &prepared.ended {
            call = self.end(call, keys, &name, ended, &entries, &mut hints)?;
        }
        for (id, place) in &prepared.late {
            let place = netstring::sequence(&[place.to_string().as_bytes()]);
            call = call.command(3, "APPEND", &keys.message(*id)).arg(place);
        }
        if prepared.activates {
            call = activate(call, keys, conversation, &name);
        }
        if !entries.0.is_empty() {
            call = call.command(2 + entries.0.len(), "RPUSH", &keys.journal(conversation));
            for (_, entry) in &entries.0 {
                call = call.arg(entry.bytes());
            }
        }
        for new in self::deliveries(&write.changes) {
            call = self.deliver(call, keys, new, &name, prepared.now)?;
        }
        call = call
            .command(8, "HSET", &key)
            .arg("v")
            .arg(&*prepared.version)
            .arg("s")
            .arg(prepared.state)
            .arg("r")
            .arg(codec::record(&write.record)?);
        if let Some(until) = write.warm_until {
            call = call.command(4, "ZADD", &keys.warm).arg(until.as_millis()).arg(&name);
            call = call.command(3, "PEXPIRE", &keys.warm).arg(millis(JOURNAL_TTL));
        }
        hints.extend(
            prepared.observers.iter().map(|observer| (*observer, hint_codec::appended(&name).into())),
        );
        for (replica, payload) in hints {
            call = call.command(3, "PUBLISH", &self.0.keys.replica_channel(replica)).arg(payload);
        }
        if write.changes.iter().any(must_be_durable) {
            call = call.durable();
        }
        Ok(call)
    }
}

impl RedisStore {
    /// Adds the commands for the end of a message. Adds its hints to `hints`.
    fn end<'a>(
        &self,
        mut call: ScriptCall<'a>,
        keys: &PartitionKeys,
        name: &str,
        ended: &EndedMessage,
        entries: &EncodedEntries,
        hints: &mut Vec<(Incarnation, Vec<u8>)>,
    ) -> Result<ScriptCall<'a>, CorruptData> {
        let (message, ttl) = (&ended.message, millis(self.0.message_ttl));
        let id = message.accepted.id;
        let end = entries.at(ended.at).map(EncodedEntry::text).unwrap_or_default();
        let accepted = codec::accepted_message(&message.accepted)?;
        let turn = [message.turn().as_bytes(), b" ", end].concat();
        let value = netstring::sequence(&[name.as_bytes(), &accepted, &turn]);
        call = call.command(5, "SET", &keys.message(id)).arg(&value).arg("PX").arg(ttl);
        if let Some(digest) = &message.key {
            call = call.command(3, "PEXPIRE", &keys.key_of(digest)).arg(ttl);
        }
        // Mostly no caller waits, or one at the owner itself.
        if !message.watchers.is_empty() {
            let payload = hint_codec::ended(name, id, entries.message(&value, &message.replies).as_deref());
            hints.extend(message.watchers.iter().map(|watcher| (*watcher, payload.clone())));
        }
        Ok(call)
    }
}

/// Returns the new deliveries of a write.
fn deliveries(changes: &[ConversationChange]) -> impl Iterator<Item = &NewDelivery> {
    changes.iter().filter_map(|change| match change {
        ConversationChange::Deliver(new) => Some(&**new),
        _ => None,
    })
}

/// The encoded entries of a write, each with the index of its change.
struct EncodedEntries(Vec<(usize, EncodedEntry)>);

impl EncodedEntries {
    fn of(changes: &[ConversationChange]) -> Result<Self, CorruptData> {
        let mut entries = Vec::with_capacity(changes.len());
        for (at, change) in changes.iter().enumerate() {
            if let ConversationChange::Append(entry) = change {
                entries.push((at, codec::encode_entry(entry)?));
            }
        }
        Ok(Self(entries))
    }

    fn at(&self, change: usize) -> Option<&EncodedEntry> {
        self.0.iter().find(|(at, _)| *at == change).map(|(_, entry)| entry)
    }

    /// Returns the parts that [`codec::message`] decodes, or `None` if a reply is not in this write.
    fn message<'a>(&'a self, value: &'a [u8], replies: &[u64]) -> Option<Vec<&'a [u8]>> {
        let mut parts = vec![value, b""];
        for place in replies {
            let (_, entry) = self.0.iter().find(|(_, entry)| entry.seq() == *place)?;
            parts.extend([entry.place(), entry.text()]);
        }
        Some(parts)
    }
}

/// Returns whether an effect depends on the change, which must not be undone. Callers learn of an end. After `sent`
/// the message goes out, and the next owner would send it again.
const fn must_be_durable(change: &ConversationChange) -> bool {
    matches!(change, ConversationChange::Sent { .. }) || change.ended().is_some()
}

/// Consecutive changes of at most one message, as the script takes them.
#[derive(Debug, Default)]
struct ChangeGroup<'a> {
    message: Option<MessageId>,
    sent: Option<Timestamp>,
    acked: Option<Timestamp>,
    /// The time of the first reply, or of its first sign.
    answered: Option<Timestamp>,
    ended: bool,
    changes: Vec<EncodedChange<'a>>,
}

/// A change as the script takes it.
#[derive(Debug)]
enum EncodedChange<'a> {
    /// Its kind, its place or time, and its text.
    Plain(&'static str, u64, Vec<u8>),
    /// A delivery and its encoded fields. The data is the largest part and is not copied.
    Delivery(&'a NewDelivery, Vec<u8>),
}

impl<'a> ChangeGroup<'a> {
    fn all(changes: &'a [ConversationChange]) -> Result<Vec<Self>, CorruptData> {
        let mut groups: Vec<Self> = Vec::with_capacity(1);
        for change in changes {
            if !groups.last().is_some_and(|group| group.fits(change)) {
                groups.push(Self { message: message_of(change), ..Self::default() });
            }
            if let Some(group) = groups.last_mut() {
                group.add(change)?;
            }
        }
        Ok(groups)
    }

    fn fits(&self, change: &ConversationChange) -> bool {
        is_of_the_conversation(change) || (message_of(change) == self.message && !self.ended)
    }

    fn add(&mut self, change: &'a ConversationChange) -> Result<(), CorruptData> {
        match change {
            ConversationChange::Sent { at, .. } => _ = self.sent.get_or_insert(*at),
            ConversationChange::Acked { at, .. } => _ = self.acked.get_or_insert(*at),
            ConversationChange::Answering { at, .. } => _ = self.answered.get_or_insert(*at),
            ConversationChange::HeadSince { at } => {
                self.changes.push(EncodedChange::Plain("h", at.as_millis(), Vec::new()));
            }
            ConversationChange::Deliver(new) => {
                self.changes.push(EncodedChange::Delivery(new, codec::new_delivery(new)?));
            }
            ConversationChange::Append(entry) => {
                match entry.body {
                    EntryBody::Reply(_) => _ = self.answered.get_or_insert(entry.at),
                    EntryBody::Ended { .. } | EntryBody::Closed { .. } => self.ended = true,
                    EntryBody::UserMessage(_)
                    | EntryBody::Platform(_)
                    | EntryBody::Gap(_)
                    | EntryBody::Stuck { .. } => {}
                }
                let encoded = codec::encode_entry(entry)?;
                self.changes.push(EncodedChange::Plain(encoded.kind(), entry.seq, encoded.text().to_vec()));
            }
        }
        Ok(())
    }

    fn add_to(self, call: ScriptCall<'_>) -> ScriptCall<'_> {
        let mut call = match self.message {
            Some(message) => call.arg(message.to_string()),
            None => call.arg(""),
        };
        for sign in [self.sent, self.acked, self.answered] {
            call = match sign {
                Some(at) => call.arg(at.as_millis()),
                None => call.arg(""),
            };
        }
        call = call.arg(self.changes.iter().map(EncodedChange::size).sum::<usize>());
        for change in self.changes {
            call = match change {
                EncodedChange::Plain(kind, number, text) => call.arg(kind).arg(number).arg(text),
                EncodedChange::Delivery(new, fields) => {
                    let queue = QueueId::of_delivery(new);
                    call.arg("d")
                        .arg(new.id.to_string())
                        .arg(format!("{queue} {}", new.created_at.as_millis()))
                        .arg(&*new.target)
                        .arg(fields)
                        .arg(new.data.get())
                }
            };
        }
        call
    }
}

impl EncodedChange<'_> {
    /// Returns the number of changes it counts as.
    const fn size(&self) -> usize {
        match self {
            Self::Plain(..) => 1,
            Self::Delivery(..) => 2,
        }
    }
}

/// Returns whether the change belongs to no message and fits any group.
const fn is_of_the_conversation(change: &ConversationChange) -> bool {
    match change {
        ConversationChange::Sent { .. }
        | ConversationChange::Acked { .. }
        | ConversationChange::Answering { .. } => false,
        ConversationChange::HeadSince { .. } | ConversationChange::Deliver(_) => true,
        ConversationChange::Append(entry) => {
            matches!(
                entry.body,
                EntryBody::UserMessage(_)
                    | EntryBody::Platform(_)
                    | EntryBody::Gap(_)
                    | EntryBody::Stuck { .. }
            )
        }
    }
}

/// Returns the message of the change. A reply may have none.
fn message_of(change: &ConversationChange) -> Option<MessageId> {
    match change {
        ConversationChange::Sent { message, .. }
        | ConversationChange::Acked { message, .. }
        | ConversationChange::Answering { message, .. } => Some(*message),
        ConversationChange::HeadSince { .. } | ConversationChange::Deliver(_) => None,
        ConversationChange::Append(entry) => match &entry.body {
            EntryBody::Reply(reply) => reply.in_reply_to,
            EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. } => Some(*message),
            EntryBody::UserMessage(_)
            | EntryBody::Platform(_)
            | EntryBody::Gap(_)
            | EntryBody::Stuck { .. } => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndedBy, JournalEntry, TurnOutcome};

    #[test]
    fn message_is_one_group_until_its_end() {
        let at = Timestamp::from_millis;
        let (one, other) = (MessageId::new(at(1), 1), MessageId::new(at(1), 2));
        let append = |seq, body| ConversationChange::Append(JournalEntry { seq, at: at(seq), body });
        let outcome = || TurnOutcome::Answered(EndedBy::Quiet(None));
        let changes = [
            ConversationChange::HeadSince { at: at(1) },
            ConversationChange::Acked { message: one, at: at(2) },
            append(3, EntryBody::Platform(serde_json::value::to_raw_value("other").unwrap())),
            ConversationChange::Acked { message: one, at: at(4) },
            ConversationChange::Answering { message: one, at: at(5) },
            append(6, EntryBody::Ended { message: one, outcome: outcome() }),
            append(7, EntryBody::Platform(serde_json::value::to_raw_value("other").unwrap())),
            ConversationChange::Acked { message: one, at: at(8) },
            ConversationChange::Sent { message: other, at: at(9) },
        ];
        let groups = ChangeGroup::all(&changes);
        let place = |change: &EncodedChange<'_>| match change {
            EncodedChange::Plain(_, place, _) => *place,
            EncodedChange::Delivery(new, _) => new.created_at.as_millis(),
        };
        let encoded: Vec<_> = groups
            .unwrap()
            .iter()
            .map(|group| {
                let places: Vec<_> = group.changes.iter().map(place).collect();
                (group.message, [group.sent, group.acked, group.answered], places)
            })
            .collect();
        assert_eq!(
            encoded,
            [
                (None, [None; 3], vec![1]),
                (Some(one), [None, Some(at(2)), Some(at(5))], vec![3, 6, 7]),
                (Some(one), [None, Some(at(8)), None], vec![]),
                (Some(other), [Some(at(9)), None, None], vec![]),
            ]
        );
    }
}
