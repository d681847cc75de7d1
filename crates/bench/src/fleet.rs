//! Replicas of the bridge over one store, and who of them owns which user.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{cmd, pipe};
use rtm_bridge::domain::{BotName, ConversationId, Partition, UserId};

use crate::child::Child;
use crate::failure::Failure;
use crate::setup::{self, Terms};
use crate::store::Store;

/// Longer than any fleet needs to share its partitions out, with short leases and with long ones.
const PATIENCE: Duration = Duration::from_mins(1);
const GLANCE: Duration = Duration::from_millis(50);
/// Who has owned all of its own for that long is done with moving.
const QUIET: Duration = Duration::from_millis(1500);

/// Replicas that share a store.
pub(crate) struct Fleet {
    binary: PathBuf,
    terms: Terms,
    pub(crate) replicas: Vec<Child>,
    /// The incarnation of each replica, as leases name it.
    pub(crate) incarnations: Vec<String>,
}

impl Fleet {
    /// One replica with the memory store.
    pub(crate) async fn alone(binary: &Path, sandbox: SocketAddr) -> Result<Self, Failure> {
        Self::alone_on(binary, Terms::new(sandbox)).await
    }

    /// The same, on these terms.
    pub(crate) async fn alone_on(binary: &Path, terms: Terms) -> Result<Self, Failure> {
        let replicas = vec![setup::bridge(binary, &terms).await?];
        Ok(Self { binary: binary.to_owned(), terms, replicas, incarnations: Vec::new() })
    }

    /// So many replicas with this Redis, once each has its part.
    pub(crate) async fn start(
        binary: &Path,
        terms: Terms,
        store: &Store,
        count: usize,
    ) -> Result<Self, Failure> {
        let (replicas, incarnations) = (Vec::new(), Vec::new());
        let mut fleet = Self { binary: binary.to_owned(), terms, replicas, incarnations };
        for _ in 0..count {
            fleet.join(store).await?;
        }
        fleet.settled(store).await?;
        Ok(fleet)
    }

    /// One more replica.
    pub(crate) async fn join(&mut self, store: &Store) -> Result<(), Failure> {
        let before = heartbeats(store).await?;
        self.replicas.push(setup::bridge(&self.binary, &self.terms).await?);
        let began = Instant::now();
        loop {
            if let Some(new) = heartbeats(store).await?.difference(&before).next() {
                self.incarnations.push(new.clone());
                return Ok(());
            }
            wait(began, "the heartbeat of a new replica").await?;
        }
    }

    /// The replica that has been there longest, out of the fleet; it still runs.
    pub(crate) fn part(&mut self) -> (Child, String) {
        (self.replicas.remove(0), self.incarnations.remove(0))
    }

    /// Waits until all partitions are owned, by all replicas and nobody else, and none moves.
    pub(crate) async fn settled(&self, store: &Store) -> Result<(), Failure> {
        let wanted: BTreeSet<&String> = self.incarnations.iter().collect();
        let began = Instant::now();
        let (mut last, mut since) = (Vec::new(), began);
        loop {
            let now = owners(store).await?;
            if now != last || now.iter().flatten().collect::<BTreeSet<_>>() != wanted || now.contains(&None) {
                since = Instant::now();
            }
            if since.elapsed() >= QUIET {
                return Ok(());
            }
            last = now;
            wait(began, "an owner of every partition").await?;
        }
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.address).collect()
    }
}

async fn wait(began: Instant, what: &'static str) -> Result<(), Failure> {
    if began.elapsed() > PATIENCE {
        return Err(Failure::Missed { what, after: began.elapsed() });
    }
    tokio::time::sleep(GLANCE).await;
    Ok(())
}

/// Users of this group whose conversations this incarnation owns.
pub(crate) async fn users_of(
    store: &Store,
    incarnation: &str,
    group: &str,
    users: usize,
) -> Result<Vec<usize>, Failure> {
    let owners = owners(store).await?;
    let bot = BotName::new(setup::BOT)?;
    let mut owned = Vec::new();
    for user in 0..users {
        let name = UserId::new(&setup::user(group, user))?;
        let partition = Partition::of(&ConversationId::new(bot.clone(), name)).index();
        if owners.get(partition).and_then(Option::as_deref) == Some(incarnation) {
            owned.push(user);
        }
    }
    Ok(owned)
}

/// The incarnations whose heartbeats are known.
async fn heartbeats(store: &Store) -> Result<BTreeSet<String>, Failure> {
    let key = setup::heartbeats();
    let members: Vec<String> =
        cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut store.connection()).await?;
    let incarnation = |member: String| member.chars().take(setup::INCARNATION).collect();
    Ok(members.into_iter().map(incarnation).collect())
}

/// The owner of each partition.
async fn owners(store: &Store) -> Result<Vec<Option<String>>, Failure> {
    let mut all = pipe();
    for partition in Partition::all() {
        all.hget(setup::lease(partition), "o");
    }
    let owners: Vec<Option<String>> = all.query_async(&mut store.connection()).await?;
    Ok(owners.into_iter().map(|owner| owner.filter(|owner| !owner.is_empty())).collect())
}
