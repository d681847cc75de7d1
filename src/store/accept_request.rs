//! The request to accept a message, and its result.

use std::sync::Arc;

use super::{Fence, Incarnation, StoreError};
use crate::domain::{AcceptedMessage, ConversationId, Message, MessageId, NewMessage, Sha256};

/// The idempotency key of a request: the caller wants exactly one message for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyRequest {
    /// The key.
    pub key: IdempotencyKey,
    /// SHA-256 of the body's JSON value with its defaults.
    pub body: [u8; 32],
}

/// An idempotency key with its owner. No key of one kind is a key of the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IdempotencyKey {
    /// A key that a caller chose.
    Chosen {
        /// The caller's name. Keys of different callers are independent.
        caller: Box<str>,
        /// The caller's key.
        key: Box<str>,
    },
    /// A call of a client of the webhook channel, which chooses no key. The digest of the call finds an open message only. Once
    /// that message has ended, the key is free for the next one.
    Call {
        /// The client's name. Calls of different clients are independent.
        client: Box<str>,
        /// SHA-256 of the call.
        digest: [u8; 32],
    },
}

/// The digest of an idempotency key in a conversation. It has the same size for all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest(pub(crate) [u8; 32]);

impl IdempotencyRequest {
    /// Returns the digest of the key in this conversation. Stores hold it, so it is the same in every version.
    pub(crate) fn digest(&self, conversation: &ConversationId) -> KeyDigest {
        let mut hash = Sha256::default();
        let mut part = |part: &[u8]| {
            // The length in front separates the parts.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        part(conversation.bot().as_str().as_bytes());
        part(conversation.user().as_str().as_bytes());
        match &self.key {
            IdempotencyKey::Chosen { caller, key } => {
                part(caller.as_bytes());
                part(key.as_bytes());
            }
            // One part more than a chosen key has, so that the two kinds never meet.
            IdempotencyKey::Call { client, digest } => {
                part(b"call");
                part(client.as_bytes());
                part(digest);
            }
        }
        KeyDigest(hash.finish())
    }

    /// Returns whether the key finds an open message only.
    pub(crate) const fn is_open_only(&self) -> bool {
        matches!(self.key, IdempotencyKey::Call { .. })
    }
}

/// A message to accept.
#[derive(Debug, Clone)]
pub struct AcceptRequest {
    /// The message's id, chosen by the replica that received it.
    pub id: MessageId,
    /// The posted message.
    pub message: NewMessage,
    /// The caller's idempotency key, if the request had one.
    pub idempotency: Option<IdempotencyRequest>,
    /// The limit of open messages of the conversation, this one included.
    pub max_open: usize,
    /// The replica that received the message. If another replica owns the partition, it gets a hint.
    pub by: Incarnation,
    /// Whether a caller waits on that replica for the end. The replica then gets a hint at the end.
    pub watched: bool,
    /// The fence of the replica if it owns the partition. The owner knows its conversations, so its accept costs less.
    pub owner: Option<Fence>,
    /// Whether the owner may send the message at its accept (ADR 22). The accept then also marks it as sent, if the fence
    /// holds and the lane is empty. This saves a write before the first byte.
    pub send_at_accept: bool,
}

/// The result of an accept.
#[derive(Debug, Clone)]
pub enum AcceptResult {
    /// The message is durable and will end.
    New(Arc<AcceptedMessage>),
    /// The message is durable and counts as sent, as the owner asked with [`AcceptRequest::send_at_accept`].
    SentAtAccept(Arc<AcceptedMessage>),
    /// The idempotency key was used before with the same body. This is the earlier message with its progress.
    Replayed(Message),
}

/// The reason why an accept was refused. The message was not stored, except perhaps with [`StoreError::Unknown`] and
/// [`StoreError::Halfway`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The conversation has reached its limit of open messages.
    #[error("the conversation already has {0} open messages")]
    LaneFull(usize),
    /// The idempotency key was used before with another body.
    #[error("the idempotency key was used for another body")]
    IdempotencyMismatch,
    /// The store is at its limit. The rest is reserved for the ends of open messages.
    #[error("the store is full")]
    Full,
    /// The store did not carry it out.
    #[error(transparent)]
    Store(#[from] StoreError),
}
