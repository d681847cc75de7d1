//! A campaign of random faults under load, audited from outside.
//!
//! A run has three replicas, a Redis, the simulated platform and a receiver of webhooks. Users talk all the time, and a
//! seed draws one fault after the other. Then everything heals, and the audit compares what callers were told with what
//! the platform and the receiver saw:
//!
//! - Each accepted message ended, with the same end at each replica. The platform saw it once at most, in order.
//! - Each reply of the platform is in the journal once, or the journal has a gap.
//! - The journal has the end of each message once, and the receiver took all ends in the order of the journal.
//!
//! CONTRIBUTING.md has the command of a long campaign.
//! `CAMPAIGN_SEED` selects the first seed. The times of faults also depend on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtm_sandbox::{CutMode, Endpoint, Fault as PlatformFault, SandboxScript, Step};
use serde_json::Value;
use tokio::time::sleep;

use super::load::{Load, Patience};
use super::{Member, Replicas};
use crate::support::{
    Caller, LedgerSummary, Receiver, ReceiverAnswer, RedisOptions, Request, SECRET, run_for, until, within,
};

/// The number of faults of a run among all tests, and of its users.
const FAULTS: usize = 4;
const USERS: usize = 8;

/// A fault of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Restart,
    Pause,
    CutFromStore,
    HungStore,
    LostAnswers,
    KillStore,
    PauseStore,
    DropSockets,
    RefuseStarts,
    HangUpgrades,
    NoAcks,
    FailReceiver,
    HangReceiver,
}

const ALL: [Fault; 14] = [
    Fault::Kill,
    Fault::Restart,
    Fault::Pause,
    Fault::CutFromStore,
    Fault::HungStore,
    Fault::LostAnswers,
    Fault::KillStore,
    Fault::PauseStore,
    Fault::DropSockets,
    Fault::RefuseStarts,
    Fault::HangUpgrades,
    Fault::NoAcks,
    Fault::FailReceiver,
    Fault::HangReceiver,
];

/// The answer of the receiver at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceiverMood {
    Takes,
    Fails,
    Hangs,
}

/// The receiver and the ends that it took, as user and message.
struct AuditedReceiver {
    receiver: Receiver,
    mood: Arc<Mutex<ReceiverMood>>,
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

impl AuditedReceiver {
    fn start() -> Self {
        let receiver = Receiver::start();
        let (mood, taken) = (Arc::new(Mutex::new(ReceiverMood::Takes)), Arc::<Mutex<Vec<_>>>::default());
        let (asked, record) = (Arc::clone(&mood), Arc::clone(&taken));
        receiver.answers(move |request| match *asked.lock().unwrap() {
            ReceiverMood::Fails => ReceiverAnswer::status(503),
            ReceiverMood::Hangs => ReceiverAnswer::Silence,
            ReceiverMood::Takes => {
                let body = request.json();
                if matches!(body["type"].as_str(), Some("message.answered" | "message.failed")) {
                    let id = body["data"]["id"].as_str().unwrap().to_owned();
                    record.lock().unwrap().push((request.user(), id));
                }
                ReceiverAnswer::status(204)
            }
        });
        Self { receiver, mood, taken }
    }

    fn set(&self, mood: ReceiverMood) {
        *self.mood.lock().unwrap() = mood;
        if mood == ReceiverMood::Takes {
            self.receiver.hang_up();
        }
    }

    /// Waits until nothing is pending, and checks that the end of each of these messages was delivered in order.
    async fn check(&self, caller: Caller, ended: &BTreeMap<String, Vec<String>>) -> usize {
        within(Duration::from_mins(2), "no delivery is pending", async || {
            let answer = caller.send(Request::get("/deliveries?state=pending&limit=1")).await;
            answer.status == 200 && answer.json()["deliveries"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
        let taken = self.taken.lock().unwrap();
        for (user, messages) in ended {
            let mut seen = BTreeSet::new();
            let first: Vec<_> =
                taken.iter().filter(|(of, id)| of == user && seen.insert(id)).map(|(_, id)| id).collect();
            assert_eq!(first, messages.iter().collect::<Vec<_>>(), "the deliveries of {user}");
        }
        taken.len()
    }
}

/// The parts that faults strike.
struct Stage {
    replicas: Replicas,
    receiver: AuditedReceiver,
    chance: fastrand::Rng,
}

impl Stage {
    async fn set(seed: u64) -> Self {
        let receiver = AuditedReceiver::start();
        let settings = vec![
            ("BOTS__SANDBOX__WEBHOOKS__MAIN__URL", receiver.receiver.url("/in")),
            ("BOTS__SANDBOX__WEBHOOKS__MAIN__SECRETS", SECRET.to_owned()),
        ];
        let more = "[webhooks]\ntimeout = \"2s\"\nallow_private = [\"127.0.0.0/8\"]";
        let options = RedisOptions { appendonly: true, ..RedisOptions::default() };
        let replicas = Replicas::start_with(3, options, more, settings).await;
        Self { replicas, receiver, chance: fastrand::Rng::with_seed(seed) }
    }

    /// Draws a fault and causes it for a random time, shorter or longer than a lease.
    async fn strike(&mut self, load: &Load) -> Fault {
        let fault = ALL[self.chance.usize(..ALL.len())];
        let span = Duration::from_millis(self.chance.u64(300..5000));
        let number = self.chance.usize(..self.replicas.members.len());
        println!("{fault:?} ({}) for {span:?}", self.replicas.members[number].name);
        let script = &self.replicas.script;
        match fault {
            Fault::Kill | Fault::Restart => {
                let mut member = self.replicas.members.remove(number);
                if fault == Fault::Kill {
                    member.served.kill();
                } else {
                    assert_eq!(member.served.terminate().await, 0);
                }
                self.replicas.join().await;
                load.turn_to(&self.replicas);
            }
            Fault::Pause | Fault::CutFromStore | Fault::HungStore | Fault::LostAnswers => {
                let member = &mut self.replicas.members[number];
                strike_replica(fault, member).await;
                sleep(span).await;
                member.served.resume();
                member.redis.heal().await;
            }
            Fault::KillStore => {
                self.replicas.redis.kill();
                sleep(span).await;
                self.replicas.redis.restart().await;
            }
            Fault::PauseStore => {
                self.replicas.redis.pause();
                sleep(span).await;
                self.replicas.redis.resume();
            }
            Fault::DropSockets => script.drop_all_sockets(CutMode::Fin),
            Fault::RefuseStarts => {
                script.fault(Endpoint::Start, PlatformFault::Html(503));
                script.drop_all_sockets(CutMode::Fin);
                sleep(span).await;
                script.clear_all_faults();
            }
            Fault::HangUpgrades => {
                script.fault(Endpoint::Upgrade, PlatformFault::Hang);
                script.drop_all_sockets(CutMode::Fin);
                sleep(span).await;
                script.clear_all_faults();
            }
            Fault::NoAcks => {
                script.bot(|_, heard| vec![Step::Say(format!("{}, reply 1", heard.text))]);
                sleep(span).await;
                Load::restore_bot(script);
            }
            Fault::FailReceiver | Fault::HangReceiver => {
                let mood =
                    if fault == Fault::FailReceiver { ReceiverMood::Fails } else { ReceiverMood::Hangs };
                self.receiver.set(mood);
                sleep(span).await;
                self.receiver.set(ReceiverMood::Takes);
            }
        }
        fault
    }

    /// Waits until every replica is ready.
    async fn heal(&self) {
        for member in &self.replicas.members {
            until("it is ready again", async || member.served.admin.get("/readyz").await.status == 200).await;
        }
        self.replicas.shared().await;
    }
}

async fn strike_replica(fault: Fault, member: &mut Member) {
    match fault {
        Fault::Pause => member.served.pause(),
        Fault::CutFromStore => member.redis.cut().await,
        Fault::HungStore => member.redis.hang().await,
        _ => member.redis.lose_answers().await,
    }
}

/// The figures of a campaign.
#[derive(Default)]
struct CampaignFigures {
    runs: usize,
    faults: BTreeMap<String, usize>,
    summary: LedgerSummary,
    deliveries: usize,
    gaps: usize,
}

#[test]
fn random_faults_under_load_keep_the_promises() {
    let first = setting("CAMPAIGN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let runs = setting("CAMPAIGN_RUNS").unwrap_or(1);
    let faults = setting("CAMPAIGN_FAULTS").map_or(FAULTS, |count| usize::try_from(count).unwrap());
    let users = setting("CAMPAIGN_USERS").map_or(USERS, |count| usize::try_from(count).unwrap());
    let mut figures = CampaignFigures::default();
    for seed in first..first + runs {
        println!("CAMPAIGN_SEED={seed}");
        let guard = Duration::from_mins(4) + Duration::from_secs(30) * u32::try_from(faults).unwrap();
        run_for(guard, run(seed, faults, users, &mut figures));
    }
    let CampaignFigures { runs, faults, summary, deliveries, gaps } = figures;
    println!(
        "{runs} runs, faults {faults:?}\n{summary}\n{deliveries} deliveries taken, {gaps} journals with a gap"
    );
}

/// Makes one run and audits it.
async fn run(seed: u64, faults: usize, users: usize, figures: &mut CampaignFigures) {
    let mut stage = Stage::set(seed).await;
    let load = Load::of(&stage.replicas, Patience::Storms, users);
    let ledger = Rc::clone(&stage.replicas.ledger);
    let storm = async {
        load.answered(10).await;
        for _ in 0..faults {
            sleep(Duration::from_millis(stage.chance.u64(500..4000))).await;
            let fault = stage.strike(&load).await;
            *figures.faults.entry(format!("{fault:?}")).or_default() += 1;
        }
        stage.heal().await;
        load.answered(20).await;
        load.end();
    };
    tokio::join!(load.run(), storm);
    let (callers, script) = (stage.replicas.callers(), stage.replicas.script.clone());
    ledger.retry(callers[0]).await;
    let promised = ledger.check_sends(&callers, &script, &mut figures.summary).await;
    let mut ended = BTreeMap::new();
    for (user, messages) in promised {
        let journal = Journal::read(callers[0], &user).await;
        assert_eq!(journal.ends.iter().cloned().collect::<BTreeSet<_>>(), messages, "the ends of {user}");
        assert_eq!(journal.ends.len(), messages.len(), "a message of {user} ended twice");
        journal.check_replies(&script, &user);
        figures.gaps += usize::from(journal.gap);
        ended.insert(user, journal.ends);
    }
    figures.deliveries += stage.receiver.check(callers[0], &ended).await;
    figures.runs += 1;
    stage.replicas.finish_unchecked().await;
}

/// The journal of one user.
#[derive(Default)]
struct Journal {
    /// The ids of ended messages, in order.
    ends: Vec<String>,
    /// How often each reply is told.
    replies: BTreeMap<String, usize>,
    /// Whether a gap tells that something may be missing.
    gap: bool,
}

impl Journal {
    async fn read(caller: Caller, user: &str) -> Self {
        let (mut journal, mut after) = (Self::default(), String::new());
        loop {
            let target = format!("/conversations/{user}/events?limit=1000{after}");
            let page = caller.send(Request::get(target)).await.message(200);
            journal.gap |= page["gap"] == true;
            for event in page["events"].as_array().unwrap() {
                let text = |field: &str| event["data"][field].as_str().unwrap().to_owned();
                match event["type"].as_str().unwrap() {
                    "gap" => journal.gap = true,
                    "reply" => *journal.replies.entry(text("messageId")).or_default() += 1,
                    "message.answered" | "message.failed" => journal.ends.push(text("id")),
                    _ => {}
                }
            }
            if page["hasMore"] == Value::Bool(false) {
                return journal;
            }
            after = format!("&after={}", page["next"].as_str().unwrap());
        }
    }

    /// Checks that each reply of the platform is told once, or that a gap tells of those that are missing.
    fn check_replies(&self, script: &SandboxScript, user: &str) {
        for (reply, count) in &self.replies {
            assert_eq!(*count, 1, "reply {reply} of {user} is told more than once");
        }
        let observed = script.observed(user);
        let delivered = observed.delivered.iter();
        let missing: Vec<_> = delivered
            .filter(|said| !self.replies.contains_key(&said.message_id))
            .map(|said| &said.text)
            .collect();
        assert!(missing.is_empty() || self.gap, "{user} was not told {missing:?}, nor of a gap");
    }
}

#[expect(clippy::disallowed_methods, reason = "the length of a test is no setting of the bridge")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
