//! The accept of a message.

use std::sync::Arc;

use super::RedisStore;
use super::codec::{self, AcceptStamp, CorruptData};
use super::hint_codec::RemoteAccept;
use super::key_names::{self, PartitionKeys};
use super::netstring;
use super::owner_cache::PreparedAccept;
use super::script::ScriptCall;
use super::scripts::SCRIPTS;
use crate::domain::{AcceptedMessage, ConversationId, Partition};
use crate::store::{
    AcceptError, AcceptRequest, AcceptResult, Fence, IdempotencyRequest, StoreError, StoreRefusal,
};

const ANSWER: CorruptData = CorruptData("the answer to an accept");

impl RedisStore {
    pub(in crate::store) async fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        match self.accept_as_owner(&accept).await? {
            Some(result) => Ok(result),
            None => Box::pin(self.accept_by_script(accept)).await,
        }
    }

    /// Accepts a message by the script that decides for itself.
    async fn accept_by_script(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        let AcceptRequest {
            id, message: new, idempotency, max_open, by, watched, owner, send_at_accept, ..
        } = accept;
        let partition = self.0.keys.partition(Partition::of(&new.conversation));
        let (conversation, message) = (partition.conversation(&new.conversation), partition.message(id));
        let open_only = idempotency.as_ref().is_some_and(IdempotencyRequest::is_open_only);
        let key = idempotency.map(|key| (key_names::digest(key.digest(&new.conversation)), key.body));
        let key_name = key.as_ref().map(|(digest, _)| partition.key_of(digest));
        let body = codec::new_message(&new)?;

        let mut keys = vec![&*partition.lease, &*partition.activity, &*conversation, &*message];
        keys.extend(key_name.as_deref());
        let mut call = SCRIPTS
            .accept
            .call(&keys)
            .arg(new.conversation.to_string())
            .arg(&body)
            .arg(max_open)
            .arg(u8::from(self.0.health.is_full()))
            .arg(by.to_string())
            .arg(u8::from(watched))
            .arg(owner.filter(|_| send_at_accept).map_or_else(String::new, |fence| fence.epoch.to_string()));
        if let Some((digest, body)) = &key {
            call = call.arg(digest).arg(body.as_slice()).arg(u8::from(open_only));
        }
        let call = call.durable();

        let answer = match self.run(call).await {
            // An accept is refused if the store is full. An owner's write is not.
            Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)) => return Err(AcceptError::Full),
            answered => answered?,
        };
        let (word, mut rest) = answer.parts();
        match word.as_slice() {
            b"NEW" | b"SENT" => {
                let stamp = AcceptStamp {
                    position: rest.number()?,
                    client_message_id: rest.number()?,
                    accepted_at: rest.time()?,
                };
                let (accepted, sent) = (Arc::new(stamp.on(id, new)), word == b"SENT");
                let (known, version) = (rest.text()?.into(), rest.text()?.into());
                let change = RemoteAccept {
                    known,
                    version,
                    watcher: watched.then_some(by),
                    key: key.map(|(digest, _)| digest.into()),
                };
                if !change.version.is_empty() {
                    self.0.cache.accepted_by_script(&accepted, sent, change);
                }
                Ok(new_result(accepted, sent))
            }
            b"REPLAYED" => {
                let id = codec::id(&rest.text()?)?;
                let message = codec::message(&new.conversation, id, rest.values()?.all())?;
                let (known, version) = (rest.text()?, rest.text()?);
                if !version.is_empty() {
                    self.0.cache.note_watcher(&new.conversation, id, by, &known, &version);
                }
                Ok(AcceptResult::Replayed(message.ok_or(ANSWER)?))
            }
            b"MISMATCH" => Err(AcceptError::IdempotencyMismatch),
            b"LANE" => Err(AcceptError::LaneFull(usize::try_from(rest.number()?).unwrap_or(usize::MAX))),
            b"FULL" => Err(AcceptError::Full),
            _ => Err(ANSWER.into()),
        }
    }

    /// Accepts a message of an own partition by prepared commands. `None` means that a script has to decide.
    async fn accept_as_owner(&self, accept: &AcceptRequest) -> Result<Option<AcceptResult>, AcceptError> {
        let AcceptRequest { message: new, idempotency, .. } = accept;
        let Some(fence) = accept.owner.filter(|_| !self.0.health.is_full()) else { return Ok(None) };
        let (conversation, cache) = (&new.conversation, &self.0.cache);
        let key = idempotency.as_ref().map(|key| (key_names::digest(key.digest(conversation)), key.body));
        let digest = key.as_ref().map(|(digest, _)| &**digest);
        let prepared = cache.prepare(fence, conversation, |cached, now| cached.accept(accept, digest, now));
        let Some(prepared) = prepared else { return Ok(None) };

        let (accepted, sent) = (Arc::clone(&prepared.accepted), prepared.sent);
        let call =
            self.guarded_accept(fence, key.as_ref(), prepared).inspect_err(|_| cache.forget(conversation))?;
        let done = self.run_guarded(call).await;
        if !matches!(done, Ok(true)) {
            cache.forget(conversation);
        }
        match done {
            Ok(true) => Ok(Some(new_result(accepted, sent))),
            Ok(false) => Ok(None),
            Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)) => Err(AcceptError::Full),
            Err(error) => Err(error.into()),
        }
    }

    fn guarded_accept(
        &self,
        fence: Fence,
        key: Option<&(String, [u8; 32])>,
        prepared: PreparedAccept,
    ) -> Result<ScriptCall<'_>, CorruptData> {
        let AcceptedMessage { id, new, .. } = &*prepared.accepted;
        let partition = self.0.keys.partition(Partition::of(&new.conversation));
        let name = new.conversation.to_string();
        let conversation = partition.conversation(&new.conversation);
        let key_name = key.map(|(digest, _)| partition.key_of(digest));

        // A message that is stored already is a repeat, which a script has to answer.
        let message = partition.message(*id);
        let mut keys = vec![&*partition.lease, &*conversation, &*message];
        keys.extend(key_name.as_deref());
        let mut call = SCRIPTS
            .guarded_accept
            .call(&keys)
            .arg(fence.to_string())
            .arg(&*prepared.known)
            .arg(&*prepared.version);
        let accepted = codec::accepted_message(&prepared.accepted)?;
        let value = netstring::sequence(&[name.as_bytes(), &accepted, b""]);
        call = call.command(3, "SET", &message).arg(value);
        if let (Some((_, body)), Some(key_name)) = (key, &key_name) {
            call =
                call.command(3, "SET", key_name).arg([id.to_string().as_bytes(), body.as_slice()].concat());
        }
        if prepared.activates {
            call = activate(call, partition, &new.conversation, &name);
        }
        Ok(call
            .command(6, "HSET", &conversation)
            .arg("v")
            .arg(&*prepared.version)
            .arg("s")
            .arg(prepared.state)
            .durable())
    }
}

fn new_result(accepted: Arc<AcceptedMessage>, sent: bool) -> AcceptResult {
    if sent { AcceptResult::SentAtAccept(accepted) } else { AcceptResult::New(accepted) }
}

/// Adds the commands that keep a conversation from expiring, as in `activity.lua`.
pub(super) fn activate<'a>(
    call: ScriptCall<'a>,
    partition: &PartitionKeys,
    conversation: &ConversationId,
    name: &str,
) -> ScriptCall<'a> {
    call.command(4, "ZADD", &partition.activity)
        .arg("+inf")
        .arg(name)
        .command(2, "PERSIST", &partition.activity)
        .command(2, "PERSIST", &partition.conversation(conversation))
        .command(2, "PERSIST", &partition.journal(conversation))
}

impl From<CorruptData> for AcceptError {
    fn from(corrupt: CorruptData) -> Self {
        Self::Store(corrupt.into())
    }
}
