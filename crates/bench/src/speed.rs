//! Turns per second, CPU and latency of all contenders, in several rounds.

use std::fmt;
use std::path::Path;
use std::slice;

use crate::bench_error::BenchError;
use crate::contender::{Contender, ContenderCallers, ContenderRounds, TurnLoad};
use crate::run_meter::{MeteredRun, RunProcesses, figures, median, quantile, spread};
use crate::setup::{self, AnswerPace, BenchSizes};
use crate::turns::HttpCallers;
use crate::{baseline, load};

/// The number of replicas in the largest fleet.
const FLEET: usize = 3;

/// All rounds of all contenders.
pub(crate) struct SpeedFigures {
    sizes: BenchSizes,
    redis: String,
    memory: ContenderRounds,
    one: ContenderRounds,
    three: ContenderRounds,
    direct: ContenderRounds,
    bare_http: Vec<MeteredRun>,
    bare_socket: Vec<MeteredRun>,
}

/// Measures all contenders.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<SpeedFigures, BenchError> {
    let sandbox = setup::sandbox(binary).await?;
    let bare = baseline::start_http().await?;
    let mut bare_socket = baseline::BareSocket::start(sandbox.address, sizes).await?;

    let mut memory = Contender::on_memory(binary, &sandbox, "memory", sizes).await?;
    let mut one = Contender::on_redis(binary, &sandbox, 1, "one", sizes).await?;
    let mut three = Contender::on_redis(binary, &sandbox, FLEET, "three", sizes).await?;
    let mut direct = ContenderCallers::direct(&sandbox, sizes).await?;
    let mut plain = HttpCallers::connect(&[bare.address], sizes.callers, "bare", sizes.users).await?;
    load::each(&mut plain, 0..sizes.users).await?;

    let redis = one.store.as_ref().ok_or(BenchError::Proc("no Redis"))?.version().await?;
    let (mut directly, mut barely, mut socketly) = (ContenderRounds::default(), Vec::new(), Vec::new());
    let only_sandbox = RunProcesses { subject: slice::from_ref(&sandbox), store: None, sandbox: &sandbox };
    let only_bare = RunProcesses { subject: slice::from_ref(&bare), ..only_sandbox };
    for round in 1..=sizes.rounds {
        for load in TurnLoad::ALL {
            eprintln!("round {round} of {}: {}", sizes.rounds, load.name(sizes));
            for contender in [&mut memory, &mut one, &mut three] {
                contender.run(load, &sandbox, sizes).await?;
            }
            direct.run(load, only_sandbox, &mut directly, sizes).await?;
            if load == TurnLoad::Saturation {
                let run = load::saturate(&mut plain, sizes.users, sizes.saturation);
                barely.push(only_bare.metered(run).await?);
                socketly.push(bare_socket.round(&sandbox)?);
            }
        }
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
pub(crate) fn share(of: &ContenderRounds, memory: &ContenderRounds) -> Vec<f64> {
    let [of, memory] = [of, memory].map(|rounds| rounds.figures(TurnLoad::Saturation, MeteredRun::rate));
    of.into_iter().zip(memory).map(|(of, memory)| 100.0 * of / memory).collect()
}

impl fmt::Display for SpeedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchSizes { callers, users, rounds, saturation, paced, .. } = self.sizes;
        writeln!(
            f,
            "{callers} callers, {users} users, `expectReplies: 1`, loopback; {rounds} rounds, median (least to most). \
             Saturation {saturation:?} a round, fixed rate {paced:?} a round. redis-server {}, nothing written to disk.\n",
            self.redis
        )?;
        self.saturation(f)?;
        self.floor(f)?;
        self.paced(f, AnswerPace::AtOnce)?;
        self.paced(f, AnswerPace::Slow)
    }
}

impl SpeedFigures {
    /// Begins a table with a column for each contender.
    fn head(f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        writeln!(
            f,
            "| {what} | memory store | Redis, one replica | Redis, {FLEET} replicas | direct sockets |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")
    }

    /// Returns the contenders in the order of the columns.
    const fn columns(&self) -> [&ContenderRounds; 4] {
        [&self.memory, &self.one, &self.three, &self.direct]
    }

    /// Writes the CPU time per turn of a load.
    fn cpu(&self, f: &mut fmt::Formatter<'_>, load: TurnLoad) -> fmt::Result {
        let [memory, one, three, _] =
            self.columns().map(|of| spread(of.figures(load, MeteredRun::micros), 1));
        row(f, "CPU µs per turn of the bridge, all replicas", &[memory, one, three, String::new()])?;
        let [_, one, three, _] =
            self.columns().map(|of| spread(of.figures(load, MeteredRun::store_micros), 1));
        row(f, "CPU µs per turn of redis-server", &[String::new(), one, three, String::new()])
    }

    fn saturation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = TurnLoad::Saturation;
        Self::head(f, &load.name(self.sizes))?;
        let of_each = |figure: fn(&MeteredRun) -> f64, digits| {
            self.columns().map(|rounds| spread(rounds.figures(load, figure), digits))
        };
        row(f, "turns per second", &of_each(MeteredRun::rate, 0))?;
        let [one, three] =
            [&self.one, &self.three].map(|rounds| format!("**{}**", spread(share(rounds, &self.memory), 1)));
        row(f, "% of the memory store's, round by round", &[String::new(), one, three, String::new()])?;
        self.cpu(f, load)?;
        row(f, "CPU µs per turn of the sandbox", &of_each(MeteredRun::sandbox_micros, 1))?;
        writeln!(f)
    }

    fn floor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [http, socket] =
            [&self.bare_http, &self.bare_socket].map(|runs| figures(runs, MeteredRun::micros));
        let floor = median(http.clone()) + median(socket.clone());
        let rate = |runs: &[MeteredRun]| spread(figures(runs, MeteredRun::rate), 0);
        let multiple =
            |of: &ContenderRounds| median(of.figures(TurnLoad::Saturation, MeteredRun::micros)) / floor;
        writeln!(f, "| the floor, at saturation | (a) bare actix-web | (b) bare awc socket | together |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        row(f, "turns per second", &[rate(&self.bare_http), rate(&self.bare_socket), String::new()])?;
        row(f, "CPU µs per turn", &[spread(http, 1), spread(socket, 1), format!("{floor:.1}")])?;
        writeln!(
            f,
            "| bridge as a multiple | | | memory store **{:.2}**, Redis with one replica {:.2} |\n",
            multiple(&self.memory),
            multiple(&self.one)
        )
    }

    /// Writes latency and CPU time at the fixed rate. The latency over the direct sockets is in parentheses.
    fn paced(&self, f: &mut fmt::Formatter<'_>, pace: AnswerPace) -> fmt::Result {
        let load = TurnLoad::Paced(pace);
        Self::head(f, &load.name(self.sizes))?;
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let [memory, one, three, direct] = self.columns().map(|rounds| quantile(rounds.of(load), q));
            let added = |millis: f64| format!("{millis:.2} ({:+.2})", millis - direct);
            let cells = [added(memory), added(one), added(three), format!("{direct:.2}")];
            row(f, &format!("{name} in ms (added to direct sockets)"), &cells)?;
        }
        self.cpu(f, load)?;
        writeln!(f)
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, cells: &[String]) -> fmt::Result {
    writeln!(f, "| {name} | {} |", cells.join(" | "))
}
