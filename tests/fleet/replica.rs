//! One replica: its clock, its leases, its conversations, who waits there.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, MessageId, Partition, Timestamp};
use rtm_bridge::link::{Input, Machine};
use rtm_bridge::store::{Fence, Incarnation, ReplicaIdentity};

use super::keeper::Keeper;
use super::world::Event;

/// A place where a replica may run, and the one that does.
pub(super) struct Slot {
    pub(super) name: Box<str>,
    /// Rises with every start and every death: what belongs to an earlier life means nothing.
    pub(super) life: u32,
    pub(super) replica: Option<Replica>,
    /// While it does nothing: what would have happened to it.
    pub(super) paused: Option<Vec<Event>>,
    /// Whether it does not reach the store.
    pub(super) cut: bool,
    /// How fast its clock goes, in millionths too fast.
    drift: i64,
    /// How long its clock stood still in all.
    pub(super) stood_still: u64,
}

/// A running replica.
pub(super) struct Replica {
    pub(super) incarnation: Incarnation,
    pub(super) keeper: Keeper,
    pub(super) conversations: BTreeMap<usize, Conversation>,
    pub(super) waiters: BTreeMap<MessageId, Vec<usize>>,
    /// What it last heard of the store's time, and when by its own clock.
    told: (Timestamp, u64),
    /// Since when, by its own clock, it goes.
    pub(super) leaving: Option<u64>,
    /// Its clock stood still and it has not heard of the store since: it may believe in a lease that ran out.
    /// From when on, by its own clock.
    pub(super) deceived: Option<u64>,
    /// The next send is cut in two by a pause of this length.
    pub(super) trap: Option<u64>,
    pub(super) echo: u64,
    pub(super) echoed: u64,
    /// When it began.
    pub(super) since: u64,
}

/// A conversation in a replica's memory.
pub(super) struct Conversation {
    /// Tells this one from others of the same user.
    pub(super) number: u64,
    pub(super) fence: Fence,
    pub(super) partition: Partition,
    /// None while it is read from the store.
    pub(super) machine: Option<Machine>,
    pub(super) mail: Vec<Input>,
    /// Whether the machine was told that the lease is sure.
    pub(super) sure: bool,
    pub(super) armed: Option<Timestamp>,
    pub(super) connecting: Option<u64>,
    pub(super) socket: Option<u64>,
    /// A message whose bytes were allowed and have not gone yet.
    pub(super) in_hand: Option<Arc<AcceptedMessage>>,
}

impl Slot {
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

    /// Its own clock at this time: it may be fast or slow, and only differences mean something.
    pub(super) fn local(&self, now: u64) -> u64 {
        let run = now - self.stood_still;
        run.saturating_add_signed(run.cast_signed() * self.drift / 1_000_000)
    }

    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.replica.as_ref().map(|replica| replica.incarnation)
    }

    /// The fence that its replica holds a partition by.
    pub(super) fn fence(&self, partition: Partition) -> Option<Fence> {
        self.replica.as_ref()?.keeper.fence(partition)
    }

    pub(super) fn peer(&self, incarnation: Incarnation) -> ReplicaIdentity {
        ReplicaIdentity { name: self.name.clone(), incarnation }
    }

    /// The store's time as it knows it.
    pub(super) fn store_time(&self, now: u64) -> Timestamp {
        let Some(replica) = &self.replica else { return Timestamp::default() };
        let (told, at) = replica.told;
        told + std::time::Duration::from_millis(self.local(now).saturating_sub(at))
    }

    pub(super) fn observe(&mut self, told: Timestamp, now: u64) {
        let estimate = self.store_time(now);
        let local = self.local(now);
        if let Some(replica) = &mut self.replica
            && (told > estimate || estimate.since(told).as_millis() > 1000)
        {
            replica.told = (told, local);
        }
    }
}

impl Replica {
    pub(super) fn new(slot: &Slot, incarnation: Incarnation, partitions: &[Partition], now: u64) -> Self {
        Self {
            incarnation,
            keeper: Keeper::new(incarnation, partitions),
            conversations: BTreeMap::new(),
            waiters: BTreeMap::new(),
            // It would ask the store for its time before anything else.
            told: (Timestamp::from_millis(super::START + now), slot.local(now)),
            leaving: None,
            deceived: None,
            trap: None,
            echo: 0,
            echoed: 0,
            since: now,
        }
    }
}

impl Conversation {
    pub(super) fn new(number: u64, fence: Fence, partition: Partition) -> Self {
        Self {
            number,
            fence,
            partition,
            machine: None,
            mail: Vec::new(),
            sure: true,
            armed: None,
            connecting: None,
            socket: None,
            in_hand: None,
        }
    }
}
