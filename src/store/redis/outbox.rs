//! The outbox on Redis: its queues, and the attempts of deliveries.

use std::time::Duration;

use super::codec::{self, CorruptData};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use super::{RedisStore, millis};
use crate::domain::{DeliveryId, DeliveryState, Partition};
use crate::store::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, Fence, FinishRequest, FinishResult, OutboxPage,
    PendingQueue, QueueId, RedeliverResult, RetryDecision, StoreError,
};

/// The approximate number of queues of one page, so that no script blocks others for long.
const TOGETHER: usize = 256;

impl RedisStore {
    pub(in crate::store) async fn outbox(
        &self,
        partition: Partition,
        fence: Fence,
        from: usize,
    ) -> Result<OutboxPage, StoreError> {
        let call = SCRIPTS
            .outbox
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(from)
            .arg(TOGETHER)
            .background();
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let next = usize::try_from(rest.number()?).map_err(|_| CorruptData("a place in an outbox"))?;
        let waiting = |mut waiting: AnswerValues| -> Result<_, CorruptData> {
            let queue = waiting.text()?;
            let queue = QueueId::parse(&queue).ok_or(CorruptData("a queue's name"))?;
            let (due, target, since) = (waiting.time()?, waiting.text()?.into(), waiting.time()?);
            Ok(PendingQueue { queue, target, due, since })
        };
        let queues = rest.lists().map(|queue| waiting(queue?)).collect::<Result<_, CorruptData>>()?;
        Ok(OutboxPage { queues, next: (next > 0).then_some(next), now })
    }

    pub(in crate::store) async fn begin(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        let call = SCRIPTS
            .begin
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(queue.to_string())
            .arg(format!("{token:x}"))
            .arg(millis(window));
        let answer = self.run(call).await?;
        if answer.is("EMPTY") {
            return Ok(BeginResult::Empty);
        }
        if answer.is("LATER") {
            return Ok(BeginResult::Later(answer.expect("LATER")?.1.time()?));
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
        let mut count = || u32::try_from(rest.number()?).map_err(|_| CorruptData("a number of attempts"));
        let (made, step) = (count()?, count()?);
        Ok(BeginResult::Taken(Box::new(ClaimedDelivery { delivery, since, made, step, token, now })))
    }

    pub(in crate::store) async fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &FinishRequest,
    ) -> Result<FinishResult, StoreError> {
        let error = finish.attempt.error.as_deref().unwrap_or_default();
        // The new state, its delay or lifetime, whether it is a step of the schedule, and the reason.
        let (state, span, stepped, reason) = match &finish.decision {
            RetryDecision::Delivered => (DeliveryState::Delivered, self.0.message_ttl, true, ""),
            RetryDecision::Retry(wait) => (DeliveryState::Pending, *wait, true, error),
            RetryDecision::Again => (DeliveryState::Pending, Duration::ZERO, false, error),
            RetryDecision::DeadLetter(reason) => (DeliveryState::Dead, DEAD_TTL, true, &**reason),
        };
        let call = SCRIPTS
            .finish
            .call(&[&self.0.keys.partition(partition).lease])
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
        Ok(FinishResult { next: rest.time_or_none()?, now })
    }

    pub(in crate::store) async fn redeliver(&self, id: DeliveryId) -> Result<RedeliverResult, StoreError> {
        self.redeliver_as(id, fastrand::u64(..)).await
    }

    /// Redelivers once for each `token`: a repeat gets the same answer and changes nothing.
    pub(super) async fn redeliver_as(
        &self,
        id: DeliveryId,
        token: u64,
    ) -> Result<RedeliverResult, StoreError> {
        let call = SCRIPTS
            .redeliver
            .call(&[&self.0.keys.partition(id.partition()).lease])
            .arg(id.to_string())
            .arg(QueueId::alone(id).to_string())
            .arg(format!("{token:x}"));
        let answer = self.run(call).await?;
        if answer.is("UNKNOWN") {
            return Ok(RedeliverResult::Unknown);
        }
        if answer.is("INFLIGHT") {
            return Ok(RedeliverResult::InFlight);
        }
        answer.expect("QUEUED")?;
        Ok(RedeliverResult::Queued)
    }
}
