//! What is read: messages, conversations, journals, the time.

use std::sync::Arc;

use super::codec::{self, Corrupt};
use super::scripts::SCRIPTS;
use super::{JOURNAL_ENTRIES, Redis};
use crate::domain::{
    After, ConversationId, ConversationState, Entry, Message, MessageId, Page, Partition, Record, Timestamp,
};
use crate::store::{Fence, Hint, Incarnation, Open, OpenMessage, Refusal, StoreError};

impl Redis {
    /// A message as it stands; see [`crate::store::Store::message`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        let call = self
            .call(&SCRIPTS.message, &[&self.0.keys.partition(Partition::of(conversation)).message(id)])
            .arg(conversation.to_string())
            .arg(watcher.map_or_else(String::new, |watcher| watcher.to_string()));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let mut fields = rest.values()?.pairs().peekable();
        if fields.peek().is_none() {
            return Ok(None);
        }
        Ok(Some(codec::message(conversation, id, fields)?))
    }

    /// The conversations with open messages; see [`crate::store::Store::ready`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ready(
        &self,
        partition: Partition,
        fence: Fence,
        warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let keys = self.0.keys.partition(partition);
        let call = self
            .call(&SCRIPTS.ready, &[&keys.lease, &keys.ready, &keys.warm])
            .fence(fence)
            .arg(u8::from(warm));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let (ready, warm) = (rest.values()?.texts(), rest.values()?.texts());
        let mut names =
            ready.chain(warm).map(|name| codec::conversation(&name?)).collect::<Result<Vec<_>, Corrupt>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The record and the lane; see [`crate::store::Store::open`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(Open, Timestamp), StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let call = self
            .call(&SCRIPTS.open, &[&keys.lease, &keys.ready, &keys.conversation(conversation)])
            .fence(fence);
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let (positions, lane) = (rest.text()?, rest.text()?);
        let lane_of = |messages: super::answer::Values| {
            messages
                .lists()
                .map(|message| {
                    let mut message = message?;
                    let id = codec::id(&message.text()?)?;
                    let message = codec::message(conversation, id, message.values()?.pairs())?;
                    let accepted = Arc::clone(&message.accepted);
                    Ok(OpenMessage { accepted, progress: message.progress })
                })
                .collect::<Result<Vec<_>, Corrupt>>()
        };
        let first = |words: &str| {
            let word = words.split(' ').next().filter(|word| !word.is_empty());
            word.map(|word| codec::number(word.as_bytes())).transpose()
        };
        let open = Open {
            record: if record.is_empty() { Record::default() } else { codec::read_record(&record)? },
            lane: lane_of(rest.values()?)?,
            head_at: first(&lane)?.map(Timestamp::from_millis),
            next_position: first(&positions)?.unwrap_or_default(),
        };
        Ok((open, now))
    }

    /// Entries of a journal; see [`crate::store::Store::journal`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn journal(
        &self,
        conversation: &ConversationId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let call = self
            .call(
                &SCRIPTS.journal,
                &[&self.0.keys.partition(Partition::of(conversation)).journal(conversation)],
            )
            .arg(after)
            .arg(limit.min(JOURNAL_ENTRIES));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let entries = rest.values()?.lists().map(|entry| {
            let mut entry = entry?;
            let place = entry.text()?;
            let place = place.strip_suffix("-0").ok_or(Corrupt("a place in a journal"))?;
            let mut fields = entry.values()?;
            let kind = fields.bytes()?;
            codec::entry(&kind, codec::number(place.as_bytes())?, &fields.bytes()?)
        });
        Ok(entries.collect::<Result<_, Corrupt>>()?)
    }

    /// Some of the journal; see [`crate::store::Store::page`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn page(
        &self,
        _conversation: &ConversationId,
        _after: After,
        _limit: usize,
        _observer: Option<Incarnation>,
    ) -> Result<Page, StoreError> {
        Err(StoreError::Unavailable(Refusal::Unexpected))
    }

    /// Goes on observing; see [`crate::store::Store::observe`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn observe(&self, _: &[ConversationId], _observer: Incarnation) -> Result<(), StoreError> {
        Err(StoreError::Unavailable(Refusal::Unexpected))
    }

    /// How a conversation stands; see [`crate::store::Store::state`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn state(
        &self,
        _conversation: &ConversationId,
        _by: Incarnation,
        _number: u64,
    ) -> Result<(ConversationState, Option<Incarnation>), StoreError> {
        Err(StoreError::Unavailable(Refusal::Unexpected))
    }

    /// Hints at something; see [`crate::store::Store::hint`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn hint(&self, _to: Incarnation, _hint: &Hint) -> Result<(), StoreError> {
        Err(StoreError::Unavailable(Refusal::Unexpected))
    }

    /// The store's clock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        // Heartbeats are told the time of the same server of a cluster.
        let call = self.call(&SCRIPTS.now, &[&self.0.keys.replicas()]);
        Ok(self.run(call).await?.expect("OK")?.0)
    }
}
