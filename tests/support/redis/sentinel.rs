//! A master, two replicas, and three sentinels that watch them.

use std::time::Duration;

use rtm_bridge::config::{self, RedisTopology};

use super::resp::Resp;
use super::{RedisOptions, RedisServer, address, free_port};
use crate::support::{until, within};

/// The sentinels' name for the master.
const MASTER: &str = "bridge";

/// A group of servers under sentinels.
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts the group and waits until a failover is possible.
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start(RedisOptions::default()).await;
        let replica = RedisOptions::default().line(format!("replicaof 127.0.0.1 {}", master.port));
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(RedisServer::start(replica.clone()).await);
        }
        for replica in &servers[1..] {
            until("the replica follows", async || {
                replica.info("master_link_status").await.as_deref() == Some("up")
            })
            .await;
        }
        let mut group = Self { servers, sentinels: Vec::new() };
        while group.sentinels.is_empty() {
            group.sentinels = group.watch().await;
        }
        for sentinel in &group.sentinels {
            let quorum = ["SENTINEL", "CKQUORUM", MASTER];
            until("the sentinels know each other and the replicas", async || {
                let reached =
                    matches!(&sentinel.command(&quorum).await, Resp::Text(text) if text.starts_with("OK 3 "));
                reached && sentinel.command(&["SENTINEL", "REPLICAS", MASTER]).await.list().len() == 2
            })
            .await;
        }
        group
    }

    /// Starts three sentinels that know each other from the start, because discovery takes seconds. Returns no sentinels if
    /// a port is taken.
    async fn watch(&self) -> Vec<RedisServer> {
        let master = self.servers[0].port;
        let known: Vec<(u16, String)> =
            (0..3).map(|number| (free_port(), format!("{number:a>40}"))).collect();
        let mut sentinels = Vec::new();
        for (port, id) in &known {
            let mut lines = vec![
                format!("sentinel myid {id}"),
                format!("sentinel monitor {MASTER} 127.0.0.1 {master} 2"),
                format!("sentinel down-after-milliseconds {MASTER} 600"),
                format!("sentinel failover-timeout {MASTER} 1500"),
            ];
            for (other, other_id) in known.iter().filter(|(other, _)| other != port) {
                lines.push(format!("sentinel known-sentinel {MASTER} 127.0.0.1 {other} {other_id}"));
            }
            for replica in &self.servers[1..] {
                lines.push(format!("sentinel known-replica {MASTER} 127.0.0.1 {}", replica.port));
            }
            let Some(sentinel) = RedisServer::start_on(
                *port,
                RedisOptions { sentinel: true, lines, ..RedisOptions::default() },
            )
            .await
            else {
                return Vec::new();
            };
            // The sentinels check ten times as often as by default.
            for (setting, millis) in
                [("info-period", "200"), ("publish-period", "200"), ("ping-period", "100")]
            {
                assert_eq!(sentinel.command(&["SENTINEL", "DEBUG", setting, millis]).await.text(), "OK");
            }
            sentinels.push(sentinel);
        }
        sentinels
    }

    /// Returns the configuration for this group.
    pub(crate) fn config(&self) -> config::StoreConfig {
        let sentinels = self.sentinels.iter().map(|sentinel| address(sentinel.port)).collect();
        super::config(RedisTopology::Sentinel { sentinels, master: MASTER.to_owned() })
    }

    /// Returns the value of `store.url`.
    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/{MASTER}", sentinels.join(","))
    }

    /// Returns the master, as most sentinels know it.
    pub(crate) async fn master(&self) -> usize {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let answer = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await.texts();
            let of = self.servers.iter().position(|server| server.port.to_string() == answer[1]);
            votes[of.unwrap()] += 1;
        }
        (0..votes.len()).max_by_key(|&number| votes[number]).unwrap()
    }

    /// Makes a replica the master, as an operator would, and waits until all sentinels know.
    pub(crate) async fn failover(&self) {
        let before = self.master().await;
        until("the sentinels fail over", async || {
            self.sentinels[0].command(&["SENTINEL", "FAILOVER", MASTER]).await == Resp::Text("OK".to_owned())
        })
        .await;
        self.moved_from(before).await;
    }

    /// Kills the master and waits until a replica has taken over. Returns the killed server.
    pub(crate) async fn kill_master(&mut self) -> usize {
        let before = self.master().await;
        self.servers[before].kill();
        self.moved_from(before).await;
        before
    }

    /// Waits for the new master and its first replica, which the next failover needs. A former master may take many seconds
    /// to follow.
    async fn moved_from(&self, before: usize) {
        within(Duration::from_mins(1), "another server is the master and has a replica", async || {
            let master = self.master().await;
            if master == before || self.servers[master].info("role").await.as_deref() != Some("master") {
                return false;
            }
            let port = self.servers[master].port.to_string();
            for other in self.servers.iter().filter(|other| other.runs()) {
                let follows = other.info("master_port").await.as_ref() == Some(&port);
                if follows && other.info("master_link_status").await.as_deref() == Some("up") {
                    return true;
                }
            }
            false
        })
        .await;
    }
}
