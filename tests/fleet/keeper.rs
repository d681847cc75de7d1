//! What a replica knows of the fleet and of its leases. What follows from it is the hub's decision; this feeds it
//! and keeps the leases in the way in which the hub's keeper does.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use rtm_bridge::domain::Partition;
use rtm_bridge::hub::{
    Assignment, ClusterView, PartitionStatus, RebalanceAction, StoreContact, plan_rebalance,
};
use rtm_bridge::store::{
    ClaimMode, ClaimResult, DrainReason, Fence, FleetStatus, Incarnation, Ownership, ReplicaIdentity,
    StoreError,
};

use super::LEASE;
use super::store::Ask;

/// So long open turns may hold up a partition that another replica should own.
const MOVE: u64 = 5000;
const LEASE_TIME: Duration = Duration::from_millis(LEASE);
/// A lease is sure so long after its renewal was sent.
const SURE: u64 = LEASE * 2 / 3;

/// What a keeper wants done.
#[derive(Debug)]
pub(super) enum Want {
    Claim(Partition, ClaimMode),
    /// Nothing more is begun for it.
    Drain(Partition),
    /// What is still in memory of it ends.
    Stop(Partition),
    /// It is given back: nothing of it is in memory.
    Release(Partition, Fence),
}

#[derive(Debug, Clone, Copy)]
struct Held {
    fence: Fence,
    sure_until: u64,
    /// A renewal is on its way.
    renewing: bool,
    drain: Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Since(u64),
    Stopping,
    /// The store was asked to take it back.
    Released,
}

/// One replica's.
#[derive(Debug)]
pub(super) struct Keeper {
    me: Incarnation,
    held: BTreeMap<Partition, Held>,
    standings: Vec<PartitionStatus>,
    deal: Rc<Assignment>,
    contact: StoreContact,
    claiming: bool,
    leaving: bool,
    /// There was nothing to plan_rebalance, and nothing has changed since.
    idle: bool,
}

impl Keeper {
    pub(super) fn new(me: Incarnation, partitions: &[Partition]) -> Self {
        // Only some of the partitions are played; to the others there is nothing to do.
        let fence = Fence { incarnation: me, epoch: 0 };
        let ownership = Ownership::Draining(fence, DrainReason::Shutdown);
        let idle = PartitionStatus { ownership, failed_at: None };
        let mut standings = vec![idle; Partition::COUNT];
        for partition in partitions {
            standings[partition.index()] = PartitionStatus::default();
        }
        Self {
            me,
            held: BTreeMap::new(),
            standings,
            deal: Rc::default(),
            contact: StoreContact::default(),
            claiming: false,
            leaving: false,
            idle: false,
        }
    }

    pub(super) fn on_fleet(&mut self, now: u64, fleet: Result<FleetStatus, StoreError>) {
        let Ok(fleet) = fleet else {
            self.contact.broke();
            self.idle = false;
            return;
        };
        let since = self.contact.since();
        self.contact.answered(Duration::from_millis(now), LEASE_TIME);
        let deal = deal(&fleet.live);
        self.idle &= since == self.contact.since() && Rc::ptr_eq(&deal, &self.deal);
        self.deal = deal;
    }

    pub(super) fn on_claims(&mut self, sent: u64, claims: &[(Partition, ClaimResult)]) {
        self.claiming = false;
        for &(partition, claim) in claims {
            if let ClaimResult::Yours { fence, .. } = claim {
                let held = Held { fence, sure_until: sent + SURE, renewing: false, drain: Drain::No };
                self.idle = false;
                self.held.insert(partition, held);
                self.standings[partition.index()].ownership = Ownership::Active(fence);
            }
        }
    }

    /// A renewal was answered. The answer is whether the partition is lost.
    pub(super) fn on_renewed(
        &mut self,
        sent: u64,
        partition: Partition,
        fence: Fence,
        answer: Result<(), StoreError>,
    ) -> bool {
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.fence == fence) else {
            return false;
        };
        held.renewing = false;
        match answer {
            Ok(()) => held.sure_until = held.sure_until.max(sent + SURE),
            Err(error) if error.is_fenced() => {
                self.let_go(partition);
                return true;
            }
            Err(_) => {}
        }
        false
    }

    pub(super) fn on_released(&mut self, partition: Partition, fence: Fence, done: bool) {
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.fence == fence) else { return };
        if done {
            self.let_go(partition);
        } else {
            held.drain = Drain::Stopping;
        }
    }

    /// The store did not answer for these.
    pub(super) fn on_trouble(&mut self, ask: &Ask, now: u64) {
        let troubled: Vec<Partition> = match ask {
            Ask::Claim(claims, _) => {
                self.claiming = false;
                claims.iter().map(|(partition, _)| *partition).collect()
            }
            Ask::Renew(leases) => leases.iter().map(|(partition, _)| *partition).collect(),
            _ => Vec::new(),
        };
        for partition in troubled {
            self.idle = false;
            self.standings[partition.index()].failed_at = Some(Duration::from_millis(now));
            if let Some(held) = self.held.get_mut(&partition) {
                held.renewing = false;
            }
        }
    }

    fn let_go(&mut self, partition: Partition) {
        self.idle = false;
        self.held.remove(&partition);
        self.standings[partition.index()].ownership = Ownership::None;
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.idle = false;
    }

    pub(super) fn fence(&self, partition: Partition) -> Option<Fence> {
        self.held.get(&partition).map(|held| held.fence)
    }

    /// Whether it may be sent and connected for a partition at this time.
    pub(super) fn may_act(&self, partition: Partition, fence: Fence, now: u64) -> bool {
        self.held.get(&partition).is_some_and(|held| held.fence == fence && now < held.sure_until)
    }

    pub(super) fn is_draining(&self, partition: Partition) -> bool {
        self.held.get(&partition).is_some_and(|held| held.drain != Drain::No)
    }

    pub(super) fn held(&self) -> Vec<(Partition, Fence)> {
        self.held.iter().map(|(&partition, held)| (partition, held.fence)).collect()
    }

    /// Leases that are to be renewed now: those whose last renewal was sent a third of a lease ago; all of them
    /// where something is doubted.
    pub(super) fn due(&mut self, now: u64, doubt: bool) -> Vec<(Partition, Fence)> {
        let mut due = Vec::new();
        for (&partition, held) in &mut self.held {
            let renewed_at = held.sure_until.saturating_sub(SURE);
            if !held.renewing && (doubt || now.saturating_sub(renewed_at) >= LEASE / 3) {
                held.renewing = true;
                due.push((partition, held.fence));
            }
        }
        due
    }

    /// What is to be done now. `is_empty` tells whether nothing of a partition is in memory.
    pub(super) fn wants(&mut self, now: u64, is_empty: impl Fn(Partition) -> bool) -> Vec<Want> {
        let mut wants = Vec::new();
        for (&partition, held) in &mut self.held {
            match held.drain {
                Drain::Since(_) | Drain::Stopping if is_empty(partition) => {
                    held.drain = Drain::Released;
                    wants.push(Want::Release(partition, held.fence));
                }
                Drain::Since(since) if !self.leaving && now >= since + MOVE => {
                    held.drain = Drain::Stopping;
                    wants.push(Want::Stop(partition));
                }
                Drain::No | Drain::Since(_) | Drain::Stopping | Drain::Released => {}
            }
        }
        // One round of claims at a time.
        if self.idle || self.claiming && !self.leaving {
            return wants;
        }
        let steps = plan_rebalance(&ClusterView {
            me: self.me,
            assignment: &self.deal,
            leaving: self.leaving,
            contact: self.contact.since(),
            now: Duration::from_millis(now),
            lease: LEASE_TIME,
            partitions: &self.standings,
        });
        self.idle = steps.is_empty();
        for step in steps {
            match step {
                RebalanceAction::Claim { partition, claiming } => {
                    self.claiming = true;
                    wants.push(Want::Claim(partition, claiming));
                }
                RebalanceAction::Drain { partition } => {
                    if let Some(held) = self.held.get_mut(&partition) {
                        held.drain = Drain::Since(now);
                        let draining = Ownership::Draining(held.fence, DrainReason::Rebalance);
                        self.standings[partition.index()].ownership = draining;
                    }
                    wants.push(Want::Drain(partition));
                }
            }
        }
        wants
    }
}

thread_local! {
    static DEALS: RefCell<HashMap<Vec<ReplicaIdentity>, Rc<Assignment>>> = RefCell::default();
}

/// The deal over these; kept, for it is the same in many runs and takes a hash per replica and partition.
pub(super) fn deal(live: &[ReplicaIdentity]) -> Rc<Assignment> {
    let mut live = live.to_vec();
    live.sort();
    DEALS.with_borrow_mut(|deals| {
        Rc::clone(deals.entry(live).or_insert_with_key(|live| Rc::new(Assignment::over(live))))
    })
}
