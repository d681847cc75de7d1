//! Failover of a Redis master under load: messages that the new master knows go on, the others are reported as lost.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::config;
use rtm_bridge::domain::fixtures::sandbox_conversation;
use rtm_bridge::domain::{MessageId, Partition, Timestamp};
use rtm_bridge::store::{RedisStore, Store};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::store_load::{Load, all_ready, partition, sum, timed};
use crate::support::{Cluster, Fleet, Request, Sentinels, run_for, until};

const GUARD: Duration = Duration::from_mins(2);
/// The timeout of a command.
const COMMAND: Duration = Duration::from_millis(500);
/// Longer than a failover of sentinels, as the default is. An owner that remembers its sends goes on even if the new
/// master has no record of them.
const LEASE: Duration = Duration::from_secs(5);
/// The id of no message.
const NOBODYS: MessageId = MessageId::new(Timestamp::from_millis(1), 1);

/// The cause of the failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// An operator moves the master.
    Forced,
    /// The master is killed.
    Killed,
}

/// Fails over under load. `confirmed` is the number of the store's replicas that must confirm a promise.
async fn sentinels(fault: Fault, confirmed: u32) {
    let mut group = Sentinels::start().await;
    let fleet = Fleet::start(group.config(), 2, |config| {
        config.store.wait_replicas = confirmed;
        config.store.command_timeout = COMMAND;
        config.cluster.lease_ttl = LEASE;
    })
    .await;
    let load = Load::of(6);
    let allowed: &[&str] = if confirmed > 0 {
        &["store-unavailable", "uncertain"]
    } else {
        &["store-unavailable", "message-lost", "uncertain"]
    };
    load.during(&fleet, allowed, async {
        match fault {
            Fault::Forced => {
                let before = group.master().await;
                group.failover().await;
                // Until then it accepts writes that will be lost.
                let former = &group.servers[before];
                until("the former master is none", async || {
                    former.info("role").await.as_deref() == Some("slave")
                })
                .await;
            }
            Fault::Killed => {
                group.kill_master().await;
            }
        }
    })
    .await;
    all_ready(&fleet).await;
    if confirmed > 0 {
        assert_eq!(sum(&fleet, "messages_lost_total").await, 0);
        load.ledger.retry(fleet.replicas[0].api).await;
        load.ledger.check(&fleet.callers(), &fleet.script).await;
    } else {
        let gone = load.ledger.check_after_loss(&fleet.callers(), &fleet.script).await;
        println!("{gone} of {} are gone", load.ledger.promised());
        let told = load.told("message-lost");
        let counted = sum(&fleet, "messages_lost_total").await;
        assert!(counted >= told.try_into().unwrap(), "{told} were told and {counted} counted");
    }
    fleet.finish().await;
}

#[test]
fn sentinels_forced_failover_keeps_the_promises() {
    run_for(GUARD, sentinels(Fault::Forced, 0));
}

#[test]
fn sentinels_master_killed_keeps_the_promises() {
    run_for(GUARD, sentinels(Fault::Killed, 0));
}

#[test]
fn write_confirmed_by_a_replica_survives_its_master() {
    run_for(GUARD, sentinels(Fault::Killed, 1));
}

/// Returns a user whose partition lies on this node.
async fn user_on(cluster: &Cluster, node: usize, name: &str) -> String {
    for number in 0.. {
        let user = format!("{name}{number}");
        if cluster.master_of(slot_of(cluster, partition(&user)).await).await == node {
            return user;
        }
    }
    unreachable!("users of each node are found soon")
}

async fn slot_of(cluster: &Cluster, partition: Partition) -> i64 {
    cluster.slot(&format!("rtm:{{{partition}}}:lease")).await
}

/// Kills the master of alice's partition under load. Users of the other masters are served all the time.
async fn cluster(fleets: bool) {
    let mut cluster = Cluster::start().await;
    let fleet = Fleet::start(cluster.config(), 2, |config| {
        config.store.command_timeout = COMMAND;
        config.cluster.lease_ttl = Duration::from_secs(2);
    })
    .await;
    let of_fleet = cluster.master_of(cluster.slot("rtm:{fleet}:replicas").await).await;
    let masters = cluster.masters().await;
    let dies = if fleets { of_fleet } else { *masters.iter().find(|&&master| master != of_fleet).unwrap() };
    let mut slot = None;
    for partition in Partition::all() {
        let of = slot_of(&cluster, partition).await;
        if cluster.master_of(of).await == dies {
            slot = Some(of);
            break;
        }
    }
    let mut others = Vec::new();
    for master in masters.into_iter().filter(|&master| master != dies) {
        others.push(user_on(&cluster, master, "other").await);
    }
    let load = Load::of(6);
    // Uncertain: the new owner finds the message as sent, and no evidence that it went out.
    load.during(&fleet, &["store-unavailable", "message-lost", "uncertain"], async {
        let over = Cell::new(false);
        let dies = async {
            cluster.kill_master_of(slot.unwrap()).await;
            over.set(true);
        };
        let served = async {
            let mut served = 0;
            let mut slowest = Duration::ZERO;
            while !over.get() {
                for (number, user) in others.iter().enumerate() {
                    let body = json!({"text": format!("hi {served}"), "turn": {"expectReplies": 1}});
                    let replica = &fleet.replicas[(served + number) % fleet.replicas.len()];
                    let asked = replica.api.send(Request::message(user, &body).prefer("wait=5"));
                    let (took, answer) = timed(timeout(Duration::from_secs(10), asked)).await;
                    slowest = slowest.max(took);
                    let ended = answer.expect("an answer").message(200);
                    if took > COMMAND {
                        println!("{took:?} by {}: {ended}", replica.name);
                    }
                    served += 1;
                }
            }
            println!("{served} of others were served, the slowest in {slowest:?}");
        };
        tokio::join!(dies, served);
    })
    .await;
    all_ready(&fleet).await;
    let gone = load.ledger.check_after_loss(&fleet.callers(), &fleet.script).await;
    println!("{gone} of {} are gone", load.ledger.promised());
    fleet.finish().await;
}

#[test]
fn cluster_master_killed_serves_other_users() {
    run_for(GUARD, cluster(false));
}

#[test]
fn cluster_heartbeat_master_killed_continues() {
    run_for(GUARD, cluster(true));
}

#[test]
fn cluster_dead_node_delays_no_other_user() {
    run_for(GUARD, async {
        let mut cluster = Cluster::start().await;
        let config = config::StoreConfig { command_timeout: COMMAND, ..cluster.config() };
        let store = Store::Redis(RedisStore::new(&config).unwrap());
        let mut users = Vec::new();
        for master in cluster.masters().await {
            users.push(user_on(&cluster, master, "user").await);
        }
        let (dead, others) = users.split_first().unwrap();
        let dead = slot_of(&cluster, partition(dead)).await;
        let over = Cell::new(false);
        let asks = others.iter().map(async |user| {
            let began = Instant::now();
            let mut held_up = Duration::ZERO;
            while !over.get() {
                let (took, answer) = timed(store.message(&sandbox_conversation(user), NOBODYS, None)).await;
                if took > COMMAND / 4 || answer.is_err() {
                    held_up += took;
                }
                sleep(Duration::from_millis(1)).await;
            }
            println!("{user}: held up for {held_up:?} of {:?}", began.elapsed());
            // The client library may hang once, until the bridge drops its connection.
            assert!(held_up < began.elapsed() / 2, "{held_up:?}");
        });
        // Clients of the dead master retry over the same connection.
        let asks_dead = async {
            let user = sandbox_conversation(&users[0]);
            let mut told = Vec::new();
            while !over.get() {
                told.push(store.message(&user, NOBODYS, None).await);
                sleep(Duration::from_millis(1)).await;
            }
            assert!(told.iter().any(Result::is_err), "it was away");
            until("it is there again", async || store.message(&user, NOBODYS, None).await.is_ok()).await;
        };
        let dies = async {
            cluster.kill_master_of(dead).await;
            over.set(true);
        };
        tokio::join!(join_all(asks), asks_dead, dies);
    });
}
