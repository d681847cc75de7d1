//! The assignment of partitions to replicas, by rendezvous hashing.
//!
//! Every replica has a score for every partition, and the highest score gets it. A new replica takes only the partitions
//! that it wins, and a replica that leaves gives up only its own. No other partition moves.

use crate::domain::{Partition, Sha256};
use crate::store::{Incarnation, ReplicaIdentity};

/// The replica that should own each partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment(Vec<Incarnation>);

impl Assignment {
    /// Assigns all partitions to these replicas. Their order does not matter.
    pub fn over(live: &[ReplicaIdentity]) -> Self {
        let seeded: Vec<_> = live
            .iter()
            .map(|peer| {
                let mut hash = Sha256::default();
                hash.update(peer.name.as_bytes());
                hash.update([0]);
                (hash, peer.incarnation)
            })
            .collect();
        let owner = |partition| {
            seeded
                .iter()
                .map(|(seed, incarnation)| (score(seed, partition), *incarnation))
                .max()
                .map(|(_, incarnation)| incarnation)
        };
        Self(Partition::all().filter_map(owner).collect())
    }

    /// Returns the replica that should own the partition, or `None` without live replicas. Of two replicas with one
    /// name, the higher incarnation wins.
    pub fn owner(&self, partition: Partition) -> Option<Incarnation> {
        self.0.get(partition.index()).copied()
    }
}

/// Returns the first 8 bytes of SHA-256(name NUL partition). The score must not change between versions: replicas with
/// different scores would hand a partition back and forth.
fn score(seed: &Sha256, partition: Partition) -> u64 {
    let mut hash = seed.clone();
    hash.update([u8::try_from(partition.index()).unwrap_or_default()]);
    let digest = hash.finish();
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
