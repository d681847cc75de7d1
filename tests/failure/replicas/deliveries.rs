//! Deliveries whose owner is killed, stops for a while or goes, at every step of an attempt; and whose store is away
//! or emptied.
//!
//! Receivers are told all of it under the same ids, in order, and a head that may be in flight is nobody else's before
//! its time is over.

mod scene;

use std::time::Duration;

use rtm_sandbox::{Gate, Step};
use serde_json::json;

use self::scene::{MESSAGES, Scene, asking_for, check, delivered, group, not_before};
use crate::support::{ReceiverAnswer, RedisOptions, Request, run_for, until};

const GUARD: Duration = Duration::from_mins(1);

#[test]
fn what_a_killed_owner_was_about_to_tell_and_could_not_hear_of_is_told() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["unnoted", "noted", "held", "ended"], RedisOptions::default()).await;
        scene.answers(&[("held", ReceiverAnswer::Silence), ("ended", ReceiverAnswer::Held(204))]);
        let gate = Gate::new();
        for user in scene.of("unnoted") {
            let say = || Step::Say("x".to_owned());
            scene.replicas.script.next(&**user, vec![Step::Ack, say(), Step::Until(gate.clone()), say()]);
            let caller = scene.replicas.callers()[0];
            let body = json!({"text": "hi", "turn": {"expectReplies": 2}});
            let posted = caller.send(Request::message(user, &body).prefer("respond-async")).await;
            let location = posted.header("location").unwrap();
            // Of the turn only its end is left to be stored.
            until("the first reply is stored", async || {
                caller.get(location).await.message(200)["status"] == "answering"
            })
            .await;
        }
        // The requests to these stop halfway.
        scene.way.hang().await;
        let reaches: Vec<_> =
            ["noted", "held", "ended"].into_iter().flat_map(|group| scene.of(group)).cloned().collect();
        scene.post(&reaches, 2).await;
        scene.reached(4).await;
        let told = scene.receiver.requests();
        for user in scene.of("noted") {
            scene.first_when(user, |first| first.begun).await;
        }
        // From here on Redis does what the owner says, and the owner does not learn of it.
        scene.victim.redis.lose_answers().await;
        gate.open();
        scene.receiver.answer_held();
        for user in scene.of("unnoted") {
            scene.first_when(user, |first| !first.begun).await;
        }
        for user in scene.of("ended") {
            until("its end is stored", async || scene.standing(user, "delivered").await.len() == 1).await;
        }
        let flying: Vec<_> = scene.of("noted").chain(scene.of("held")).cloned().collect();
        let dues = scene.dues(&flying).await;
        scene.victim.served.kill();
        scene.way.cut().await;
        scene.way.heal().await;
        scene.answers(&[]);
        assert_eq!(scene.receiver.requests().len(), told.len(), "nothing came of the others");
        scene.post(&reaches, 1).await;
        scene.post(scene.of("unnoted"), 2).await;

        let told = scene.told().await;
        for user in scene.all() {
            let first: &[u32] = if user.starts_with("held") { &[1, 1] } else { &[1] };
            check(user, &told[user], first);
            if let Some(due) = dues.get(user) {
                not_before(*due, &told[user][first.len() - 1]);
            }
        }
        scene.replicas.finish().await;
    });
}

#[test]
fn what_a_killed_owner_could_not_note_is_told_again_and_what_waited_waits_on() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["answered", "waiting"], RedisOptions::default()).await;
        scene.answers(&[("answered", ReceiverAnswer::Held(204)), ("waiting", asking_for("9"))]);
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        scene.refused("waiting").await;
        let dues = scene.dues(scene.all()).await;
        let before = delivered(&scene.victim).await;
        // It learns what the receiver answers, and Redis does not.
        scene.victim.redis.hang().await;
        scene.receiver.answer_held();
        until("it knows what was answered", async || delivered(&scene.victim).await == before + 2).await;
        scene.victim.served.kill();
        scene.answers(&[]);
        scene.post(scene.all(), 1).await;

        let told = scene.told().await;
        for user in scene.all() {
            let first = if user.starts_with("waiting") { [1, 2] } else { [1, 1] };
            check(user, &told[user], &first);
            not_before(dues[user], &told[user][1]);
        }
        scene.replicas.finish().await;
    });
}

#[test]
fn an_owner_that_wakes_late_tells_nobody() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["held", "waiting", "noted"], RedisOptions::default()).await;
        scene.answers(&[("held", ReceiverAnswer::Silence), ("waiting", asking_for("4"))]);
        scene.way.hang().await;
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        scene.refused("waiting").await;
        for user in scene.of("noted") {
            scene.first_when(user, |first| first.begun).await;
        }
        let dues = scene.dues(scene.all()).await;
        scene.victim.served.pause();
        scene.way.cut().await;
        scene.way.heal().await;
        scene.answers(&[]);
        scene.post(scene.all(), 1).await;
        let told = scene.told().await;
        for user in scene.all() {
            let first: &[u32] = match group(user) {
                "held" => &[1, 1],
                "waiting" => &[1, 2],
                _ => &[1],
            };
            check(user, &told[user], first);
            not_before(dues[user], &told[user][first.len() - 1]);
        }
        let count = scene.receiver.requests().len();
        scene.victim.served.resume();
        scene.replicas.members.insert(0, scene.victim);
        scene.replicas.shared().await;
        assert_eq!(scene.receiver.requests().len(), count, "it told what was another's");
        scene.replicas.finish().await;
    });
}

#[test]
fn an_owner_that_goes_hands_over_what_it_was_attempting_at_once() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["held", "waiting"], RedisOptions::default()).await;
        scene.answers(&[("held", ReceiverAnswer::Silence), ("waiting", asking_for("8"))]);
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        scene.refused("waiting").await;
        let dues = scene.dues(scene.all()).await;
        scene.answers(&[]);
        assert_eq!(scene.victim.served.terminate().await, 0);
        scene.post(scene.all(), 1).await;
        let told = scene.told().await;
        for user in scene.all() {
            check(user, &told[user], &[1, 2]);
            let (again, due) = (told[user][1].at, dues[user]);
            // Nobody waits for an attempt that was broken off, and everybody for a receiver that asked for time.
            assert_eq!(again >= due, user.starts_with("waiting"), "{user}: {again:?}, due {due:?}");
        }
        scene.replicas.finish().await;
    });
}

#[test]
fn a_store_that_comes_back_with_its_data_has_lost_no_delivery() {
    run_for(GUARD, async {
        let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
        let mut scene = Scene::set(&["held", "waiting"], options).await;
        scene.answers(&[("held", ReceiverAnswer::Held(204)), ("waiting", ReceiverAnswer::status(503))]);
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        scene.refused("waiting").await;
        scene.replicas.redis.kill();
        scene.receiver.answer_held();
        scene.answers(&[]);
        let admin = scene.victim.served.admin;
        until("it knows that the store is away", async || admin.get("/readyz").await.status == 503).await;
        scene.replicas.redis.restart().await;
        scene.post(scene.all(), 1).await;
        let told = scene.told().await;
        for user in scene.all() {
            // What was answered is not told again: its owner still knows it.
            let first: &[u32] = if user.starts_with("held") { &[1] } else { &[1, 2] };
            check(user, &told[user], first);
        }
        scene.replicas.members.insert(0, scene.victim);
        scene.replicas.finish().await;
    });
}

#[test]
fn a_store_that_was_emptied_delivers_what_comes_after() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["held", "waiting"], RedisOptions::default()).await;
        scene.answers(&[("held", ReceiverAnswer::Held(204)), ("waiting", ReceiverAnswer::status(503))]);
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        let lost: Vec<_> = scene.receiver.requests().iter().map(|told| told.id().to_owned()).collect();
        scene.replicas.redis.flush().await;
        scene.receiver.answer_held();
        scene.answers(&[]);
        scene.replicas.members.insert(0, scene.victim);
        scene.replicas.shared().await;
        scene.victim = scene.replicas.members.remove(0);
        scene.post(scene.all(), MESSAGES).await;
        let told = scene.told().await;
        for user in scene.all() {
            let told: Vec<_> =
                told[user].iter().filter(|told| !lost.contains(&told.id().to_owned())).cloned().collect();
            check(user, &told, &[1]);
        }
        scene.replicas.members.insert(0, scene.victim);
        scene.replicas.finish().await;
    });
}
