//! A replica that pauses for longer than its leases and then resumes.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Endpoint, Fault};
use tokio::sync::Notify;

use super::Replicas;
use super::held_messages::{sent_once, talk};
use crate::support::{Request, run_for};

#[test]
fn resumed_replica_sends_nothing() {
    run_for(Duration::from_mins(1), async {
        let mut replicas = Replicas::start(3).await;
        let mut victim = replicas.members.remove(0);
        let (script, callers, asleep) = (replicas.script.clone(), replicas.callers(), victim.served.api);
        let halfway = replicas.halfway(&victim, 2).await;
        let [sooner, later] = halfway.halves();
        // These are about to connect when the replica pauses.
        let unsent = replicas.owners().users("unsent", &victim.name, 4).await;
        script.fault(Endpoint::Start, Fault::Slow(Duration::from_secs(2)));
        let starts = script.totals().starts;

        let post = async |caller, user: &String| {
            talk(&replicas.ledger, caller, user).await;
        };
        let taken_over = Notify::new();
        let here = async {
            join_all(sooner.iter().copied().chain(&unsent).enumerate().map(async |(number, user)| {
                post(callers[number % callers.len()], user).await;
            }))
            .await;
            taken_over.notify_one();
        };
        // Some callers wait at the paused replica.
        let there = join_all(halfway.all().chain(&unsent).map(async |user| post(asleep, user).await));
        let sleeps = async {
            for user in sooner.iter().copied().chain(&unsent) {
                replicas.owners().open(user, if unsent.contains(user) { 2 } else { 3 }).await;
            }
            for user in &later {
                replicas.owners().open(user, 2).await;
            }
            script.wait_until(|script| script.totals().starts >= starts + unsent.len() as u64).await;
            victim.served.pause();
            script.clear_all_faults();
            for user in &sooner {
                // Its socket stays open and receives all replies of the bot.
                let seen = script.connected(&***user, 2).await;
                assert_eq!((seen.closes.count(), script.open_sockets(&***user)), (0, 2));
            }
            halfway.open(sooner.iter().copied());
            taken_over.notified().await;
            for user in &later {
                script.connected(&***user, 2).await;
            }
            victim.served.resume();
            for user in halfway.all() {
                let first = script.observed(&**user).connects[0].socket;
                let is_closed = |seen: &rtm_sandbox::UserObservations| {
                    seen.closes.iter().any(|closed| closed.socket == first)
                };
                script.observed_when(&**user, is_closed).await;
            }
            halfway.open(later.iter().copied());
        };
        tokio::join!(here, there, halfway.answered(asleep), sleeps);
        for user in halfway.all() {
            let observed = script.observed(&**user);
            let first = observed.connects[0].socket;
            let sent = observed.messages.iter().filter(|heard| heard.socket == first).count();
            let said = observed.others.iter().filter(|heard| heard.socket == first).count();
            assert_eq!((sent, said), (1, 0), "it spoke when it woke: {observed:?}");
        }

        // The replica rejoins, and all users continue.
        replicas.members.insert(0, victim);
        replicas.shared().await;
        for (number, user) in halfway.all().chain(&unsent).enumerate() {
            let caller = replicas.members[number % 3].served.api;
            talk(&replicas.ledger, caller, user).await;
            sent_once(&script, user, if sooner.contains(&user) { 4 } else { 3 });
        }
        assert_eq!(replicas.members[0].served.admin.send(Request::get("/readyz")).await.status, 200);
        replicas.finish().await;
    });
}
