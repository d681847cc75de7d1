//! What it takes to accept a message, and how that may end.

use std::sync::Arc;

use super::{Fence, Incarnation, StoreError};
use crate::domain::{AcceptedMessage, ConversationId, Message, MessageId, NewMessage, Sha256};

/// A caller's wish for exactly one message per key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyRequest {
    /// The caller's name; keys of different callers never meet.
    pub caller: Box<str>,
    /// The caller's key.
    pub key: Box<str>,
    /// SHA-256 of the body's JSON value after defaults.
    pub body: [u8; 32],
}

/// Stands for a caller's key in a conversation, at the same size for all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyDigest(pub(crate) [u8; 32]);

impl IdempotencyRequest {
    /// What stands for the key in this conversation; the same in every version, since stores hold it.
    pub(crate) fn digest(&self, conversation: &ConversationId) -> KeyDigest {
        let mut hash = Sha256::default();
        for part in [conversation.bot.as_str(), conversation.user.as_str(), &self.caller, &self.key] {
            // With its length in front no part can run into the next.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        KeyDigest(hash.finish())
    }
}

/// A message to accept.
#[derive(Debug, Clone)]
pub struct AcceptRequest {
    /// Its id, chosen by the replica that took it.
    pub id: MessageId,
    /// What was posted.
    pub message: NewMessage,
    /// The caller's key, if it gave one.
    pub idempotency: Option<IdempotencyRequest>,
    /// Open messages the conversation may have, this one included.
    pub max_open: usize,
    /// The replica that takes it. The partition's owner is hinted at the message where that is another one.
    pub by: Incarnation,
    /// Whether somebody waits for its end there: then that replica is hinted at the end.
    pub watched: bool,
    /// The owner's fence if the message may be sent at its accept (ADR 22). The accept then also marks it as sent, if
    /// the fence holds and the lane is empty. This saves a write before the first byte.
    pub send_at_accept: Option<Fence>,
}

/// How an accept ended.
#[derive(Debug, Clone)]
pub enum AcceptResult {
    /// It is durable, and will end.
    New(Arc<AcceptedMessage>),
    /// The same, and the message counts as sent ([`AcceptRequest::send_at_accept`]).
    SentAtAccept(Arc<AcceptedMessage>),
    /// The idempotency key was used before, with the same body: this is that message as it stands.
    Replayed(Message),
}

/// Why an accept was refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The conversation has as many open messages as it may have.
    #[error("the conversation already has {0} open messages")]
    LaneFull(usize),
    /// The idempotency key was used before, with another body.
    #[error("the idempotency key was used for another body")]
    IdempotencyMismatch,
    /// The store is at its limit, and what is open must be able to end.
    #[error("the store is full")]
    Full,
    /// The store could not carry it out.
    #[error(transparent)]
    Store(#[from] StoreError),
}
