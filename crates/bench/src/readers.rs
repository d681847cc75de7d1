//! The cost of event readers: the memory of idle ones, the latency of events, and the additional cost of a turn with a
//! reader.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::{self, BridgeFleet};
use crate::run_meter::{self, MeteredRun, RunProcesses, figures, spread};
use crate::setup::{self, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::stream_load::StreamReaders;
use crate::{load, turns};

const GROUP: &str = "readers";
/// The group of users whose conversations stay empty.
const SILENT: &str = "silent";

/// Readers of idle conversations.
struct IdleReaderFigures {
    what: &'static str,
    /// The number of readers with the bridge's resident memory, in KiB.
    steps: Vec<(usize, f64)>,
}

/// Readers of active conversations.
struct EventRun {
    what: &'static str,
    /// The latency of each event in microseconds.
    latency: Histogram<u64>,
    events: MeteredRun,
    /// Turns without readers, and with a reader for each user.
    alone: Vec<MeteredRun>,
    heard: Vec<MeteredRun>,
}

/// All results.
pub(crate) struct ReaderFigures {
    sizes: BenchSizes,
    memory: Vec<IdleReaderFigures>,
    told: Vec<EventRun>,
}

/// Measures readers.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<ReaderFigures, BenchError> {
    let (mut memory, mut told) = (Vec::new(), Vec::new());
    for (what, replicas, at_owner) in [
        ("memory store", 0, true),
        ("Redis, one replica", 1, true),
        ("Redis, two replicas, at the owner", 2, true),
        ("Redis, two replicas, at the other", 2, false),
    ] {
        // Each measurement has a fleet of its own, because a bridge remembers readers for a minute.
        let scene = ReaderScene::start(binary, replicas, at_owner, sizes).await?;
        if replicas < 2 {
            eprintln!("{what}: {} readers that only listen", sizes.readers[1]);
            memory.push(IdleReaderFigures { what, steps: scene.listen().await? });
        }
        eprintln!("{what}: {} readers, {} events a second", sizes.users, sizes.rate);
        told.push(scene.tell(what).await?);
    }
    Ok(ReaderFigures { sizes, memory, told })
}

/// A fleet, with the replica of each user's reader.
struct ReaderScene {
    sandbox: ChildProcess,
    fleet: BridgeFleet,
    store: Option<RedisProcess>,
    places: Vec<(usize, SocketAddr)>,
    sizes: BenchSizes,
}

impl ReaderScene {
    /// Starts so many replicas on Redis, or one with the memory store. A reader connects to its owner or to another replica.
    async fn start(
        binary: &Path,
        replicas: usize,
        at_owner: bool,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        let sandbox = setup::sandbox(binary).await?;
        let (fleet, store) = if replicas == 0 {
            (BridgeFleet::alone(binary, sandbox.address).await?, None)
        } else {
            let store = RedisProcess::start().await?;
            let terms = BridgeTerms::new(sandbox.address).on(store.address());
            (BridgeFleet::start(binary, terms, &store, replicas).await?, Some(store))
        };
        let addresses = fleet.addresses();
        let mut places = Vec::with_capacity(sizes.users);
        match &store {
            Some(store) if replicas > 1 => {
                for (at, incarnation) in fleet.incarnations.iter().enumerate() {
                    let owned = fleet::users_of(store, incarnation, GROUP, sizes.users).await?;
                    let at = if at_owner { at } else { (at + 1) % replicas };
                    places.extend(owned.into_iter().zip(addresses.get(at).copied().into_iter().cycle()));
                }
            }
            _ => places.extend((0..sizes.users).zip(addresses.first().copied().into_iter().cycle())),
        }
        Ok(Self { sandbox, fleet, store, places, sizes })
    }

    /// Measures a growing number of readers of idle conversations.
    async fn listen(&self) -> Result<Vec<(usize, f64)>, BenchError> {
        let [address, ..] = self.fleet.addresses()[..] else { return Err(BenchError::Proc("no replica")) };
        let mut readers = StreamReaders::new()?;
        let mut steps = vec![(0, run_meter::settled(&self.fleet.replicas, self.sizes.look).await? as f64)];
        let mut open = 0;
        for count in self.sizes.readers {
            readers.open(SILENT, (open..count).map(|user| (user, address))).await?;
            open = count;
            // Each reader gets one comment meanwhile.
            tokio::time::sleep(self.sizes.comment).await;
            steps.push((count, run_meter::settled(&self.fleet.replicas, self.sizes.look).await? as f64));
            readers.well()?;
        }
        Ok(steps)
    }

    /// Measures turns without and with readers, and then unasked texts of the bot.
    async fn tell(&self, what: &'static str) -> Result<EventRun, BenchError> {
        let BenchSizes { users, rate, paced, rounds, callers, .. } = self.sizes;
        let mut turns = turns::HttpCallers::connect(&self.fleet.addresses(), callers, GROUP, users).await?;
        load::each(&mut turns, 0..users).await?;
        let (mut alone, mut heard) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            alone.push(self.parties().metered(load::pace(&mut turns, users, rate, paced)).await?);
        }
        let mut readers = StreamReaders::new()?;
        readers.open(GROUP, self.places.iter().copied()).await?;
        for _ in 0..rounds {
            heard.push(self.parties().metered(load::pace(&mut turns, users, rate, paced)).await?);
            readers.well()?;
        }
        let mut speakers = readers.speakers(self.sandbox.address, GROUP, callers).await?;
        let events = self.parties().metered(load::pace(&mut speakers, users, rate, paced)).await?;
        Ok(EventRun { what, latency: readers.all_heard().await?, events, alone, heard })
    }

    fn parties(&self) -> RunProcesses<'_> {
        let store = self.store.as_ref().map(|store| &store.server);
        RunProcesses { subject: &self.fleet.replicas, store, sandbox: &self.sandbox }
    }
}

impl fmt::Display for ReaderFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchSizes { users, rate, rounds, paced, .. } = self.sizes;
        writeln!(
            f,
            "Readers of events that only listen, each in a conversation of its own that has no socket.\n"
        )?;
        writeln!(
            f,
            "| bridge | readers | resident MiB | KiB each | without the first {} |",
            self.sizes.readers[0]
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for IdleReaderFigures { what, steps } in &self.memory {
            let [empty, first, ..] = steps[..] else { continue };
            for step in steps {
                let each = |from: (usize, f64)| {
                    let more = step.0.checked_sub(from.0).filter(|more| *more > 0)?;
                    Some(format!("{:.1}", (step.1 - from.1) / more as f64))
                };
                let [all, further] = [each(empty), each(first)].map(Option::unwrap_or_default);
                writeln!(f, "| {what} | {} | {:.1} | {all} | {further} |", step.0, step.1 / 1024.0)?;
            }
        }
        writeln!(
            f,
            "\n{users} conversations with a reader each; the bot says something unasked in them, {rate} times a second \
             for {paced:?}. From its saying so to the reader having the event, milliseconds.\n"
        )?;
        writeln!(
            f,
            "| readers | p50 | p99 | p99.9 | most | bridge CPU µs per event | Redis CPU µs per event |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for told in &self.told {
            write!(f, "| {} |", told.what)?;
            for quantile in [0.5, 0.99, 0.999, 1.0] {
                let micros = told.latency.value_at_quantile(quantile);
                write!(f, " {:.2} |", Duration::from_micros(micros).as_secs_f64() * 1e3)?;
            }
            writeln!(f, " {:.0} | {:.0} |", told.events.micros(), told.events.store_micros())?;
        }
        writeln!(
            f,
            "\nCPU µs per turn at {rate} turns a second, with nobody listening and with a reader for each user, who is \
             told of two events a turn; {rounds} rounds, median (least to most).\n"
        )?;
        writeln!(f, "| readers | bridge, none | bridge, one each | Redis, none | Redis, one each |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for EventRun { what, alone, heard, .. } in &self.told {
            let [bridge, bridge_heard] =
                [alone, heard].map(|runs| spread(figures(runs, MeteredRun::micros), 0));
            let [store, store_heard] =
                [alone, heard].map(|runs| spread(figures(runs, MeteredRun::store_micros), 0));
            writeln!(f, "| {what} | {bridge} | {bridge_heard} | {store} | {store_heard} |")?;
        }
        writeln!(f)
    }
}
