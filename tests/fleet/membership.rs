//! A model of the membership thread: the leases of a replica and its view of the fleet. The rebalance plan is the hub's.

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
use super::store::StoreRequest;

/// The time for which open turns may delay a handoff.
const HANDOFF: u64 = 5000;
const LEASE_TIME: Duration = Duration::from_millis(LEASE);
/// The time for which a lease is valid after its renewal was sent.
const LEASE_VALID: u64 = LEASE * 2 / 3;

/// An action that the model asks for.
#[derive(Debug)]
pub(super) enum MembershipAction {
    Claim(Partition, ClaimMode),
    /// Starts no more work for the partition.
    Drain(Partition),
    /// Stops the conversations that are still in memory.
    Stop(Partition),
    /// Releases the partition, which has no conversation in memory.
    Release(Partition, Fence),
}

#[derive(Debug, Clone, Copy)]
struct HeldLease {
    fence: Fence,
    valid_until: u64,
    /// A renewal is in flight.
    renewing: bool,
    drain: DrainPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DrainPhase {
    No,
    Since(u64),
    Stopping,
    /// The release is in flight.
    Released,
}

/// The membership of one replica.
#[derive(Debug)]
pub(super) struct MembershipModel {
    me: Incarnation,
    held: BTreeMap<Partition, HeldLease>,
    partitions: Vec<PartitionStatus>,
    assignment: Rc<Assignment>,
    contact: StoreContact,
    claiming: bool,
    leaving: bool,
    /// The last plan was empty, and its input is unchanged.
    idle: bool,
}

impl MembershipModel {
    pub(super) fn new(me: Incarnation, simulated: &[Partition]) -> Self {
        // The run simulates some partitions only. The plan has no action for one that is draining.
        let fence = Fence { incarnation: me, epoch: 0 };
        let ownership = Ownership::Draining(fence, DrainReason::Shutdown);
        let idle = PartitionStatus { ownership, failed_at: None };
        let mut partitions = vec![idle; Partition::COUNT];
        for partition in simulated {
            partitions[partition.index()] = PartitionStatus::default();
        }
        Self {
            me,
            held: BTreeMap::new(),
            partitions,
            assignment: Rc::default(),
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
        let assignment = assignment(&fleet.live);
        self.idle &= since == self.contact.since() && Rc::ptr_eq(&assignment, &self.assignment);
        self.assignment = assignment;
    }

    pub(super) fn on_claims(&mut self, sent: u64, claims: &[(Partition, ClaimResult)]) {
        self.claiming = false;
        for &(partition, claim) in claims {
            if let ClaimResult::Yours { fence, .. } = claim {
                let held = HeldLease {
                    fence,
                    valid_until: sent + LEASE_VALID,
                    renewing: false,
                    drain: DrainPhase::No,
                };
                self.idle = false;
                self.held.insert(partition, held);
                self.partitions[partition.index()].ownership = Ownership::Active(fence);
            }
        }
    }

    /// Handles the answer to a renewal. Returns whether the partition is lost.
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
            Ok(()) => held.valid_until = held.valid_until.max(sent + LEASE_VALID),
            Err(error) if error.is_fenced() => {
                self.send_held(partition);
                return true;
            }
            Err(_) => {}
        }
        false
    }

    pub(super) fn on_released(&mut self, partition: Partition, fence: Fence, done: bool) {
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.fence == fence) else { return };
        if done {
            self.send_held(partition);
        } else {
            held.drain = DrainPhase::Stopping;
        }
    }

    /// Records a failed request for its partitions.
    pub(super) fn on_failure(&mut self, ask: &StoreRequest, now: u64) {
        let failed: Vec<Partition> = match ask {
            StoreRequest::Claim(claims, _) => {
                self.claiming = false;
                claims.iter().map(|(partition, _)| *partition).collect()
            }
            StoreRequest::Renew(leases) => leases.iter().map(|(partition, _)| *partition).collect(),
            _ => Vec::new(),
        };
        for partition in failed {
            self.idle = false;
            self.partitions[partition.index()].failed_at = Some(Duration::from_millis(now));
            if let Some(held) = self.held.get_mut(&partition) {
                held.renewing = false;
            }
        }
    }

    fn send_held(&mut self, partition: Partition) {
        self.idle = false;
        self.held.remove(&partition);
        self.partitions[partition.index()].ownership = Ownership::None;
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.idle = false;
    }

    pub(super) fn fence(&self, partition: Partition) -> Option<Fence> {
        self.held.get(&partition).map(|held| held.fence)
    }

    /// Returns whether conversations of the partition may send and connect at this time.
    pub(super) fn may_act(&self, partition: Partition, fence: Fence, now: u64) -> bool {
        self.held.get(&partition).is_some_and(|held| held.fence == fence && now < held.valid_until)
    }

    pub(super) fn is_draining(&self, partition: Partition) -> bool {
        self.held.get(&partition).is_some_and(|held| held.drain != DrainPhase::No)
    }

    pub(super) fn held(&self) -> Vec<(Partition, Fence)> {
        self.held.iter().map(|(&partition, held)| (partition, held.fence)).collect()
    }

    /// Returns the leases whose last renewal was sent a third of a lease ago, or all leases if one is suspect.
    pub(super) fn due(&mut self, now: u64, suspect: bool) -> Vec<(Partition, Fence)> {
        let mut due = Vec::new();
        for (&partition, held) in &mut self.held {
            let renewed_at = held.valid_until.saturating_sub(LEASE_VALID);
            if !held.renewing && (suspect || now.saturating_sub(renewed_at) >= LEASE / 3) {
                held.renewing = true;
                due.push((partition, held.fence));
            }
        }
        due
    }

    /// Returns the actions that are due. `is_empty` says whether a partition has no conversation in memory.
    pub(super) fn actions(
        &mut self,
        now: u64,
        is_empty: impl Fn(Partition) -> bool,
    ) -> Vec<MembershipAction> {
        let mut actions = Vec::new();
        for (&partition, held) in &mut self.held {
            match held.drain {
                DrainPhase::Since(_) | DrainPhase::Stopping if is_empty(partition) => {
                    held.drain = DrainPhase::Released;
                    actions.push(MembershipAction::Release(partition, held.fence));
                }
                DrainPhase::Since(since) if !self.leaving && now >= since + HANDOFF => {
                    held.drain = DrainPhase::Stopping;
                    actions.push(MembershipAction::Stop(partition));
                }
                DrainPhase::No | DrainPhase::Since(_) | DrainPhase::Stopping | DrainPhase::Released => {}
            }
        }
        // There is one round of claims at a time.
        if self.idle || self.claiming && !self.leaving {
            return actions;
        }
        let planned = plan_rebalance(&ClusterView {
            me: self.me,
            assignment: &self.assignment,
            leaving: self.leaving,
            contact: self.contact.since(),
            now: Duration::from_millis(now),
            lease: LEASE_TIME,
            partitions: &self.partitions,
        });
        self.idle = planned.is_empty();
        for action in planned {
            match action {
                RebalanceAction::Claim { partition, claiming } => {
                    self.claiming = true;
                    actions.push(MembershipAction::Claim(partition, claiming));
                }
                RebalanceAction::Drain { partition } => {
                    if let Some(held) = self.held.get_mut(&partition) {
                        held.drain = DrainPhase::Since(now);
                        let draining = Ownership::Draining(held.fence, DrainReason::Rebalance);
                        self.partitions[partition.index()].ownership = draining;
                    }
                    actions.push(MembershipAction::Drain(partition));
                }
            }
        }
        actions
    }
}

thread_local! {
    static ASSIGNMENTS: RefCell<HashMap<Vec<ReplicaIdentity>, Rc<Assignment>>> = RefCell::default();
}

/// Returns the assignment over these replicas. The cache saves a hash per replica and partition in many runs.
pub(super) fn assignment(live: &[ReplicaIdentity]) -> Rc<Assignment> {
    let mut live = live.to_vec();
    live.sort();
    ASSIGNMENTS.with_borrow_mut(|assignments| {
        Rc::clone(assignments.entry(live).or_insert_with_key(|live| Rc::new(Assignment::over(live))))
    })
}
