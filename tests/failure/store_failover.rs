//! Another server takes a master's place under load: what it knows goes on, what it does not is said to be lost.

use std::cell::Cell;
use std::time::Duration;

use rtm_bridge::domain::Partition;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::store_load::{Load, all_ready, partition, slug, sum};
use crate::support::{Cluster, Fleet, Request, Sentinels, run_for};

const GUARD: Duration = Duration::from_secs(90);

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
        config.store.command_timeout = Duration::from_millis(500);
        config.cluster.lease_ttl = Duration::from_secs(2);
    })
    .await;
    let load = Load::of(6);
    let allowed: &[&str] =
        if confirmed > 0 { &["store-unavailable"] } else { &["store-unavailable", "message-lost"] };
    load.during(&fleet, allowed, async {
        match blow {
            Blow::Forced => group.failover().await,
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
        config.store.command_timeout = Duration::from_millis(500);
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
    load.during(&fleet, &["store-unavailable", "message-lost"], async {
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
                    let began = Instant::now();
                    let asked = replica.api.send(Request::message(user, &body).prefer("wait=5"));
                    let answer = timeout(Duration::from_secs(10), asked).await.expect("an answer");
                    slowest = slowest.max(began.elapsed());
                    assert_eq!(
                        answer.status,
                        200,
                        "{} of {user}: {answer}",
                        if answer.status > 299 { slug(&answer) } else { String::new() }
                    );
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
