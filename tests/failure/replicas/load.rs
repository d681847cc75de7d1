//! Users that talk all the time, through any replica that is ready.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rtm_sandbox::{SandboxScript, Step};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Replicas;
use crate::support::{Caller, Ledger, Request, within};

/// The number of concurrent users.
const USERS: usize = 8;

/// The failures of accepted messages while platform and store fail.
const FAULTY: [&str; 4] = ["uncertain", "platform-unavailable", "no-ack", "no-reply"];

/// The failures that a user accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Only `draining`.
    None,
    /// Also the death of a replica during a request, and an uncertain message.
    Deaths,
    /// Also a store or a platform that is away for some time.
    Storms,
}

/// The users, and the replicas that they may call.
pub(super) struct Load {
    ledger: Rc<Ledger>,
    patience: Patience,
    /// The replicas' addresses for callers and for probes.
    targets: RefCell<Vec<(Caller, Caller)>>,
    next: Cell<usize>,
    answered: watch::Sender<usize>,
    ended: Cell<bool>,
    users: usize,
}

impl Load {
    /// Creates users of these replicas. Their bot takes some time.
    pub(super) fn new(replicas: &Replicas, patience: Patience) -> Self {
        Self::of(replicas, patience, USERS)
    }

    /// Creates so many users of these replicas.
    pub(super) fn of(replicas: &Replicas, patience: Patience, users: usize) -> Self {
        let load = Self {
            ledger: Rc::clone(&replicas.ledger),
            patience,
            targets: RefCell::default(),
            next: Cell::default(),
            answered: watch::Sender::default(),
            ended: Cell::default(),
            users,
        };
        Self::restore_bot(&replicas.script);
        load.turn_to(replicas);
        load
    }

    /// Gives the platform the bot of these users.
    pub(super) fn restore_bot(script: &SandboxScript) {
        script.bot(|_, heard| {
            let think = Step::Wait(Duration::from_millis(50));
            let say = |number| Step::Say(format!("{}, reply {number}", heard.text));
            vec![think.clone(), Step::Ack, say(1), think, say(2)]
        });
    }

    /// Directs the users to these replicas from now on.
    pub(super) fn turn_to(&self, replicas: &Replicas) {
        let members = replicas.members.iter();
        *self.targets.borrow_mut() = members.map(|member| (member.served.api, member.served.admin)).collect();
    }

    /// Waits until so many more messages are answered.
    pub(super) async fn answered(&self, more: usize) {
        let wanted = *self.answered.borrow() + more;
        self.answered.subscribe().wait_for(|answered| *answered >= wanted).await.unwrap();
    }

    /// Stops the posts of new messages.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Returns the users' names.
    pub(super) fn users() -> impl Iterator<Item = String> {
        (0..USERS).map(name)
    }

    /// Lets all users talk until [`Load::end`].
    pub(super) async fn run(&self) {
        join_all((0..self.users).map(name).map(async |user| {
            while !self.ended.get() {
                self.talk(&user).await;
            }
        }))
        .await;
    }

    async fn talk(&self, user: &str) {
        let caller = self.ready().await;
        let fields = json!({"turn": {"expectReplies": 2, "deadlineMs": 30_000}});
        match self.ledger.post(caller, user, &fields, "wait=55").await {
            Ok(answer) if answer.status == 503 => {
                let away = self.patience == Patience::Storms
                    && answer.json()["type"] == "/problems/store-unavailable";
                answer.problem(503, if away { "store-unavailable" } else { "draining" });
                assert!(answer.retry_after() > 0);
            }
            Ok(answer) => {
                // A message with a send at accept may not have been sent if its replica died or had no answer from the store.
                match (answer.status, self.patience) {
                    (502, Patience::Deaths) => {
                        answer.problem(502, "uncertain");
                    }
                    (502 | 504, Patience::Storms) => {
                        let slug = answer.json()["type"].as_str().unwrap_or_default().to_owned();
                        assert!(FAULTY.contains(&slug.trim_start_matches("/problems/")), "{answer}");
                    }
                    _ => assert!(matches!(answer.status, 200 | 202), "{answer}"),
                }
                self.answered.send_modify(|answered| *answered += 1);
            }
            Err(error) => {
                let died = [
                    ErrorKind::ConnectionRefused,
                    ErrorKind::ConnectionReset,
                    ErrorKind::UnexpectedEof,
                    ErrorKind::BrokenPipe,
                ];
                let is_fine = self.patience != Patience::None && died.contains(&error.kind());
                assert!(is_fine, "{user} got no answer: {error}");
            }
        }
    }

    /// Returns the next ready replica, as a load balancer would find it.
    async fn ready(&self) -> Caller {
        let mut ready = None;
        within(Duration::from_secs(10), "a replica is ready", async || {
            let number = self.next.replace(self.next.get() + 1);
            let (api, admin) = {
                let targets = self.targets.borrow();
                targets[number % targets.len()]
            };
            let probe = admin.try_send(Request::get("/readyz"));
            // A paused replica does not answer.
            let says = timeout(Duration::from_millis(300), probe).await;
            ready = says.is_ok_and(|says| says.is_ok_and(|answer| answer.status == 200)).then_some(api);
            ready.is_some()
        })
        .await;
        ready.unwrap()
    }
}

fn name(number: usize) -> String {
    format!("talker-{number}")
}

/// Fails if a user had a new socket while an older one was open.
#[track_caller]
pub(super) fn one_socket_at_a_time(script: &SandboxScript, user: &str) {
    let observed = script.observed(user);
    for pair in observed.connects.windows(2) {
        let closed = observed.closes.iter().find(|closed| closed.socket == pair[0].socket);
        assert!(closed.is_some_and(|closed| closed.at <= pair[1].at), "{closed:?} before {:?}", pair[1]);
    }
}
