//! Hints from one replica to another through the store. Each may be lost.
//!
//! A hint only saves time: its receiver also reads the store in time. A hint carries its content if that is small, so
//! that the receiver need not read it.

use std::sync::Arc;

use super::{HintListener, Incarnation};
use crate::domain::{
    AcceptedMessage, ConnectionStatus, ConversationId, Message, MessageId, Partition, ReplyChunk,
};

/// A hint for a replica.
#[derive(Debug, Clone)]
pub enum Hint {
    /// Another replica accepted this message for a partition of ours.
    Accepted(Arc<AcceptedMessage>),
    /// As [`Hint::Accepted`], for a message too large for a hint. The owner reads the lane.
    Woken(ConversationId),
    /// A message ended that a caller on this replica waits for.
    Ended(Message),
    /// As [`Hint::Ended`], for a message too large for a hint. The replica reads it.
    EndedLarge {
        /// The conversation of the message.
        conversation: ConversationId,
        /// The message.
        id: MessageId,
    },
    /// The journal of a conversation that is observed here may have new entries.
    Appended(ConversationId),
    /// A chunk of a streamed reply in a conversation that is observed here.
    Chunk(ConversationId, Arc<ReplyChunk>),
    /// A replica observes a conversation of ours for [`super::OBSERVED`] from now on.
    Observed(ConversationId, Incarnation),
    /// A replica asks for the state of a conversation of ours.
    Asked {
        /// The conversation.
        conversation: ConversationId,
        /// The replica that asks and gets the answer.
        by: Incarnation,
        /// The number of the question, which the answer repeats.
        number: u64,
    },
    /// The answer to our question with this number.
    Answered(u64, Box<ConnectionStatus>),
    /// Deliveries of a partition of ours are to be attempted again. Its outbox must be read.
    Redelivered(Partition),
    /// A replica joined or left, or partitions were released.
    Fleet,
    /// Our own heartbeat came back with its number.
    Echo(u64),
    /// Hints arrive from now on. Earlier ones may have been missed.
    Subscribed,
}

/// The hints for one replica, in the order of their arrival.
#[derive(Debug)]
pub enum HintStream {
    /// Hints of the embedded store.
    Memory(tokio::sync::mpsc::Receiver<Hint>),
    /// Hints over Redis.
    Redis(Box<HintListener>),
}

impl HintStream {
    /// Waits for the next hint. Hints that arrive faster than they are taken are lost.
    pub async fn next(&mut self) -> Hint {
        match self {
            Self::Memory(hints) => match hints.recv().await {
                Some(hint) => hint,
                None => std::future::pending().await,
            },
            Self::Redis(listener) => listener.next().await,
        }
    }
}
