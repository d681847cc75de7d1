//! Replicas of the bridge over one store, and the owners of users.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deadpool_redis::redis::{cmd, pipe};
use rtm_bridge::domain::{BotName, ConversationId, Partition, UserId};

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::setup::{self, BridgeTerms};
use crate::store::RedisProcess;

/// Longer than the first rebalance of any fleet, with short and long leases.
const PATIENCE: Duration = Duration::from_mins(1);
const GLANCE: Duration = Duration::from_millis(50);
/// A fleet whose owners stay the same for this time is settled.
const QUIET: Duration = Duration::from_millis(1500);

/// Replicas that share a store.
pub(crate) struct BridgeFleet {
    binary: PathBuf,
    terms: BridgeTerms,
    pub(crate) replicas: Vec<ChildProcess>,
    /// The incarnation of each replica, as leases contain it.
    pub(crate) incarnations: Vec<String>,
}

impl BridgeFleet {
    /// Starts one replica with the memory store.
    pub(crate) async fn alone(binary: &Path, sandbox: SocketAddr) -> Result<Self, BenchError> {
        Self::alone_on(binary, BridgeTerms::new(sandbox)).await
    }

    /// Starts one replica with these terms.
    pub(crate) async fn alone_on(binary: &Path, terms: BridgeTerms) -> Result<Self, BenchError> {
        let replicas = vec![setup::bridge(binary, &terms).await?];
        Ok(Self { binary: binary.to_owned(), terms, replicas, incarnations: Vec::new() })
    }

    /// Starts so many replicas with this Redis and waits until each owns its share.
    pub(crate) async fn start(
        binary: &Path,
        terms: BridgeTerms,
        store: &RedisProcess,
        count: usize,
    ) -> Result<Self, BenchError> {
        let (replicas, incarnations) = (Vec::new(), Vec::new());
        let mut fleet = Self { binary: binary.to_owned(), terms, replicas, incarnations };
        for _ in 0..count {
            fleet.join(store).await?;
        }
        fleet.settled(store).await?;
        Ok(fleet)
    }

    /// Adds a replica.
    pub(crate) async fn join(&mut self, store: &RedisProcess) -> Result<(), BenchError> {
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

    /// Removes the oldest replica from the fleet, still running.
    pub(crate) fn part(&mut self) -> (ChildProcess, String) {
        (self.replicas.remove(0), self.incarnations.remove(0))
    }

    /// Waits until exactly these replicas own all partitions, and no partition moves.
    pub(crate) async fn settled(&self, store: &RedisProcess) -> Result<(), BenchError> {
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

async fn wait(began: Instant, what: &'static str) -> Result<(), BenchError> {
    if began.elapsed() > PATIENCE {
        return Err(BenchError::Missed { what, after: began.elapsed() });
    }
    tokio::time::sleep(GLANCE).await;
    Ok(())
}

/// Returns users of this group whose conversations this incarnation owns.
pub(crate) async fn users_of(
    store: &RedisProcess,
    incarnation: &str,
    group: &str,
    users: usize,
) -> Result<Vec<usize>, BenchError> {
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

/// Returns the incarnations with a heartbeat.
async fn heartbeats(store: &RedisProcess) -> Result<BTreeSet<String>, BenchError> {
    let key = setup::heartbeats();
    let members: Vec<String> =
        cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut store.connection()).await?;
    let incarnation = |member: String| member.chars().take(setup::INCARNATION).collect();
    Ok(members.into_iter().map(incarnation).collect())
}

/// Returns the owner of each partition.
async fn owners(store: &RedisProcess) -> Result<Vec<Option<String>>, BenchError> {
    let mut all = pipe();
    for partition in Partition::all() {
        all.hget(setup::lease(partition), "o");
    }
    let owners: Vec<Option<String>> = all.query_async(&mut store.connection()).await?;
    Ok(owners.into_iter().map(|owner| owner.filter(|owner| !owner.is_empty())).collect())
}
