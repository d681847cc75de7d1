//! The pace of handoffs: a partition is given away only as fast as its users may connect at its next owner.
//!
//! Every user of a partition that moves needs a new socket. The connect limit belongs to the bot (docs/adr/0031), so a
//! handoff that ignores it lets the next messages of these users wait, and fail. The shard therefore reserves a connect for
//! each socket before the drain begins. The next owner's connect takes the reservation's place. Meanwhile the partition
//! works here as before.

use std::rc::Rc;

use tokio::time::sleep_until;

use super::Shard;
use super::partition_state::PartitionState;
use crate::store::{DrainReason, Fence, Ownership};

impl Shard {
    /// Reserves the connects of a partition's users, then starts its drain. Partitions with sockets follow each other. In a
    /// shutdown the drain starts without the missing reservations when the time for them is over.
    pub(super) async fn hand_off(self: Rc<Self>, part: Rc<PartitionState>, fence: Fence) {
        let reserving = async {
            if part.linked().is_empty() {
                return;
            }
            let _turn = self.handoff_turn.lock().await;
            for conversation in part.linked() {
                let Some(bot) = self.bot(&conversation) else { continue };
                loop {
                    let changed = self.ownership_synced.notified();
                    let Some(reason) = self.setup.leases.wanted_drain(part.partition) else { break };
                    let (store, clock) = (&self.setup.store, &self.clock);
                    tokio::select! {
                        () = self.connect_limiter.reserve(store, clock, bot, &conversation, reason) => break,
                        // The drain may have another reason now. A repeated reservation counts once.
                        () = changed => {}
                    }
                }
            }
        };
        tokio::select! {
            () = reserving => {}
            () = self.reservations_ended(&part, fence) => {}
        }
        part.handing_off.set(false);
        let leases = &self.setup.leases;
        if leases.ownership(part.partition) == Ownership::Active(fence)
            && let Some(reason) = leases.wanted_drain(part.partition)
        {
            leases.drain(part.partition, reason);
        }
    }

    /// Returns when the drain is not wanted any more, or the time for reservations is over.
    async fn reservations_ended(&self, part: &PartitionState, fence: Fence) {
        let leases = &self.setup.leases;
        loop {
            let changed = self.ownership_synced.notified();
            if leases.ownership(part.partition) != Ownership::Active(fence) {
                return;
            }
            match leases.wanted_drain(part.partition) {
                None => return,
                Some(DrainReason::Rebalance) => changed.await,
                Some(DrainReason::Shutdown) => tokio::select! {
                    () = sleep_until(leases.reserve_deadline()) => return,
                    () = changed => {}
                },
            }
        }
    }
}
