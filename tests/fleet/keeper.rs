//! What a replica knows of leases, and what follows: the one place where the simulation meets the hub's decisions.

use std::collections::BTreeMap;

use rtm_bridge::domain::Partition;
use rtm_bridge::store::{Claim, Claiming, Fence, Fleet, Incarnation, Peer, StoreError};

use super::LEASE;
use super::store::Ask;

/// A rebalance waits this long for open turns.
const PATIENCE: u64 = 5000;
const AGAIN: u64 = 1000;

/// What a keeper wants done.
#[derive(Debug)]
pub(super) enum Step {
    Claim(Partition, Claiming),
    /// Nothing more is begun for it.
    Drain(Partition),
    /// Its sockets are closed, then it is given back.
    Release(Partition, Fence),
}

#[derive(Debug, Clone, Copy)]
enum Plot {
    Not { asked: Option<u64> },
    Held { fence: Fence, sure_until: u64, draining: Option<u64> },
}

/// One replica's.
#[derive(Debug)]
pub(super) struct Keeper {
    me: Peer,
    plots: BTreeMap<Partition, Plot>,
    live: Vec<Peer>,
    contact_since: Option<u64>,
    leaving: bool,
}

impl Keeper {
    pub(super) fn new(me: Peer, partitions: impl Iterator<Item = Partition>) -> Self {
        let plots = partitions.map(|partition| (partition, Plot::Not { asked: None })).collect();
        Self { me, plots, live: Vec::new(), contact_since: None, leaving: false }
    }

    pub(super) fn on_fleet(&mut self, sent: u64, _now: u64, fleet: Result<Fleet, StoreError>) {
        match fleet {
            Ok(fleet) => {
                self.live = fleet.live;
                self.contact_since.get_or_insert(sent);
            }
            Err(_) => self.contact_since = None,
        }
    }

    pub(super) fn on_claim(&mut self, sent: u64, partition: Partition, claim: Claim) {
        if let Claim::Yours { fence, .. } = claim
            && let Some(plot) = self.plots.get_mut(&partition)
        {
            *plot = Plot::Held { fence, sure_until: sent + LEASE * 2 / 3, draining: None };
        }
    }

    /// A renewal was answered. The answer is whether the partition was lost.
    pub(super) fn on_renewed(
        &mut self,
        sent: u64,
        partition: Partition,
        fence: Fence,
        answer: Result<(), StoreError>,
    ) -> bool {
        let Some(plot) = self.plots.get_mut(&partition) else { return false };
        let Plot::Held { fence: held, sure_until, .. } = plot else { return false };
        if *held != fence {
            return false;
        }
        match answer {
            Ok(()) => *sure_until = (*sure_until).max(sent + LEASE * 2 / 3),
            Err(error) if error.is_fenced() => {
                *plot = Plot::Not { asked: None };
                return true;
            }
            Err(_) => {}
        }
        false
    }

    pub(super) fn on_trouble(&mut self, _ask: &Ask, _now: u64) {}

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn fence(&self, partition: Partition) -> Option<Fence> {
        match self.plots.get(&partition)? {
            Plot::Held { fence, .. } => Some(*fence),
            Plot::Not { .. } => None,
        }
    }

    /// Whether it may be sent and connected for a partition at this time.
    pub(super) fn may_act(&self, partition: Partition, fence: Fence, now: u64) -> bool {
        match self.plots.get(&partition) {
            Some(Plot::Held { fence: held, sure_until, .. }) => *held == fence && now < *sure_until,
            _ => false,
        }
    }

    pub(super) fn is_draining(&self, partition: Partition) -> bool {
        matches!(self.plots.get(&partition), Some(Plot::Held { draining: Some(_), .. }))
    }

    pub(super) fn held(&self) -> Vec<(Partition, Fence)> {
        self.plots.keys().filter_map(|&partition| Some((partition, self.fence(partition)?))).collect()
    }

    /// What is to be done now. `is_calm` tells whether nothing is in flight for a partition.
    pub(super) fn steps(&mut self, now: u64, is_calm: impl Fn(Partition) -> bool) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(contact_since) = self.contact_since else { return steps };
        for (&partition, plot) in &mut self.plots {
            let mine = !self.leaving && owner(&self.live, partition) == Some(self.me.incarnation);
            match plot {
                Plot::Held { fence, draining: Some(since), .. } => {
                    if is_calm(partition) || now >= *since + PATIENCE {
                        steps.push(Step::Release(partition, *fence));
                        *plot = Plot::Not { asked: None };
                    }
                }
                Plot::Held { draining, .. } if !mine => {
                    *draining = Some(now);
                    steps.push(Step::Drain(partition));
                }
                Plot::Not { asked } if mine && asked.is_none_or(|at| now >= at + AGAIN) => {
                    *asked = Some(now);
                    let expired = now >= contact_since + LEASE;
                    let claiming = if expired { Claiming::Expired } else { Claiming::Free };
                    steps.push(Step::Claim(partition, claiming));
                }
                Plot::Held { .. } | Plot::Not { .. } => {}
            }
        }
        steps
    }
}

/// Who should own a partition: rendezvous hashing by the replicas' names.
pub(super) fn owner(live: &[Peer], partition: Partition) -> Option<Incarnation> {
    let weight = |peer: &Peer| {
        let seed = u64::try_from(partition.index()).unwrap_or_default();
        let mixed = peer.name.bytes().fold(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        });
        mixed ^ (mixed >> 31)
    };
    live.iter().max_by_key(|peer| (weight(peer), peer.incarnation)).map(|peer| peer.incarnation)
}
