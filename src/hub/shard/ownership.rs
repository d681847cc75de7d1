//! How a shard follows the lease table: it activates, drains and revokes partitions. The time before a drain is described
//! in `handoff`.
//!
//! The lease table says which [`Ownership`] is wanted, and the shard compares it with its own. A state that was skipped
//! does no harm. [`crate::link::ConversationHost::may_act`] is false for a revoked partition, until all conversations of
//! the lost fence have left.
//!
//! The webhook worker gets each change in this order: owned, releasing, lost. Its attempts end before a partition counts
//! as drained, so the next owner need not wait for them.

use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::head_deadline::restart_head_deadline;
use super::partition_state::PartitionState;
use super::{STOP, Shard, spawn};
use crate::domain::{Partition, Timestamp};
use crate::link::{Input, retry_while_unavailable};
use crate::store::{DrainReason, Fence, OutboxEvent, Ownership};
use crate::telemetry::LogLimiter;

/// The time for which open turns may delay a handoff.
const HANDOFF: Duration = Duration::from_secs(5);
/// The timeout of the last writes before a release, together.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// The time for recording cancelled delivery attempts.
const CANCEL: Duration = Duration::from_secs(1);
/// The limits of warnings that every partition of a drain may cause.
static STOPS: LogLimiter = LogLimiter::new();
static ATTEMPTS: LogLimiter = LogLimiter::new();

impl Shard {
    /// Compares all partitions with the lease table.
    pub(super) fn sync_ownership(self: &Rc<Self>) {
        if self.stopping.get() {
            return;
        }
        for part in &self.partitions {
            self.sync_partition(part);
        }
        self.ownership_synced.notify_waiters();
        self.resync_if_requested();
        if self.setup.leases.is_refusing() {
            self.close_subscriptions();
        }
    }

    fn sync_partition(self: &Rc<Self>, part: &Rc<PartitionState>) {
        let leases = &self.setup.leases;
        let wanted = leases.ownership(part.partition);
        match (part.ownership.get(), wanted) {
            (Ownership::Active(fence) | Ownership::Draining(fence, _), wanted)
                if wanted.fence() != Some(fence) =>
            {
                self.revoke(part, fence);
            }
            (Ownership::Active(_), Ownership::Draining(fence, reason)) => {
                part.ownership.set(wanted);
                let (shard, part) = (Rc::clone(self), Rc::clone(part));
                spawn(async move { shard.drain(&part, fence, reason).await });
            }
            (Ownership::None, Ownership::Active(fence)) => self.activate(part, fence),
            (Ownership::Active(fence), Ownership::Active(_))
                if leases.wanted_drain(part.partition).is_some() && !part.handing_off.replace(true) =>
            {
                spawn(Rc::clone(self).hand_off(Rc::clone(part), fence));
            }
            (Ownership::None, Ownership::Draining(fence, _)) if !leases.is_drained(part.partition, fence) => {
                leases.set_drained(part.partition, fence);
            }
            _ => {}
        }
        let valid = part.fence().is_some_and(|fence| leases.is_lease_valid(part.partition, fence));
        if valid != part.told_lease_valid.replace(valid) {
            part.post_all(|| Input::Tick);
        }
    }

    /// Activates a claimed partition: continues its open work, and keeps links to bots that may still be speaking.
    fn activate(self: &Rc<Self>, part: &Rc<PartitionState>, fence: Fence) {
        part.ownership.set(Ownership::Active(fence));
        // Another owner may have sent them since.
        part.unsent.take();
        // The look finds conversations of unknown bots, which are not activated.
        part.look_wanted.set(true);
        let (shard, part) = (Rc::clone(self), Rc::clone(part));
        spawn(async move {
            // The event is sent first: events of a partition keep the order in which their sends began.
            let reported = shard.setup.outbox_events.tell(OutboxEvent::Assigned(part.partition, fence));
            let begun = async {
                let ask = async || shard.setup.store.ready(part.partition, fence, true).await;
                match retry_while_unavailable("ready", ask).await {
                    Ok(ready) => shard.start_all(&part, fence, ready).await,
                    Err(_) => shard.setup.leases.suspect(part.partition, fence),
                }
                shard.resync_partition(part.partition).await;
            };
            tokio::join!(reported, begun);
        });
    }

    /// Revokes a partition whose lease is lost: its conversations leave without a write. Waiters stay.
    fn revoke(self: &Rc<Self>, part: &Rc<PartitionState>, fence: Fence) {
        let leaving = !part.is_empty();
        part.ownership.set(if leaving { Ownership::Revoked } else { Ownership::None });
        let (shard, part) = (Rc::clone(self), Rc::clone(part));
        spawn(async move {
            let reported = shard.setup.outbox_events.tell(OutboxEvent::Lost(part.partition, fence));
            let cleared = async {
                if leaving {
                    part.stop(STOP).await;
                    part.ownership.set(Ownership::None);
                    shard.setup.leases.wake(part.partition);
                }
                shard.resync_partition(part.partition).await;
            };
            tokio::join!(reported, cleared);
        });
    }

    /// Finishes open work of the partition, within limits, then reports that it can be released.
    async fn drain(&self, part: &PartitionState, fence: Fence, reason: DrainReason) {
        let (began, since) = (Instant::now(), self.clock.now());
        let leases = &self.setup.leases;
        part.post_all(|| Input::Drain);
        let shutdown = Ownership::Draining(fence, DrainReason::Shutdown);
        if reason == DrainReason::Shutdown
            || timeout(HANDOFF, part.emptied()).await.is_err() && leases.ownership(part.partition) == shutdown
        {
            // A shutdown that began during a handoff gives turns more time too.
            part.emptied().await;
        }
        if part.fence() != Some(fence) {
            return;
        }
        let aborted = part.stop(STOP).await;
        if aborted > 0 {
            debug!(partition = %part.partition, aborted, "conversations did not stop in time");
            if let Some(left_out) = STOPS.pass() {
                warn!(aborted, left_out, "conversations did not stop in time; their sockets are cut");
            }
        }
        let restarted = timeout(LAST_WRITES, self.restart_head_deadlines(part, fence, since));
        let (restarted, ()) =
            tokio::join!(restarted, self.end_attempts(part.partition, fence, began + HANDOFF));
        if restarted.is_err() {
            debug!(partition = %part.partition, "queued messages keep the time that they have used up");
        }
        if part.fence() == Some(fence) && !self.stopping.get() {
            part.ownership.set(Ownership::None);
            leases.set_drained(part.partition, fence);
            self.resync_partition(part.partition).await;
        }
    }

    /// Lets delivery attempts of the partition end; no new attempt begins. In a handoff they have until
    /// `handoff_deadline`, in a shutdown as long as the replica stays.
    async fn end_attempts(&self, partition: Partition, fence: Fence, handoff_deadline: Instant) {
        let leases = &self.setup.leases;
        let by = match leases.ownership(partition) {
            Ownership::Draining(_, DrainReason::Shutdown) => leases.leave_deadline().checked_sub(CANCEL),
            _ => Some(handoff_deadline),
        };
        let by = by.into_iter().fold(Instant::now(), Instant::max);
        let (done, ended) = oneshot::channel();
        let ending = async {
            self.setup.outbox_events.tell(OutboxEvent::Revoking { partition, fence, by, done }).await;
            // A webhook worker that has ended has no attempt in flight.
            ended.await.ok();
        };
        if timeout_at(by + CANCEL, ending).await.is_err() {
            debug!(%partition, "delivery attempts may still be in flight");
            if let Some(left_out) = ATTEMPTS.pass() {
                warn!(
                    left_out,
                    "delivery attempts may still be in flight; the next owner waits for their timeout"
                );
            }
        }
    }

    /// Restarts the deadlines of queued heads: the time of a drain does not count.
    async fn restart_head_deadlines(&self, part: &PartitionState, fence: Fence, since: Timestamp) {
        let Ok(ready) = self.setup.store.ready(part.partition, fence, false).await else { return };
        stream::iter(ready)
            .for_each_concurrent(16, async |conversation| {
                let restarted = restart_head_deadline(&self.setup.store, fence, &conversation, since).await;
                if let Err(error) = restarted {
                    debug!(partition = %part.partition, %error, "the deadline of a queued message was not restarted");
                }
            })
            .await;
    }
}
