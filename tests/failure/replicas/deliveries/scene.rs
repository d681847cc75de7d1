//! Replicas with a receiver, and users whose first deliveries are delayed in different ways.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_bridge::domain::Timestamp;
use rtm_sandbox::Step;
use serde_json::json;

use super::super::{Member, Replicas};
use crate::failure::store_load::partition;
use crate::support::{
    Proxy, ReceivedRequest, Receiver, ReceiverAnswer, RedisOptions, RedisServer, Request, SECRET, within,
};

/// The number of messages of each user, and so of deliveries.
pub(super) const MESSAGES: usize = 3;
/// `webhooks.timeout`.
pub(super) const TIMEOUT: Duration = Duration::from_secs(8);

/// A user in no group.
pub(super) const WARM: &str = "warm";

/// Replicas with a receiver, and users of the first replica.
pub(super) struct Scene {
    pub(super) replicas: Replicas,
    pub(super) receiver: Receiver,
    /// A second way to the receiver for callbacks.
    pub(super) way: Proxy,
    pub(super) victim: Member,
    /// The users by the cause that delays their first delivery.
    pub(super) users: BTreeMap<&'static str, Vec<String>>,
}

/// The state of a delivery in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeliveryStatus {
    /// The number of attempts that ended.
    pub(super) made: u32,
    /// Whether an attempt was begun.
    pub(super) begun: bool,
    /// The time at which the queue's head is due.
    pub(super) due: Timestamp,
}

impl Scene {
    /// Starts three replicas, with two users in each of these groups.
    pub(super) async fn set(groups: &[&'static str], options: RedisOptions) -> Self {
        let receiver = Receiver::start();
        let way = Proxy::start(receiver.address());
        let more = format!(
            "[webhooks]\ntimeout = \"{}s\"\nallow_private = [\"127.0.0.0/8\"]\nallowed = [\"http://{}/\"]",
            TIMEOUT.as_secs(),
            way.address()
        );
        let settings = vec![
            ("BOTS__SANDBOX__WEBHOOKS__MAIN__URL", receiver.url("/in")),
            ("BOTS__SANDBOX__WEBHOOKS__MAIN__SECRETS", SECRET.to_owned()),
        ];
        let mut replicas = Replicas::start_with(3, options, &more, settings).await;
        replicas.script.bot(|_, _| Step::reply("x"));
        let victim = replicas.members.remove(0);
        let mut users = BTreeMap::new();
        for group in groups {
            users.insert(*group, replicas.owners().users(group, &victim.name, 2).await);
        }
        let scene = Self { replicas, receiver, way, victim, users };
        // Redis must know all scripts, because an unknown script needs an answer before its retry. The first success of a
        // replica goes to another script than the second.
        let caller = scene.replicas.callers()[0];
        for delivered in 1..=2 {
            caller.send(scene.message(WARM).prefer("wait=40")).await.message(200);
            within(Duration::from_secs(10), "the scripts are known", async || {
                scene.standing(WARM, "delivered").await.len() == delivered
            })
            .await;
        }
        scene
    }

    /// Waits until the receiver got so many deliveries for the users of these groups.
    pub(super) async fn reached(&self, times: usize) {
        let of_groups =
            |told: &[ReceivedRequest]| told.iter().filter(|told| told.user() != WARM).count() >= times;
        self.receiver.requests_when(of_groups).await;
    }

    /// Sets the answers to first attempts for users of these groups. The receiver accepts all others.
    pub(super) fn answers(&self, first: &[(&'static str, ReceiverAnswer)]) {
        let first: BTreeMap<_, _> = first.iter().cloned().collect();
        self.receiver.answers(move |told| match (first.get(group(&told.user())), told.attempt()) {
            (Some(reply), 1) => reply.clone(),
            _ => ReceiverAnswer::status(204),
        });
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.users.values().flatten()
    }

    pub(super) fn of(&self, group: &str) -> impl Iterator<Item = &String> {
        self.users[group].iter()
    }

    /// Posts messages of each of these users in turn and waits until their ends are stored.
    pub(super) async fn post<'a>(&self, users: impl IntoIterator<Item = &'a String>, messages: usize) {
        let callers = self.replicas.callers();
        join_all(users.into_iter().enumerate().map(async |(number, user)| {
            for _ in 0..messages {
                let post = self.message(user).prefer("wait=40");
                callers[number % callers.len()].send(post).await.message(200);
            }
        }))
        .await;
    }

    pub(super) fn message(&self, user: &str) -> Request {
        let mut body = json!({"text": "hi", "turn": {"expectReplies": 1}});
        if user.starts_with("noted") {
            body["callback"] = json!({"url": format!("http://{}/in", self.way.address())});
        }
        Request::message(user, &body)
    }

    /// Returns the state of a user's deliveries with this status, oldest first.
    pub(super) async fn standing(&self, user: &str, state: &str) -> Vec<DeliveryStatus> {
        standing(&self.replicas.redis, user, state).await
    }

    /// Waits until the condition holds for a user's first pending delivery.
    pub(super) async fn first_when(
        &self,
        user: &str,
        is_so: impl Fn(&DeliveryStatus) -> bool,
    ) -> DeliveryStatus {
        let mut found = None;
        within(Duration::from_secs(10), &format!("the first delivery of {user} is so"), async || {
            found = self.standing(user, "pending").await.first().filter(|first| is_so(first)).cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Waits until the first attempts of this group have failed and the store knows.
    pub(super) async fn refused(&self, group: &str) {
        for user in self.of(group) {
            self.first_when(user, |first| first.made == 1 && !first.begun).await;
        }
    }

    /// Returns the time at which the delay of each of these users ends.
    pub(super) async fn dues<'a>(
        &self,
        users: impl IntoIterator<Item = &'a String>,
    ) -> BTreeMap<String, Timestamp> {
        let mut dues = BTreeMap::new();
        for user in users {
            dues.insert(user.clone(), self.standing(user, "pending").await[0].due);
        }
        dues
    }

    /// Waits until no delivery is pending and returns the deliveries of each user.
    pub(super) async fn told(&self) -> BTreeMap<String, Vec<ReceivedRequest>> {
        for user in self.all() {
            within(Duration::from_secs(30), &format!("all of {user} is delivered"), async || {
                self.standing(user, "delivered").await.len() == MESSAGES
            })
            .await;
            assert_eq!(self.standing(user, "pending").await, []);
        }
        let mut by_user: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for told in self.receiver.requests() {
            by_user.entry(told.user()).or_default().push(told);
        }
        by_user
    }
}

/// Checks that a user's deliveries came in order: the first one in these attempts, the others once.
pub(super) fn check(user: &str, told: &[ReceivedRequest], first: &[u32]) {
    let attempts: Vec<_> = told.iter().map(ReceivedRequest::attempt).collect();
    let others = vec![1; MESSAGES - 1];
    let ids: Vec<_> = told.iter().map(ReceivedRequest::id).collect();
    assert_eq!(attempts, [first, &others].concat(), "{user} was told {ids:?}");
    let (first, rest) = told.split_at(first.len());
    assert!(first.iter().all(|told| (told.id(), &told.body) == (first[0].id(), &first[0].body)));
    let times: Vec<_> = told.iter().map(happened).collect();
    assert!(times.is_sorted(), "{user}: {times:?}");
    let mut ids: Vec<_> = rest.iter().chain(&first[..1]).map(ReceivedRequest::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), MESSAGES);
    assert!(told.iter().all(|told| told.is_signed_with(SECRET)));
}

/// Checks that a delivery did not come before its time.
pub(super) fn not_before(due: Timestamp, told: &ReceivedRequest) {
    assert!(told.at >= due, "{} was told {:?} too early", told.user(), due.since(told.at));
}

/// Returns a refusal with this `Retry-After`.
pub(super) fn asking_for(seconds: &str) -> ReceiverAnswer {
    ReceiverAnswer::Status(503, vec![("Retry-After", seconds.to_owned())])
}

/// Returns the group in a user's name.
pub(super) fn group(user: &str) -> &str {
    user.split('-').next().unwrap()
}

/// Returns the number of a replica's attempts that a receiver accepted.
pub(super) async fn delivered(replica: &Member) -> u64 {
    let series = r#"rtm_bridge_delivery_attempts_total{result="delivered"} "#;
    let metrics = replica.served.admin.get("/metrics").await;
    metrics.text().lines().find_map(|line| line.strip_prefix(series)).unwrap().parse().unwrap()
}

/// Returns the time of the event that a delivery reports.
pub(super) fn happened(told: &ReceivedRequest) -> Timestamp {
    Timestamp::parse(told.json()["timestamp"].as_str().unwrap()).unwrap()
}

/// Implements [`Scene::standing`].
pub(super) async fn standing(redis: &RedisServer, user: &str, state: &str) -> Vec<DeliveryStatus> {
    const STANDING: &str = r"
local partition, name, found = KEYS[1], ARGV[2], {}
for _, member in ipairs(redis.call('ZRANGE', partition .. 'x:' .. ARGV[1], 0, -1)) do
    if string.sub(member, 28) == name then
        local stands = redis.call('HGET', partition .. 'd:' .. string.sub(member, 1, 26), 's')
        local queue, _, made, _, token = string.match(stands, '^%a+ (%x+) (%d+) (%d+) (%d+) (%x*)$')
        found[#found + 1] = {made, token, redis.call('ZSCORE', partition .. 'due', queue) or '0'}
    end
end
return found";
    let keys = format!("rtm:{{{}}}:", partition(user));
    let answer = redis.command(&["EVAL", STANDING, "1", &keys, state, &format!("sandbox/{user}")]).await;
    let standing = |fields: Vec<String>| DeliveryStatus {
        made: fields[0].parse().unwrap(),
        begun: !fields[1].is_empty(),
        due: Timestamp::from_millis(fields[2].parse().unwrap()),
    };
    answer.list().iter().map(|fields| standing(fields.texts())).collect()
}
