//! `kill -9` of the replica that owns the users' conversations.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Endpoint, Fault, Gate, Step};
use serde_json::json;
use tokio::sync::Notify;

use super::Replicas;
use super::held_messages::{sent_once, talk};
use super::load::{Load, Patience};
use crate::support::{Request, run_for, until};

/// The reason why the victim does not know the result of its last write.
#[derive(Debug, Clone, Copy)]
enum LastWrite {
    /// Redis executes the write, and the answer is lost.
    Unheard,
    /// The write does not reach Redis.
    Undone,
}

/// Kills a replica while messages of its users are in every state.
async fn kill(settling: LastWrite) {
    let mut replicas = Replicas::start(3).await;
    let mut victim = replicas.members.remove(0);
    let (script, callers) = (replicas.script.clone(), replicas.callers());
    let halfway = replicas.halfway(&victim, 2).await;
    // Redis knows the script of such an end from now on, so a lost answer cannot be that it does not.
    for user in replicas.owners().users("first", &victim.name, 1).await {
        talk(&replicas.ledger, callers[0], &user).await;
    }
    // These wait for a connection in vain.
    let unsent = replicas.owners().users("unsent", &victim.name, 4).await;
    script.fault(Endpoint::Start, Fault::Hang);
    let starts = script.totals().starts;

    // Behind each message waits another one, not sent either.
    let users: Vec<_> = halfway.all().chain(&unsent).chain(&unsent).collect();
    let posts = join_all(users.iter().enumerate().map(async |(number, user)| {
        let caller = callers[number % callers.len()];
        talk(&replicas.ledger, caller, user).await;
    }));
    // A reader's note at a message makes the owner's next write take two calls. The second one follows an answer.
    let settled = Notify::new();
    let dies = async {
        for user in halfway.all().chain(&unsent) {
            replicas.owners().open(user, 2).await;
        }
        script.wait_until(|script| script.totals().starts >= starts + unsent.len() as u64).await;
        match settling {
            LastWrite::Unheard => victim.redis.lose_answers().await,
            LastWrite::Undone => victim.redis.hang().await,
        }
        for user in halfway.group("settling") {
            halfway.open([user]);
            script.delivered(&**user, 2).await;
            if matches!(settling, LastWrite::Unheard) {
                replicas.owners().open(user, 1).await;
            }
        }
        settled.notify_one();
        victim.served.kill();
        script.clear_all_faults();
        // The bot answers some before a new owner listens.
        let [sooner, later] = halfway.halves();
        halfway.open(sooner);
        for user in later {
            script.connected(&**user, 2).await;
            halfway.open([user]);
        }
    };
    let reads = async {
        settled.notified().await;
        join_all(callers.iter().map(|caller| halfway.answered(*caller))).await;
    };
    tokio::join!(posts, reads, dies);
    for user in halfway.all().chain(&unsent) {
        sent_once(&script, user, 2);
    }
    replicas.shared().await;
    replicas.finish().await;
}

#[test]
fn killed_replica_costs_no_answer() {
    run_for(Duration::from_mins(1), kill(LastWrite::Undone));
}

#[test]
fn killed_replica_with_a_lost_answer_costs_no_answer() {
    run_for(Duration::from_mins(1), kill(LastWrite::Unheard));
}

/// Kills the owner of a user whose bot was asked to speak first, before it speaks.
async fn kill_before_the_greeting() {
    let mut replicas = Replicas::start(3).await;
    let mut victim = replicas.members.remove(0);
    let (script, api) = (replicas.script.clone(), replicas.callers()[0]);
    let users = replicas.owners().users("greeted", &victim.name, 2).await;
    let gate = Gate::new();
    let mut locations = Vec::new();
    let body = json!({"event": "connect", "customData": {"page": "loans"}});
    let before = replicas.owners().users("before", &victim.name, 1).await.remove(0);
    script.next_connect(&*before, vec![Step::Say("Welcome!".to_owned())]);
    api.send(Request::message(&before, &body).prefer("wait=55")).await.message(200);
    for user in &users {
        let greeting = vec![Step::Until(gate.clone()), Step::Say("Welcome!".to_owned())];
        script.next_connect(&**user, greeting);
        // Another replica than the owner accepts it.
        let posted = api.send(Request::message(user, &body).prefer("respond-async")).await;
        posted.message(202);
        let location = posted.header("location").unwrap().to_owned();
        until("the owner has connected", async || api.get(&*location).await.json()["status"] == "sent").await;
        locations.push(location);
    }
    victim.served.kill();
    gate.open();
    for (user, location) in users.iter().zip(locations) {
        let message = api.send(Request::get(location).prefer("wait=55")).await.message(200);
        assert_eq!(
            (&message["status"], &message["event"]),
            (&json!("answered"), &json!("connect")),
            "{message}"
        );
        assert_eq!(message["replies"][0]["text"], "Welcome!", "{message}");
        let seen = script.observed(&**user);
        let modes: Vec<_> = seen.connects.iter().filter_map(|connect| connect.mode.as_deref()).collect();
        assert_eq!(modes[..2], ["Start_New", "Reconnect"], "one session began");
        assert_eq!(seen.start_infos[1]["customData"], json!({"page": "loans"}), "the new owner knows it too");
    }
    script.next(&*before, Step::reply("x"));
    let text = json!({"text": "hi", "turn": {"expectReplies": 1}});
    api.send(Request::message(&before, &text).prefer("wait=55")).await.message(200);
    let frame = &script.observed(&*before).messages[0].frame;
    assert_eq!(frame["customData"], json!({"page": "loans"}), "the new owner read it from the store");
    replicas.finish().await;
}

#[test]
fn owner_killed_before_a_greeting_costs_no_greeting() {
    run_for(Duration::from_mins(1), kill_before_the_greeting());
}

#[test]
fn replicas_killed_under_load_keep_the_promises() {
    run_for(Duration::from_mins(1), async {
        let mut replicas = Replicas::start(3).await;
        let load = Load::new(&replicas, Patience::Deaths);
        let deaths = async {
            for _ in 0..2 {
                load.answered(20).await;
                let mut victim = replicas.members.remove(0);
                victim.served.kill();
                replicas.join().await;
                load.turn_to(&replicas);
                replicas.shared().await;
            }
            load.answered(20).await;
            load.end();
        };
        tokio::join!(load.run(), deaths);
        Rc::clone(&replicas.ledger).retry(replicas.members[0].served.api).await;
        replicas.finish().await;
    });
}
