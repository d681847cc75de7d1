//! `kill -9` of the replica that owns the users' conversations.

use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::sandbox::{Endpoint, Fault};
use serde_json::json;

use super::{Halfway, Replicas, answered, sent_once, turn};
use crate::support::run_for;

/// What keeps the last write before the end from being known to who sent it.
#[derive(Debug, Clone, Copy)]
enum Settling {
    /// Redis carries it out, and the answer is lost.
    Unheard,
    /// It does not reach Redis.
    Undone,
}

/// Kills a replica while messages of its users are in every state.
async fn kill(settling: Settling) {
    let mut replicas = Replicas::start(3).await;
    let mut victim = replicas.members.remove(0);
    let (script, callers) = (replicas.script.clone(), replicas.callers());
    let halfway = Halfway::bring(&replicas, &victim, 2).await;
    // These wait for a connection, and do not get one.
    let unsent = replicas.users("unsent", &victim, 4).await;
    script.fault(Endpoint::Start, Fault::Hang);
    let starts = script.totals().starts;

    // Behind each message another one, that nobody has sent either.
    let users: Vec<_> = halfway.all().chain(&unsent).chain(&unsent).cloned().collect();
    let posts = join_all(users.iter().enumerate().map(async |(number, user)| {
        let caller = callers[number % callers.len()];
        let answer = replicas.ledger.post(caller, user, &json!({"turn": turn()}), "wait=55").await.unwrap();
        answered(&answer.message(200));
    }));
    let dies = async {
        for user in halfway.all().chain(&unsent) {
            replicas.open(user, 2).await;
        }
        script.wait_until(|script| script.totals().starts >= starts + unsent.len() as u64).await;
        match settling {
            Settling::Unheard => victim.redis.lose_answers().await,
            Settling::Undone => victim.redis.hang().await,
        }
        for user in halfway.group("settling") {
            halfway.open([user]);
            script.delivered(&**user, 2).await;
            if matches!(settling, Settling::Unheard) {
                replicas.open(user, 1).await;
            }
        }
        victim.served.kill();
        script.clear_all_faults();
        // The bot goes on with some before anybody is back to hear it.
        let [sooner, later] = halfway.halves();
        halfway.open(sooner);
        for user in later {
            script.connected(&**user, 2).await;
            halfway.open([user]);
        }
    };
    tokio::join!(posts, dies);
    for user in halfway.all().chain(&unsent) {
        sent_once(&script, user, 2);
    }
    replicas.shared().await;
    replicas.finish().await;
}

#[test]
fn a_killed_replica_costs_nobody_an_answer() {
    run_for(Duration::from_secs(60), kill(Settling::Undone));
}

#[test]
fn a_replica_killed_over_an_unheard_answer_costs_nobody_one() {
    run_for(Duration::from_secs(60), kill(Settling::Unheard));
}
