//! Deliveries whose owner is killed, pauses or leaves at each step of an attempt, or whose store is down or emptied.
//!
//! Receivers get all of them in order and under the same ids. A new owner attempts no head that may still be in flight
//! before the attempt's timeout.

mod scene;

use std::time::Duration;

use rtm_sandbox::{Gate, Step};
use serde_json::json;

use self::scene::{MESSAGES, Scene, asking_for, check, delivered, group, not_before};
use crate::support::{ReceiverAnswer, RedisOptions, Request, run_for, until};

const GUARD: Duration = Duration::from_mins(1);

#[test]
fn killed_owner_before_the_answer_is_redelivered() {
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
            // Of the turn only its end remains to be stored.
            until("the first reply is stored", async || {
                caller.get(location).await.message(200)["status"] == "answering"
            })
            .await;
        }
        // Requests through this proxy stop halfway.
        scene.way.hang().await;
        let reaches: Vec<_> =
            ["noted", "held", "ended"].into_iter().flat_map(|group| scene.of(group)).cloned().collect();
        scene.post(&reaches, 2).await;
        scene.reached(4).await;
        let told = scene.receiver.requests();
        for user in scene.of("noted") {
            scene.first_when(user, |first| first.begun).await;
        }
        // From now on Redis executes the owner's commands, and the owner gets no answers.
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
fn killed_owner_after_the_answer_is_redelivered() {
    run_for(GUARD, async {
        let mut scene = Scene::set(&["answered", "waiting"], RedisOptions::default()).await;
        scene.answers(&[("answered", ReceiverAnswer::Held(204)), ("waiting", asking_for("9"))]);
        scene.post(scene.all(), 2).await;
        scene.reached(4).await;
        scene.refused("waiting").await;
        let dues = scene.dues(scene.all()).await;
        let before = delivered(&scene.victim).await;
        // The owner gets the receiver's answers, but Redis does not get its commands.
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
fn resumed_owner_after_its_lease_delivers_nothing() {
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
fn leaving_owner_hands_off_its_attempts_at_once() {
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
            // A cancelled attempt delays nothing, but a receiver's request for time does.
            assert_eq!(again >= due, user.starts_with("waiting"), "{user}: {again:?}, due {due:?}");
        }
        scene.replicas.finish().await;
    });
}

#[test]
fn store_back_with_its_data_lost_no_delivery() {
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
            // The owner still knows which deliveries were answered and does not repeat them.
            let first: &[u32] = if user.starts_with("held") { &[1] } else { &[1, 2] };
            check(user, &told[user], first);
        }
        scene.replicas.members.insert(0, scene.victim);
        scene.replicas.finish().await;
    });
}

#[test]
fn store_emptied_delivers_later_messages() {
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
