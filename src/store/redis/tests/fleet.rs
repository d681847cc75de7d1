//! Heartbeats, and the connect limit that the replicas share.

use std::slice;

use super::*;
use crate::domain::BotName;
use crate::store::{ConnectPermit, FleetStatus, Heartbeat, ReplicaIdentity, StoreError};

fn peer(incarnation: Incarnation, name: &str) -> ReplicaIdentity {
    ReplicaIdentity { name: name.into(), incarnation }
}

async fn beat(store: &RedisStore, peer: ReplicaIdentity) -> FleetStatus {
    let bots = vec![BotName::new("a").unwrap(), BotName::new("b").unwrap()];
    store.heartbeat(&Heartbeat { peer, bots, ttl: LEASE, echo: 9 }).await.unwrap()
}

async fn live(store: &RedisStore, peer: ReplicaIdentity) -> Vec<ReplicaIdentity> {
    let mut live = beat(store, peer).await.live;
    live.sort();
    live
}

#[tokio::test]
async fn live_replicas_are_those_with_a_recent_heartbeat() {
    let server = Server::start();
    let store = server.store();
    let (one, two) = (peer(ME, "one"), peer(OTHER, "two: ü 1"));
    assert_eq!(live(&store, one.clone()).await, slice::from_ref(&one));
    assert_eq!(live(&store, two.clone()).await, [one.clone(), two.clone()]);
    store.skew(LEASE);
    assert_eq!(live(&store, two.clone()).await, slice::from_ref(&two), "late");
    assert_eq!(live(&store, one.clone()).await, [one.clone(), two.clone()], "and back");
    store.leave(OTHER).await.unwrap();
    assert_eq!(live(&store, one.clone()).await, slice::from_ref(&one));
    assert_eq!(server.ask::<Vec<String>>(&["HVALS", "t:{fleet}:bots"]).await, ["a b"]);

    beat(&store, two.clone()).await;
    store.skew(LEASE * 12);
    assert_eq!(live(&store, one.clone()).await, slice::from_ref(&one));
    assert_eq!(server.ask::<u64>(&["ZCARD", "t:{fleet}:replicas"]).await, 1, "long dead");
    assert_eq!(server.ask::<u64>(&["HLEN", "t:{fleet}:bots"]).await, 1);
}

#[tokio::test]
async fn heartbeat_reports_whether_the_store_is_set_up() {
    let server = Server::start();
    let store = server.store();
    assert!(!beat(&store, peer(ME, "one")).await.prepared);
    server.ask::<()>(&["HSET", "t:schema", "1", "sum"]).await;
    assert!(beat(&store, peer(ME, "one")).await.prepared);
    server.ask::<()>(&["FLUSHALL"]).await;
    assert!(!beat(&store, peer(ME, "one")).await.prepared);
}

#[tokio::test]
async fn connects_are_counted_once_and_over_a_minute() {
    let server = Server::start();
    let store = server.store();
    let bot = BotName::new("support").unwrap();
    let minute = Duration::from_mins(1);
    for token in [1, 2, 1, u64::MAX, 2] {
        assert_eq!(store.permit(&bot, 3, token, None).await.unwrap(), ConnectPermit::Granted, "{token}");
    }
    let first = store.now().await.unwrap();
    let ConnectPermit::At(at) = store.permit(&bot, 3, 4, None).await.unwrap() else { panic!("a fourth") };
    assert!(at <= first + minute);
    // The limit was lowered: all three but the newest must go.
    let ConnectPermit::At(later) = store.permit(&bot, 1, 4, None).await.unwrap() else { panic!("a fourth") };
    assert!(later >= at);
    assert_eq!(
        store.permit(&BotName::new("other").unwrap(), 1, 4, None).await.unwrap(),
        ConnectPermit::Granted
    );
    assert_eq!(store.permit(&bot, 0, 5, None).await.unwrap(), ConnectPermit::Granted, "no limit");
    store.skew(minute);
    assert_eq!(store.permit(&bot, 3, 4, None).await.unwrap(), ConnectPermit::Granted);
    assert!((1..=60_000).contains(&server.ask::<i64>(&["PTTL", "t:{fleet}:connects:support"]).await));
}

#[tokio::test]
async fn refused_owner_learns_of_other_owner_or_loss() {
    let server = Server::start();
    let store = server.store();
    let partition = Partition::of(&alice());
    let fence = own(&store).await;
    let held = store.claim(partition, OTHER, LEASE, ClaimMode::Expired).await.unwrap();
    let crate::store::ClaimResult::Held { by, until } = held else { panic!("{held:?}") };
    assert_eq!(by, ME);
    let now = store.now().await.unwrap();
    assert!(now < until && until <= now + LEASE);
    store.skew(LEASE);
    let free = store.claim(partition, OTHER, LEASE, ClaimMode::Free).await.unwrap();
    assert_eq!(free.fence(), None, "it has run out, and that is not enough");

    server.ask::<()>(&["FLUSHALL"]).await;
    assert_eq!(renew(&store, fence).await, Err(StoreError::Lost));
    let older = Fence { incarnation: ME, epoch: fence.epoch + 1_000_000 };
    own(&store).await;
    assert_eq!(
        store.ready(partition, older, false).await,
        Err(StoreError::Lost),
        "the store is older than us"
    );
    assert_eq!(store.write(fence, &alice(), &numbered(1, Vec::new())).await, Err(StoreError::Fenced));
}
