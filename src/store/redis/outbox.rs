//! The outbox on Redis: its queues, and the attempts of deliveries.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::codec::{self, CorruptData};
use super::key_names::PartitionKeys;
use super::script::ScriptCall;
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use super::{RedisStore, millis};
use crate::domain::{DeliveryId, DeliveryState, EndpointId, NewDelivery, Partition, Timestamp};
use crate::store::{
    ATTEMPTS, BeginResult, ClaimedDelivery, DEAD_TTL, Fence, FinishRequest, FinishResult, OutboxPage,
    PendingQueue, QueueId, RedeliverResult, RetryDecision, StoreError,
};

/// The approximate number of queues of one page, so that no script blocks others for long.
const TOGETHER: usize = 256;

/// The size up to which an attempt does not count in lists, as in `outbox_finish.lua`.
const SMALL_ATTEMPT: usize = 128;
/// One of so many successes goes to the script that also removes expired deliveries from the index, up to 16.
const SWEEP_EVERY: u32 = 10;

impl RedisStore {
    /// Adds the commands for a new delivery of the owner. Its queue is due now if it was empty.
    pub(super) fn deliver<'a>(
        &self,
        call: ScriptCall<'a>,
        keys: &PartitionKeys,
        new: &NewDelivery,
        name: &str,
        now: Timestamp,
    ) -> Result<ScriptCall<'a>, CorruptData> {
        let queue = QueueId::of_delivery(new);
        let id = new.id.to_string();
        self.0.recent.insert(queue, new, now);
        Ok(call
            .command(12, "HSET", &keys.delivery(new.id))
            .arg("c")
            .arg(name)
            .arg("t")
            .arg(&*new.target)
            .arg("n")
            .arg(codec::new_delivery(new)?)
            .arg("b")
            .arg(new.data.get())
            .arg("s")
            .arg(codec::untried_status(queue, new.created_at))
            .command(4, "ZADD", &keys.index(DeliveryState::Pending))
            .arg(0)
            .arg(format!("{id} {name}"))
            .command(3, "RPUSH", &keys.queue(queue))
            .arg(&id)
            .command(5, "ZADD", &keys.due())
            .arg("NX")
            .arg(now.as_millis())
            .arg(queue.to_string()))
    }

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
            let endpoint = EndpointId::parse(&waiting.text()?);
            Ok(PendingQueue { queue, target, endpoint, due, since })
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
        match self.begin_as_owner(partition, fence, queue, token, window).await? {
            Some(claimed) => Ok(BeginResult::Taken(Box::new(claimed))),
            None => Box::pin(self.begin_by_script(partition, fence, queue, token, window, false)).await,
        }
    }

    pub(in crate::store) async fn begin_early(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<BeginResult, StoreError> {
        self.begin_by_script(partition, fence, queue, token, window, true).await
    }

    async fn begin_by_script(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
        early: bool,
    ) -> Result<BeginResult, StoreError> {
        let call = SCRIPTS
            .begin
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(queue.to_string())
            .arg(format!("{token:x}"))
            .arg(millis(window))
            .arg(u8::from(early));
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

    /// Begins the first attempt of a delivery that this owner wrote. `None` means that a script has to decide.
    async fn begin_as_owner(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        token: u64,
        window: Duration,
    ) -> Result<Option<ClaimedDelivery>, StoreError> {
        let Some(now) = self.0.cache.now() else { return Ok(None) };
        let Some(delivery) = self.0.recent.take(partition, queue, now) else { return Ok(None) };
        let keys = self.0.keys.partition(partition);
        let status = codec::untried_status(queue, delivery.created_at);
        let call = SCRIPTS
            .claim_delivery
            .call(&[&keys.lease, &keys.delivery(delivery.id), &keys.queue(queue), &keys.due()])
            .arg(fence.to_string())
            .arg(&status)
            .arg(format!("{status}{token:x}"))
            .arg(delivery.id.to_string())
            .arg((now + window).as_millis())
            .arg(queue.to_string());
        let claimed = self.run_prepared(call).await? == 1;
        if !claimed {
            // One wrong guess would make each later guess of the queue wrong.
            self.0.recent.forget_queue(partition, queue);
        }
        let since = delivery.created_at;
        Ok(claimed.then_some(ClaimedDelivery { delivery, since, made: 0, step: 0, token, now }))
    }

    pub(in crate::store) async fn finish(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &FinishRequest,
    ) -> Result<FinishResult, StoreError> {
        match self.finish_as_owner(partition, fence, queue, finish).await? {
            Some(finished) => Ok(finished),
            None => Box::pin(self.finish_by_script(partition, fence, queue, finish)).await,
        }
    }

    async fn finish_by_script(
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
        let mut call = SCRIPTS
            .finish
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(queue.to_string())
            .arg(finish.claimed.delivery.id.to_string())
            .arg(format!("{:x}", finish.claimed.token))
            .arg(codec::attempt(&finish.attempt)?)
            .arg(ATTEMPTS)
            .arg(state.as_str())
            .arg(millis(span))
            .arg(u8::from(stepped))
            .arg(reason);
        for new in &finish.reports {
            call = call
                .arg(new.id.to_string())
                .arg(format!("{} {}", QueueId::of_delivery(new), new.created_at.as_millis()))
                .arg(&*new.target)
                .arg(codec::new_delivery(new)?)
                .arg(new.data.get());
        }
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        Ok(FinishResult { next: rest.time_or_none()?, now })
    }

    /// Records the success of a first attempt, which most attempts are. `None` means that a script has to decide.
    async fn finish_as_owner(
        &self,
        partition: Partition,
        fence: Fence,
        queue: QueueId,
        finish: &FinishRequest,
    ) -> Result<Option<FinishResult>, StoreError> {
        let ClaimedDelivery { delivery, since, made, step, token, .. } = &*finish.claimed;
        let Some(now) = self.0.cache.now() else { return Ok(None) };
        // The script that decides also removes expired deliveries from the index.
        let is_first_success = finish.decision == RetryDecision::Delivered && (*made, *step) == (0, 0);
        if !is_first_success || self.0.successes.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EVERY) {
            return Ok(None);
        }
        let keys = self.0.keys.partition(partition);
        let (id, attempt) = (delivery.id.to_string(), codec::attempt(&finish.attempt)?);
        let mut call = SCRIPTS
            .settle_delivery
            .call(&[
                &keys.lease,
                &keys.delivery(delivery.id),
                &keys.queue(queue),
                &keys.due(),
                &keys.index(DeliveryState::Pending),
                &keys.index(DeliveryState::Delivered),
            ])
            .arg(fence.to_string())
            .arg(format!("{}{token:x}", codec::untried_status(queue, *since)))
            .arg(&id)
            .arg(queue.to_string())
            .arg(now.as_millis())
            .arg(format!("{id} {}", delivery.conversation))
            .arg(millis(self.0.message_ttl))
            .arg("s")
            .arg(codec::delivered_status(queue, *since));
        if attempt.len() > SMALL_ATTEMPT {
            call = call.arg("z").arg(attempt.len());
        }
        let done = self.run_prepared(call.arg("a1").arg(attempt)).await?;
        Ok((done > 0).then_some(FinishResult { next: (done == 1).then_some(now), now }))
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
