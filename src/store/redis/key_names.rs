//! The names of keys in Redis. All keys of a partition have one hash tag, so one script may touch them.
//!
//! `P` is `PREFIX:{pN}:`. Scripts build the names of messages, idempotency keys and outbox keys from `P` and an id.
//!
//! | key | type | content |
//! | --- | --- | --- |
//! | `P lease` | hash | `o` the owner's incarnation, empty after a release; `e` epoch; `f` both, empty after a release; `u` end of the lease. Never expires |
//! | `P activity` | sorted set | conversations, as `bot/user`, by the time at which they came to rest; `+inf` for an active one, which may have open messages |
//! | `P names` | sorted set | conversations that were at rest, all with one score, so by name; some may have expired |
//! | `P warm` | sorted set | conversations by [`crate::store::ConversationWrite::warm_until`] |
//! | `P c:bot/user` | hash | `v` version; `r` record; `s` state: last write, positions, size of the journal, lane (`conversation.lua`); `x` observers: `INCARNATION:UNTIL ..` |
//! | `P m:ID` | string | message: its conversation, the accepted message, its turn after the end (`message_value.lua`) |
//! | `P k:DIGEST` | string | idempotency key: the message's id, then SHA-256 of the body |
//! | `P j:bot/user` | list | journal: `PLACE KIND AT WEIGHT BODY`, with the kinds `r e u p g` |
//! | `P d:ID` | hash | delivery: `c` conversation; `t` target; `n` its other fields; `b` data; `s` status, `STATE QUEUE SINCE MADE STEP TOKEN`; `r` reason; `aN` its newest attempts by number. Expires once it is delivered or dead |
//! | `P o:QUEUE` | list | outbox: the ids of pending deliveries, the next one first |
//! | `P due` | sorted set | queues, by the time at which their first delivery may be attempted, or at which its attempt is over |
//! | `P x:STATE` | sorted set | deliveries that are `pending`, `delivered`, `dead`, as `ID bot/user`; all have one score, so they are ordered by id |
//! | `PREFIX:{fleet}:replicas` | sorted set | incarnation and name, by the end of their liveness |
//! | `PREFIX:{fleet}:bots` | hash | the same members -> their bots |
//! | `PREFIX:{fleet}:connects:BOT` | sorted set | connects of the last minute |
//! | `PREFIX:{fleet}:token:DAY` | string | the secret that signs the read tokens of a day. Expires after three days |
//! | `PREFIX:{fleet}:rate:CALLER` | hash | `t` requests that a caller with `rate_scope = "fleet"` may still make, counted `at` this time. Expires after a minute |
//! | `PREFIX:{fleet}:rhythm:BOT` | hash | `v` version and `s` state of the rhythm that the replicas share. Expires 90 days after its last write |
//! | `PREFIX:{fleet}:endpoints` | hash | of each endpoint, as `BOT/NAME:KEY`: `s` last success, `f` last failure, `e` its error, `b` begin of its failures, `d` time and `r` reason of its switch-off. Never expires |
//! | `PREFIX:schema` | hash | the migrations that ran |
//!
//! Channels: `PREFIX:replica:INCARNATION` and `PREFIX:fleet`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::{BotName, ConversationId, DeliveryId, DeliveryState, MessageId, Partition};
use crate::store::accept_request::KeyDigest;
use crate::store::{Incarnation, QueueId};

/// The names with one prefix.
#[derive(Debug)]
pub(super) struct KeyNames {
    prefix: Box<str>,
    /// The names of the partitions, computed once because every command needs them.
    partitions: Box<[PartitionKeys]>,
}

impl KeyNames {
    pub(super) fn new(prefix: &str) -> Self {
        let partitions = Partition::all().map(|partition| PartitionKeys::new(prefix, partition)).collect();
        Self { prefix: prefix.into(), partitions }
    }

    /// Returns the prefix.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the names of one partition.
    #[expect(clippy::indexing_slicing, reason = "there is one of each partition")]
    pub(super) fn partition(&self, partition: Partition) -> &PartitionKeys {
        &self.partitions[partition.index()]
    }

    /// Returns the sorted set of heartbeats.
    pub(super) fn replicas(&self) -> String {
        format!("{}:{{fleet}}:replicas", self.prefix)
    }

    /// Returns the hash of the replicas' bots.
    pub(super) fn bots(&self) -> String {
        format!("{}:{{fleet}}:bots", self.prefix)
    }

    /// Returns the connects of a bot.
    pub(super) fn connects(&self, bot: &BotName) -> String {
        format!("{}:{{fleet}}:connects:{bot}", self.prefix)
    }

    /// Returns the secret of a day that signs read tokens.
    pub(super) fn read_token_secret(&self, day: u64) -> String {
        format!("{}:{{fleet}}:token:{day}", self.prefix)
    }

    /// Returns the bucket of a caller's requests.
    pub(super) fn request_rate(&self, caller: &str) -> String {
        format!("{}:{{fleet}}:rate:{caller}", self.prefix)
    }

    /// Returns the rhythm of a bot.
    pub(super) fn rhythm(&self, bot: &BotName) -> String {
        format!("{}:{{fleet}}:rhythm:{bot}", self.prefix)
    }

    /// Returns the hash of the states of endpoints.
    pub(super) fn endpoints(&self) -> String {
        format!("{}:{{fleet}}:endpoints", self.prefix)
    }

    /// Returns the hash of migrations.
    pub(super) fn schema(&self) -> String {
        format!("{}:schema", self.prefix)
    }

    /// Returns the channel of one replica.
    pub(super) fn replica_channel(&self, incarnation: Incarnation) -> String {
        format!("{}:replica:{incarnation}", self.prefix)
    }

    /// Returns the channel of all replicas.
    pub(super) fn fleet_channel(&self) -> String {
        format!("{}:fleet", self.prefix)
    }
}

/// The names of one partition.
#[derive(Debug)]
pub(super) struct PartitionKeys {
    prefix: Box<str>,
    pub(super) lease: Box<str>,
    pub(super) activity: Box<str>,
    pub(super) names: Box<str>,
    pub(super) warm: Box<str>,
}

impl PartitionKeys {
    fn new(prefix: &str, partition: Partition) -> Self {
        let prefix: Box<str> = format!("{prefix}:{{{partition}}}:").into();
        let key = |name: &str| [&prefix, name].concat().into();
        let (lease, activity, names, warm) = (key("lease"), key("activity"), key("names"), key("warm"));
        Self { prefix, lease, activity, names, warm }
    }

    pub(super) fn conversation(&self, conversation: &ConversationId) -> String {
        self.of("c:", conversation)
    }

    pub(super) fn journal(&self, conversation: &ConversationId) -> String {
        self.of("j:", conversation)
    }

    pub(super) fn message(&self, id: MessageId) -> String {
        [&self.prefix, "m:", &id.to_string()].concat()
    }

    /// Returns the name of a delivery.
    pub(super) fn delivery(&self, id: DeliveryId) -> String {
        [&self.prefix, "d:", &id.to_string()].concat()
    }

    /// Returns the list of a queue's deliveries.
    pub(super) fn queue(&self, queue: QueueId) -> String {
        [&self.prefix, "o:", &queue.to_string()].concat()
    }

    /// Returns the sorted set of queues by the time at which they are due.
    pub(super) fn due(&self) -> String {
        [&self.prefix, "due"].concat()
    }

    /// Returns the index of the deliveries in this state.
    pub(super) fn index(&self, state: DeliveryState) -> String {
        [&self.prefix, "x:", state.as_str()].concat()
    }

    /// Returns the name of an idempotency key with this [`digest`].
    pub(super) fn key_of(&self, digest: &str) -> String {
        [&self.prefix, "k:", digest].concat()
    }

    fn of(&self, kind: &str, conversation: &ConversationId) -> String {
        [&self.prefix, kind, conversation.bot().as_str(), "/", conversation.user().as_str()].concat()
    }
}

/// Encodes the digest of an idempotency key for its name.
pub(super) fn digest(key: KeyDigest) -> String {
    URL_SAFE_NO_PAD.encode(key.0)
}
