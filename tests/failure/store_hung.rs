//! A Redis that does not answer: the answers to callers and probes, and the replies that still arrive.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Gate, Step};
use serde_json::json;
use tokio::time::Instant;

use super::store_load::{Load, all_ready, sum, timed, watched};
use crate::support::{Fleet, Ledger, Proxy, RedisOptions, RedisServer, Replica, Request, run_for, until};

/// The timeout of a command.
const COMMAND: Duration = Duration::from_millis(500);
/// The longest time until a refusal by the contract: `command_timeout` + 1 s.
const ANSWER: Duration = Duration::from_millis(1500);

/// The way in which Redis hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hang {
    /// The process is stopped.
    Stopped,
    /// The proxy forwards nothing.
    Silent,
}

/// Sends requests to both replicas while Redis hangs. Each must refuse in time.
async fn told_in_time(fleet: &Fleet, ledger: &Ledger, location: &str) {
    let turn_of_bob = json!({"turn": {"expectReplies": 1}});
    let mut times = Vec::new();
    // Twice: before and after the bridge knows that Redis does not answer.
    for _ in 0..2 {
        for replica in &fleet.replicas {
            let post = ledger.post(replica.api, "bob", &turn_of_bob, "wait=5");
            let get = replica.api.send(Request::get(location));
            let waits = replica.api.send(Request::get(location).prefer("wait=1"));
            let ((took_post, post), (took_get, get), (took_wait, waits)) =
                tokio::join!(timed(post), timed(get), timed(waits));
            for (took, answer) in [(took_post, post.unwrap()), (took_get, get), (took_wait, waits)] {
                answer.problem(503, "store-unavailable");
                assert!(answer.retry_after() >= 1, "{answer}");
                assert!(took <= ANSWER * 4, "{took:?}: {answer}");
                times.push(took);
            }
            assert_eq!(replica.admin.get("/livez").await.status, 200);
            let ready = replica.admin.get("/readyz").await;
            assert_eq!(ready.status, 503);
            let store = &ready.json()["checks"][0];
            assert_eq!((&store["name"], &store["ok"]), (&json!("store"), &json!(false)));
            assert!(!store["detail"].as_str().unwrap().is_empty(), "{ready}");
        }
    }
    // On a busy machine most of twelve are enough.
    times.sort_unstable();
    assert!(times[times.len() / 2] <= ANSWER, "{times:?}");
}

/// Breaks the store of two replicas for more or less than a lease, while alice's turn is open.
async fn hang(how: Hang, lease: Duration, outlives_lease: bool) {
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    let fleet = Fleet::start(redis.config(), 2, |config| {
        config.cluster.lease_ttl = lease;
        config.store.command_timeout = COMMAND;
    })
    .await;
    let ledger = Ledger::default();
    let (during, after) = (Gate::new(), Gate::new());
    fleet.script.next(
        "alice",
        vec![
            Step::Ack,
            Step::Until(during.clone()),
            Step::Say("alice-0, reply 1".to_owned()),
            Step::Say("alice-0, reply 2".to_owned()),
            Step::Until(after.clone()),
            Step::Say("alice-0, reply 3".to_owned()),
        ],
    );
    let turn = json!({"turn": {"expectReplies": 3}});
    let accepted = ledger.post(fleet.replicas[0].api, "alice", &turn, "respond-async").await.unwrap();
    let location = accepted.header("location").unwrap().to_owned();
    accepted.message(202);
    let read = async || fleet.replicas[0].api.get(&location).await.message(200)["status"].clone();
    until("it is acknowledged", async || read().await == "acked").await;

    // Two callers wait already, at the owner and at the other replica.
    let waits = Duration::from_secs(2);
    let waiting = fleet
        .replicas
        .iter()
        .map(|replica| timed(replica.api.send(Request::get(&location).prefer("wait=2"))));
    assert_eq!(sum(&fleet, "store_up").await, 2);
    let outage = async {
        watched(&redis, &location, fleet.replicas.len()).await;
        // A replica handles its requests in order, so it knows of the wait by then.
        for replica in &fleet.replicas {
            replica.api.get(&location).await.message(200);
        }
        let began = Instant::now();
        match how {
            Hang::Stopped => redis.pause(),
            Hang::Silent => {
                join_all(fleet.replicas.iter().map(|replica| replica.way_to_redis().hang())).await;
            }
        }
        // The platform continues.
        during.open();
        fleet.script.delivered("alice", 2).await;
        told_in_time(&fleet, &ledger, &location).await;
        until("no heartbeat is answered", async || sum(&fleet, "store_up").await == 0).await;
        began
    };
    let (waited, began) = tokio::join!(join_all(waiting), outage);
    for (took, answer) in waited {
        answer.problem(503, "store-unavailable");
        assert!(took >= waits && took <= waits + ANSWER * 4, "{took:?}: {answer}");
    }
    if outlives_lease {
        until("the leases have run out", async || began.elapsed() > lease * 2).await;
    } else {
        assert!(began.elapsed() < lease * 2 / 3, "the machine is too slow: {:?}", began.elapsed());
    }
    match how {
        Hang::Stopped => redis.resume(),
        Hang::Silent => {
            join_all(fleet.replicas.iter().map(|replica| replica.way_to_redis().heal())).await;
        }
    }
    all_ready(&fleet).await;
    // The journal has the replies of the meantime once, and the turn continues.
    // Each thread connects to Redis by itself, and readiness speaks for one of them.
    until("what was said meanwhile is stored", async || {
        let answer = fleet.replicas[0].api.get(&location).await;
        answer.status == 200 && answer.json()["status"] == "answering"
    })
    .await;
    after.open();
    let ended = fleet.replicas[1].api.send(Request::get(&location).prefer("wait=20")).await.message(200);
    let texts: Vec<_> = ended["replies"].as_array().unwrap().iter().map(|reply| &reply["text"]).collect();
    assert_eq!(texts, ["alice-0, reply 1", "alice-0, reply 2", "alice-0, reply 3"]);
    // No other replica could claim the partition, so the socket stayed in use, without a backfill.
    let observed = fleet.script.observed("alice");
    assert_eq!((observed.connects.count(), observed.closes.count()), (1, 0));
    assert_eq!(sum(&fleet, "store_data_losses_total").await, 0);
    until("each heartbeat is answered again", async || sum(&fleet, "store_up").await == 2).await;
    ledger.retry(fleet.replicas[0].api).await;
    ledger.check(&fleet.callers(), &fleet.script).await;
    fleet.finish().await;
}

#[test]
fn replica_stays_ready_for_a_while_without_its_store() {
    run_for(Duration::from_mins(1), async {
        let mut redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 1, |config| {
            config.store.command_timeout = COMMAND;
            config.server.ready_without_store = Duration::from_secs(3);
        })
        .await;
        let replica = &fleet.replicas[0];
        redis.pause();
        let began = Instant::now();
        let ready = replica.admin.get("/readyz").await;
        assert_eq!(ready.status, 200, "{ready}");
        let store = ready.json()["checks"][0].clone();
        assert_eq!(store["ok"], true);
        assert!(store["warnings"].to_string().contains("ready_without_store"), "{ready}");
        assert_eq!(replica.api.get("/readyz").await.status, 200);
        let refused = Ledger::default().post(replica.api, "alice", &json!({}), "wait=5").await.unwrap();
        refused.problem(503, "store-unavailable");
        assert!(refused.retry_after() > 0);
        until("it is not ready any more", async || replica.admin.get("/readyz").await.status == 503).await;
        assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
        until("load balancers see it too", async || replica.api.get("/readyz").await.status == 503).await;
        redis.resume();
        until("it is ready again", async || replica.admin.get("/readyz").await.status == 200).await;
        fleet.finish().await;
    });
}

#[test]
fn stopped_redis_is_reported_and_sockets_stay() {
    run_for(Duration::from_mins(1), hang(Hang::Stopped, Duration::from_secs(20), false));
}

#[test]
fn silent_redis_is_reported_and_sockets_stay() {
    run_for(Duration::from_mins(1), hang(Hang::Silent, Duration::from_secs(20), false));
}

#[test]
fn redis_stopped_beyond_a_lease_keeps_turns() {
    run_for(Duration::from_mins(1), hang(Hang::Stopped, Duration::from_secs(1), true));
}

#[test]
fn redis_silent_beyond_a_lease_keeps_turns() {
    run_for(Duration::from_mins(1), hang(Hang::Silent, Duration::from_secs(1), true));
}

#[test]
fn lost_answers_under_load_duplicate_nothing() {
    run_for(Duration::from_mins(1), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |_| {}).await;
        let load = Load::of(8);
        load.during(&fleet, &["store-unavailable"], async {
            for _ in 0..3 {
                let ways: Vec<&Proxy> = fleet.replicas.iter().map(Replica::way_to_redis).collect();
                let refused = load.told("store-unavailable");
                join_all(ways.iter().map(|way| way.lose_answers())).await;
                until("answers are lost", async || load.told("store-unavailable") >= refused + 4).await;
                join_all(ways.iter().map(|way| way.heal())).await;
                load.more(10).await;
            }
        })
        .await;
        load.ledger.retry(fleet.replicas[0].api).await;
        load.ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.finish().await;
    });
}
