//! The outbox: its queues, and attempts from their beginning to their end.

use std::time::Duration;

use super::answer::Values;
use super::codec::{self, Corrupt};
use super::scripts::SCRIPTS;
use super::{Redis, millis};
use crate::domain::{DeliveryId, DeliveryState, Partition};
use crate::store::{
    ATTEMPTS, Begun, DEAD_TTL, Fence, Finish, Finished, Outbox, QueueId, Redelivered, StoreError, Taken,
    Verdict, Waiting,
};

/// About how many queues are read at once: no script should hold up others for long.
const TOGETHER: usize = 256;

impl Redis {
    /// Some queues of a partition; see [`crate::store::Store::outbox`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbox(
        &self,
        partition: Partition,
        fence: Fence,
        from: usize,
    ) -> Result<Outbox, StoreError> {
        let call = self
            .call(&SCRIPTS.outbox, &[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(from)
            .arg(TOGETHER)
            .aside();
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let next = usize::try_from(rest.number()?).map_err(|_| Corrupt("a place in an outbox"))?;
        let waiting = |mut waiting: Values| -> Result<_, Corrupt> {
            let queue = waiting.text()?;
            let queue = QueueId::parse(&queue).ok_or(Corrupt("a queue's name"))?;
            let (due, target, since) = (waiting.time()?, waiting.text()?.into(), waiting.time()?);
            Ok(Waiting { queue, target, due, since })
        };
        let queues = rest.lists().map(|queue| waiting(queue?)).collect::<Result<_, Corrupt>>()?;
        Ok(Outbox { queues, next: (next > 0).then_some(next), now })
    }

    /// Notes that an attempt begins; see [`crate::store::Store::begin`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<Begun, StoreError> {
        let call = self
            .call(&SCRIPTS.begin, &[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(queue.to_string())
            .arg(format!("{token:x}"))
            .arg(millis(window));
        let answer = self.run(call).await?;
        if answer.is("EMPTY") {
            return Ok(Begun::Empty);
        }
        if answer.is("LATER") {
            return Ok(Begun::Later(answer.expect("LATER")?.1.time()?));
        }
        let (now, mut rest) = answer.expect("TAKEN")?;
        let (id, conversation) = (rest.text()?, rest.text()?);
        let (target, told, data) = (rest.text()?, rest.bytes()?, rest.text()?);
        let delivery = codec::read_new_delivery(
            codec::delivery_id(&id)?,
            codec::conversation(&conversation)?,
            target,
            &told,
            data,
        )?;
        let since = rest.time()?;
        let mut count = || u32::try_from(rest.number()?).map_err(|_| Corrupt("a number of attempts"));
        let (made, step) = (count()?, count()?);
        Ok(Begun::Taken(Box::new(Taken { delivery, since, made, step, token, now })))
    }

    /// Notes how an attempt ended; see [`crate::store::Store::finish`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &Finish,
    ) -> Result<Finished, StoreError> {
        let error = finish.attempt.error.as_deref().unwrap_or_default();
        // What it is from now on, for how long it waits or is kept, whether that is a step of the schedule, and why.
        let (state, span, stepped, reason) = match &finish.verdict {
            Verdict::Delivered => (DeliveryState::Delivered, self.0.message_ttl, true, ""),
            Verdict::Retry(wait) => (DeliveryState::Pending, *wait, true, error),
            Verdict::Again => (DeliveryState::Pending, Duration::ZERO, false, error),
            Verdict::Bury(reason) => (DeliveryState::Dead, DEAD_TTL, true, &**reason),
        };
        let call = self
            .call(&SCRIPTS.finish, &[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(queue.to_string())
            .arg(finish.id.to_string())
            .arg(format!("{:x}", finish.token))
            .arg(codec::attempt(&finish.attempt)?)
            .arg(ATTEMPTS)
            .arg(state.as_str())
            .arg(millis(span))
            .arg(u8::from(stepped))
            .arg(reason);
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        Ok(Finished { next: rest.time_or_none()?, now })
    }

    /// Has a delivery attempted again; see [`crate::store::Store::redeliver`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<Redelivered, StoreError> {
        self.wish(id, fastrand::u64(..)).await
    }

    /// The same; who wishes for the same once more is answered the same and gets nothing more.
    pub(super) async fn wish(&self, id: DeliveryId, wish: u64) -> Result<Redelivered, StoreError> {
        let call = self
            .call(&SCRIPTS.redeliver, &[&self.0.keys.partition(id.partition()).lease])
            .arg(id.to_string())
            .arg(QueueId::alone(id).to_string())
            .arg(format!("{wish:x}"));
        let answer = self.run(call).await?;
        if answer.is("UNKNOWN") {
            return Ok(Redelivered::Unknown);
        }
        if answer.is("INFLIGHT") {
            return Ok(Redelivered::InFlight);
        }
        answer.expect("QUEUED")?;
        Ok(Redelivered::Queued)
    }
}
