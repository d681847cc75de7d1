//! The embedded store: inside this process, gone with it.
use std::time::Duration;

use super::{Accept, AcceptError, Accepted, Fence, Open, StoreError, Write};
use crate::domain::{ConversationId, Entry, Message, MessageId, Partition, Timestamp};

/// Placeholder.
#[derive(Debug)]
pub struct Memory {}
/// Placeholder.
#[derive(Debug, Clone)]
pub struct MemoryLimits {}
/// Placeholder.
#[derive(Debug, Clone)]
pub struct Clock {}

#[expect(
    missing_docs,
    clippy::unused_self,
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::missing_errors_doc,
    reason = "placeholder"
)]
impl Memory {
    pub fn accept(&self, _: Accept) -> Result<Accepted, AcceptError> {
        Err(AcceptError::Full)
    }
    pub fn message(&self, _: &ConversationId, _: MessageId) -> Option<Message> {
        None
    }
    pub fn claim(&self, _: Partition, _: u64, _: Duration) -> Option<Fence> {
        None
    }
    pub fn renew(&self, _: Partition, _: Fence, _: Duration) -> Result<Timestamp, StoreError> {
        Err(StoreError::Fenced)
    }
    pub fn release(&self, _: Partition, _: Fence) -> Result<(), StoreError> {
        Err(StoreError::Fenced)
    }
    pub fn ready(&self, _: Partition, _: Fence) -> Result<Vec<ConversationId>, StoreError> {
        Err(StoreError::Fenced)
    }
    pub fn open(&self, _: Fence, _: &ConversationId) -> Result<(Open, Timestamp), StoreError> {
        Err(StoreError::Fenced)
    }
    pub fn write(&self, _: Fence, _: &ConversationId, _: &Write) -> Result<Timestamp, StoreError> {
        Err(StoreError::Fenced)
    }
    pub fn journal(&self, _: &ConversationId, _: u64, _: usize) -> Vec<Entry> {
        Vec::new()
    }
    pub fn now(&self) -> Timestamp {
        Timestamp::default()
    }
}
