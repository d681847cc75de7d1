//! Another server takes a master's place under load: what it knows goes on, what it does not is said to be lost.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::config;
use rtm_bridge::domain::{MessageId, Partition, Timestamp};
use rtm_bridge::store::{RedisStore, Store};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::store_load::{Load, all_ready, conversation, partition, sum, timed};
use crate::support::{Cluster, Fleet, Request, Sentinels, run_for, until};

const GUARD: Duration = Duration::from_mins(2);
/// The longest a command may take here.
const COMMAND: Duration = Duration::from_millis(500);
/// Outlasts a failover of sentinels, as the default does: who remembers what it sent goes on, where the new master
/// does not know of it.
const LEASE: Duration = Duration::from_secs(5);
/// The id of no message.
const NOBODYS: MessageId = MessageId::new(Timestamp::from_millis(1), 1);

/// How the place of a master becomes free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// An operator moves it.
    Forced,
    /// It is killed.
    Killed,
}

/// Fails over under load; `confirmed` is how many replicas of the store confirm each write that promises something.
async fn sentinels(blow: Blow, confirmed: u32) {
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
        match blow {
            Blow::Forced => {
                let before = group.master().await;
                group.failover().await;
                // Until then it takes writes that are lost.
                let former = &group.servers[before];
                until("the former master is none", async || {
                    former.info("role").await.as_deref() == Some("slave")
                })
                .await;
            }
            Blow::Killed => {
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
fn an_operators_failover_of_sentinels_is_survived() {
    run_for(GUARD, sentinels(Blow::Forced, 0));
}

#[test]
fn a_masters_death_under_sentinels_is_survived() {
    run_for(GUARD, sentinels(Blow::Killed, 0));
}

#[test]
fn what_a_replica_of_the_store_confirmed_survives_its_master() {
    run_for(GUARD, sentinels(Blow::Killed, 1));
}

/// A user whose partition lies on this node.
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

/// Kills the master of alice's partition under load; the others' users are served all the time.
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
    // Uncertain: whoever takes over finds the message as sent, and nothing proves that it went out.
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
fn a_clusters_other_users_are_served_while_a_master_dies() {
    run_for(GUARD, cluster(false));
}

#[test]
fn a_cluster_goes_on_when_the_master_of_the_heartbeats_dies() {
    run_for(GUARD, cluster(true));
}

#[test]
fn a_clusters_dead_node_holds_up_nobody_else() {
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
                let (took, answer) = timed(store.message(&conversation(user), NOBODYS, None)).await;
                if took > COMMAND / 4 || answer.is_err() {
                    held_up += took;
                }
                sleep(Duration::from_millis(1)).await;
            }
            println!("{user}: held up for {held_up:?} of {:?}", began.elapsed());
            // The client library may get stuck once; it is let go of then.
            assert!(held_up < began.elapsed() / 2, "{held_up:?}");
        });
        // Whoever needs the dead one asks on, over the same connection.
        let asks_dead = async {
            let user = conversation(&users[0]);
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
