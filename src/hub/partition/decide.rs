//! What a replica has to do to come from what it has to what it should have.

use std::time::Duration;

use super::Deal;
use crate::domain::Partition;
use crate::store::{ClaimMode, Incarnation};

/// What a replica has of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tenure {
    /// Nothing, as far as it knows.
    #[default]
    Out,
    /// The lease; it works.
    Owned,
    /// The lease; it finishes what is open, and releases it then.
    Draining,
}

/// How a replica stands to one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it has of it.
    pub tenure: Tenure,
    /// When the store last failed to answer for this partition.
    pub troubled: Option<Duration>,
}

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Who decides.
    pub me: Incarnation,
    /// Who should own what, over the replicas that were live at the last heartbeat.
    pub deal: &'a Deal,
    /// Whether this replica goes away.
    pub leaving: bool,
    /// Since when the store has answered without a break; none while it does not.
    pub contact: Option<Duration>,
    /// Now, on the clock of `contact` and [`Standing::troubled`].
    pub now: Duration,
    /// How long a lease lives without renewal.
    pub lease: Duration,
    /// By [`Partition::index`]; what is missing counts as [`Standing::default`].
    pub standings: &'a [Standing],
}

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Try to take the partition.
    Claim {
        /// Which.
        partition: Partition,
        /// Whether also from an owner whose lease has run out.
        claiming: ClaimMode,
    },
    /// Finish what is open in it, then release it.
    Drain {
        /// Which.
        partition: Partition,
    },
}

/// What the replica has to do now.
///
/// It claims what it should own and drains what another live replica should own. What is free may be claimed at
/// once. What has run out is claimed only after a whole lease of unbroken contact with the store: an outage of
/// the store lets every lease run out, and each owner gets that long to renew first. A replica without contact
/// does nothing: it does not know who lives.
pub fn decide(view: &View<'_>) -> Vec<Step> {
    let standing = |partition: Partition| view.standings.get(partition.index()).copied().unwrap_or_default();
    if view.leaving {
        return Partition::all()
            .filter(|&partition| standing(partition).tenure == Tenure::Owned)
            .map(|partition| Step::Drain { partition })
            .collect();
    }
    let Some(contact) = view.contact else { return Vec::new() };
    let step = |partition| {
        let mine = view.deal.owner(partition)? == view.me;
        let standing = standing(partition);
        match standing.tenure {
            Tenure::Out if mine => {
                let since = standing.troubled.map_or(contact, |troubled| troubled.max(contact));
                let patient = view.now.saturating_sub(since) >= view.lease;
                let claiming = if patient { ClaimMode::Expired } else { ClaimMode::Free };
                Some(Step::Claim { partition, claiming })
            }
            Tenure::Owned if !mine => Some(Step::Drain { partition }),
            Tenure::Out | Tenure::Owned | Tenure::Draining => None,
        }
    };
    Partition::all().filter_map(step).collect()
}

/// How long the store has answered a replica without a break.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact(Option<Spell>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spell {
    since: Duration,
    last: Duration,
}

impl Contact {
    /// The store answered. A silence of half a lease before it breaks the contact too: a replica that stood
    /// still noticed no outage.
    pub fn answered(&mut self, now: Duration, lease: Duration) {
        let since = match self.0 {
            Some(spell) if now.saturating_sub(spell.last) <= lease / 2 => spell.since,
            _ => now,
        };
        self.0 = Some(Spell { since, last: now });
    }

    /// The store did not answer, or refused.
    pub fn broke(&mut self) {
        self.0 = None;
    }

    /// Since when it has answered.
    pub fn since(&self) -> Option<Duration> {
        self.0.map(|spell| spell.since)
    }
}
