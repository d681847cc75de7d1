//! Turns per second, CPU and latency of all contenders, in several rounds.

use std::fmt;
use std::path::Path;
use std::slice;

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::BridgeFleet;
use crate::run_meter::{MeteredRun, RunProcesses, figures, median, quantile, spread};
use crate::setup::{self, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns::{DirectCallers, HttpCallers, TurnCallers};
use crate::{baseline, load};

/// The number of replicas in the largest fleet.
const FLEET: usize = 3;

/// All rounds of one contender.
#[derive(Default)]
struct ContenderRounds {
    saturated: Vec<MeteredRun>,
    paced: Vec<MeteredRun>,
}

impl ContenderRounds {
    /// Adds a round at saturation.
    async fn saturate<C: TurnCallers>(
        &mut self,
        parties: RunProcesses<'_>,
        callers: &mut C,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let run = load::saturate(callers, sizes.users, sizes.saturation);
        self.saturated.push(parties.metered(run).await?);
        Ok(())
    }

    /// Adds a round at the fixed rate.
    async fn pace<C: TurnCallers>(
        &mut self,
        parties: RunProcesses<'_>,
        callers: &mut C,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let run = load::pace(callers, sizes.users, sizes.rate, sizes.paced);
        self.paced.push(parties.metered(run).await?);
        Ok(())
    }

    fn micros(&self) -> Vec<f64> {
        figures(&self.saturated, MeteredRun::micros)
    }
}

/// A fleet with its store and its callers.
struct Contender {
    fleet: BridgeFleet,
    store: Option<RedisProcess>,
    callers: HttpCallers,
    rounds: ContenderRounds,
}

impl Contender {
    /// Opens a conversation for each user.
    async fn open(
        fleet: BridgeFleet,
        store: Option<RedisProcess>,
        group: &'static str,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        eprintln!("opening {} conversations: {group}", sizes.users);
        let mut callers = HttpCallers::connect(&fleet.addresses(), sizes.callers, group, sizes.users).await?;
        load::each(&mut callers, 0..sizes.users).await?;
        Ok(Self { fleet, store, callers, rounds: ContenderRounds::default() })
    }

    async fn on_redis(
        binary: &Path,
        sandbox: &ChildProcess,
        replicas: usize,
        group: &'static str,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        let store = RedisProcess::start().await?;
        let terms = BridgeTerms::new(sandbox.address).on(store.address());
        let fleet = BridgeFleet::start(binary, terms, &store, replicas).await?;
        Self::open(fleet, Some(store), group, sizes).await
    }

    async fn saturate(&mut self, sandbox: &ChildProcess, sizes: BenchSizes) -> Result<(), BenchError> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = RunProcesses { subject: &self.fleet.replicas, store, sandbox };
        self.rounds.saturate(parties, &mut self.callers, sizes).await
    }

    async fn pace(&mut self, sandbox: &ChildProcess, sizes: BenchSizes) -> Result<(), BenchError> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = RunProcesses { subject: &self.fleet.replicas, store, sandbox };
        self.rounds.pace(parties, &mut self.callers, sizes).await
    }
}

/// All rounds of all contenders.
pub(crate) struct SpeedFigures {
    sizes: BenchSizes,
    redis: String,
    memory: ContenderRounds,
    one: ContenderRounds,
    three: ContenderRounds,
    direct: ContenderRounds,
    bare_http: ContenderRounds,
    bare_socket: Vec<MeteredRun>,
}

/// Measures all contenders.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<SpeedFigures, BenchError> {
    let sandbox = setup::sandbox(binary).await?;
    let bare = baseline::start_http().await?;
    let mut bare_socket = baseline::BareSocket::start(sandbox.address, sizes).await?;

    let mut memory =
        Contender::open(BridgeFleet::alone(binary, sandbox.address).await?, None, "memory", sizes).await?;
    let mut one = Contender::on_redis(binary, &sandbox, 1, "one", sizes).await?;
    let mut three = Contender::on_redis(binary, &sandbox, FLEET, "three", sizes).await?;
    let mut direct = DirectCallers::connect(sandbox.address, sizes.callers, sizes.users).await?;
    load::each(&mut direct, 0..sizes.users).await?;
    let mut plain = HttpCallers::connect(&[bare.address], sizes.callers, "bare", sizes.users).await?;
    load::each(&mut plain, 0..sizes.users).await?;

    let redis = one.store.as_ref().ok_or(BenchError::Proc("no Redis"))?.version().await?;
    let (mut directly, mut barely, mut socketly) =
        (ContenderRounds::default(), ContenderRounds::default(), Vec::new());
    let only_sandbox = RunProcesses { subject: slice::from_ref(&sandbox), store: None, sandbox: &sandbox };
    let only_bare = RunProcesses { subject: slice::from_ref(&bare), ..only_sandbox };
    for round in 1..=sizes.rounds {
        eprintln!("round {round} of {}: saturation", sizes.rounds);
        memory.saturate(&sandbox, sizes).await?;
        one.saturate(&sandbox, sizes).await?;
        three.saturate(&sandbox, sizes).await?;
        directly.saturate(only_sandbox, &mut direct, sizes).await?;
        barely.saturate(only_bare, &mut plain, sizes).await?;
        socketly.push(bare_socket.round(&sandbox)?);

        eprintln!("round {round} of {}: {} turns a second", sizes.rounds, sizes.rate);
        memory.pace(&sandbox, sizes).await?;
        one.pace(&sandbox, sizes).await?;
        three.pace(&sandbox, sizes).await?;
        directly.pace(only_sandbox, &mut direct, sizes).await?;
    }
    Ok(SpeedFigures {
        sizes,
        redis,
        memory: memory.rounds,
        one: one.rounds,
        three: three.rounds,
        direct: directly,
        bare_http: barely,
        bare_socket: socketly,
    })
}

/// Returns the contender's turns relative to the memory store's in the same round, in percent.
fn share(of: &ContenderRounds, memory: &ContenderRounds) -> Vec<f64> {
    let pairs = of.saturated.iter().zip(&memory.saturated);
    pairs.map(|(of, memory)| 100.0 * of.rate() / memory.rate()).collect()
}

impl fmt::Display for SpeedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchSizes { callers, users, rounds, saturation, rate, paced, .. } = self.sizes;
        writeln!(
            f,
            "{callers} callers, {users} users, `expectReplies: 1`, loopback; {rounds} rounds, median (least to most). \
             Saturation {saturation:?} a round, fixed rate {paced:?} a round. redis-server {}, nothing written to disk.\n",
            self.redis
        )?;
        self.saturation(f)?;
        self.floor(f)?;
        writeln!(
            f,
            "| latency at {rate} turns per second, ms | memory store | added | Redis, one replica | added | \
             Redis, {FLEET} replicas | added | direct sockets |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let direct = quantile(&self.direct.paced, q);
            write!(f, "| {name} |")?;
            for rounds in [&self.memory, &self.one, &self.three] {
                let through = quantile(&rounds.paced, q);
                write!(f, " {through:.2} | {:.2} |", through - direct)?;
            }
            writeln!(f, " {direct:.2} |")?;
        }
        for (name, figure) in [
            ("CPU µs per turn", MeteredRun::micros as fn(&MeteredRun) -> f64),
            ("CPU µs per turn of redis-server", MeteredRun::store_micros),
        ] {
            write!(f, "| {name} |")?;
            for rounds in [&self.memory, &self.one, &self.three] {
                write!(f, " {:.1} | |", median(figures(&rounds.paced, figure)))?;
            }
            writeln!(f, " |")?;
        }
        writeln!(f)
    }
}

impl SpeedFigures {
    fn saturation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| at saturation | memory store | Redis, one replica | Redis, {FLEET} replicas | direct sockets |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, cells: [String; 4]| {
            writeln!(f, "| {name} | {} |", cells.join(" | "))
        };
        let all = [&self.memory, &self.one, &self.three, &self.direct];
        row(
            f,
            "turns per second",
            all.map(|rounds| spread(figures(&rounds.saturated, MeteredRun::rate), 0)),
        )?;
        let [one, three] =
            [&self.one, &self.three].map(|rounds| format!("**{}**", spread(share(rounds, &self.memory), 1)));
        row(f, "% of the memory store's, round by round", [String::new(), one, three, String::new()])?;
        let [memory, one, three] = [&self.memory, &self.one, &self.three].map(|of| spread(of.micros(), 1));
        row(f, "CPU µs per turn of the bridge, all replicas", [memory, one, three, String::new()])?;
        let [one, three] = [&self.one, &self.three]
            .map(|rounds| spread(figures(&rounds.saturated, MeteredRun::store_micros), 1));
        row(f, "CPU µs per turn of redis-server", [String::new(), one, three, String::new()])?;
        row(
            f,
            "CPU µs per turn of the sandbox",
            all.map(|rounds| spread(figures(&rounds.saturated, MeteredRun::sandbox_micros), 1)),
        )?;
        writeln!(f)
    }

    fn floor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, socket) = (self.bare_http.micros(), figures(&self.bare_socket, MeteredRun::micros));
        let floor = median(http.clone()) + median(socket.clone());
        writeln!(f, "| the floor, at saturation | (a) bare actix-web | (b) bare awc socket | together |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        writeln!(
            f,
            "| turns per second | {} | {} | |",
            spread(figures(&self.bare_http.saturated, MeteredRun::rate), 0),
            spread(figures(&self.bare_socket, MeteredRun::rate), 0)
        )?;
        writeln!(f, "| CPU µs per turn | {} | {} | {floor:.1} |", spread(http, 1), spread(socket, 1))?;
        writeln!(
            f,
            "| bridge as a multiple | | | memory store **{:.2}**, Redis with one replica {:.2} |\n",
            median(self.memory.micros()) / floor,
            median(self.one.micros()) / floor
        )
    }
}
