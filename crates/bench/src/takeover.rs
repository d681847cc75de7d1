//! How long users wait when their replica goes: killed, and asked to go. The others are asked all the while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::child::Child;
use crate::failure::Failure;
use crate::fleet::{self, Fleet};
use crate::http::Connection;
use crate::load;
use crate::meter::spread;
use crate::setup::{self, Sizes, Terms};
use crate::store::Store;
use crate::turns::Http;

const FLEET: usize = 3;
const GROUP: &str = "takeover";
/// Enough that each replica owns some.
const USERS: usize = 240;
/// Users of the replica that goes who keep speaking.
const AFFECTED: usize = 48;
/// Callers who keep asking the replica that goes.
const FAITHFUL: usize = 8;
/// Between two turns of a user.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the stream, before the replica goes.
const BEFORE: Duration = Duration::from_millis(500);
/// Over the lease: then nobody takes over any more.
const PATIENCE: Duration = Duration::from_mins(1);
const GLANCE: Duration = Duration::from_millis(5);
/// The word for a replica that is not there any more.
const GONE: &str = "no connection";

/// One turn of the stream.
struct Turn {
    began: Instant,
    ended: Instant,
}

/// What comes of the stream, as it comes.
#[derive(Default)]
struct Heard {
    /// By user; only turns that were answered.
    turns: RefCell<BTreeMap<usize, Vec<Turn>>>,
    /// By problem or other word.
    refused: RefCell<BTreeMap<String, u64>>,
    over: Cell<bool>,
}

/// A replica went.
struct Loss {
    /// From the signal to the end of the first turn that its new owner carried out; a kill only.
    first: Option<Duration>,
    /// From the signal until each of its users had an answer to a question asked after it; a kill only.
    last: Option<Duration>,
    /// The longest that a turn took meanwhile.
    longest: Duration,
    /// From the signal to the end of the process.
    exit: Duration,
    /// Turns that were answered.
    answered: usize,
    refused: BTreeMap<String, u64>,
}

/// With one lease time, all losses.
pub(crate) struct Takeover {
    lease: Duration,
    killed: Vec<Loss>,
    asked: Vec<Loss>,
}

/// Measures.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Vec<Takeover>, Failure> {
    let mut all = Vec::new();
    for &lease in sizes.leases {
        // It remembers what was said, so that what was under way is found again and not given up.
        let sandbox = setup::remembering_sandbox(binary).await?;
        let store = Store::start().await?;
        let terms = Terms { lease: Some(lease), ..Terms::new(sandbox.address).on(store.address()) };
        let mut fleet = Fleet::start(binary, terms, &store, FLEET).await?;
        let mut takeover = Takeover { lease, killed: Vec::new(), asked: Vec::new() };
        for loss in 1..=sizes.losses {
            eprintln!("lease {lease:?}: replica killed, {loss} of {}", sizes.losses);
            takeover.killed.push(lose(&mut fleet, &store, lease, true).await?);
            eprintln!("lease {lease:?}: replica asked to go, {loss} of {}", sizes.losses);
            takeover.asked.push(lose(&mut fleet, &store, lease, false).await?);
        }
        all.push(takeover);
    }
    Ok(all)
}

/// One replica goes, and another comes.
async fn lose(fleet: &mut Fleet, store: &Store, lease: Duration, killed: bool) -> Result<Loss, Failure> {
    let mut everybody = Http::connect(&fleet.addresses(), USERS.min(16), GROUP, USERS).await?;
    load::each(&mut everybody, 0..USERS).await?;
    drop(everybody);

    let (mut going, incarnation) = fleet.part();
    let mut affected = fleet::users_of(store, &incarnation, GROUP, USERS).await?;
    affected.truncate(AFFECTED);
    if affected.is_empty() {
        return Err(Failure::Proc("the replica owns nobody"));
    }
    let heard = Rc::new(Heard::default());
    let survivors = fleet.addresses();
    let mut tasks: Vec<_> = (affected.iter().zip(survivors.iter().cycle()))
        .map(|(&user, &address)| speak(user, vec![address], &heard))
        .collect();
    if !killed {
        // A load balancer that has not noticed yet. They speak for users of their own, whoever owns them.
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
    // What is asked from now on cannot have been answered by the one that went.
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

async fn ended(going: &mut Child, signalled: Instant) -> Result<(), Failure> {
    while going.process.try_wait()?.is_none() {
        if signalled.elapsed() > PATIENCE {
            return Err(Failure::Missed { what: "the end of a replica", after: signalled.elapsed() });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Each of these users has asked something after this moment, and has its answer.
async fn until_answered(
    heard: &Heard,
    users: &[usize],
    since: Instant,
    lease: Duration,
) -> Result<(), Failure> {
    let answered = |user: &usize| {
        let turns = heard.turns.borrow();
        turns.get(user).is_some_and(|turns| turns.iter().any(|turn| turn.began > since))
    };
    while !users.iter().all(answered) {
        if since.elapsed() > lease + PATIENCE {
            return Err(Failure::Missed { what: "an answer to every user", after: since.elapsed() });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// What the stream says about it.
fn judge(heard: &Heard, affected: &[usize], [signalled, gone]: [Instant; 2], killed: bool) -> Loss {
    let turns = heard.turns.borrow();
    let taken_over = affected.iter().filter_map(|user| {
        let after = turns.get(user)?.iter().filter(|turn| turn.began > gone);
        after.map(|turn| turn.ended - signalled).min()
    });
    let (first, last) = if killed { (taken_over.clone().min(), taken_over.max()) } else { (None, None) };
    let under_way = || turns.values().flatten().filter(|turn| turn.ended > signalled);
    Loss {
        first,
        last,
        longest: under_way().map(|turn| turn.ended - turn.began).max().unwrap_or_default(),
        exit: gone - signalled,
        answered: under_way().count(),
        refused: heard.refused.take(),
    }
}

/// A user's turns, one after the other, at the first address that takes them. Where a replica refuses one or hangs up,
/// the next one is asked.
fn speak(user: usize, addresses: Vec<SocketAddr>, heard: &Rc<Heard>) -> tokio::task::JoinHandle<()> {
    let heard = Rc::clone(heard);
    tokio::task::spawn_local(async move {
        let request = setup::request(&setup::user(GROUP, user));
        let mut connection = None;
        let mut addresses = addresses.into_iter();
        let mut address = addresses.next();
        while let (false, Some(at)) = (heard.over.get(), address) {
            let began = Instant::now();
            match turn(&mut connection, at, &request).await {
                Ok(()) => {
                    let turn = Turn { began, ended: Instant::now() };
                    heard.turns.borrow_mut().entry(user).or_default().push(turn);
                }
                Err(word) => {
                    connection = None;
                    let next = addresses.next();
                    // Nobody took the request, and there is somebody else: no caller would call that a failure.
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

/// One turn, or the word for why not.
async fn turn(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
) -> Result<(), String> {
    let mut open = match connection.take() {
        Some(open) if !open.is_closed() => open,
        _ => Connection::open(address).await.map_err(|_| GONE.to_owned())?,
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

fn seconds(of: &[Loss], figure: impl Fn(&Loss) -> Option<Duration>) -> Vec<f64> {
    of.iter().filter_map(figure).map(|time| time.as_secs_f64()).collect()
}

impl Takeover {
    /// All that was refused, by word.
    fn refused(losses: &[Loss]) -> String {
        let mut all: BTreeMap<&str, u64> = BTreeMap::new();
        for (word, count) in losses.iter().flat_map(|loss| &loss.refused) {
            *all.entry(word).or_default() += count;
        }
        let words: Vec<_> = all.iter().map(|(word, count)| format!("{count} × {word}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

/// Two tables of all lease times.
pub(crate) struct Tables<'a>(pub(crate) &'a [Takeover]);

impl fmt::Display for Tables<'_> {
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
        for Takeover { lease, killed, .. } in self.0 {
            let over =
                seconds(killed, |loss| loss.first).iter().map(|first| first - lease.as_secs_f64()).collect();
            writeln!(
                f,
                "| {lease:?} | {} | **{}** | {} | {} | {} |",
                spread(seconds(killed, |loss| loss.first), 2),
                spread(over, 2),
                spread(seconds(killed, |loss| loss.last), 2),
                killed.iter().map(|loss| loss.answered).sum::<usize>(),
                Takeover::refused(killed)
            )?;
        }
        writeln!(
            f,
            "\nA replica of {FLEET} is asked to go (SIGTERM): {AFFECTED} of its users ask the others, and {FAITHFUL} callers \
             go on asking it until it refuses. Seconds.\n"
        )?;
        writeln!(f, "| lease TTL | longest turn | from the signal to its exit | answered | not answered |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for Takeover { lease, asked, .. } in self.0 {
            writeln!(
                f,
                "| {lease:?} | {} | {} | {} | {} |",
                spread(seconds(asked, |loss| Some(loss.longest)), 3),
                spread(seconds(asked, |loss| Some(loss.exit)), 2),
                asked.iter().map(|loss| loss.answered).sum::<usize>(),
                Takeover::refused(asked)
            )?;
        }
        writeln!(f)
    }
}
