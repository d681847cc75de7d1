//! Two builds side by side: the same measurements in alternation, on one simulated platform, each build with a Redis of
//! its own.
//!
//! Rates and CPU times of a shared machine drift, so only ratios within one run are claims. A ratio is that of two
//! measurements right after each other, and the median of the rounds counts.

use std::fmt;
use std::path::Path;
use std::slice;

use crate::bench_error::BenchError;
use crate::contender::{Contender, ContenderCallers, ContenderRounds, TurnLoad};
use crate::run_meter::{MeteredRun, RunProcesses, median, spread};
use crate::setup::{self, BenchSizes};
use crate::{growth, round_trips, speed, webhooks};

/// The two builds. The platform is simulated by the second one.
#[derive(Clone, Copy)]
pub(crate) struct BuildPair<'a> {
    pub(crate) before: &'a Path,
    pub(crate) after: &'a Path,
}

impl<'a> BuildPair<'a> {
    const fn both(self) -> [&'a Path; 2] {
        [self.before, self.after]
    }
}

/// One figure of both builds, round by round.
struct ComparisonRow {
    what: String,
    before: Vec<f64>,
    after: Vec<f64>,
}

/// All compared figures.
#[derive(Default)]
pub(crate) struct ComparisonFigures(Vec<ComparisonRow>);

impl ComparisonFigures {
    fn add(&mut self, what: impl Into<String>, [before, after]: [Vec<f64>; 2]) {
        self.0.push(ComparisonRow { what: what.into(), before, after });
    }

    /// Compares turns per second, CPU time and latency.
    pub(crate) async fn compare_speed(
        &mut self,
        builds: BuildPair<'_>,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let sandbox = &setup::sandbox(builds.after).await?;
        let mut memory = [
            Contender::on_memory(builds.before, sandbox, "memory-before", sizes).await?,
            Contender::on_memory(builds.after, sandbox, "memory-after", sizes).await?,
        ];
        let mut redis = [
            Contender::on_redis(builds.before, sandbox, 1, "redis-before", sizes).await?,
            Contender::on_redis(builds.after, sandbox, 1, "redis-after", sizes).await?,
        ];
        let mut direct = ContenderCallers::direct(sandbox, sizes).await?;
        let mut directly = ContenderRounds::default();
        let only_sandbox = RunProcesses { subject: slice::from_ref(sandbox), store: None, sandbox };
        for round in 1..=sizes.rounds {
            for load in TurnLoad::ALL {
                eprintln!("round {round} of {}: {}", sizes.rounds, load.name(sizes));
                for contender in memory.iter_mut().chain(&mut redis) {
                    contender.run(load, sandbox, sizes).await?;
                }
                direct.run(load, only_sandbox, &mut directly, sizes).await?;
            }
        }
        let [memory, redis] = [memory, redis].map(|both| both.map(|contender| contender.rounds));
        for load in TurnLoad::ALL {
            let name = load.name(sizes);
            let figures = |of: &[ContenderRounds; 2], figure: fn(&MeteredRun) -> f64| {
                of.each_ref().map(|rounds| rounds.figures(load, figure))
            };
            self.add(
                format!("{name}: bridge CPU µs per turn, memory store"),
                figures(&memory, MeteredRun::micros),
            );
            self.add(format!("{name}: bridge CPU µs per turn, Redis"), figures(&redis, MeteredRun::micros));
            self.add(format!("{name}: Redis CPU µs per turn"), figures(&redis, MeteredRun::store_micros));
            if load == TurnLoad::Saturation {
                self.add(
                    format!("{name}: turns per second, memory store"),
                    figures(&memory, MeteredRun::rate),
                );
                let [memory_before, memory_after] = &memory;
                let [before, after] = &redis;
                let shares = [speed::share(before, memory_before), speed::share(after, memory_after)];
                self.add(format!("{name}: turns per second with Redis, % of the memory store's"), shares);
            } else {
                for (quantile, q) in [("p50", 0.5), ("p99", 0.99)] {
                    for (store, of) in [("memory store", &memory), ("Redis", &redis)] {
                        let added = of.each_ref().map(|rounds| rounds.added(load, &directly, q));
                        self.add(format!("{name}: {quantile} added to direct sockets, ms, {store}"), added);
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares commands to Redis.
    pub(crate) async fn compare_commands(
        &mut self,
        builds: BuildPair<'_>,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let mut both = Vec::new();
        for binary in builds.both() {
            both.push(round_trips::count_commands(binary, builds.after, sizes).await?);
        }
        let [before, after] = &both[..] else { return Ok(()) };
        let each = |pick: fn(&(f64, f64)) -> f64| [before, after].map(|counts| vec![pick(counts)]);
        self.add(format!("commands per turn at {} a second", sizes.rate), each(|counts| counts.0));
        self.add("commands per second of an idle replica", each(|counts| counts.1));
        Ok(())
    }

    /// Compares the memory of idle conversations and of ended messages.
    pub(crate) async fn compare_memory(
        &mut self,
        builds: BuildPair<'_>,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let mut both = Vec::new();
        for binary in builds.both() {
            both.push(growth::measure(binary, builds.after, sizes).await?);
        }
        let [before, after] = &both[..] else { return Ok(()) };
        for (before, after) in before.iter().zip(after) {
            for ((what, before), (_, after)) in before.each_kib().into_iter().zip(after.each_kib()) {
                self.add(what, [vec![before], vec![after]]);
            }
        }
        Ok(())
    }

    /// Compares deliveries at saturation.
    pub(crate) async fn compare_deliveries(
        &mut self,
        builds: BuildPair<'_>,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let [mut rate, mut bridge, mut redis]: [[Vec<f64>; 2]; 3] = Default::default();
        for round in 1..=sizes.rounds {
            eprintln!("deliveries, round {round} of {}", sizes.rounds);
            for (side, binary) in builds.both().into_iter().enumerate() {
                let figures = webhooks::saturate(binary, builds.after, sizes).await?;
                for (all, figure) in [&mut rate, &mut bridge, &mut redis].into_iter().zip(figures) {
                    all.get_mut(side).into_iter().for_each(|side| side.push(figure));
                }
            }
        }
        let targets = sizes.targets;
        self.add(format!("deliveries per second to {targets} receivers, Redis"), rate);
        self.add("bridge CPU µs per delivery, Redis", bridge);
        self.add("Redis CPU µs per delivery", redis);
        Ok(())
    }
}

impl fmt::Display for ComparisonFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Two builds in alternation. A ratio is after by before within one round. Median (least to most).\n"
        )?;
        writeln!(f, "| figure | before | after | ratio |\n| --- | --- | --- | --- |")?;
        for ComparisonRow { what, before, after } in &self.0 {
            let ratios: Vec<f64> = before.iter().zip(after).map(|(before, after)| after / before).collect();
            let ratio = if ratios.len() > 1 { spread(ratios, 2) } else { format!("{:.2}", median(ratios)) };
            let [before, after] = [before, after].map(|figures| median(figures.clone()));
            writeln!(f, "| {what} | {before:.2} | {after:.2} | {ratio} |")?;
        }
        writeln!(f)
    }
}
