//! What readers ask: pages of a journal and hints at new ones, how a conversation stands.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::answer::Values;
use super::codec::{self, Corrupt};
use super::scripts::SCRIPTS;
use super::{RedisStore, hint, millis};
use crate::domain::{
    ConversationId, ConversationRecord, ConversationState, EntryWithMessage, JournalPage, Partition,
    ReadStart, Timestamp,
};
use crate::store::page::{self, Reading};
use crate::store::state::state;
use crate::store::{Hint, Incarnation, NOTED, OBSERVED, StoreError, StoreRefusal};

/// The most conversations of one call: no script should hold up others for long.
const TOGETHER: usize = 256;

/// What was read in one step: the record, entries, and whether there are more.
struct Read {
    record: Option<ConversationRecord>,
    entries: Vec<EntryWithMessage>,
    more: bool,
    /// When the entry was written that the entries are read behind; none where it is not kept.
    stood: Option<Timestamp>,
}

impl RedisStore {
    pub(in crate::store) async fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<JournalPage, StoreError> {
        let limit = limit.clamp(1, page::ENTRIES);
        // Which place to read from is said by the record, which is read with the entries: the cursor's is right, but
        // for one of another journal.
        let (begin, count) = match after {
            ReadStart::Oldest => (0, limit),
            ReadStart::Cursor(cursor) => (cursor.seq, limit),
            ReadStart::Latest => (u64::MAX, 0),
        };
        let mut read = self.read(conversation, begin, count, observer).await?;
        let mut reading = Reading::new(after, read.record.as_ref(), read.stood);
        if reading.from() < begin && after != ReadStart::Latest && read.record.is_some() {
            let stood = read.stood;
            read = self.read(conversation, 0, limit, None).await?;
            reading = Reading::new(after, read.record.as_ref(), stood);
            // It was found to be known after all: another owner wrote meanwhile.
            read.entries.retain(|told| told.entry.seq > reading.from());
        }
        Ok(reading.page(read.entries, read.more))
    }

    async fn read(
        &self,
        conversation: &ConversationId,
        after: u64,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<Read, StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let (name, journal) = (keys.conversation(conversation), keys.journal(conversation));
        let call = SCRIPTS
            .page
            .call(&[&keys.lease, &name, &journal])
            .arg(after)
            .arg(limit)
            .arg(page::BYTES)
            .arg(observer.map_or_else(String::new, |observer| observer.to_string()))
            .arg(millis(OBSERVED))
            .arg(millis(NOTED));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let record = (!record.is_empty()).then(|| codec::read_record(&record)).transpose()?;
        let more = rest.number()? == 1;
        let stood = rest.text()?;
        let stood = (!stood.is_empty()).then(|| codec::number(stood.as_bytes())).transpose()?;
        let entries = rest.lists().map(|entry| told(conversation, entry?)).collect::<Result<_, Corrupt>>()?;
        Ok(Read { record, entries, more, stood: stood.map(Timestamp::from_millis) })
    }

    pub(in crate::store) async fn observe(
        &self,
        conversations: &[ConversationId],
        observer: Incarnation,
    ) -> Result<(), StoreError> {
        let mut parts: HashMap<Partition, Vec<String>> = HashMap::new();
        for conversation in conversations {
            let partition = Partition::of(conversation);
            let name = self.0.keys.partition(partition).conversation(conversation);
            parts.entry(partition).or_default().push(name);
        }
        let calls = parts.iter().flat_map(|(&partition, names)| {
            names.chunks(TOGETHER).map(move |names| {
                let lease = &*self.0.keys.partition(partition).lease;
                let keys: Vec<&str> = [lease].into_iter().chain(names.iter().map(|name| &**name)).collect();
                let call = SCRIPTS
                    .noted
                    .call(&keys)
                    .arg(observer.to_string())
                    .arg(millis(OBSERVED))
                    .arg(millis(NOTED));
                async { self.run(call).await?.expect("OK").map(|_| ()) }
            })
        });
        // All go out at once over one connection, and one that fails keeps none of the others.
        join_all(calls).await.into_iter().collect()
    }

    pub(in crate::store) async fn state(
        &self,
        conversation: &ConversationId,
        by: Incarnation,
        number: u64,
    ) -> Result<(ConversationState, Option<Incarnation>), StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let call = SCRIPTS
            .state
            .call(&[&keys.lease, &keys.conversation(conversation)])
            .arg(by.to_string())
            .arg(number);
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let record = (!record.is_empty()).then(|| codec::read_record(&record)).transpose()?;
        // `SINCE ID ID ..` and `POSITION CLIENTMESSAGEID`.
        let open = rest.text()?.split(' ').skip(1).count() as u64;
        let accepted =
            rest.text()?.split(' ').nth(1).map(|last| codec::number(last.as_bytes())).transpose()?;
        let owner = rest.text()?;
        let owner = (!owner.is_empty()).then(|| codec::incarnation(&owner)).transpose()?;
        Ok((state(record.as_ref(), accepted, open, now), owner))
    }

    pub(in crate::store) async fn hint(&self, to: Incarnation, told: &Hint) -> Result<(), StoreError> {
        let Some(payload) = hint::encode(told) else {
            return Err(StoreError::Unavailable(StoreRefusal::Unexpected));
        };
        // By the server that tells of the conversation's entries too, so that pieces do not come after the whole.
        let key = match told {
            Hint::Chunk(conversation, _) => {
                self.0.keys.partition(Partition::of(conversation)).lease.to_string()
            }
            _ => self.0.keys.replicas(),
        };
        let call = SCRIPTS.tell.call(&[&key]).arg(self.0.keys.replica_channel(to)).arg(payload);
        self.run(call).await?.expect("OK").map(|_| ())
    }
}

/// An entry as the page script gives it.
fn told(conversation: &ConversationId, mut entry: Values) -> Result<EntryWithMessage, Corrupt> {
    let place = entry.text()?;
    let place = place.strip_suffix("-0").ok_or(Corrupt("a place in a journal"))?;
    let (seq, kind, text) = (codec::number(place.as_bytes())?, entry.bytes()?, entry.bytes()?);
    let entry_told = codec::entry(&kind, seq, &text)?;
    let mut fields = entry.values()?.pairs().peekable();
    let message = match (entry_told.ended(), fields.peek()) {
        (Some((id, _)), Some(_)) => Some(codec::message(conversation, id, fields)?),
        _ => None,
    };
    Ok(EntryWithMessage { entry: entry_told, message })
}
