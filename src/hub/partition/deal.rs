//! Who should own what: rendezvous hashing.
//!
//! Every replica draws a number for every partition, and the highest draw has it. A replica that joins takes
//! only what it wins, one that leaves gives up only what it had; nothing else moves.

use crate::domain::{Partition, Sha256};
use crate::store::{Incarnation, ReplicaIdentity};

/// Which replica should own which partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deal(Vec<Incarnation>);

impl Deal {
    /// Deals all partitions over these replicas, in whatever order they come.
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
                .map(|(seed, incarnation)| (draw(seed, partition), *incarnation))
                .max()
                .map(|(_, incarnation)| incarnation)
        };
        Self(Partition::all().filter_map(owner).collect())
    }

    /// Who should own the partition; nobody where no replica lives. Of two replicas with one name it is the one
    /// with the higher incarnation.
    pub fn owner(&self, partition: Partition) -> Option<Incarnation> {
        self.0.get(partition.index()).copied()
    }
}

/// The first 8 bytes of SHA-256(name NUL partition). Every version must draw alike: replicas of two versions
/// that deal differently would hand a partition to and fro.
fn draw(seed: &Sha256, partition: Partition) -> u64 {
    let mut hash = seed.clone();
    hash.update([u8::try_from(partition.index()).unwrap_or_default()]);
    let digest = hash.finish();
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
