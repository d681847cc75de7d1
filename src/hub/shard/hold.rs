//! Heads whose time must not run: nobody here may or can send them.

use crate::domain::{ConversationId, Timestamp};
use crate::store::{ConversationChange, ConversationWrite, Fence, Store, StoreError};

/// Lets the head's time begin anew where the conversation's head is queued since before `since`. The caller owns
/// the conversation, and has it not in memory.
///
/// # Errors
/// As the store says; the head's time goes on then.
pub(super) async fn hold(
    store: &Store,
    fence: Fence,
    conversation: &ConversationId,
    since: Timestamp,
) -> Result<(), StoreError> {
    let (open, now) = store.open(fence, conversation).await?;
    let queued = open.lane.first().is_some_and(|head| head.progress.sent_at.is_none());
    if !queued || open.head_at.is_some_and(|head_at| head_at >= since) {
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
    store.write(fence, conversation, &write).await.map(|_| ())
}
