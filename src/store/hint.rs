//! Hints from one replica to another through the store. Each may be lost.
//!
//! A hint only saves time: its receiver also reads the store in time. A hint carries its content if that is small, so
//! that the receiver need not read it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{HintListener, Incarnation};
use crate::domain::{
    AcceptedMessage, ConnectionStatus, ConversationId, Message, MessageId, Partition, ReplyChunk, UserSignal,
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
    /// A message that a caller on this replica waits for was erased with its conversation.
    Erased(ConversationId, MessageId),
    /// A conversation was erased. No replica may keep data of its user in memory.
    UserErased(ConversationId),
    /// The journal of a conversation that is observed here may have new entries.
    Appended(ConversationId),
    /// A chunk of a streamed reply in a conversation that is observed here.
    Chunk(ConversationId, Arc<ReplyChunk>),
    /// A frame of the platform that the journal does not keep, in a conversation that is observed here.
    Platform(ConversationId, Arc<RawValue>),
    /// A replica observes a conversation of ours for [`super::OBSERVED`] from now on.
    Observed(ConversationId, Incarnation),
    /// A user of ours signals something to the platform.
    Signal(ConversationId, UserSignal),
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
    /// A replica asks for the status of conversations of ours.
    AskedList {
        /// The conversations.
        conversations: Vec<ConversationId>,
        /// The replica that asks and gets the answer.
        by: Incarnation,
        /// The number of the question, which each answer repeats.
        number: u64,
    },
    /// An answer to our question with this number: some of its conversations.
    AnsweredList(u64, Vec<(ConversationId, ConnectionStatus)>),
    /// Deliveries of a partition of ours are to be attempted again. Its outbox must be read.
    Redelivered(Partition),
    /// A replica joined or left, or partitions were released.
    Fleet,
    /// Our own heartbeat came back with its number.
    Echo(u64),
    /// Hints arrive from now on. Earlier ones may have been missed.
    Subscribed,
}

impl Hint {
    /// Returns whether replicas give this hint themselves. All others come from the store, in the step that causes them.
    pub(super) const fn is_of_replicas(&self) -> bool {
        matches!(
            self,
            Self::Chunk(..)
                | Self::Platform(..)
                | Self::Answered(..)
                | Self::AskedList { .. }
                | Self::AnsweredList(..)
                | Self::UserErased(_)
        )
    }
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
