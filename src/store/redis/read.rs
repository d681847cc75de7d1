//! Reads of messages, conversations and the time.

use std::time::Duration;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::owner_cache::{CachedConversation, REST_AFTER, RestCandidate};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use crate::domain::{
    ConversationId, ConversationRecord, Message, MessageId, Partition, RecentReplies, Timestamp,
};
use crate::store::{ConversationSnapshot, Fence, Incarnation, OpenMessage, StoreError};

impl RedisStore {
    pub(in crate::store) async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let call = SCRIPTS
            .message
            .call(&[&*keys.lease, &keys.message(id)])
            .arg(conversation.to_string())
            .arg(watcher.map_or_else(String::new, |watcher| watcher.to_string()));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let message = codec::message(conversation, id, rest.values()?.all())?;
        let (known, version) = (rest.text()?, rest.text()?);
        if let Some(watcher) = watcher.filter(|_| !version.is_empty()) {
            self.0.cache.note_watcher(conversation, id, watcher, &known, &version);
        }
        Ok(message)
    }

    pub(in crate::store) async fn ready(
        &self,
        partition: Partition,
        fence: Fence,
        warm: bool,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let keys = self.0.keys.partition(partition);
        let call = SCRIPTS
            .ready
            .call(&[&keys.lease, &keys.activity, &keys.warm])
            .fence(fence)
            .arg(u8::from(warm))
            .arg(self.journal_ttl())
            .background();
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let (ready, warm) = (rest.values()?.texts(), rest.values()?.texts());
        let mut names = ready
            .chain(warm)
            .map(|name| codec::conversation(&name?))
            .collect::<Result<Vec<_>, CorruptData>>()?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    pub(in crate::store) async fn open(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<(ConversationSnapshot, Timestamp), StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let call = SCRIPTS
            .open
            .call(&[
                &keys.lease,
                &keys.activity,
                &keys.conversation(conversation),
                &keys.journal(conversation),
            ])
            .fence(fence)
            .arg(self.journal_ttl())
            .arg(RecentReplies::KEPT);
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let (next_position, head_at) = (rest.number_or_none()?, rest.time_or_none()?);
        let lane = rest
            .values()?
            .lists()
            .map(|message| {
                let mut message = message?;
                let id = codec::id(&message.text()?)?;
                let message = codec::message(conversation, id, message.values()?.all())?;
                let Message { accepted, progress } = message.ok_or(CorruptData("an open message"))?;
                Ok(OpenMessage { accepted, progress })
            })
            .collect::<Result<Vec<_>, CorruptData>>()?;
        let open = ConversationSnapshot {
            record: if record.is_empty() {
                ConversationRecord::default()
            } else {
                codec::read_record(&record)?
            },
            lane,
            head_at,
            next_position: next_position.unwrap_or_default(),
            observers: rest
                .values()?
                .texts()
                .map(|observer| codec::incarnation(&observer?))
                .collect::<Result<_, CorruptData>>()?,
            journaled: codec::reply_ids(&rest.bytes()?)?,
        };
        self.keep(fence, conversation, rest.values()?)?;
        Ok((open, now))
    }

    /// Keeps the state of a conversation in the owner's cache.
    pub(super) fn keep(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        told: AnswerValues,
    ) -> Result<(), CorruptData> {
        match CachedConversation::read(conversation, told)? {
            Some(cached) => self.0.cache.insert(fence, conversation, cached),
            None => self.0.cache.forget(conversation),
        }
        Ok(())
    }

    pub(in crate::store) async fn rest(&self, partition: Partition, fence: Fence) -> Result<(), StoreError> {
        self.rest_idle(partition, fence, REST_AFTER).await.map(|_| ())
    }

    /// Lets all conversations rest that have no open message, as sweeps do within a minute.
    ///
    /// # Errors
    /// That of the first partition that fails.
    #[cfg(feature = "test-support")]
    pub async fn rest_all(&self) -> Result<(), StoreError> {
        for (partition, fence) in self.0.cache.fences() {
            while self.rest_idle(partition, fence, Duration::ZERO).await? > 0 {}
        }
        Ok(())
    }

    /// Lets conversations rest that have been idle for this time. Returns how many were asked for.
    pub(super) async fn rest_idle(
        &self,
        partition: Partition,
        fence: Fence,
        idle_for: Duration,
    ) -> Result<usize, StoreError> {
        let asked = self.0.cache.to_rest(fence, partition, idle_for);
        if asked.is_empty() {
            return Ok(0);
        }
        let keys = self.0.keys.partition(partition);
        let mut call = SCRIPTS
            .rest
            .call(&[&keys.lease, &keys.activity])
            .fence(fence)
            .arg(self.journal_ttl())
            .background();
        for RestCandidate { conversation, version, .. } in &asked {
            call = call.arg(conversation.to_string()).arg(&**version);
        }
        let answer = self.run(call).await.and_then(|answer| answer.expect("OK"));
        // Without an answer the next sweep asks again.
        let (_, mut rest) = answer?;
        let version = rest.text()?;
        let rested = rest
            .values()?
            .texts()
            .map(|name| codec::conversation(&name?))
            .collect::<Result<_, CorruptData>>()?;
        self.0.cache.on_rest(fence, partition, &asked, &rested, &version);
        Ok(asked.len())
    }

    pub(in crate::store) fn leave_memory(&self, conversation: &ConversationId) {
        self.0.cache.leave(conversation);
    }

    pub(in crate::store) async fn now(&self) -> Result<Timestamp, StoreError> {
        // Heartbeats return the time of the same server of a cluster.
        let call = SCRIPTS.now.call(&[&self.0.keys.replicas()]);
        Ok(self.run(call).await?.expect("OK")?.0)
    }
}
