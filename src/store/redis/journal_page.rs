//! Reads of a journal, hints at new entries, and the state of a conversation.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::codec::{self, CorruptData};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use super::{RedisStore, hint_codec, millis};
use crate::domain::{
    ConversationId, ConversationRecord, ConversationState, EntryWithMessage, JournalPage, Partition,
    ReadStart, Timestamp, UserSignal,
};
use crate::store::conversation_state::conversation_state;
use crate::store::journal_page::{self, PageRead};
use crate::store::{Hint, Incarnation, NOTED, OBSERVED, StoreError, StoreRefusal};

/// The limit of conversations of one call, so that no script blocks others for long.
const TOGETHER: usize = 256;
/// The result of one read: the record, and entries.
struct JournalRead {
    record: Option<ConversationRecord>,
    entries: Vec<EntryWithMessage>,
    /// Whether others follow.
    more: bool,
    /// The time of the entry at the reader's place; `None` if it is not stored.
    entry_time: Option<Timestamp>,
}

impl RedisStore {
    pub(in crate::store) async fn page(
        &self,
        conversation: &ConversationId,
        after: ReadStart,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<JournalPage, StoreError> {
        let limit = limit.clamp(1, journal_page::ENTRIES);
        // The record decides where to read from, and it comes with the entries. The cursor's place is right except
        // for a cursor of another journal.
        let (begin, count) = match after {
            ReadStart::Oldest => (0, limit),
            ReadStart::Cursor(cursor) => (cursor.seq, limit),
            ReadStart::Latest => (u64::MAX, 0),
        };
        let mut read = self.read(conversation, begin, count, observer).await?;
        let mut reading = PageRead::new(after, read.record.as_ref(), read.entry_time);
        if reading.from() < begin && after != ReadStart::Latest && read.record.is_some() {
            let entry_time = read.entry_time;
            read = self.read(conversation, 0, limit, None).await?;
            reading = PageRead::new(after, read.record.as_ref(), entry_time);
            // Another owner wrote in between, and the cursor is known after all.
            read.entries.retain(|read| read.entry.seq > reading.from());
        }
        Ok(reading.page(read.entries, read.more))
    }

    /// Reads entries with one call. A few calls at a time are made, because answers of such size would hold up the other
    /// commands of this thread.
    async fn read(
        &self,
        conversation: &ConversationId,
        after: u64,
        limit: usize,
        observer: Option<Incarnation>,
    ) -> Result<JournalRead, StoreError> {
        // The semaphore is never closed.
        let _place = self.0.page_calls.acquire().await.ok();
        let keys = self.0.keys.partition(Partition::of(conversation));
        let (name, journal) = (keys.conversation(conversation), keys.journal(conversation));
        let call = SCRIPTS
            .page
            .call(&[&keys.lease, &name, &journal])
            .arg(after)
            .arg(limit)
            .arg(journal_page::BYTES)
            .arg(observer.map_or_else(String::new, |observer| observer.to_string()))
            .arg(millis(OBSERVED))
            .arg(millis(NOTED));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let record = (!record.is_empty()).then(|| codec::read_record(&record)).transpose()?;
        let more = rest.number()? > 0;
        let entry_time = rest.text()?;
        let entry_time =
            (!entry_time.is_empty()).then(|| codec::number(entry_time.as_bytes())).transpose()?;
        let entries = rest
            .lists()
            .map(|entry| entry_with_message(conversation, entry?))
            .collect::<Result<_, CorruptData>>()?;
        Ok(JournalRead { record, entries, more, entry_time: entry_time.map(Timestamp::from_millis) })
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
        // All calls go out at once. One failure does not stop the others.
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
        let (open, accepted) = (rest.number()?, rest.number_or_none()?);
        let owner = rest.text()?;
        let owner = (!owner.is_empty()).then(|| codec::incarnation(&owner)).transpose()?;
        Ok((conversation_state(record.as_ref(), accepted, open, now), owner))
    }

    pub(in crate::store) async fn signal(
        &self,
        conversation: &ConversationId,
        signal: &UserSignal,
    ) -> Result<bool, StoreError> {
        let hint = Hint::Signal(conversation.clone(), signal.clone());
        let payload = hint_codec::encode(&hint).ok_or(CorruptData("a signal"))?;
        let lease = &self.0.keys.partition(Partition::of(conversation)).lease;
        let (_, mut rest) = self.run(SCRIPTS.signal.call(&[lease]).arg(payload)).await?.expect("OK")?;
        Ok(!rest.text()?.is_empty())
    }

    pub(in crate::store) async fn hint(&self, to: Incarnation, hint: &Hint) -> Result<(), StoreError> {
        let Some(payload) = hint_codec::encode(hint) else {
            return Err(StoreError::Unavailable(StoreRefusal::Unexpected));
        };
        // The server that publishes the conversation's entries publishes its chunks too. A chunk then never follows
        // the whole.
        let key = match hint {
            Hint::Chunk(conversation, _) | Hint::Platform(conversation, _) => {
                self.0.keys.partition(Partition::of(conversation)).lease.to_string()
            }
            _ => self.0.keys.replicas(),
        };
        let call = SCRIPTS.tell.call(&[&key]).arg(self.0.keys.replica_channel(to)).arg(payload);
        self.run(call).await?.expect("OK").map(|_| ())
    }
}

/// Parses an entry of the page script.
fn entry_with_message(
    conversation: &ConversationId,
    mut entry: AnswerValues,
) -> Result<EntryWithMessage, CorruptData> {
    let decoded = codec::read_entry(&entry.bytes()?)?;
    let message = match decoded.ended() {
        Some((id, _)) => codec::message(conversation, id, entry.values()?.all())?,
        None => None,
    };
    Ok(EntryWithMessage { entry: decoded, message })
}
