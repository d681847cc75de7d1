//! One replica: its clock, leases, conversations and waiters.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, MessageId, Partition, Timestamp};
use rtm_bridge::link::{Input, Machine};
use rtm_bridge::store::{Fence, Incarnation, ReplicaIdentity};

use super::membership::MembershipModel;
use super::world::WorldEvent;

/// A place for a replica, and the replica that runs there.
pub(super) struct ReplicaSlot {
    pub(super) name: Box<str>,
    /// Rises with every start and every crash; events of an earlier life are ignored.
    pub(super) life: u32,
    pub(super) replica: Option<RunningReplica>,
    /// The delayed events of a pause.
    pub(super) paused: Option<Vec<WorldEvent>>,
    /// Whether the replica does not reach the store.
    pub(super) cut: bool,
    /// The drift of its clock, in millionths.
    drift: i64,
    /// The total time for which its clock stood still.
    pub(super) stood_still: u64,
}

/// A running replica.
pub(super) struct RunningReplica {
    pub(super) incarnation: Incarnation,
    pub(super) membership: MembershipModel,
    pub(super) conversations: BTreeMap<usize, LoadedConversation>,
    pub(super) waiters: BTreeMap<MessageId, Vec<usize>>,
    /// The last known time of the store, and its arrival on the replica's clock.
    last_store_time: (Timestamp, u64),
    /// The start of its shutdown, on the replica's clock.
    pub(super) leaving: Option<u64>,
    /// The end of a pause with a frozen clock, on the replica's clock. Until the next answer of the store, the replica may
    /// take an expired lease for valid.
    pub(super) stale_clock_since: Option<u64>,
    /// The length of a pause in the middle of the next send.
    pub(super) pause_in_send: Option<u64>,
    pub(super) echo: u64,
    pub(super) echoed: u64,
    /// The start time.
    pub(super) since: u64,
}

/// A conversation in a replica's memory.
pub(super) struct LoadedConversation {
    /// Distinguishes this conversation from later ones of the same user.
    pub(super) number: u64,
    pub(super) fence: Fence,
    pub(super) partition: Partition,
    /// The machine, after the conversation is loaded.
    pub(super) machine: Option<Machine>,
    pub(super) mail: Vec<Input>,
    /// The validity of the lease that the machine was last informed of.
    pub(super) lease_valid: bool,
    pub(super) armed: Option<Timestamp>,
    pub(super) connecting: Option<u64>,
    pub(super) socket: Option<u64>,
    /// A message whose send was allowed and has not started.
    pub(super) held_message: Option<Arc<AcceptedMessage>>,
}

impl ReplicaSlot {
    pub(super) fn new(index: usize, drift: i64) -> Self {
        Self {
            name: format!("replica-{index}").into(),
            life: 0,
            replica: None,
            paused: None,
            cut: false,
            drift,
            stood_still: 0,
        }
    }

    /// Returns the replica's clock, which may be fast or slow. Only differences are meaningful.
    pub(super) fn local(&self, now: u64) -> u64 {
        let run = now - self.stood_still;
        run.saturating_add_signed(run.cast_signed() * self.drift / 1_000_000)
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.replica.as_ref().map(|replica| replica.incarnation)
    }

    /// Returns the fence of a partition that its replica owns.
    pub(super) fn fence(&self, partition: Partition) -> Option<Fence> {
        self.replica.as_ref()?.membership.fence(partition)
    }

    pub(super) fn peer(&self, incarnation: Incarnation) -> ReplicaIdentity {
        ReplicaIdentity { name: self.name.clone(), incarnation }
    }

    /// Returns the replica's estimate of the store's time.
    pub(super) fn store_time(&self, now: u64) -> Timestamp {
        let Some(replica) = &self.replica else { return Timestamp::default() };
        let (last, at) = replica.last_store_time;
        last + std::time::Duration::from_millis(self.local(now).saturating_sub(at))
    }

    pub(super) fn observe(&mut self, store_time: Timestamp, now: u64) {
        let estimate = self.store_time(now);
        let local = self.local(now);
        if let Some(replica) = &mut self.replica
            && (store_time > estimate || estimate.since(store_time).as_millis() > 1000)
        {
            replica.last_store_time = (store_time, local);
        }
    }
}

impl RunningReplica {
    pub(super) fn new(
        slot: &ReplicaSlot,
        incarnation: Incarnation,
        partitions: &[Partition],
        now: u64,
    ) -> Self {
        Self {
            incarnation,
            membership: MembershipModel::new(incarnation, partitions),
            conversations: BTreeMap::new(),
            waiters: BTreeMap::new(),
            // A real replica first asks the store for its time.
            last_store_time: (Timestamp::from_millis(super::START + now), slot.local(now)),
            leaving: None,
            stale_clock_since: None,
            pause_in_send: None,
            echo: 0,
            echoed: 0,
            since: now,
        }
    }
}

impl LoadedConversation {
    pub(super) fn new(number: u64, fence: Fence, partition: Partition) -> Self {
        Self {
            number,
            fence,
            partition,
            machine: None,
            mail: Vec::new(),
            lease_valid: true,
            armed: None,
            connecting: None,
            socket: None,
            held_message: None,
        }
    }
}
