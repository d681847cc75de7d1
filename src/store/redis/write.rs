//! An owner's writes.

use super::codec;
use super::script::Call;
use super::scripts::SCRIPTS;
use super::{Redis, millis};
use crate::domain::{ConversationId, MessageId, Partition, Timestamp};
use crate::store::{Change, Fence, StoreError, Write, Written};

impl Redis {
    /// Carries out an owner's write; see [`crate::store::Store::write`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write(
        &self,
        fence: Fence,
        conversation: &ConversationId,
        write: &Write,
    ) -> Result<Written, StoreError> {
        let keys = self.0.keys.partition(Partition::of(conversation));
        let mut call = self
            .call(
                &SCRIPTS.write,
                &[
                    &keys.lease,
                    &keys.ready,
                    &keys.warm,
                    &keys.conversation(conversation),
                    &keys.journal(conversation),
                ],
            )
            .fence(fence)
            .arg(write.record.write)
            .arg(write.follows)
            .arg(codec::record(&write.record)?)
            .arg(write.warm_until.map_or_else(String::new, |until| until.as_millis().to_string()))
            .arg(millis(self.0.message_ttl));
        for change in &write.changes {
            call = add(call, change)?;
        }
        if write.changes.iter().any(is_promise) {
            call = call.durable();
        }
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        Ok(Written { now, lost: rest.number()? == 1 })
    }
}

/// Whether somebody acts on it who must not find it taken back: an end is told, and after a `sent` a message goes out,
/// which the next owner would send again.
const fn is_promise(change: &Change) -> bool {
    matches!(change, Change::Sent { .. }) || change.ended().is_some()
}

/// A change as the script takes it: four arguments.
fn add<'a>(call: Call<'a>, change: &Change) -> Result<Call<'a>, StoreError> {
    let sign = |call: Call<'a>, kind: &str, message: Option<MessageId>, at: Timestamp| {
        call.arg(kind).arg(name(message)).arg(at.as_millis()).arg("")
    };
    Ok(match change {
        Change::Sent { message, at } => sign(call, "s", Some(*message), *at),
        Change::Acked { message, at } => sign(call, "k", Some(*message), *at),
        Change::Answering { message, at } => sign(call, "f", Some(*message), *at),
        Change::HeadSince { at } => sign(call, "h", None, *at),
        Change::Append(entry) => {
            let told = codec::tell(entry)?;
            call.arg(told.kind).arg(name(told.message)).arg(entry.seq).arg(told.text)
        }
    })
}

fn name(message: Option<MessageId>) -> String {
    message.map_or_else(String::new, |message| message.to_string())
}
