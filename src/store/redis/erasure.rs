//! The erasure of a conversation.
//!
//! The partition has no index of a conversation's messages, so the erasure looks through the keys of the server, some in
//! each step. Other commands run in between. Each step is fenced. The lane goes last, with the request for the erasure: an
//! owner that dies halfway leaves the request, and the next one begins anew.

use super::RedisStore;
use super::scripts::SCRIPTS;
use crate::domain::{ConversationId, DeliveryState, MessageId, Partition};
use crate::store::redis::codec::{self, CorruptData};
use crate::store::{Fence, StoreError};

/// Keys that one step looks at. It takes less than a millisecond of Redis.
const KEYS_TOGETHER: usize = 1000;
/// Messages that one step deletes.
const MESSAGES_TOGETHER: usize = 256;
/// The cursor of a scan that begins or has ended.
const END: &str = "0";

impl RedisStore {
    pub(in crate::store) async fn erase(
        &self,
        fence: Fence,
        conversation: &ConversationId,
    ) -> Result<Vec<MessageId>, StoreError> {
        let name = conversation.to_string();
        let keys = self.0.keys.partition(Partition::of(conversation));
        let messages = self.erase_keys(fence, &keys.lease, &name).await?;
        for state in DeliveryState::ALL {
            self.erase_members(fence, &keys.lease, &name, state).await?;
        }
        for messages in messages.chunks(MESSAGES_TOGETHER) {
            let mut call = SCRIPTS.erase_messages.call(&[&keys.lease]).fence(fence).arg(&name).background();
            for message in messages {
                call = call.arg(message);
            }
            self.run(call).await?.expect("OK")?;
        }
        let call = SCRIPTS
            .erase
            .call(&[
                &keys.lease,
                &keys.activity,
                &keys.names,
                &keys.warm,
                &keys.conversation(conversation),
                &keys.journal(conversation),
            ])
            .fence(fence)
            .durable();
        let erased = self.run(call).await?.expect("OK");
        self.0.cache.remove(conversation);
        self.0.recent.forget(Partition::of(conversation));
        let (_, lane) = erased?;
        Ok(lane.texts().map(|id| codec::id(&id?)).collect::<Result<_, CorruptData>>()?)
    }

    /// Deletes idempotency keys and deliveries, and returns the messages.
    async fn erase_keys(&self, fence: Fence, lease: &str, name: &str) -> Result<Vec<String>, StoreError> {
        let (mut messages, mut cursor) = (Vec::new(), END.to_owned());
        loop {
            let call = SCRIPTS
                .erase_keys
                .call(&[lease])
                .fence(fence)
                .arg(name)
                .arg(&cursor)
                .arg(KEYS_TOGETHER)
                .background();
            let (_, mut rest) = self.run(call).await?.expect("OK")?;
            cursor = rest.text()?;
            for message in rest.texts() {
                messages.push(message?);
            }
            if cursor == END {
                return Ok(messages);
            }
        }
    }

    /// Removes deliveries from the index of this state.
    async fn erase_members(
        &self,
        fence: Fence,
        lease: &str,
        name: &str,
        state: DeliveryState,
    ) -> Result<(), StoreError> {
        let mut cursor = END.to_owned();
        loop {
            let call = SCRIPTS
                .erase_members
                .call(&[lease])
                .fence(fence)
                .arg(name)
                .arg(state.as_str())
                .arg(&cursor)
                .arg(KEYS_TOGETHER)
                .background();
            let (_, mut rest) = self.run(call).await?.expect("OK")?;
            cursor = rest.text()?;
            if cursor == END {
                return Ok(());
            }
        }
    }
}
