//! A cluster of three masters with a replica each.

use std::fmt::Write as _;

use rtm_bridge::config::{self, RedisTopology};

use super::{RedisOptions, RedisServer, address, free_port};
use crate::support::until;

const MASTERS: usize = 3;
const NODES: usize = 6;
const SLOTS: usize = 16_384;

/// A cluster. Node `n + 3` is the replica of node `n` until a failover.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
}

/// The facts about another node in a node's file.
struct KnownNode {
    id: String,
    port: u16,
    bus: u16,
}

impl Cluster {
    /// Starts a cluster and waits until all nodes are linked and a failover is possible.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self { nodes: Vec::new() };
        while cluster.nodes.is_empty() {
            cluster.nodes = Self::nodes().await;
        }
        for (number, node) in cluster.nodes.iter().enumerate() {
            until("the cluster is whole", async || {
                let info = node.command(&["CLUSTER", "INFO"]).await;
                let linked =
                    number < MASTERS || node.info("master_link_status").await.as_deref() == Some("up");
                let info = info.text();
                linked && ["cluster_state:ok", "cluster_known_nodes:6"].iter().all(|fact| info.contains(fact))
            })
            .await;
        }
        for master in &cluster.nodes[..MASTERS] {
            until("the master has its replica", async || {
                master.info("connected_slaves").await.as_deref() == Some("1")
            })
            .await;
        }
        cluster
    }

    /// Starts the nodes with files that list all of them, because their own discovery takes seconds. Returns no nodes if a
    /// port is taken.
    async fn nodes() -> Vec<RedisServer> {
        let known: Vec<KnownNode> = (0..NODES)
            .map(|number| KnownNode { id: format!("{number:0>40}"), port: free_port(), bus: free_port() })
            .collect();
        let mut nodes = Vec::new();
        for (number, own) in known.iter().enumerate() {
            let options = RedisOptions {
                file: Some(("nodes.conf", table(&known, number))),
                lines: [
                    "cluster-enabled yes".to_owned(),
                    format!("cluster-port {}", own.bus),
                    "cluster-node-timeout 1000".to_owned(),
                    // The other masters serve their slots while one is down.
                    "cluster-require-full-coverage no".to_owned(),
                    // A replica may take over after a disconnect of any length.
                    "cluster-replica-validity-factor 0".to_owned(),
                ]
                .into(),
                ..RedisOptions::default()
            };
            let Some(node) = RedisServer::start_on(own.port, options).await else {
                return Vec::new();
            };
            nodes.push(node);
        }
        nodes
    }

    /// Returns the configuration, with two nodes from which the client finds the others.
    pub(crate) fn config(&self) -> config::StoreConfig {
        super::config(RedisTopology::Cluster(self.nodes[..2].iter().map(|node| address(node.port)).collect()))
    }

    /// Returns the value of `store.url`.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes[..2].iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Returns the nodes that run and are masters.
    pub(crate) async fn masters(&self) -> Vec<usize> {
        let mut masters = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if node.runs() && node.info("role").await.as_deref() == Some("master") {
                masters.push(number);
            }
        }
        masters
    }

    /// Returns the master of a slot, as a running node knows it.
    pub(crate) async fn master_of(&self, slot: i64) -> usize {
        let node = self.nodes.iter().find(|node| node.runs()).unwrap();
        let answer = node.command(&["CLUSTER", "SLOTS"]).await;
        let mut ports = answer.list().iter().filter_map(|range| {
            let range = range.list();
            let holds = (range[0].integer()..=range[1].integer()).contains(&slot);
            holds.then(|| range[2].list()[1].integer())
        });
        let port = ports.next_back().unwrap_or_else(|| panic!("nobody holds slot {slot}"));
        self.nodes.iter().position(|node| i64::from(node.port) == port).unwrap()
    }

    /// Returns the slot of a key.
    pub(crate) async fn slot(&self, key: &str) -> i64 {
        let node = self.nodes.iter().find(|node| node.runs()).unwrap();
        node.command(&["CLUSTER", "KEYSLOT", key]).await.integer()
    }

    /// Kills the master of a slot and waits until its replica has taken over and all nodes know. Returns the killed node.
    pub(crate) async fn kill_master_of(&mut self, slot: i64) -> usize {
        let before = self.master_of(slot).await;
        self.nodes[before].kill();
        self.moved_from(before).await;
        before
    }

    /// Makes the replica of a slot its master without a loss. Returns the former master.
    pub(crate) async fn failover_of(&self, slot: i64) -> usize {
        let before = self.master_of(slot).await;
        let id = self.nodes[before].command(&["CLUSTER", "MYID"]).await;
        let replicas = self.nodes[before].command(&["CLUSTER", "REPLICAS", id.text()]).await.texts();
        let follows = |node: &&RedisServer| replicas[0].contains(&format!(":{}@", node.port));
        let replica = self.nodes.iter().find(follows).unwrap();
        assert_eq!(replica.command(&["CLUSTER", "FAILOVER"]).await.text(), "OK");
        self.moved_from(before).await;
        before
    }

    async fn moved_from(&self, before: usize) {
        let port = i64::from(self.nodes[before].port);
        for node in self.nodes.iter().filter(|node| node.runs()) {
            until("all nodes know the new master", async || {
                let slots = node.command(&["CLUSTER", "SLOTS"]).await;
                let info = node.command(&["CLUSTER", "INFO"]).await;
                info.text().contains("cluster_state:ok")
                    && slots.list().iter().all(|range| range.list()[2].list()[1].integer() != port)
            })
            .await;
        }
    }
}

/// Returns the file `nodes.conf` of a node.
fn table(nodes: &[KnownNode], own: usize) -> String {
    let mut text = String::new();
    for (number, KnownNode { id, port, bus }) in nodes.iter().enumerate() {
        let myself = if number == own { "myself," } else { "" };
        let line = if number < MASTERS {
            let (first, last) = (number * SLOTS / MASTERS, (number + 1) * SLOTS / MASTERS - 1);
            format!("{myself}master - 0 0 {} connected {first}-{last}", number + 1)
        } else {
            let master = &nodes[number - MASTERS].id;
            format!("{myself}slave {master} 0 0 {} connected", number - MASTERS + 1)
        };
        writeln!(text, "{id} 127.0.0.1:{port}@{bus} {line}").unwrap();
    }
    text + &format!("vars currentEpoch {MASTERS} lastVoteEpoch 0\n")
}
