//! The deadline of a queued head that this replica may not send, or cannot send.

use crate::domain::{ConversationId, Timestamp};
use crate::store::{ConversationChange, ConversationWrite, Fence, Store, StoreError};

/// Restarts the deadline of the conversation's head if that is queued since before `since`. The caller owns the
/// conversation and does not have it in memory.
///
/// # Errors
/// The error of the store; the deadline then keeps running.
pub(super) async fn restart_head_deadline(
    store: &Store,
    fence: Fence,
    conversation: &ConversationId,
    since: Timestamp,
) -> Result<(), StoreError> {
    let (open, now) = store.open(fence, conversation).await?;
    let queued = open.lane.first().is_some_and(|head| head.progress.sent_at.is_none());
    if !queued || open.head_at.is_some_and(|head_at| head_at >= since) {
        store.leave_memory(conversation);
        return Ok(());
    }
    let mut record = open.record;
    let follows = record.write;
    record.number_write(now);
    let write = ConversationWrite {
        record,
        follows,
        changes: vec![ConversationChange::HeadSince { at: now }],
        warm_until: None,
    };
    let written = store.write(fence, conversation, &write).await;
    store.leave_memory(conversation);
    written.map(|_| ())
}
