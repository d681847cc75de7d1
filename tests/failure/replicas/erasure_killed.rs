//! `kill -9` of the replica that erases a conversation.

use std::time::Duration;

use rtm_sandbox::Step;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Replicas;
use crate::failure::store_load::partition;
use crate::support::{Answer, Caller, Request, find_text, run_for, within};

/// Messages of the user before the erasure, each with a key.
const MESSAGES: usize = 24;

/// Foreign keys in Redis. An erasure looks through a thousand keys in each step.
const FILLER: &str = "for number = 1, 30000 do redis.call('SET', 'filler:' .. number, 'x') end return 1";

/// A user whose conversation the victim owns, and who has said something.
struct ErasedUser {
    name: String,
    /// A caller of another replica than the victim.
    api: Caller,
}

impl ErasedUser {
    async fn new(replicas: &Replicas, victim: &str) -> Self {
        let name = replicas.owners().users("forgettable", victim, 1).await.remove(0);
        let user = Self { name, api: replicas.callers()[0] };
        for number in 0..MESSAGES {
            user.say(replicas, number).await.message(200);
        }
        user
    }

    /// Sends a message with the key of this number.
    async fn say(&self, replicas: &Replicas, number: usize) -> Answer {
        replicas.script.next(&*self.name, Step::reply("noted"));
        let body = json!({"text": "remember me", "turn": {"expectReplies": 1}});
        let request = Request::message(&self.name, &body).prefer("wait=55");
        self.api.send(request.header("Idempotency-Key", &format!("key-{number}"))).await
    }

    fn erase(&self) -> Request {
        Request::new("POST", format!("/conversations/{}/erase", self.name))
    }

    /// Returns the number of the user's keys in Redis that stand for idempotency keys.
    async fn keys(&self, replicas: &Replicas) -> usize {
        let pattern = format!("rtm:{{{}}}:k:*", partition(&self.name));
        replicas.redis.command(&["KEYS", &pattern]).await.list().len()
    }

    /// Checks that nothing is left of the user, and that nothing stops a later message, also under an old key.
    async fn is_forgotten(&self, replicas: &Replicas) {
        assert_eq!(find_text(&[&replicas.redis], &self.name).await, Vec::<String>::new());
        assert_eq!(self.keys(replicas).await, 0);
        let anew = self.say(replicas, 0).await;
        assert_eq!((anew.status, anew.header("idempotency-replayed")), (200, None), "{anew}");
        let page = self.api.get(format!("/conversations/{}/events?types=reply", self.name)).await.json();
        let texts: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|event| &event["data"]["text"]).collect();
        assert_eq!(texts, [&Value::from("noted")], "{page}");
    }
}

#[test]
fn owner_killed_between_deletions_costs_no_erasure() {
    run_for(Duration::from_mins(2), async {
        let mut replicas = Replicas::start(3).await;
        let mut victim = replicas.members.remove(0);
        let user = ErasedUser::new(&replicas, &victim.name).await;
        assert_eq!(user.keys(&replicas).await, MESSAGES);
        replicas.redis.command(&["EVAL", FILLER, "0"]).await;
        // Each step takes its time, so that the kill falls between two of them.
        victim.redis.delay(Duration::from_millis(20)).await;
        let dies = async {
            within(Duration::from_secs(20), "the first keys are gone", async || {
                user.keys(&replicas).await < MESSAGES
            })
            .await;
            victim.served.kill();
            assert_ne!(user.keys(&replicas).await, 0, "the kill came too late");
        };
        let (erased, ()) = tokio::join!(user.api.send(user.erase()), dies);
        assert_eq!((erased.status, erased.body.len()), (204, 0), "{erased}");
        user.is_forgotten(&replicas).await;
        replicas.finish().await;
    });
}

#[test]
fn erasure_of_a_killed_replica_is_repeatable() {
    run_for(Duration::from_mins(2), async {
        let mut replicas = Replicas::start(3).await;
        let mut victim = replicas.members.remove(0);
        let user = ErasedUser::new(&replicas, &victim.name).await;
        // The platform does not answer the end of the session, so the erasure waits for it.
        replicas.script.push(&*user.name, vec![Step::Hang]);
        let victims = victim.served.api.0;
        let mut connection = TcpStream::connect(victims).await.unwrap();
        connection.write_all(&user.erase().into_bytes(victims)).await.unwrap();
        replicas.owners().open(&user.name, 1).await;
        victim.served.kill();
        let erased = user.api.send(user.erase()).await;
        assert_eq!((erased.status, erased.body.len()), (204, 0), "{erased}");
        user.is_forgotten(&replicas).await;
        replicas.finish().await;
    });
}

#[test]
fn erasure_drops_upload_grants_of_every_replica() {
    run_for(Duration::from_mins(1), async {
        let replicas = Replicas::start(3).await;
        let upload = async |api: Caller| {
            let request = Request::new("POST", "/conversations/uploader/attachments")
                .header("Content-Type", "text/plain")
                .header("Content-Disposition", "attachment; filename=a.txt");
            api.send(request.body("hello")).await.message(201);
            replicas.script.observed("uploader").grants
        };
        for (number, api) in replicas.callers().into_iter().enumerate() {
            assert_eq!((upload(api).await, upload(api).await), (number + 1, number + 1));
        }
        let erase = Request::new("POST", "/conversations/uploader/erase");
        assert_eq!(replicas.callers()[1].send(erase).await.status, 204);
        // The hints to the other replicas may come after the answer.
        for (number, api) in replicas.callers().into_iter().enumerate() {
            within(Duration::from_secs(5), "the replica has no grant", async || {
                upload(api).await > number + 3
            })
            .await;
        }
        replicas.finish().await;
    });
}
