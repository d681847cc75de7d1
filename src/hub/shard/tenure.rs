//! How a shard comes to own a partition, and how it lets go.
//!
//! ```text
//!            own                    drain                       calm
//!   out ───────────► working ───────────────► draining ──────────────────► out, the keeper releases
//!    ▲                  │ lost                   │ lost
//!    └── all left ── clearing ◄──────────────────┘
//! ```
//!
//! The leases say how it should be, and the shard compares: a state that was skipped over is no harm. While
//! conversations of an earlier fence are still leaving, [`crate::link::ConversationHost::may_act`] is false for all of the
//! partition.
//!
//! Whoever attempts deliveries is told of each step, in this order for each partition: owned, releasing, lost. Its
//! attempts end before a partition is calm, so that the next owner need not wait for them.

use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::hold::hold;
use super::part::Part;
use super::{STOP, Shard, spawn};
use crate::domain::{Partition, Timestamp};
use crate::hub::lease::Phase;
use crate::link::{Input, retry_while_unavailable};
use crate::store::{Fence, OutboxEvent};

/// How long open turns may hold up a partition that another replica should own.
const MOVE: Duration = Duration::from_secs(5);
/// How long the last writes before a release may take together.
const HOLD: Duration = Duration::from_secs(1);
/// How long it may take to write down that attempts to deliver were broken off.
const BREAK: Duration = Duration::from_secs(1);

impl Shard {
    /// Compares what is with what should be.
    pub(super) fn look(self: &Rc<Self>) {
        if self.stopping.get() {
            return;
        }
        for part in &self.parts {
            self.look_at(part);
        }
        self.read_missed();
        if self.setup.leases.is_refusing() {
            self.dismiss_readers();
        }
    }

    fn look_at(self: &Rc<Self>, part: &Rc<Part>) {
        let leases = &self.setup.leases;
        let should = leases.state(part.partition);
        match (part.fence.get(), should) {
            (Some(fence), should) if should.is_none_or(|(should, _)| should != fence) => {
                self.lose(part, fence);
            }
            (Some(fence), Some((_, phase))) if phase != Phase::Owned && !part.draining.get() => {
                part.draining.set(true);
                let (shard, part) = (Rc::clone(self), Rc::clone(part));
                spawn(async move { shard.drain(&part, fence, phase).await });
            }
            (None, Some((fence, Phase::Owned))) if !part.clearing.get() => self.own(part, fence),
            (None, Some((fence, _))) if !part.clearing.get() && !leases.is_calm(part.partition, fence) => {
                leases.calm(part.partition, fence);
            }
            _ => {}
        }
        let sure = part.fence.get().is_some_and(|fence| leases.is_sure(part.partition, fence));
        if sure != part.sure.replace(sure) {
            part.tell(|| Input::Tick);
        }
    }

    /// The partition is ours: goes on with what is open in it, and keeps links to bots that may still be speaking.
    fn own(self: &Rc<Self>, part: &Rc<Part>, fence: Fence) {
        part.fence.set(Some(fence));
        let (shard, part) = (Rc::clone(self), Rc::clone(part));
        spawn(async move {
            // News stand in the order in which they are first told, however long they wait: before all else.
            let told = shard.setup.news.tell(OutboxEvent::Owned(part.partition, fence));
            let begun = async {
                let ask = async || shard.setup.store.ready(part.partition, fence, true).await;
                match retry_while_unavailable("ready", ask).await {
                    Ok(ready) => shard.start_all(&part, fence, ready).await,
                    Err(_) => shard.setup.leases.doubt(part.partition, fence),
                }
                shard.read_partition(part.partition).await;
            };
            tokio::join!(told, begun);
        });
    }

    /// The partition is no longer ours: everything of it goes, without a word. Who waits goes on waiting.
    fn lose(self: &Rc<Self>, part: &Rc<Part>, fence: Fence) {
        part.fence.set(None);
        part.draining.set(false);
        part.clearing.set(!part.is_empty());
        let (shard, part) = (Rc::clone(self), Rc::clone(part));
        spawn(async move {
            let told = shard.setup.news.tell(OutboxEvent::Lost(part.partition, fence));
            let cleared = async {
                if part.clearing.get() {
                    part.stop(STOP).await;
                    part.clearing.set(false);
                    shard.setup.leases.wake(part.partition);
                }
                shard.read_partition(part.partition).await;
            };
            tokio::join!(told, cleared);
        });
    }

    /// Finishes what is open in the partition, within limits, and says then that it can be released.
    async fn drain(&self, part: &Part, fence: Fence, phase: Phase) {
        let (began, since) = (Instant::now(), self.clock.now());
        let leases = &self.setup.leases;
        part.tell(|| Input::Drain);
        if phase == Phase::Leaving {
            part.emptied().await;
        } else if timeout(MOVE, part.emptied()).await.is_err()
            && leases.state(part.partition) == Some((fence, Phase::Leaving))
        {
            // Meanwhile the whole replica goes, which gives turns more time.
            part.emptied().await;
        }
        if part.fence.get() != Some(fence) {
            return;
        }
        let cut = part.stop(STOP).await;
        if cut > 0 {
            warn!(partition = %part.partition, cut, "conversations did not stop in time; their sockets are cut");
        }
        let held = timeout(HOLD, self.hold_heads(part, fence, since));
        let (held, ()) = tokio::join!(held, self.end_attempts(part.partition, fence, began + MOVE));
        if held.is_err() {
            debug!(partition = %part.partition, "heads go over with the time they have used up");
        }
        if part.fence.get() == Some(fence) && !self.stopping.get() {
            part.fence.set(None);
            part.draining.set(false);
            leases.calm(part.partition, fence);
            self.read_partition(part.partition).await;
        }
    }

    /// Lets the attempts to deliver end that are in flight in the partition; nothing more is begun. One that moves away
    /// has until `moved_by`, where the whole replica goes as long as it stays.
    async fn end_attempts(&self, partition: Partition, fence: Fence, moved_by: Instant) {
        let leases = &self.setup.leases;
        let phase = leases.state(partition).map(|(_, phase)| phase);
        let by =
            if phase == Some(Phase::Leaving) { leases.gone_by().checked_sub(BREAK) } else { Some(moved_by) };
        let by = by.into_iter().fold(Instant::now(), Instant::max);
        let (done, ended) = oneshot::channel();
        let ending = async {
            self.setup.news.tell(OutboxEvent::Releasing { partition, fence, by, done }).await;
            // Whoever is gone has nothing in flight.
            ended.await.ok();
        };
        if timeout_at(by + BREAK, ending).await.is_err() {
            warn!(%partition, "attempts to deliver may still be in flight; the next owner waits for their time");
        }
    }

    /// The time of a drain does not count towards the deadline of a queued head.
    async fn hold_heads(&self, part: &Part, fence: Fence, since: Timestamp) {
        let Ok(ready) = self.setup.store.ready(part.partition, fence, false).await else { return };
        stream::iter(ready)
            .for_each_concurrent(16, async |conversation| {
                if let Err(error) = hold(&self.setup.store, fence, &conversation, since).await {
                    debug!(partition = %part.partition, %error, "a head's time could not be stopped");
                }
            })
            .await;
    }
}
