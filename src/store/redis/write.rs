//! An owner's writes.

use super::codec::{self, CorruptData};
use super::script::ScriptCall;
use super::scripts::SCRIPTS;
use super::{RedisStore, millis};
use crate::domain::{ConversationId, EntryBody, MessageId, NewDelivery, Partition, Timestamp};
use crate::store::{ConversationChange, ConversationWrite, Fence, QueueId, StoreError, WriteResult};

impl RedisStore {
    pub(in crate::store) async fn write(
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
                &keys.ready,
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
        call = call.arg(weights);
        for group in ChangeGroup::all(&write.changes)? {
            call = group.add_to(call);
        }
        if write.changes.iter().any(must_be_durable) {
            call = call.durable();
        }
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        Ok(WriteResult { now, lost: rest.number()? == 1 })
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
                    EntryBody::UserMessage(_) | EntryBody::Platform(_) | EntryBody::Gap(_) => {}
                }
                let (kind, text) = codec::encode_entry(entry)?;
                self.changes.push(EncodedChange::Plain(kind, entry.seq, text));
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
                    let queue = QueueId::of(&new.conversation, &new.target);
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
            matches!(entry.body, EntryBody::UserMessage(_) | EntryBody::Platform(_) | EntryBody::Gap(_))
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
            EntryBody::UserMessage(_) | EntryBody::Platform(_) | EntryBody::Gap(_) => None,
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
        let outcome = || TurnOutcome::Answered(EndedBy::Quiet);
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
