//! The Redis commands of a turn, as Redis counts them, and its round trips. Their number follows from the longer turns
//! when each round trip is delayed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::{self, BridgeFleet};
use crate::forwarder::DelayForwarder;
use crate::load;
use crate::monitor::{self, CommandCounts, ScriptNames};
use crate::run_meter::median;
use crate::setup::{self, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns::{HttpCallers, TurnCaller as _, TurnCallers as _};

/// The delays of a round trip. The time of a turn must grow in proportion.
const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(20)];
const FLEET: usize = 3;
const GROUP: &str = "trips";

/// A replica's turns in milliseconds, at each of the [`DELAYS`].
struct LatencyProbe {
    asked: &'static str,
    millis: [f64; DELAYS.len()],
}

impl LatencyProbe {
    /// Computes the round trips from the largest delay, which is the least sensitive to noise.
    fn trips(&self) -> f64 {
        let [none, .., most] = self.millis;
        let [_, .., delay] = DELAYS;
        (most - none) / (delay.as_secs_f64() * 1e3)
    }
}

/// The commands of one fleet.
struct TurnCommands {
    what: &'static str,
    idle: CommandCounts,
    /// Turns in sequence.
    serial: (usize, CommandCounts),
    /// Turns at the fixed rate.
    paced: (usize, CommandCounts),
}

/// All results.
pub(crate) struct RoundTripFigures {
    rate: u32,
    asked: Vec<TurnCommands>,
    probes: Vec<LatencyProbe>,
}

/// Measures commands and round trips.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<RoundTripFigures, BenchError> {
    let names = ScriptNames::default();
    let mut trips = RoundTripFigures { rate: sizes.rate, asked: Vec::new(), probes: Vec::new() };
    for (replicas, what) in [(1, "one replica"), (FLEET, "three replicas")] {
        eprintln!("commands and round trips of a turn: {what}");
        let sandbox = setup::sandbox(binary).await?;
        let store = RedisProcess::start().await?;
        let forwarder = DelayForwarder::start(store.address())?;
        let terms = BridgeTerms::new(sandbox.address).on(forwarder.address);
        let opening = async {
            let fleet = BridgeFleet::start(binary, terms, &store, replicas).await?;
            let mut callers =
                HttpCallers::connect(&fleet.addresses(), sizes.callers, GROUP, sizes.users).await?;
            load::each(&mut callers, 0..sizes.users).await?;
            Ok((fleet, callers))
        };
        // This run only learns the names of scripts.
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

/// Counts the commands of one replica: per turn at the fixed rate, and per idle second.
pub(crate) async fn count_commands(
    binary: &Path,
    platform: &Path,
    sizes: BenchSizes,
) -> Result<(f64, f64), BenchError> {
    let (sandbox, store) = (setup::sandbox(platform).await?, RedisProcess::start().await?);
    let terms = BridgeTerms::new(sandbox.address).on(store.address());
    let fleet = BridgeFleet::start(binary, terms, &store, 1).await?;
    let mut callers = HttpCallers::connect(&fleet.addresses(), sizes.callers, GROUP, sizes.users).await?;
    load::each(&mut callers, 0..sizes.users).await?;
    let asked = commands("one replica", &store, &ScriptNames::default(), &mut callers, sizes).await?;
    let per_turn = asked.paced.1.by_name.keys().map(|name| asked.each(&asked.paced, name)).sum();
    Ok((per_turn, asked.idle.all()))
}

fn first(fleet: &BridgeFleet) -> Result<&str, BenchError> {
    fleet.incarnations.first().map(String::as_str).ok_or(BenchError::Proc("no replica"))
}

/// Counts the commands of an idle period, and then of turns.
async fn commands(
    what: &'static str,
    store: &RedisProcess,
    names: &ScriptNames,
    callers: &mut HttpCallers,
    sizes: BenchSizes,
) -> Result<TurnCommands, BenchError> {
    // The first period does not count: Redis gets the full text of scripts in it, those for renewals included.
    monitor::idle(store, names, sizes.still).await?;
    let idle = monitor::idle(store, names, sizes.still).await?;
    // The callers alternate, so that each replica serves turns. The run lasts as long as the idle one, so that periodic
    // commands occur as often.
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
    Ok(TurnCommands { what, idle, serial, paced: (turns, counts) })
}

/// Takes turns of these users in sequence through the fleet's first replica.
async fn probe(
    asked: &'static str,
    fleet: &BridgeFleet,
    forwarder: &DelayForwarder,
    users: &[usize],
    sizes: BenchSizes,
) -> Result<LatencyProbe, BenchError> {
    let addresses: Vec<_> =
        fleet.replicas.iter().take(1).map(|replica: &ChildProcess| replica.address).collect();
    let mut callers = HttpCallers::connect(&addresses, 1, GROUP, sizes.users).await?;
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
    Ok(LatencyProbe { asked, millis })
}

impl TurnCommands {
    /// Returns the commands of this name per turn, without the periodic ones.
    fn each(&self, (turns, counts): &(usize, CommandCounts), name: &str) -> f64 {
        (counts.rate(name) - self.idle.rate(name)) * counts.span.as_secs_f64() / *turns as f64
    }
}

impl fmt::Display for RoundTripFigures {
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
