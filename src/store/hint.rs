//! What replicas tell each other through the store, and may lose on the way.
//!
//! A hint is never the truth: whoever relies on one also reads the store in time. It carries what it tells of
//! where that is small, so that the receiver need not read.

use std::sync::Arc;

use super::Incarnation;
use crate::domain::{
    AcceptedMessage, ConnectionStatus, ConversationId, Message, MessageId, Partition, ReplyChunk,
};

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
    /// The journal of a conversation that is observed here has new entries, perhaps.
    Appended(ConversationId),
    /// A piece of a streamed reply of a conversation that is observed here.
    Chunk(ConversationId, Arc<ReplyChunk>),
    /// Somebody observes a conversation of ours at this replica, for [`super::OBSERVED`] from now on.
    Observed(ConversationId, Incarnation),
    /// A replica asks how a conversation of ours stands; the answer goes to it under this number.
    Asked {
        /// Which.
        conversation: ConversationId,
        /// Who asks.
        by: Incarnation,
        /// The number.
        number: u64,
    },
    /// The answer to our question of this number.
    Answered(u64, Box<ConnectionStatus>),
    /// Deliveries of a partition of ours are to be attempted again: read its outbox.
    Redelivered(Partition),
    /// A replica came or went, or partitions were released.
    Fleet,
    /// Our own heartbeat came back, with the number that it carried.
    Echo(u64),
    /// Hints arrive from here on; what came before may have been missed.
    Subscribed,
}
