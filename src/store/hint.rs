//! What replicas tell each other through the store, and may lose on the way.
//!
//! A hint is never the truth: whoever relies on one also reads the store in time. It carries what it tells of
//! where that is small, so that the receiver need not read.

use std::sync::Arc;

use crate::domain::{AcceptedMessage, ConversationId, Message, MessageId};

/// Something a replica is told.
#[derive(Debug, Clone)]
pub enum Hint {
    /// Another replica accepted this message for a partition of ours.
    Accepted(Arc<AcceptedMessage>),
    /// The same, where the message is too large to be carried: read the lane.
    Woken(ConversationId),
    /// A message ended that somebody waits for here.
    Ended(Message),
    /// The same, where it is too large to be carried: read it.
    EndedLarge {
        /// Whose.
        conversation: ConversationId,
        /// Which.
        id: MessageId,
    },
    /// A replica came or went, or partitions were released.
    Fleet,
    /// Our own heartbeat came back, with the number that it carried.
    Echo(u64),
    /// Hints arrive from here on; what came before may have been missed.
    Subscribed,
}
