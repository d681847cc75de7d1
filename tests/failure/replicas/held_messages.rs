//! Messages that are held at different stages, and the checks of their ends.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{Gate, SandboxScript, Step};
use serde_json::{Value, json};

use super::partition_owners::PartitionOwners;
use crate::support::{Answer, Caller, Ledger, Request, within};

/// The groups of messages: the event that each waits for and its status meanwhile. Messages that settle wait for their
/// last reply, as those that repeat do. The test ensures that the store cannot confirm that reply.
const STAGES: [(&str, &str); 4] =
    [("acking", "sent"), ("replying", "acked"), ("repeating", "answering"), ("settling", "answering")];

/// The number of replies to each message.
const REPLIES: u64 = 2;

/// Users of one replica with held messages.
pub(super) struct HeldMessages {
    groups: BTreeMap<&'static str, Vec<String>>,
    /// The locations of their messages.
    locations: Vec<String>,
    /// The gates that release the bot, by user.
    gates: BTreeMap<String, Gate>,
}

impl HeldMessages {
    /// Posts a message of several users per group to these callers and waits until all are held. The users' names contain
    /// the unique `round`, and this replica owns their conversations.
    pub(super) async fn bring(
        (script, ledger): (&SandboxScript, &Ledger),
        owners: PartitionOwners<'_>,
        (replica, round): (&str, usize),
        callers: &[Caller],
        each: usize,
    ) -> Self {
        let (mut groups, mut gates) = (BTreeMap::new(), BTreeMap::new());
        for (stage, _) in STAGES {
            let group = owners.users(&format!("{stage}-{round}"), replica, each).await;
            gates.extend(group.iter().map(|user| (user.clone(), Gate::new())));
            groups.insert(stage, group);
        }
        let known = gates.clone();
        script.bot(move |who, heard| {
            let say = |number| Step::Say(format!("{}, reply {number}", heard.text));
            let mut steps: Vec<_> = [Step::Ack].into_iter().chain((1..=REPLIES).map(say)).collect();
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
        let mut locations = Vec::new();
        for (stage, status) in STAGES {
            for (number, user) in groups[stage].iter().enumerate() {
                let resend = if number % 2 == 0 { "never" } else { "auto" };
                let caller = callers[number % callers.len()];
                let fields = json!({"resend": resend, "turn": turn()});
                let answer = ledger.post(caller, user, &fields, "respond-async").await.unwrap();
                answer.message(202);
                let location = answer.header("location").unwrap().to_owned();
                // On a busy machine the store may be slow once, so this is a retry.
                let is_so = async || caller.get(&*location).await.json()["status"] == status;
                within(Duration::from_secs(20), &format!("{location} is {status}"), is_so).await;
                locations.push(location);
            }
        }
        Self { groups, locations, gates }
    }

    /// Waits at this replica until all have ended. A request that failed with the loss of Redis is repeated.
    pub(super) async fn answered(&self, caller: Caller) {
        let read = async |location: &String| {
            let mut answer = None;
            within(Duration::from_secs(50), &format!("{location} has ended"), async || {
                let read = caller.send(Request::get(&**location).prefer("wait=55")).await;
                if read.status == 503 {
                    read.problem(503, "store-unavailable");
                    return false;
                }
                answer = Some(read);
                true
            })
            .await;
            answered(&answer.unwrap());
        };
        join_all(self.locations.iter().map(read)).await;
    }

    pub(super) fn group(&self, stage: &str) -> &[String] {
        &self.groups[stage]
    }

    /// Releases the bot for these users.
    pub(super) fn open<'a>(&self, users: impl IntoIterator<Item = &'a String>) {
        for user in users {
            self.gates[user].open();
        }
    }

    /// Returns all users.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.gates.keys()
    }

    /// Returns all users in two halves, each with users of every group.
    pub(super) fn halves(&self) -> [Vec<&String>; 2] {
        [0, 1].map(|half| self.gates.keys().skip(half).step_by(2).collect())
    }
}

/// Posts a message of this user and requires a full answer. A slow store gets a retry, as callers are advised to do.
pub(super) async fn talk(ledger: &Ledger, caller: Caller, user: &str) {
    let answer = ledger.post(caller, user, &json!({"turn": turn()}), "wait=55").await.unwrap();
    if answer.status == 503 {
        answer.problem(503, "store-unavailable");
        ledger.retry(caller).await;
    } else {
        answered(&answer);
    }
}

/// Returns the rules that end a message's turn.
pub(super) fn turn() -> Value {
    json!({"expectReplies": REPLIES, "deadlineMs": 30_000})
}

/// Checks that a message was answered with all replies in their order. No fault here may cost a reply.
#[track_caller]
fn answered(answer: &Answer) {
    let message = answer.message(200);
    let replies = message["replies"].as_array().unwrap();
    let texts: Vec<_> = replies.iter().map(|reply| reply["text"].as_str().unwrap()).collect();
    let text = message["text"].as_str().unwrap();
    let wanted: Vec<_> = (1..=REPLIES).map(|number| format!("{text}, reply {number}")).collect();
    assert_eq!(message["status"], "answered", "{message}");
    assert_eq!(texts, wanted, "{message}");
}

/// Checks that the platform saw so many messages of a user, each once, with any policy for resends. The platform
/// remembers all messages here, which proves that they arrived.
#[track_caller]
pub(super) fn sent_once(script: &SandboxScript, user: &str, count: usize) {
    let observed = script.observed(user);
    let texts: HashSet<_> = observed.messages.iter().map(|heard| &heard.text).collect();
    assert_eq!((texts.len(), observed.messages.count()), (count, count), "{:?}", observed.messages);
}
