//! What a turn asks of Redis: commands, counted by Redis itself; and round trips that the caller waits for, told from
//! how much longer a turn takes when each of them takes longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::failure::Failure;
use crate::fleet::{self, Fleet};
use crate::forwarder::Forwarder;
use crate::load;
use crate::meter::median;
use crate::monitor::{self, Counts, Names};
use crate::setup::{self, Sizes, Terms};
use crate::store::Store;
use crate::turns::{Caller as _, Callers as _, Http};

/// What a round trip is held back by. The time of a turn must grow in step with it.
const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(20)];
const FLEET: usize = 3;
const GROUP: &str = "trips";

/// Who is asked, and how long a turn took, in milliseconds, at each of the [`DELAYS`].
struct Probe {
    asked: &'static str,
    millis: [f64; DELAYS.len()],
}

impl Probe {
    /// By the largest delay, which leaves the least to chance.
    fn trips(&self) -> f64 {
        let [none, .., most] = self.millis;
        let [_, .., delay] = DELAYS;
        (most - none) / (delay.as_secs_f64() * 1e3)
    }
}

/// Commands of one fleet.
struct Asked {
    what: &'static str,
    idle: Counts,
    /// Turns one after the other.
    serial: (usize, Counts),
    /// Turns at the fixed rate.
    paced: (usize, Counts),
}

/// All that was found.
pub(crate) struct Trips {
    rate: u32,
    asked: Vec<Asked>,
    probes: Vec<Probe>,
}

/// Measures.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Trips, Failure> {
    let names = Names::default();
    let mut trips = Trips { rate: sizes.rate, asked: Vec::new(), probes: Vec::new() };
    for (replicas, what) in [(1, "one replica"), (FLEET, "three replicas")] {
        eprintln!("commands and round trips of a turn: {what}");
        let sandbox = setup::sandbox(binary).await?;
        let store = Store::start().await?;
        let forwarder = Forwarder::start(store.address())?;
        let terms = Terms::new(sandbox.address).on(forwarder.address);
        let opening = async {
            let fleet = Fleet::start(binary, terms, &store, replicas).await?;
            let mut callers = Http::connect(&fleet.addresses(), sizes.callers, GROUP, sizes.users).await?;
            load::each(&mut callers, 0..sizes.users).await?;
            Ok((fleet, callers))
        };
        // Watched only for the names of scripts.
        let ((fleet, mut callers), _) = monitor::during(&store, &names, opening).await?;
        trips.asked.push(commands(what, &store, &names, &mut callers, sizes).await?);
        drop(callers);

        let owned = fleet::users_of(&store, first(&fleet)?, GROUP, sizes.users).await?;
        let others: Vec<usize> = (0..sizes.users).filter(|user| !owned.contains(user)).collect();
        let asked = if replicas == 1 { "one replica" } else { "three replicas, the owner is asked" };
        trips.probes.push(probe(asked, &fleet, &forwarder, &owned, sizes).await?);
        if replicas > 1 {
            let asked = "three replicas, another than the owner is asked";
            trips.probes.push(probe(asked, &fleet, &forwarder, &others, sizes).await?);
        }
    }
    Ok(trips)
}

fn first(fleet: &Fleet) -> Result<&str, Failure> {
    fleet.incarnations.first().map(String::as_str).ok_or(Failure::Proc("no replica"))
}

/// Idle for a while, then turns.
async fn commands(
    what: &'static str,
    store: &Store,
    names: &Names,
    callers: &mut Http,
    sizes: Sizes,
) -> Result<Asked, Failure> {
    // A first while does not count: scripts are sent as a whole where Redis does not know them yet, renewals among them.
    monitor::idle(store, names, sizes.still).await?;
    let idle = monitor::idle(store, names, sizes.still).await?;
    // Callers after each other, so that each replica is asked in turn; as long as it was idle before, so that what is
    // sent once a second was sent as often.
    let one_by_one = async {
        let (mut turns, end) = (0, Instant::now() + sizes.still);
        while Instant::now() < end {
            for caller in callers.callers() {
                caller.turn(turns % sizes.users).await?;
                turns += 1;
            }
        }
        Ok(turns)
    };
    let serial = monitor::during(store, names, one_by_one).await?;
    let run = load::pace(callers, sizes.users, sizes.rate, sizes.still);
    let (run, counts) = monitor::during(store, names, run).await?;
    let turns = usize::try_from(run.turns).unwrap_or(usize::MAX);
    Ok(Asked { what, idle, serial, paced: (turns, counts) })
}

/// Turns of these users, one after the other, through the fleet's first replica.
async fn probe(
    asked: &'static str,
    fleet: &Fleet,
    forwarder: &Forwarder,
    users: &[usize],
    sizes: Sizes,
) -> Result<Probe, Failure> {
    let addresses: Vec<_> = fleet.replicas.iter().take(1).map(|replica: &Child| replica.address).collect();
    let mut callers = Http::connect(&addresses, 1, GROUP, sizes.users).await?;
    let mut millis = [0.0; DELAYS.len()];
    for (millis, delay) in millis.iter_mut().zip(DELAYS) {
        forwarder.delay(delay);
        let mut taken = Vec::new();
        for &user in users.iter().cycle().take(sizes.probes) {
            for caller in callers.callers() {
                let began = Instant::now();
                caller.turn(user).await?;
                taken.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        *millis = median(taken);
    }
    forwarder.delay(Duration::ZERO);
    Ok(Probe { asked, millis })
}

impl Asked {
    /// Commands of this name for each turn, less what would have been sent anyway.
    fn each(&self, (turns, counts): &(usize, Counts), name: &str) -> f64 {
        (counts.rate(name) - self.idle.rate(name)) * counts.span.as_secs_f64() / *turns as f64
    }
}

impl fmt::Display for Trips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Commands that the bridge sends for a turn, counted by Redis; what is sent anyway, in an idle second, is \
             shown apart and left out.\n"
        )?;
        write!(f, "| command |")?;
        for asked in &self.asked {
            let what = asked.what;
            write!(f, " {what}: one turn at a time | {} a second | idle, per second |", self.rate)?;
        }
        writeln!(f, "\n| --- |{}", " --- | --- | --- |".repeat(self.asked.len()))?;
        let counts = self.asked.iter().flat_map(|asked| [&asked.idle, &asked.serial.1, &asked.paced.1]);
        let names: BTreeSet<&String> = counts.flat_map(|counts| counts.by_name.keys()).collect();
        let mut sums: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
        for name in names {
            write!(f, "| {name} |")?;
            for (at, asked) in self.asked.iter().enumerate() {
                let row =
                    [asked.each(&asked.serial, name), asked.each(&asked.paced, name), asked.idle.rate(name)];
                for (sum, figure) in sums.entry(at).or_default().iter_mut().zip(row) {
                    *sum += figure;
                }
                let [serial, paced, idle] = row;
                write!(f, " {serial:.2} | {paced:.2} | {idle:.1} |")?;
            }
            writeln!(f)?;
        }
        write!(f, "| **all** |")?;
        for [serial, paced, idle] in sums.values() {
            write!(f, " **{serial:.2}** | **{paced:.2}** | {idle:.1} |")?;
        }
        writeln!(f, "\n")?;

        writeln!(
            f,
            "Round trips on a turn's critical path: its median time with what Redis says held back, and the slope.\n"
        )?;
        write!(f, "| ms of a turn |")?;
        for delay in DELAYS {
            write!(f, " held back {} ms |", delay.as_millis())?;
        }
        writeln!(f, " round trips |\n| --- |{} --- |", " --- |".repeat(DELAYS.len()))?;
        for probe in &self.probes {
            write!(f, "| {} |", probe.asked)?;
            for millis in probe.millis {
                write!(f, " {millis:.2} |")?;
            }
            writeln!(f, " **{:.2}** |", probe.trips())?;
        }
        writeln!(f)
    }
}
