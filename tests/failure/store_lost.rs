//! A Redis that returns with or without its data: losses are reported, and no reply comes twice.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Gate, Step};
use serde_json::{Value, json};

use super::store_load::{Load, all_ready, sum, timed, watched};
use crate::support::{Fleet, RedisOptions, RedisServer, Request, nothing_left, run_for, until};

const GUARD: Duration = Duration::from_mins(1);
/// The longest time until waiters learn of a loss: a heartbeat detects it, and a read reports it.
const PROMPT: Duration = Duration::from_secs(3);

#[test]
fn redis_restart_with_data_loses_nothing() {
    run_for(GUARD, async {
        let mut redis =
            RedisServer::start(RedisOptions { appendonly: true, ..RedisOptions::default() }).await;
        let fleet = Fleet::start(redis.config(), 2, |_| {}).await;
        let load = Load::of(8);
        load.during(&fleet, &["store-unavailable"], async {
            for _ in 0..2 {
                redis.restart().await;
                load.more(20).await;
            }
        })
        .await;
        assert_eq!(sum(&fleet, "store_data_losses_total").await, 0);
        assert_eq!(sum(&fleet, "messages_lost_total").await, 0);
        load.ledger.retry(fleet.replicas[0].api).await;
        load.ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.finish().await;
    });
}

/// The way in which a store loses all data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The server restarts empty.
    Restarted,
    /// A client removes all keys under open connections.
    Flushed,
}

/// Empties the store under load, while alice's turn is open and several callers wait for it.
async fn empty(loss: Loss) {
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    let fleet = Fleet::start(redis.config(), 3, |_| {}).await;
    let load = Load::of(6);
    let gate = Gate::new();
    let allowed: &[&str] = match loss {
        Loss::Restarted => &["store-unavailable", "message-lost", "uncertain"],
        Loss::Flushed => &["message-lost"],
    };
    load.during(&fleet, allowed, async {
        fleet
            .script
            .next("alice", vec![Step::Ack, Step::Until(gate.clone()), Step::Say("too late".to_owned())]);
        let body = json!({"text": "lost", "turn": {"expectReplies": 1}});
        let post = Request::message("alice", &body).prefer("respond-async");
        let accepted = fleet.replicas[0].api.send(post).await;
        let location = accepted.header("location").unwrap().to_owned();
        accepted.message(202);
        fleet.script.seen("alice", 1).await;
        // One of three replicas owns the conversation. Each gets a GET, and a POST behind the open turn.
        let gets = fleet
            .replicas
            .iter()
            .map(|replica| timed(replica.api.send(Request::get(&location).prefer("wait=50"))));
        let posts = fleet.replicas.iter().map(|replica| {
            let text = format!("lost, too, by {}", replica.name);
            let post = Request::message("alice", &json!({"text": text})).prefer("wait=50");
            timed(replica.api.send(post))
        });
        let empties = async {
            watched(&redis, &location, fleet.replicas.len()).await;
            let key = format!("rtm:{{{}}}:c:sandbox/alice", super::store_load::partition("alice"));
            until("all four are in the lane", async || {
                let state = redis.command(&["HGET", &key, "s"]).await;
                // The words of open messages are `ID:SIGNS:DIGEST:WATCHERS:..`.
                state.text().split(' ').filter(|word| word.split(':').count() >= 4).count() >= 4
            })
            .await;
            timed(async {
                match loss {
                    Loss::Restarted => redis.restart_empty().await,
                    Loss::Flushed => redis.flush().await,
                }
            })
            .await
            .0
        };
        let began = tokio::time::Instant::now();
        let (gets, posts, took) = tokio::join!(join_all(gets), join_all(posts), empties);
        assert!(began.elapsed() <= took + PROMPT + Duration::from_secs(2), "{:?}", began.elapsed());
        for (took, answer) in gets.into_iter().chain(posts) {
            println!("after {took:?}: {answer}");
            answer.problem(500, "message-lost");
        }
        // New messages work at once on every replica.
        for (number, replica) in fleet.replicas.iter().enumerate() {
            let user = format!("new{number}");
            let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
            let answer = replica.api.send(Request::message(&user, &body).prefer("wait=20")).await;
            answer.message(200);
        }
        // Reads of the lost message keep failing, even after its reply.
        gate.open();
        fleet.script.delivered("alice", 1).await;
        let next = Request::message("alice", &json!({"text": "next", "turn": {"expectReplies": 1}}));
        let next = fleet.replicas[1].api.send(next.prefer("wait=20")).await.message(200);
        assert_eq!(next["replies"][0]["text"], "next, reply 1", "{next}");
        for replica in &fleet.replicas {
            replica.api.get(&location).await.problem(404, "not-found");
            replica.api.send(Request::get(&location).prefer("wait=5")).await.problem(404, "not-found");
        }
        let observed = fleet.script.observed("alice");
        let texts: Vec<_> = observed.messages.iter().map(|heard| &*heard.text).collect();
        assert_eq!(texts, ["lost", "next"]);
    })
    .await;
    all_ready(&fleet).await;
    assert!(sum(&fleet, "store_data_losses_total").await >= 1);
    assert!(sum(&fleet, "messages_lost_total").await >= 4);
    let gone = load.ledger.check_after_loss(&fleet.callers(), &fleet.script).await;
    println!("{gone} of {} are gone", load.ledger.promised());
    let schema = redis.command(&["HGET", "rtm:schema", "partitions"]).await;
    assert_eq!(schema.text(), "256");
    fleet.finish().await;
    nothing_left(&[&redis], "rtm", redis.config().message_ttl).await;
}

#[test]
fn redis_restart_without_data_is_reported() {
    run_for(GUARD, empty(Loss::Restarted));
}

#[test]
fn redis_flush_is_reported() {
    run_for(GUARD, empty(Loss::Flushed));
}

#[test]
fn replica_expired_while_cut_off_sees_no_loss() {
    run_for(GUARD, async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 2, |config| {
            config.cluster.lease_ttl = Duration::from_millis(600);
            config.store.command_timeout = Duration::from_millis(150);
        })
        .await;
        let away = &fleet.replicas[1];
        away.way_to_redis().cut().await;
        let alone = ["ZCARD", "rtm:{fleet}:replicas"];
        until("it is forgotten", async || redis.command(&alone).await.integer() == 1).await;
        away.way_to_redis().heal().await;
        let body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        until("it answers again", async || {
            let post = Request::message("alice", &body).prefer("wait=20");
            away.api.send(post).await.status == 200
        })
        .await;
        until("it is known again", async || redis.command(&alone).await.integer() == 2).await;
        assert_eq!(sum(&fleet, "store_data_losses_total").await, 0);
        fleet.finish().await;
    });
}

#[test]
fn reader_of_entries_lost_by_the_store_gets_a_gap() {
    run_for(GUARD, async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let mut fleet = Fleet::start(redis.config(), 1, |_| {}).await;
        let say = async |fleet: &Fleet, text: &str| {
            let body = json!({"text": format!("/echo {text}"), "turn": {"expectReplies": 1}});
            let replica = fleet.replicas.last().unwrap();
            replica.api.send(Request::message("alice", &body).prefer("wait=20")).await.message(200);
        };
        let read = async |fleet: &Fleet, after: &str| {
            let replica = fleet.replicas.last().unwrap();
            replica.api.get(format!("/conversations/alice/events{after}")).await.message(200)
        };
        let behind = |page: &Value| format!("?after={}", page["next"].as_str().unwrap());

        say(&fleet, "one").await;
        let kept = read(&fleet, "").await;
        let keys = redis.command(&["KEYS", "*/alice"]).await.texts();
        for key in &keys {
            redis.command(&["COPY", key, &format!("{key}:before")]).await;
        }
        say(&fleet, "two").await;
        let lost = read(&fleet, &behind(&kept)).await;
        assert_eq!((lost["gap"].as_bool(), lost["events"].as_array().unwrap().len()), (Some(false), 2));

        // The newest confirmed entries are lost, and no replica remembers them.
        fleet.leave(0).await;
        for key in &keys {
            redis.command(&["COPY", &format!("{key}:before"), key, "REPLACE"]).await;
        }
        fleet.join().await;
        for text in ["three", "four"] {
            say(&fleet, text).await;
        }
        // A reader of the lost entries gets a gap, although the journal is longer now than it was then.
        let page = read(&fleet, &behind(&lost)).await;
        assert_eq!(page["gap"], true, "{page}");
        assert_eq!(page["events"], read(&fleet, "").await["events"]);
        // A reader that had not read them continues.
        let page = read(&fleet, &behind(&kept)).await;
        assert_eq!(page["gap"], false, "{page}");
        let end = kept["events"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
        assert_eq!(page["events"][0]["seq"], end + 1);
        fleet.finish().await;
    });
}
