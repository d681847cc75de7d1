//! Replicas as processes of their own, each with its own way to Redis and to the platform; what becomes of their
//! users' messages when one of them is hurt.

mod killed;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use rtm_bridge::domain::{BotName, ConversationId, Partition, UserId};
use rtm_bridge::sandbox::{Gate, Sandbox, Script, Step};
use serde_json::{Value, json};

use crate::support::{
    Caller, Ledger, Proxy, RedisOptions, RedisServer, Request, Served, nothing_left, quiet_platform, within,
};

/// Whoever holds a lease, by partition: `name ready-conversations`.
const OWNERS: &str = r"
local names, owners = {}, {}
for _, member in ipairs(redis.call('ZRANGE', 'rtm:{fleet}:replicas', 0, -1)) do
    names[string.sub(member, 1, 16)] = string.sub(member, 17)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for number = 0, 255 do
    local lease = redis.call('HMGET', 'rtm:{p' .. number .. '}:lease', 'o', 'u')
    local held = lease[1] and lease[2] and tonumber(lease[2]) > now
    owners[number + 1] = held and names[lease[1]] or ''
end
return owners";

/// Replicas, their Redis and their platform. End them with [`Replicas::finish`].
pub(super) struct Replicas {
    pub(super) redis: RedisServer,
    sandbox: Sandbox,
    pub(super) script: Script,
    pub(super) ledger: Ledger,
    pub(super) members: Vec<Member>,
    joined: usize,
}

/// One of them.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) served: Served,
    pub(super) redis: Proxy,
    /// Its sockets go this way too.
    pub(super) platform: Proxy,
}

impl Replicas {
    /// Starts so many; each owns its share when this returns.
    pub(super) async fn start(count: usize) -> Self {
        let redis = RedisServer::start(RedisOptions::default()).await;
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let (script, ledger) = (sandbox.script(), Ledger::default());
        let mut replicas = Self { redis, sandbox, script, ledger, members: Vec::new(), joined: 0 };
        for _ in 0..count {
            replicas.join().await;
        }
        replicas.shared().await;
        replicas
    }

    /// Starts one more.
    pub(super) async fn join(&mut self) {
        let name = format!("replica-{}", self.joined);
        self.joined += 1;
        let platform = self.sandbox.url();
        let platform = Proxy::start(platform.strip_prefix("http://").unwrap().parse().unwrap());
        let redis = Proxy::start(([127, 0, 0, 1], self.redis.port).into());
        let way = format!("http://{}", platform.address());
        let settings = [("BOTS__SANDBOX__SOCKET_BASE", &*way), ("SERVER__GRACE", "300ms")];
        let store = format!("redis://{}", redis.address());
        let served = Served::start_with(&name, &way, &store, "", &settings).await;
        self.members.push(Member { name, served, redis, platform });
    }

    /// Who owns each partition; empty where nobody does.
    pub(super) async fn owners(&self) -> Vec<String> {
        self.redis.command(&["EVAL", OWNERS, "0"]).await.texts()
    }

    /// Waits until each partition is owned by one of those that are left, and each of them owns some.
    pub(super) async fn shared(&self) {
        let names: BTreeSet<_> = self.members.iter().map(|member| member.name.clone()).collect();
        let fair = Partition::COUNT / names.len() / 2;
        within(Duration::from_secs(25), "the partitions are shared out", async || {
            let mut shares: BTreeMap<String, usize> = BTreeMap::new();
            for owner in self.owners().await {
                *shares.entry(owner).or_default() += 1;
            }
            shares.keys().eq(&names) && shares.values().all(|share| *share >= fair)
        })
        .await;
    }

    /// So many users whose conversations this replica owns.
    pub(super) async fn users(&self, prefix: &str, owner: &Member, count: usize) -> Vec<String> {
        let owners = self.owners().await;
        let users = (0..).map(|number| format!("{prefix}-{number}"));
        users.filter(|user| owners[partition(user).index()] == owner.name).take(count).collect()
    }

    /// Waits until so many messages of a user are accepted and have not ended.
    pub(super) async fn open(&self, user: &str, count: usize) {
        let key = format!("rtm:{{{}}}:c:sandbox/{user}", partition(user));
        within(Duration::from_secs(20), &format!("{count} messages of {user} are open"), async || {
            let lane = self.redis.command(&["HMGET", &key, "l"]).await;
            let lane = lane.list()[0].clone();
            let open = if lane == crate::support::Resp::None { 0 } else { lane.text().matches(' ').count() };
            open == count
        })
        .await;
    }

    /// Where to call them.
    pub(super) fn callers(&self) -> Vec<Caller> {
        self.members.iter().map(|member| member.served.api).collect()
    }

    /// Checks all promises, ends all that is left, and looks into Redis.
    pub(super) async fn finish(mut self) {
        self.ledger.check(&self.callers(), &self.script).await;
        for member in &mut self.members {
            assert_eq!(member.served.terminate().await, 0);
        }
        nothing_left(&[&self.redis], "rtm", Duration::from_mins(1)).await;
        self.sandbox.stop().await;
    }
}

fn partition(user: &str) -> Partition {
    Partition::of(&ConversationId::new(BotName::sandbox(), UserId::new(user).unwrap()))
}

/// Users whose first messages stand still halfway, each group somewhere else.
pub(super) struct Halfway {
    /// By what the message waits for.
    users: BTreeMap<&'static str, Vec<String>>,
    /// What lets the bot go on, by user.
    gates: BTreeMap<String, Gate>,
}

/// The two replies that every message gets in the end.
const TURN: u64 = 2;

/// What the message of each group waits for, and the status that it has meanwhile. Those that settle wait for
/// their last reply, and the test sees to it that it cannot be stored in peace.
const STAGES: [(&str, &str); 4] =
    [("acking", "sent"), ("replying", "acked"), ("repeating", "answering"), ("settling", "answering")];

impl Halfway {
    /// Brings messages of this replica's users, so many each, to where they stand still; the others are called.
    pub(super) async fn bring(replicas: &Replicas, owner: &Member, each: usize) -> Self {
        let (mut users, mut gates) = (BTreeMap::new(), BTreeMap::new());
        for (stage, _) in STAGES {
            let group = replicas.users(stage, owner, each).await;
            gates.extend(group.iter().map(|user| (user.clone(), Gate::new())));
            users.insert(stage, group);
        }
        let known = gates.clone();
        replicas.script.bot(move |who, heard| {
            let say = |number| Step::Say(format!("{}, reply {number}", heard.text));
            let mut steps = vec![Step::Ack, say(1), say(2)];
            if let Some(gate) = known.get(who.user()) {
                let place = match who.user().split('-').next() {
                    Some("acking") => 0,
                    Some("replying") => 1,
                    _ => 2,
                };
                steps.insert(place, Step::Until(gate.clone()));
            }
            steps
        });
        let halfway = Self { users, gates };
        let callers = replicas.callers();
        for (stage, status) in STAGES {
            for (number, user) in halfway.group(stage).iter().enumerate() {
                let resend = if number % 2 == 0 { "never" } else { "auto" };
                let caller = callers[number % callers.len()];
                let fields = json!({"resend": resend, "turn": turn()});
                let answer = replicas.ledger.post(caller, user, &fields, "respond-async").await.unwrap();
                answer.message(202);
                let location = answer.header("location").unwrap().to_owned();
                status_is(caller, &location, status).await;
            }
        }
        halfway
    }

    pub(super) fn group(&self, stage: &str) -> &[String] {
        &self.users[stage]
    }

    /// Lets the bot go on with these.
    pub(super) fn open<'a>(&self, users: impl IntoIterator<Item = &'a String>) {
        for user in users {
            self.gates[user].open();
        }
    }

    /// All users, in two halves.
    pub(super) fn halves(&self) -> [Vec<&String>; 2] {
        [0, 1].map(|half| self.gates.keys().skip(half).step_by(2).collect())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.gates.keys()
    }
}

/// What ends a message's turn.
pub(super) fn turn() -> Value {
    json!({"expectReplies": TURN, "deadlineMs": 30_000})
}

/// Waits until the message at a location has this status.
pub(super) async fn status_is(caller: Caller, location: &str, status: &str) {
    within(Duration::from_secs(20), &format!("{location} is {status}"), async || {
        caller.send(Request::get(location)).await.message(200)["status"] == status
    })
    .await;
}

/// Fails unless the message was answered in full: nothing that happened here may cost a reply.
#[track_caller]
pub(super) fn answered(message: &Value) {
    let replies = message["replies"].as_array().unwrap();
    let texts: Vec<_> = replies.iter().map(|reply| reply["text"].as_str().unwrap()).collect();
    let text = message["text"].as_str().unwrap();
    let wanted: Vec<_> = (1..=TURN).map(|number| format!("{text}, reply {number}")).collect();
    assert_eq!(message["status"], "answered", "{message}");
    assert_eq!(texts, wanted, "{message}");
}

/// Fails where the platform saw a text of a user more than once, whoever may resend: its history proves them all.
pub(super) fn sent_once(script: &Script, user: &str, count: usize) {
    let observed = script.observed(user);
    let texts: HashSet<_> = observed.messages.iter().map(|heard| &heard.text).collect();
    assert_eq!((texts.len(), observed.messages.count()), (count, count), "{:?}", observed.messages);
}
