//! The accept of a message.

use std::sync::Arc;

use super::RedisStore;
use super::codec::{self, AcceptStamp, CorruptData};
use super::key_names::{self, PartitionKeys};
use super::owner_cache::PreparedAccept;
use super::script::ScriptCall;
use super::script_answer::ScriptAnswer;
use super::scripts::SCRIPTS;
use crate::domain::{ConversationId, MessageId, NewMessage, Partition};
use crate::store::{AcceptError, AcceptRequest, AcceptResult, Fence, StoreError, StoreRefusal};

impl RedisStore {
    pub(in crate::store) async fn accept(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        match self.accept_as_owner(&accept).await? {
            Some(result) => Ok(result),
            None => Box::pin(self.accept_by_script(accept)).await,
        }
    }

    /// Accepts a message by the script that decides for itself.
    async fn accept_by_script(&self, accept: AcceptRequest) -> Result<AcceptResult, AcceptError> {
        let AcceptRequest { id, message: new, idempotency, max_open, by, watched, send_at_accept } = accept;
        let partition = self.0.keys.partition(Partition::of(&new.conversation));
        let (conversation, message) = (partition.conversation(&new.conversation), partition.message(id));
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
            .arg(send_at_accept.map_or_else(String::new, |fence| fence.epoch.to_string()));
        if let Some((digest, body)) = &key {
            call = call.arg(digest).arg(body.as_slice());
        }
        let call = call.durable();

        let answer = match self.run(call).await {
            // An accept is refused if the store is full. An owner's write is not.
            Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)) => return Err(AcceptError::Full),
            answered => answered?,
        };
        accept_result(answer, id, new)
    }

    /// Accepts a message that its owner may send at once, by prepared commands. `None` means that a script has to
    /// decide.
    async fn accept_as_owner(&self, accept: &AcceptRequest) -> Result<Option<AcceptResult>, AcceptError> {
        let AcceptRequest { id, message: new, idempotency, max_open, by, watched, send_at_accept } = accept;
        let Some(fence) = send_at_accept.filter(|_| !self.0.health.is_full()) else { return Ok(None) };
        let conversation = &new.conversation;
        let key = idempotency.as_ref().map(|key| (key_names::digest(key.digest(conversation)), key.body));
        let digest = key.as_ref().map(|(digest, _)| &**digest);
        let watcher = watched.then_some(*by);
        let prepared = self
            .0
            .cache
            .prepare(fence, conversation, |cached, now| cached.accept(*id, digest, watcher, *max_open, now));
        let Some(prepared) = prepared else { return Ok(None) };

        let (stamp, sent) = (prepared.stamp, prepared.sent);
        let call = self
            .guarded_accept(accept, fence, key.as_ref(), prepared)
            .inspect_err(|_| self.0.cache.forget(conversation))?;
        let done = self.run_guarded(call).await;
        if !matches!(done, Ok(true)) {
            self.0.cache.forget(conversation);
        }
        match done {
            Ok(true) => {
                let accepted = Arc::new(stamp.on(*id, new.clone()));
                Ok(Some(if sent {
                    AcceptResult::SentAtAccept(accepted)
                } else {
                    AcceptResult::New(accepted)
                }))
            }
            Ok(false) => Ok(None),
            Err(StoreError::Unavailable(StoreRefusal::OutOfMemory)) => Err(AcceptError::Full),
            Err(error) => Err(error.into()),
        }
    }

    fn guarded_accept(
        &self,
        accept: &AcceptRequest,
        fence: Fence,
        key: Option<&(String, [u8; 32])>,
        prepared: PreparedAccept,
    ) -> Result<ScriptCall<'_>, CorruptData> {
        let AcceptRequest { id, message: new, by, watched, .. } = accept;
        let partition = self.0.keys.partition(Partition::of(&new.conversation));
        let (name, message) = (new.conversation.to_string(), partition.message(*id));
        let conversation = partition.conversation(&new.conversation);
        let key_name = key.map(|(digest, _)| partition.key_of(digest));
        let AcceptStamp { position, client_message_id, accepted_at } = prepared.stamp;
        let at = accepted_at.as_millis();

        // A message that is stored already is a repeat, which a script has to answer.
        let mut keys = vec![&*partition.lease, &*conversation, &*message];
        keys.extend(key_name.as_deref());
        let mut call = SCRIPTS
            .guarded_accept
            .call(&keys)
            .arg(fence.to_string())
            .arg(&*prepared.known)
            .arg(&*prepared.version)
            .arg(0);
        let mut body = format!("{position} {client_message_id} {at} ").into_bytes();
        codec::write_new_message(new, &mut body)?;
        call = call
            .command(if key.is_some() { 12 } else { 10 }, "HSET", &message)
            .arg("c")
            .arg(&name)
            .arg("a")
            .arg(body)
            .arg("p")
            .arg(if prepared.sent { format!("{at},,") } else { ",,".to_owned() })
            .arg("w")
            .arg(if *watched { by.to_string() } else { String::new() });
        if let (Some((digest, body)), Some(key_name)) = (key, &key_name) {
            call = call.arg("d").arg(digest);
            call =
                call.command(3, "SET", key_name).arg([id.to_string().as_bytes(), body.as_slice()].concat());
        }
        if prepared.activates {
            call = activate(call, partition, &new.conversation, &name);
        }
        Ok(call
            .command(8, "HSET", &conversation)
            .arg("v")
            .arg(&*prepared.version)
            .arg("n")
            .arg(format!("{} {client_message_id}", position + 1))
            .arg("l")
            .arg(prepared.lane)
            .durable())
    }
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

fn accept_result(answer: ScriptAnswer, id: MessageId, new: NewMessage) -> Result<AcceptResult, AcceptError> {
    let (word, mut rest) = answer.parts();
    match word.as_slice() {
        b"NEW" | b"SENT" => {
            let stamp = AcceptStamp {
                position: rest.number()?,
                client_message_id: rest.number()?,
                accepted_at: rest.time()?,
            };
            let accepted = Arc::new(stamp.on(id, new));
            Ok(if word == b"SENT" {
                AcceptResult::SentAtAccept(accepted)
            } else {
                AcceptResult::New(accepted)
            })
        }
        b"REPLAYED" => {
            let id = codec::id(&rest.text()?)?;
            Ok(AcceptResult::Replayed(codec::message(&new.conversation, id, rest.values()?.pairs())?))
        }
        b"MISMATCH" => Err(AcceptError::IdempotencyMismatch),
        b"LANE" => Err(AcceptError::LaneFull(usize::try_from(rest.number()?).unwrap_or(usize::MAX))),
        b"FULL" => Err(AcceptError::Full),
        _ => Err(CorruptData("the answer to an accept").into()),
    }
}

impl From<CorruptData> for AcceptError {
    fn from(corrupt: CorruptData) -> Self {
        Self::Store(corrupt.into())
    }
}
