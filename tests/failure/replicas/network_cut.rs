//! A replica that cannot reach Redis while the others can.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Endpoint, Fault};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::held_messages::{HeldMessages, sent_once, talk, turn};
use super::partition_owners::PartitionOwners;
use crate::support::{
    Fleet, Ledger, Proxy, RedisOptions, RedisServer, Request, nothing_left, run_for, until,
};

/// Longer than in other fleets of one process, because Redis can be slow on a busy machine.
const LEASE: Duration = Duration::from_secs(2);

/// The timeout of a command.
const COMMAND: Duration = Duration::from_millis(600);

/// The way in which the connection breaks.
#[derive(Debug, Clone, Copy)]
enum Break {
    Cut,
    Hang,
    LoseAnswers,
}

impl Break {
    async fn strike(self, way: &Proxy) {
        match self {
            Self::Cut => way.cut().await,
            Self::Hang => way.hang().await,
            Self::LoseAnswers => way.lose_answers().await,
        }
    }
}

/// A fleet whose replicas are cut off in turn.
struct Stage {
    redis: RedisServer,
    fleet: Fleet,
    ledger: Ledger,
}

impl Stage {
    /// Waits until each replica owns its share.
    async fn shared(&self) {
        PartitionOwners(&self.redis).shared(self.fleet.replicas.iter().map(|replica| &*replica.name)).await;
    }

    async fn cut_off(&self, victim: usize, way: Break) {
        self.shared().await;
        let Self { redis, fleet, ledger } = self;
        let (script, owners) = (&fleet.script, PartitionOwners(redis));
        let hurt = &fleet.replicas[victim];
        let mut callers = fleet.callers();
        callers.remove(victim);
        let halfway = HeldMessages::bring((script, ledger), owners, (&hurt.name, victim), &callers, 2).await;
        let [sooner, later] = halfway.halves();
        // These get their ticket when the replica may no longer use it.
        let unsent = owners.users(&format!("unsent-{victim}"), &hurt.name, 4).await;
        script.fault(Endpoint::Start, Fault::Slow(LEASE * 9 / 10));

        let post = async |(number, user): (usize, &String)| {
            talk(ledger, callers[number % callers.len()], user).await;
        };
        let taken_over = Notify::new();
        let first = async {
            join_all(sooner.iter().copied().chain(&unsent).enumerate().map(post)).await;
            taken_over.notify_one();
        };
        let then = join_all(later.iter().copied().enumerate().map(post));
        let breaks = async {
            for user in halfway.all() {
                owners.open(user, 2).await;
            }
            for user in &unsent {
                script.observed_when(&**user, |seen| seen.grants > 0).await;
            }
            let struck = Instant::now();
            way.strike(hurt.way_to_redis()).await;
            // From then on the replica may not connect. It renewed its leases before.
            let silence = async {
                sleep_until(struck + LEASE * 2 / 3).await;
                hurt.platform.taken()
            };
            let (taken, ()) = tokio::join!(silence, self.says_so(victim));
            script.clear_all_faults();
            script.connected(&**sooner[0], 2).await;
            halfway.open(sooner.iter().copied());
            taken_over.notified().await;
            assert_eq!(hurt.platform.taken(), taken, "it goes on connecting");
            for user in &later {
                script.connected(&***user, 2).await;
            }
            hurt.way_to_redis().heal().await;
            until("it is back", async || hurt.admin.get("/readyz").await.status == 200).await;
            halfway.open(later.iter().copied());
        };
        // Callers that wait at the cut-off replica get the end when it is back.
        let reads = async { tokio::join!(halfway.answered(callers[0]), halfway.answered(hurt.api)) };
        tokio::join!(first, then, reads, breaks);
        self.shared().await;
        for user in halfway.all().chain(&unsent) {
            talk(ledger, hurt.api, user).await;
            let count = if unsent.contains(user) { 2 } else { 3 };
            sent_once(script, user, count);
        }
    }

    /// Checks that callers of the replica soon learn that it has no store.
    async fn says_so(&self, victim: usize) {
        let hurt = &self.fleet.replicas[victim];
        let soon = COMMAND + Duration::from_secs(1);
        for round in 0..2 {
            let asked = Instant::now();
            let user = format!("unlucky-{victim}-{round}");
            let answer =
                self.ledger.post(hurt.api, &user, &json!({"turn": turn()}), "wait=55").await.unwrap();
            answer.problem(503, "store-unavailable");
            assert!(answer.retry_after() > 0 && asked.elapsed() <= soon, "{:?}: {answer}", asked.elapsed());
        }
        until("it is not ready", async || hurt.admin.get("/readyz").await.status == 503).await;
        assert_eq!(hurt.admin.send(Request::get("/livez")).await.status, 200);
    }
}

#[test]
fn replicas_cut_off_in_turn_keep_the_promises() {
    run_for(Duration::from_mins(1), async {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let fleet = Fleet::start(redis.config(), 3, |config| {
            config.cluster.lease_ttl = LEASE;
            config.store.command_timeout = COMMAND;
        })
        .await;
        let stage = Stage { redis, fleet, ledger: Ledger::default() };
        for (victim, way) in [Break::Cut, Break::Hang, Break::LoseAnswers].into_iter().enumerate() {
            println!("{way:?}");
            stage.cut_off(victim, way).await;
        }
        let Stage { redis, fleet, ledger } = stage;
        ledger.retry(fleet.callers()[0]).await;
        ledger.check(&fleet.callers(), &fleet.script).await;
        fleet.finish().await;
        nothing_left(&[&redis], "rtm", redis.config().message_ttl).await;
    });
}
