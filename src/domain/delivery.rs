//! Deliveries of webhooks: the content, the state and the attempts (api.md 4).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use ulid::Ulid;

use super::{ConversationId, EndpointId, MessageId, Partition, Sha256, Timestamp, TraceId, TurnOutcome};

/// The id of a delivery, which is also its `webhook-id`: a ULID, so that ids sort by time.
///
/// The last byte is the number of the delivery's partition, so that the id alone finds the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(Ulid);

impl DeliveryId {
    /// Returns the id of the delivery for the journal entry at this position.
    ///
    /// The id is the same if an owner writes the entry again because the store lost it. Receivers can then drop the
    /// duplicate.
    pub fn of(conversation: &ConversationId, epoch: u64, seq: u64, at: Timestamp) -> Self {
        let mut hash = Sha256::default();
        for part in [conversation.bot().as_str(), conversation.user().as_str()] {
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

    /// Returns the id of the same event's delivery to this endpoint of the bot.
    #[must_use]
    pub fn at_endpoint(self, name: &str) -> Self {
        let mut hash = Sha256::default();
        hash.update(self.0.to_bytes());
        hash.update(name);
        let bits = hash.finish().iter().take(9).fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
        Self(Ulid::from_parts(self.0.timestamp_ms(), bits << 8 | self.partition().index() as u128))
    }

    /// Returns the id of the delivery that reports the end of this one as a dead letter.
    #[must_use]
    pub fn of_report(self, endpoint: &str, at: Timestamp) -> Self {
        let report = self.at_endpoint(endpoint);
        Self(Ulid::from_parts(at.as_millis(), report.0.random()))
    }

    /// Returns the least id of the deliveries that were created at this time or later.
    pub fn first_at(at: Timestamp) -> Self {
        // An id has 48 bits for the time.
        Self(Ulid::from_parts(at.as_millis().min((1 << 48) - 1), 0))
    }

    /// Returns the partition that holds the delivery.
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

/// The kind of event that a delivery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryKind {
    /// A message's turn ended with an answer, which may be empty.
    MessageAnswered,
    /// A message's turn failed.
    MessageFailed,
    /// A reply came within its turn. The end of the turn tells of it too.
    Reply,
    /// A reply came after its turn had ended.
    ReplyLate,
    /// A reply came outside any turn.
    ReplyUnsolicited,
    /// A human agent took the conversation over.
    AgentStarted,
    /// The bot has the conversation back.
    AgentEnded,
    /// The platform began a session of the user.
    SessionStarted,
    /// The platform ended the session.
    SessionEnded,
    /// Entries of the journal may be missing.
    Gap,
    /// The user sent a message in another session.
    UserMessage,
    /// A delivery to another endpoint or to a callback became a dead letter.
    DeliveryDead,
    /// An operator tests an endpoint. The event is sent at once and never stored.
    Test,
}

impl DeliveryKind {
    /// Every kind that is stored.
    pub const ALL: [Self; 12] = [
        Self::MessageAnswered,
        Self::MessageFailed,
        Self::Reply,
        Self::ReplyLate,
        Self::ReplyUnsolicited,
        Self::AgentStarted,
        Self::AgentEnded,
        Self::SessionStarted,
        Self::SessionEnded,
        Self::Gap,
        Self::UserMessage,
        Self::DeliveryDead,
    ];

    /// The kinds that an endpoint gets if its configuration names none.
    pub const DEFAULT: [Self; 4] =
        [Self::MessageAnswered, Self::MessageFailed, Self::ReplyLate, Self::ReplyUnsolicited];

    /// Returns whether the event is the end of a message.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::MessageAnswered | Self::MessageFailed)
    }

    /// Returns the `type` of the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageAnswered => "message.answered",
            Self::MessageFailed => "message.failed",
            Self::Reply => "reply",
            Self::ReplyLate => "reply.late",
            Self::ReplyUnsolicited => "reply.unsolicited",
            Self::AgentStarted => "agent.started",
            Self::AgentEnded => "agent.ended",
            Self::SessionStarted => "session.started",
            Self::SessionEnded => "session.ended",
            Self::Gap => "gap",
            Self::UserMessage => "user.message",
            Self::DeliveryDead => "delivery.dead",
            Self::Test => "test",
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

/// The origin of a delivery's target. It decides the signature and the configured extras of each request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOrigin {
    /// The configuration: the target is the endpoint of the bot with this name.
    Endpoint(Box<str>),
    /// A caller, with a message. Of the bot's endpoints only a signature may apply.
    Callback {
        /// The caller whose secrets sign the delivery. The bot's secrets sign it if the field is empty.
        signer: Option<Box<str>>,
    },
}

/// A delivery as the conversation's owner writes it, in the same step as its journal entry.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event's kind.
    pub kind: DeliveryKind,
    /// The conversation in which the event happened.
    pub conversation: ConversationId,
    /// The message that ended or that the reply is joined to.
    pub message: Option<MessageId>,
    /// The URL of the receiver, as given. Deliveries of one conversation to one endpoint or callback stay in order.
    pub target: Box<str>,
    /// The origin of the target.
    pub origin: DeliveryOrigin,
    /// The trace of the message.
    pub trace: TraceId,
    /// The time of the event.
    pub created_at: Timestamp,
    /// The Message, or the Reply with `bot` and `user`, as JSON: the `data` of the standard body.
    pub data: Box<RawValue>,
}

impl NewDelivery {
    /// Returns the name of the bot's endpoint; `None` for a callback.
    pub fn endpoint(&self) -> Option<&str> {
        match &self.origin {
            DeliveryOrigin::Endpoint(name) => Some(name),
            DeliveryOrigin::Callback { .. } => None,
        }
    }

    /// Returns the bot's endpoint over all bots; `None` for a callback.
    pub fn endpoint_id(&self) -> Option<EndpointId> {
        let name = self.endpoint()?.into();
        Some(EndpointId { bot: self.conversation.bot().clone(), name })
    }

    /// Returns the approximate number of bytes that the store keeps. The limits count with it.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 400;
        FIXED + self.data.get().len() + self.target.len() + self.conversation.user().as_str().len()
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// The delivery waits for its turn, for its next attempt, or for the answer to one.
    Pending,
    /// The receiver accepted it.
    Delivered,
    /// The delivery is a dead letter: the bridge attempts it again only on request.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// Returns its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// One attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// The start, by the store's clock.
    pub at: Timestamp,
    /// The status of the receiver's answer, if there was an answer.
    pub status: Option<u16>,
    /// The reason of the failure, if the attempt failed.
    pub error: Option<Box<str>>,
    /// The time that the attempt took.
    pub duration: Duration,
    /// The first 8 KiB of the receiver's answer.
    pub response: Option<Box<str>>,
}

impl Serialize for DeliveryAttempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct AttemptFields<'a> {
            at: Timestamp,
            status: Option<u16>,
            error: Option<&'a str>,
            duration_ms: u64,
            response: Option<&'a str>,
        }
        AttemptFields {
            at: self.at,
            status: self.status,
            error: self.error.as_deref(),
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            response: self.response.as_deref(),
        }
        .serialize(serializer)
    }
}

/// A delivery with its current state: the Delivery of the API.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The content and the target.
    pub new: NewDelivery,
    /// The current state.
    pub state: DeliveryState,
    /// The time of the next attempt, or the latest end of the running one. Empty if no attempt is planned or if an earlier
    /// delivery must end first.
    pub next_attempt_at: Option<Timestamp>,
    /// The reason why the delivery is a dead letter or waits.
    pub reason: Option<Box<str>>,
    /// The attempts, oldest first. The store keeps only the newest ones of a long series.
    pub attempts: Vec<DeliveryAttempt>,
}

impl Serialize for Delivery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct DeliveryFields<'a> {
            id: DeliveryId,
            r#type: DeliveryKind,
            bot: &'a str,
            user: &'a str,
            message_id: Option<MessageId>,
            webhook: Option<&'a str>,
            target: &'a str,
            state: DeliveryState,
            created_at: Timestamp,
            next_attempt_at: Option<Timestamp>,
            reason: Option<&'a str>,
            attempts: &'a [DeliveryAttempt],
        }
        let new = &self.new;
        DeliveryFields {
            id: new.id,
            r#type: new.kind,
            bot: new.conversation.bot().as_str(),
            user: new.conversation.user().as_str(),
            message_id: new.message,
            webhook: new.endpoint(),
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
    use crate::domain::fixtures::sandbox_conversation;

    #[test]
    fn delivery_id_of_one_entry_is_stable_and_holds_its_partition() {
        let at = Timestamp::from_millis(1_763_845_000_123);
        for user in ["alice", "bob", "Zoë"] {
            let conversation = sandbox_conversation(user);
            let id = DeliveryId::of(&conversation, 7, 9, at);
            assert_eq!(id.partition(), Partition::of(&conversation));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id, DeliveryId::of(&conversation, 7, 9, at));
            assert_ne!(id, DeliveryId::of(&conversation, 7, 10, at));
            assert_ne!(id, DeliveryId::of(&conversation, 8, 9, at));
        }
    }

    #[test]
    fn delivery_id_at_an_endpoint_is_stable_and_its_own() {
        let at = Timestamp::from_millis(1_763_845_000_123);
        let conversation = sandbox_conversation("alice");
        let id = DeliveryId::of(&conversation, 7, 9, at);
        let (crm, audit) = (id.at_endpoint("crm"), id.at_endpoint("audit"));
        assert_eq!(crm, id.at_endpoint("crm"));
        assert!(crm != audit && crm != id && audit != id);
        assert_ne!(crm, DeliveryId::of(&conversation, 7, 10, at).at_endpoint("crm"));
        assert_eq!(crm.partition(), Partition::of(&conversation));
        let bounds = (DeliveryId::first_at(at), DeliveryId::first_at(at + Duration::from_millis(1)));
        assert!(bounds.0 <= crm && crm < bounds.1, "ids sort by time");
    }
}
