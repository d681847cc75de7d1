//! The delay for users when their replica is killed or shut down. The load on the others continues.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::{self, BridgeFleet};
use crate::http::HttpConnection;
use crate::load;
use crate::run_meter::spread;
use crate::setup::{self, AnswerPace, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns::HttpCallers;

const FLEET: usize = 3;
const GROUP: &str = "failover";
/// A number that gives each replica some users.
const USERS: usize = 240;
/// The number of the lost replica's users that keep sending.
const AFFECTED: usize = 48;
/// The number of callers that keep using the lost replica.
const FAITHFUL: usize = 8;
/// The pause between two turns of a user.
const PAUSE: Duration = Duration::from_millis(100);
/// The duration of the load before the loss.
const BEFORE: Duration = Duration::from_millis(500);
/// Longer than the lease: a later failover does not happen.
const PATIENCE: Duration = Duration::from_mins(1);
const GLANCE: Duration = Duration::from_millis(5);
/// The word for a replica that is gone.
const GONE: &str = "no connection";

/// One turn of the load.
struct TimedTurn {
    began: Instant,
    ended: Instant,
}

/// The results of the load so far.
#[derive(Default)]
struct TurnLog {
    /// The answered turns by user.
    turns: RefCell<BTreeMap<usize, Vec<TimedTurn>>>,
    /// The failures by problem or other word.
    refused: RefCell<BTreeMap<String, u64>>,
    over: Cell<bool>,
}

/// The loss of a replica.
struct ReplicaLoss {
    /// The time from the signal to the end of the new owner's first turn, after a kill.
    first: Option<Duration>,
    /// The time from the signal until each of its users had an answer to a later question, after a kill.
    last: Option<Duration>,
    /// The longest turn meanwhile.
    longest: Duration,
    /// The time from the signal to the end of the process.
    exit: Duration,
    /// The number of answered turns.
    answered: usize,
    refused: BTreeMap<String, u64>,
}

/// All losses with one lease time.
pub(crate) struct FailoverFigures {
    lease: Duration,
    killed: Vec<ReplicaLoss>,
    asked: Vec<ReplicaLoss>,
}

/// Measures all losses.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<Vec<FailoverFigures>, BenchError> {
    let mut all = Vec::new();
    for &lease in sizes.leases {
        // The sandbox remembers its messages, so that a new owner can find them in history.
        let sandbox = setup::remembering_sandbox(binary).await?;
        let store = RedisProcess::start().await?;
        let terms =
            BridgeTerms { lease: Some(lease), ..BridgeTerms::new(sandbox.address).on(store.address()) };
        let mut fleet = BridgeFleet::start(binary, terms, &store, FLEET).await?;
        let mut failover = FailoverFigures { lease, killed: Vec::new(), asked: Vec::new() };
        for loss in 1..=sizes.losses {
            eprintln!("lease {lease:?}: replica killed, {loss} of {}", sizes.losses);
            failover.killed.push(lose(&mut fleet, &store, lease, true).await?);
            eprintln!("lease {lease:?}: replica asked to go, {loss} of {}", sizes.losses);
            failover.asked.push(lose(&mut fleet, &store, lease, false).await?);
        }
        all.push(failover);
    }
    Ok(all)
}

/// Removes one replica and adds another one.
async fn lose(
    fleet: &mut BridgeFleet,
    store: &RedisProcess,
    lease: Duration,
    killed: bool,
) -> Result<ReplicaLoss, BenchError> {
    let mut everybody = HttpCallers::connect(&fleet.addresses(), USERS.min(16), GROUP, USERS).await?;
    load::each(&mut everybody, 0..USERS).await?;
    drop(everybody);

    let (mut going, incarnation) = fleet.part();
    let mut affected = fleet::users_of(store, &incarnation, GROUP, USERS).await?;
    affected.truncate(AFFECTED);
    if affected.is_empty() {
        return Err(BenchError::Proc("the replica owns nobody"));
    }
    let heard = Rc::new(TurnLog::default());
    let survivors = fleet.addresses();
    let mut tasks: Vec<_> = (affected.iter().zip(survivors.iter().cycle()))
        .map(|(&user, &address)| speak(user, vec![address], &heard))
        .collect();
    if !killed {
        // A load balancer that has not noticed the loss yet. Its callers have users of their own, with any owner.
        tasks.extend(
            (0..FAITHFUL)
                .zip(survivors.iter().cycle())
                .map(|(caller, &survivor)| speak(USERS + caller, vec![going.address, survivor], &heard)),
        );
    }
    tokio::time::sleep(BEFORE).await;

    let signalled = Instant::now();
    if killed {
        going.process.kill()?;
    } else {
        going.terminate()?;
    }
    ended(&mut going, signalled).await?;
    // The lost replica cannot have answered later questions.
    let gone = Instant::now();
    until_answered(&heard, &affected, gone, lease).await?;
    heard.over.set(true);
    for task in tasks {
        task.await.map_err(std::io::Error::other)?;
    }
    let loss = judge(&heard, &affected, [signalled, gone], killed);
    fleet.join(store).await?;
    fleet.settled(store).await?;
    Ok(loss)
}

async fn ended(going: &mut ChildProcess, signalled: Instant) -> Result<(), BenchError> {
    while going.process.try_wait()?.is_none() {
        if signalled.elapsed() > PATIENCE {
            return Err(BenchError::Missed { what: "the end of a replica", after: signalled.elapsed() });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Waits until each of these users has an answer to a question after this moment.
async fn until_answered(
    heard: &TurnLog,
    users: &[usize],
    since: Instant,
    lease: Duration,
) -> Result<(), BenchError> {
    let answered = |user: &usize| {
        let turns = heard.turns.borrow();
        turns.get(user).is_some_and(|turns| turns.iter().any(|turn| turn.began > since))
    };
    while !users.iter().all(answered) {
        if since.elapsed() > lease + PATIENCE {
            return Err(BenchError::Missed { what: "an answer to every user", after: since.elapsed() });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Evaluates the results of the load.
fn judge(heard: &TurnLog, affected: &[usize], [signalled, gone]: [Instant; 2], killed: bool) -> ReplicaLoss {
    let turns = heard.turns.borrow();
    let taken_over = affected.iter().filter_map(|user| {
        let after = turns.get(user)?.iter().filter(|turn| turn.began > gone);
        after.map(|turn| turn.ended - signalled).min()
    });
    let (first, last) = if killed { (taken_over.clone().min(), taken_over.max()) } else { (None, None) };
    let under_way = || turns.values().flatten().filter(|turn| turn.ended > signalled);
    ReplicaLoss {
        first,
        last,
        longest: under_way().map(|turn| turn.ended - turn.began).max().unwrap_or_default(),
        exit: gone - signalled,
        answered: under_way().count(),
        refused: heard.refused.take(),
    }
}

/// Takes a user's turns in sequence at the first address that accepts them. After a refusal or a hang-up the next address
/// gets the turn.
fn speak(user: usize, addresses: Vec<SocketAddr>, heard: &Rc<TurnLog>) -> tokio::task::JoinHandle<()> {
    let heard = Rc::clone(heard);
    tokio::task::spawn_local(async move {
        let request = setup::request(&setup::user(GROUP, user), AnswerPace::AtOnce);
        let mut connection = None;
        let mut addresses = addresses.into_iter();
        let mut address = addresses.next();
        while let (false, Some(at)) = (heard.over.get(), address) {
            let began = Instant::now();
            match turn(&mut connection, at, &request).await {
                Ok(()) => {
                    let turn = TimedTurn { began, ended: Instant::now() };
                    heard.turns.borrow_mut().entry(user).or_default().push(turn);
                }
                Err(word) => {
                    connection = None;
                    let next = addresses.next();
                    // No replica got the request, and another address remains, so a caller would not count it as a failure.
                    if word != GONE || next.is_none() {
                        *heard.refused.borrow_mut().entry(word).or_default() += 1;
                    }
                    address = next.or(address);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// Takes one turn, or returns the word of its failure.
async fn turn(
    connection: &mut Option<HttpConnection>,
    address: SocketAddr,
    request: &[u8],
) -> Result<(), String> {
    let mut open = match connection.take() {
        Some(open) if !open.is_closed() => open,
        _ => HttpConnection::open(address).await.map_err(|_| GONE.to_owned())?,
    };
    let answer = open.exchange(request).await.map_err(|_| "closed without an answer".to_owned())?;
    let (status, body) = (answer.status, answer.body.to_vec());
    *connection = Some(open);
    match status {
        200 => Ok(()),
        202 => Err("202, still running".to_owned()),
        status => {
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            let slug = problem.get("type").and_then(Value::as_str).unwrap_or_default();
            Err(format!("{status} `{}`", slug.rsplit('/').next().unwrap_or_default()))
        }
    }
}

fn seconds(of: &[ReplicaLoss], figure: impl Fn(&ReplicaLoss) -> Option<Duration>) -> Vec<f64> {
    of.iter().filter_map(figure).map(|time| time.as_secs_f64()).collect()
}

impl FailoverFigures {
    /// Returns all failures by word.
    fn refused(losses: &[ReplicaLoss]) -> String {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for (word, count) in losses.iter().flat_map(|loss| &loss.refused) {
            *all.entry(word).or_default() += count;
        }
        let words: Vec<_> = all.iter().map(|(word, count)| format!("{count} × {word}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

/// Two tables with all lease times.
pub(crate) struct FailoverTables<'a>(pub(crate) &'a [FailoverFigures]);

impl fmt::Display for FailoverTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "A replica of {FLEET} is killed (SIGKILL): {AFFECTED} of its users ask the others, every {PAUSE:?}. Seconds from \
             the kill, median (least to most).\n"
        )?;
        writeln!(
            f,
            "| lease TTL | first turn of the new owner | lease TTL + | every user answered | answered | not answered |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for FailoverFigures { lease, killed, .. } in self.0 {
            let over =
                seconds(killed, |loss| loss.first).iter().map(|first| first - lease.as_secs_f64()).collect();
            writeln!(
                f,
                "| {lease:?} | {} | **{}** | {} | {} | {} |",
                spread(seconds(killed, |loss| loss.first), 2),
                spread(over, 2),
                spread(seconds(killed, |loss| loss.last), 2),
                killed.iter().map(|loss| loss.answered).sum::<usize>(),
                FailoverFigures::refused(killed)
            )?;
        }
        writeln!(
            f,
            "\nA replica of {FLEET} is asked to go (SIGTERM): {AFFECTED} of its users ask the others, and {FAITHFUL} callers \
             go on asking it until it refuses. Seconds.\n"
        )?;
        writeln!(f, "| lease TTL | longest turn | from the signal to its exit | answered | not answered |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for FailoverFigures { lease, asked, .. } in self.0 {
            writeln!(
                f,
                "| {lease:?} | {} | {} | {} | {} |",
                spread(seconds(asked, |loss| Some(loss.longest)), 3),
                spread(seconds(asked, |loss| Some(loss.exit)), 2),
                asked.iter().map(|loss| loss.answered).sum::<usize>(),
                FailoverFigures::refused(asked)
            )?;
        }
        writeln!(f)
    }
}
