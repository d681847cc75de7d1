//! Reads of messages, conversations and the time.

use std::sync::Arc;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::scripts::SCRIPTS;
use crate::domain::{ConversationId, ConversationRecord, Message, MessageId, Partition, Timestamp};
use crate::store::{ConversationSnapshot, Fence, Incarnation, OpenMessage, StoreError};

impl RedisStore {
    pub(in crate::store) async fn message(
        &self,
        conversation: &ConversationId,
        id: MessageId,
        watcher: Option<Incarnation>,
    ) -> Result<Option<Message>, StoreError> {
        let call = SCRIPTS
            .message
            .call(&[&self.0.keys.partition(Partition::of(conversation)).message(id)])
            .arg(conversation.to_string())
            .arg(watcher.map_or_else(String::new, |watcher| watcher.to_string()));
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let mut fields = rest.values()?.pairs().peekable();
        if fields.peek().is_none() {
            return Ok(None);
        }
        Ok(Some(codec::message(conversation, id, fields)?))
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
            .call(&[&keys.lease, &keys.ready, &keys.warm])
            .fence(fence)
            .arg(u8::from(warm))
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
        let call =
            SCRIPTS.open.call(&[&keys.lease, &keys.ready, &keys.conversation(conversation)]).fence(fence);
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let record = rest.bytes()?;
        let (positions, lane) = (rest.text()?, rest.text()?);
        let lane_of = |messages: super::script_answer::AnswerValues| {
            messages
                .lists()
                .map(|message| {
                    let mut message = message?;
                    let id = codec::id(&message.text()?)?;
                    let message = codec::message(conversation, id, message.values()?.pairs())?;
                    let accepted = Arc::clone(&message.accepted);
                    Ok(OpenMessage { accepted, progress: message.progress })
                })
                .collect::<Result<Vec<_>, CorruptData>>()
        };
        let first = |words: &str| {
            let word = words.split(' ').next().filter(|word| !word.is_empty());
            word.map(|word| codec::number(word.as_bytes())).transpose()
        };
        let open = ConversationSnapshot {
            record: if record.is_empty() {
                ConversationRecord::default()
            } else {
                codec::read_record(&record)?
            },
            lane: lane_of(rest.values()?)?,
            head_at: first(&lane)?.map(Timestamp::from_millis),
            next_position: first(&positions)?.unwrap_or_default(),
            observers: rest
                .values()?
                .texts()
                .map(|observer| codec::incarnation(&observer?))
                .collect::<Result<_, CorruptData>>()?,
        };
        Ok((open, now))
    }

    pub(in crate::store) async fn now(&self) -> Result<Timestamp, StoreError> {
        // Heartbeats return the time of the same server of a cluster.
        let call = SCRIPTS.now.call(&[&self.0.keys.replicas()]);
        Ok(self.run(call).await?.expect("OK")?.0)
    }
}
