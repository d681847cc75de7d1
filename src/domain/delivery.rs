//! Deliveries: what a receiver of webhooks is told, and what became of the telling (api.md 4).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use ulid::Ulid;

use super::{ConversationId, MessageId, Partition, Sha256, Timestamp, TraceId, TurnOutcome};

/// A delivery's id, which is its `webhook-id` too: a ULID, so that ids sort by time. Its last byte is the number of the
/// partition that the delivery is kept in, so that it is found by its id alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(Ulid);

impl DeliveryId {
    /// The id of what tells of the journal's entry at this place. The same entry has the same id, also where an owner
    /// has to write it again because the store lost it: receivers then know it again.
    pub fn of(conversation: &ConversationId, epoch: u64, seq: u64, at: Timestamp) -> Self {
        let mut hash = Sha256::default();
        for part in [conversation.bot.as_str(), conversation.user.as_str()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(epoch.to_le_bytes());
        hash.update(seq.to_le_bytes());
        let digest = hash.finish();
        let bits = digest.iter().take(9).fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
        let partition = Partition::of(conversation).index() as u128;
        Self(Ulid::from_parts(at.as_millis(), bits << 8 | partition))
    }

    /// The least id of what happened at this time or later.
    pub fn first_at(at: Timestamp) -> Self {
        // An id has 48 bits for the time.
        Self(Ulid::from_parts(at.as_millis().min((1 << 48) - 1), 0))
    }

    /// The partition that it is kept in.
    pub fn partition(self) -> Partition {
        let [.., last] = self.0.to_bytes();
        Partition::from_byte(last)
    }
}

impl FromStr for DeliveryId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(self.0.array_to_str(&mut buffer))
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; ulid::ULID_LEN];
        serializer.serialize_str(self.0.array_to_str(&mut buffer))
    }
}

/// What a delivery tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryKind {
    /// A message's turn ended with an answer, which may be empty.
    MessageAnswered,
    /// A message's turn failed.
    MessageFailed,
    /// A reply came after its turn had ended.
    ReplyLate,
    /// The bot spoke unasked.
    ReplyUnsolicited,
}

impl DeliveryKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::MessageAnswered, Self::MessageFailed, Self::ReplyLate, Self::ReplyUnsolicited];

    /// Whether it tells of a message's end.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::MessageAnswered | Self::MessageFailed)
    }

    /// Its word: the `type` of the body, and the event's type in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageAnswered => "message.answered",
            Self::MessageFailed => "message.failed",
            Self::ReplyLate => "reply.late",
            Self::ReplyUnsolicited => "reply.unsolicited",
        }
    }
}

impl From<&TurnOutcome> for DeliveryKind {
    fn from(outcome: &TurnOutcome) -> Self {
        match outcome {
            TurnOutcome::Answered(_) => Self::MessageAnswered,
            TurnOutcome::Failed(_) => Self::MessageFailed,
        }
    }
}

impl Serialize for DeliveryKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Who named the target, which decides what a delivery is signed with and what else is told to the target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOrigin {
    /// The configuration: it is the bot's own webhook.
    Bot,
    /// A caller, with a message. Nothing that is configured for the bot's own webhook but its signature is for this one.
    Callback {
        /// The caller whose secrets sign; none where it had none: then the bot's do.
        signer: Option<Box<str>>,
    },
}

/// A delivery as the owner of its conversation writes it, in the same step as what it tells of.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// What it tells of.
    pub kind: DeliveryKind,
    /// Whose conversation that happened in.
    pub conversation: ConversationId,
    /// The message that ended or that the reply is joined to.
    pub message: Option<MessageId>,
    /// Where it goes: a URL, as it was given. Deliveries of a conversation to one target stay in order.
    pub target: Box<str>,
    /// Who named the target.
    pub origin: DeliveryOrigin,
    /// The trace of the message.
    pub trace: TraceId,
    /// When that happened.
    pub created_at: Timestamp,
    /// The Message, or the Reply with `bot` and `user`, as JSON: the `data` of the standard body.
    pub data: Box<RawValue>,
}

impl NewDelivery {
    /// Roughly how many bytes it keeps; bounds are counted with this.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 400;
        FIXED + self.data.get().len() + self.target.len() + self.conversation.user.as_str().len()
    }
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// It waits for its turn, for its next attempt, or for the answer to one.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It is buried: nothing is attempted unless somebody asks for it.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// Its word in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl Serialize for DeliveryState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// When it began, by the store's clock.
    pub at: Timestamp,
    /// The status that the receiver answered with; none where no answer came.
    pub status: Option<u16>,
    /// Why it is no success, in words; none where it is one.
    pub error: Option<Box<str>>,
    /// How long it took.
    pub duration: Duration,
    /// The first 8 KiB of what the receiver answered.
    pub response: Option<Box<str>>,
}

impl Serialize for DeliveryAttempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct View<'a> {
            at: Timestamp,
            status: Option<u16>,
            error: Option<&'a str>,
            duration_ms: u64,
            response: Option<&'a str>,
        }
        View {
            at: self.at,
            status: self.status,
            error: self.error.as_deref(),
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            response: self.response.as_deref(),
        }
        .serialize(serializer)
    }
}

/// A delivery as it stands; the Delivery of the API.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What was to be delivered, and where.
    pub new: NewDelivery,
    /// How far it has come.
    pub state: DeliveryState,
    /// When the next attempt is due, or when the running one is over at the latest; none where there is none, and
    /// where another delivery is before it.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it is buried, or why it waits.
    pub reason: Option<Box<str>>,
    /// What was attempted, oldest first; of very many the newest.
    pub attempts: Vec<DeliveryAttempt>,
}

impl Serialize for Delivery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct View<'a> {
            id: DeliveryId,
            r#type: DeliveryKind,
            bot: &'a str,
            user: &'a str,
            message_id: Option<MessageId>,
            target: &'a str,
            state: DeliveryState,
            created_at: Timestamp,
            next_attempt_at: Option<Timestamp>,
            reason: Option<&'a str>,
            attempts: &'a [DeliveryAttempt],
        }
        let new = &self.new;
        View {
            id: new.id,
            r#type: new.kind,
            bot: new.conversation.bot.as_str(),
            user: new.conversation.user.as_str(),
            message_id: new.message,
            target: &new.target,
            state: self.state,
            created_at: new.created_at,
            next_attempt_at: self.next_attempt_at,
            reason: self.reason.as_deref(),
            attempts: &self.attempts,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BotName, UserId};

    #[test]
    fn an_id_tells_its_partition_and_is_the_same_for_the_same_entry() {
        let at = Timestamp::from_millis(1_763_845_000_123);
        for user in ["alice", "bob", "Zoë"] {
            let conversation = ConversationId::new(BotName::sandbox(), UserId::new(user).unwrap());
            let id = DeliveryId::of(&conversation, 7, 9, at);
            assert_eq!(id.partition(), Partition::of(&conversation));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id, DeliveryId::of(&conversation, 7, 9, at));
            assert_ne!(id, DeliveryId::of(&conversation, 7, 10, at));
            assert_ne!(id, DeliveryId::of(&conversation, 8, 9, at));
        }
    }
}
