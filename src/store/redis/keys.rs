//! The names in Redis. What belongs to one partition stands under one hash tag, so that one script may touch it.
//!
//! `P` is `PREFIX:{pN}:`. The scripts name messages, idempotency keys and all of the
//! outbox themselves, from `P` and an id.
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `P lease` | hash | `o` the owner's incarnation, empty when released; `e` epoch; `u` until. Never expires |
//! | `P ready` | set | conversations with open messages, as `bot/user` |
//! | `P warm` | sorted set | conversations by [`crate::store::ConversationWrite::warm_until`] |
//! | `P c:bot/user` | hash | `r` record; `w` number of the last write, with `!` where it lost a message; `n` next position and last `clientMessageId`; `l` lane: the head's time and the ids, empty when nothing is open; `b` weight and number of the journal's entries, in one number; `x` who observes it: `INCARNATION:UNTIL ..`, alone and for that time where nothing else is known |
//! | `P m:ID` | hash | `c` conversation; `a` what was accepted, after position, `clientMessageId` and time; `p` times of sent, acknowledged, first reply; `rN` replies and `o` end as in the journal; `d` its key's digest; `w` incarnations to hint at the end |
//! | `P k:DIGEST` | string | idempotency key: the message's id, then SHA-256 of the body |
//! | `P j:bot/user` | stream | journal: ids `PLACE-0`, one field by kind (`r e u p g`): time, weight, body |
//! | `P d:ID` | hash | delivery: `c` conversation; `t` target; `n` what else was said of it; `b` data; `s` where it stands, `STATE QUEUE SINCE MADE STEP TOKEN`; `r` reason; `aN` its attempts by number, the newest ones. Expires once it is delivered or dead |
//! | `P o:QUEUE` | list | outbox: the ids of pending deliveries, the one that is attempted first |
//! | `P due` | sorted set | the queues, by when their first may be attempted: where an attempt is in flight, when that is over |
//! | `P x:STATE` | sorted set | deliveries that are `pending`, `delivered`, `dead`, as `ID bot/user`; all of one score, so that they stand by id |
//! | `PREFIX:{fleet}:replicas` | sorted set | incarnation and name, by when it counts as live no more |
//! | `PREFIX:{fleet}:bots` | hash | the same -> its bots |
//! | `PREFIX:{fleet}:connects:BOT` | sorted set | connects of the last minute |
//! | `PREFIX:schema` | hash | the migrations that ran |
//!
//! A journal takes 4.4 KiB at least: Redis gives a stream's node its full size at once, `stream-node-max-bytes`, and
//! nothing that is done to the stream changes that. With 512 there it is 1.1 KiB.
//!
//! Channels: `PREFIX:replica:INCARNATION` and `PREFIX:fleet`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::domain::{BotName, ConversationId, MessageId, Partition};
use crate::store::Incarnation;
use crate::store::accept_request::KeyDigest;

/// The names that begin with one prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: Box<str>,
    /// Made once: they are wanted with every command.
    partitions: Box<[PartitionKeys]>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let partitions = Partition::all().map(|partition| PartitionKeys::new(prefix, partition)).collect();
        Self { prefix: prefix.into(), partitions }
    }

    /// The prefix itself.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The names of one partition.
    #[expect(clippy::indexing_slicing, reason = "there is one of each partition")]
    pub(super) fn partition(&self, partition: Partition) -> &PartitionKeys {
        &self.partitions[partition.index()]
    }

    /// The sorted set of the heartbeats.
    pub(super) fn replicas(&self) -> String {
        format!("{}:{{fleet}}:replicas", self.prefix)
    }

    /// The hash of what bots the replicas know.
    pub(super) fn bots(&self) -> String {
        format!("{}:{{fleet}}:bots", self.prefix)
    }

    /// The connects of a bot.
    pub(super) fn connects(&self, bot: &BotName) -> String {
        format!("{}:{{fleet}}:connects:{bot}", self.prefix)
    }

    /// The migrations.
    pub(super) fn schema(&self) -> String {
        format!("{}:schema", self.prefix)
    }

    /// The channel of one replica.
    pub(super) fn replica_channel(&self, incarnation: Incarnation) -> String {
        format!("{}:replica:{incarnation}", self.prefix)
    }

    /// The channel of all replicas.
    pub(super) fn fleet_channel(&self) -> String {
        format!("{}:fleet", self.prefix)
    }
}

/// The names of one partition.
#[derive(Debug)]
pub(super) struct PartitionKeys {
    prefix: Box<str>,
    pub(super) lease: Box<str>,
    pub(super) ready: Box<str>,
    pub(super) warm: Box<str>,
}

impl PartitionKeys {
    fn new(prefix: &str, partition: Partition) -> Self {
        let prefix: Box<str> = format!("{prefix}:{{{partition}}}:").into();
        let key = |name: &str| [&prefix, name].concat().into();
        Self { lease: key("lease"), ready: key("ready"), warm: key("warm"), prefix }
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

    /// An idempotency key, by [`digest`].
    pub(super) fn key_of(&self, digest: &str) -> String {
        [&self.prefix, "k:", digest].concat()
    }

    fn of(&self, kind: &str, conversation: &ConversationId) -> String {
        [&self.prefix, kind, conversation.bot.as_str(), "/", conversation.user.as_str()].concat()
    }
}

/// An idempotency key's digest as it stands in names.
pub(super) fn digest(key: KeyDigest) -> String {
    URL_SAFE_NO_PAD.encode(key.0)
}
