//! A rehearsal of rolling updates, a rollback, the drain of a node and a kill, with the chart as Helm renders it, under
//! load.
//!
//! The test plays the cluster: the hook of the migration, the controller of the Deployment, and kubelets with their
//! probes, `preStop`, signals and deadlines. It also plays endpoints that lag behind, and a proxy that knows only
//! connections. It does not play images (old and new are the same program), mounts and limits of containers, network
//! policies, and kernels that forget connections.
//!
//! `REHEARSAL_CROWD=300` adds so many users who each send a message in 16 s on average. The table of
//! docs/getting-started.md is of such a run.
//!
//! The rehearsal needs Helm, which `scripts/test rehearsal` installs, so other runs ignore it. It also needs all of
//! 127.0.0.0/8 as loopback, as on Linux, because each pod has an address of its own.

mod chart;
mod client;
mod cluster;
mod figures;
mod load;
mod manifest;
mod pod;
mod service;

use std::collections::BTreeMap;
use std::time::Duration;

use rtm_sandbox::{BOT_ID, CLIENT_ID, CLIENT_SECRET, Sandbox, SandboxOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::cluster::Cluster;
use self::load::Load;
use self::manifest::{Data, Release, sha256};
use crate::support::{
    Caller, Receiver, RedisOptions, RedisServer, Request, SECRET, free_port, nothing_left, quiet_platform,
    run_for,
};

/// The caller's key.
const KEY: &str = "a-key-of-the-rehearsal-that-opens-nothing-else";
const PASSWORD: &str = "hush-hush";
/// A bot that only the new configuration has, on the same platform.
const SECOND: &str = "st-second";

/// The surroundings of the release.
struct World {
    redis: RedisServer,
    sandbox: Sandbox,
    receiver: Receiver,
    /// The ports of each pod.
    ports: [u16; 2],
}

impl World {
    async fn start() -> Self {
        let password = RedisOptions { password: Some(PASSWORD), ..RedisOptions::default() };
        let bots = vec![BOT_ID.to_owned(), SECOND.to_owned()];
        Self {
            redis: RedisServer::start(password).await,
            sandbox: Sandbox::start(SandboxOptions { bots, ..quiet_platform() }).await.unwrap(),
            receiver: Receiver::start(),
            ports: [free_port(), free_port()],
        }
    }

    /// Returns the values of a production setup, with the shortest probes and availability times of a cluster.
    fn values(&self) -> Value {
        let [api, admin] = self.ports;
        let secret = |name: &str, key: &str| json!({"existingSecret": name, "key": key});
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        json!({
            "replicaCount": 3,
            "config": {
                "server": {"listen": format!("0.0.0.0:{api}"), "admin_listen": format!("0.0.0.0:{admin}")},
                "store": {"url": self.redis.url(), "password": secret("redis", "password")},
                "webhooks": {"allow_private": ["127.0.0.0/8"]},
                "log": {"format": "json", "filter": "info"},
            },
            "bots": {"sandbox": {
                "platform": self.sandbox.url(),
                "chat_bot": "Sandbox",
                "task_bot_id": BOT_ID,
                "client_id": CLIENT_ID,
                "client_secret": secret("kore", "client_secret"),
                "user_rate_per_minute": 0,
                "webhooks": {"crm": {"url": self.receiver.url("/"), "secrets": secret("kore", "webhook_secrets")}},
            }},
            "callers": {"load": {"key_sha256": sha256(KEY), "scopes": ["send", "read"]}},
            // All pods are on one host, so they cannot listen on all of its addresses.
            "extraEnv": [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                variable("RTM_BRIDGE__SERVER__LISTEN", &format!("$(POD_IP):{api}")),
                variable("RTM_BRIDGE__SERVER__ADMIN_LISTEN", &format!("$(POD_IP):{admin}")),
            ],
            "minReadySeconds": 2,
            "probes": {
                "startup": {"periodSeconds": 1},
                "readiness": {"periodSeconds": 1},
                "liveness": {"periodSeconds": 1},
            },
        })
    }

    /// Returns the values after a change of the configuration.
    fn new_values(&self) -> Value {
        let mut values = self.values();
        values["config"]["server"]["grace"] = json!("2s");
        values["config"]["log"]["filter"] = json!("info,rtm_bridge=debug");
        let mut second = values["bots"]["sandbox"].clone();
        second["task_bot_id"] = json!(SECOND);
        values["bots"]["second"] = second;
        values["config"]["default_bot"] = json!("sandbox");
        values
    }
}

/// Renders a release with Helm from these values and existing Secrets.
fn release(values: &Value) -> Release {
    let data = |pairs: &[(&str, &str)]| -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let secrets = BTreeMap::from([
        ("redis", data(&[("password", PASSWORD)])),
        ("kore", data(&[("client_secret", CLIENT_SECRET), ("webhook_secrets", SECRET)])),
    ]);
    Release::read(&chart::render("bridge", values), &secrets)
}

#[test]
#[ignore = "needs Helm: scripts/test rehearsal"]
fn update_rollback_drain_and_kill_fail_no_caller() {
    // Users move no faster than the connect limit allows, which may take minutes.
    run_for(Duration::from_mins(30), async {
        let world = World::start().await;
        let [old, new, old_again] =
            [world.values(), world.new_values(), world.values()].map(|values| release(&values));
        assert_ne!(old.generation, new.generation, "a new configuration is a new generation of pods");
        let mut cluster = Cluster::install(old).await;
        let script = world.sandbox.script();
        let load = Load::new(Caller(cluster.service.address), KEY, &script);
        load.figures.begin("steady");
        let story = async {
            load.answered(200).await;
            load.everybody_spoke().await;
            load.figures.end(0);

            let before = begin(&load, &cluster, "update").await;
            cluster.upgrade(new).await;
            end(&load, &cluster, &before).await;
            assert_eq!(second_bot(&cluster).await, 200, "the new configuration is in force");

            let before = begin(&load, &cluster, "rollback").await;
            cluster.upgrade(old_again).await;
            end(&load, &cluster, &before).await;
            assert_eq!(second_bot(&cluster).await, 404, "the old configuration is in force");

            let before = begin(&load, &cluster, "drain of two").await;
            cluster.drain(2).await;
            end(&load, &cluster, &before).await;

            // The users that moved have used up the connect limit of a minute.
            load.figures.begin("steady again");
            sleep(Duration::from_mins(1)).await;
            load.figures.end(0);

            load.figures.begin_kill("kill -9");
            tokio::join!(cluster.kill_one(), load.everybody_speaks_again());
            let expired = cluster.takeovers("expired").await.values().sum();
            load.figures.end(expired);
            assert!(expired > 0, "the killed pod owned nothing: what was rehearsed?");
            load.end();
        };
        tokio::join!(load.run(), story);
        println!("{}", load.figures);
        // `scripts/test rehearsal` prints this file.
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/target/rehearsal.md"), load.figures.to_string())
            .unwrap();
        load.check(&script, &world.receiver).await;
        assert!(load.figures.handed_over() > 0, "nothing was handed over: what was rehearsed?");
        for log in cluster.uninstall().await.values() {
            let errors: Vec<_> = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
            assert_eq!(errors, Vec::<&str>::new());
        }
        nothing_left(&[&world.redis], "rtm", Duration::from_hours(24)).await;
        world.sandbox.stop().await;
    });
}

/// Begins a chapter and returns the number of partitions that each pod has taken over so far.
async fn begin(load: &Load, cluster: &Cluster, name: &'static str) -> BTreeMap<String, u64> {
    load.figures.begin(name);
    cluster.takeovers("free").await
}

/// Ends a chapter and checks that every leaving pod released its partitions.
async fn end(load: &Load, cluster: &Cluster, before: &BTreeMap<String, u64>) {
    let now = cluster.takeovers("free").await;
    let more = now.iter().map(|(pod, taken)| taken - before.get(pod).copied().unwrap_or_default());
    load.figures.end(more.sum());
    let expired: u64 = cluster.takeovers("expired").await.values().sum();
    assert_eq!(expired, 0, "partitions whose owner just vanished");
}

/// Returns the status of a message to the bot of the new configuration.
async fn second_bot(cluster: &Cluster) -> u16 {
    let request = Request::new("POST", "/conversations/tester/messages?bot=second")
        .json(&json!({"text": "hello", "turn": {"expectReplies": 2}}))
        .header("Authorization", &format!("Bearer {KEY}"))
        .prefer("wait=55");
    Caller(cluster.service.address).send(request).await.status
}

#[expect(clippy::disallowed_methods, reason = "the few tasks of the cluster that is played")]
fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(task)
}
