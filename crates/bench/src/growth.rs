//! The cost of a growing number of idle conversations, each after one turn and with an open socket. It has memory, CPU,
//! commands to Redis, and the cost of each ended message.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::BridgeFleet;
use crate::monitor::{self, ScriptNames};
use crate::run_meter::{self, RunProcesses};
use crate::setup::{self, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::{load, turns};

/// The number of final turns in each conversation that show the cost of a message.
const FURTHER: usize = 4;

/// Memory in KiB.
#[derive(Clone, Copy)]
struct MemoryUse {
    /// Resident memory of the bridge.
    bridge: f64,
    /// Allocated memory of Redis.
    store: Option<f64>,
}

/// The cost of an idle second.
struct IdleSecond {
    bridge: Duration,
    store: Duration,
    commands: Option<f64>,
}

struct GrowthStep {
    conversations: usize,
    kept: MemoryUse,
    idle: IdleSecond,
}

/// All steps with one kind of store.
pub(crate) struct GrowthFigures {
    store: &'static str,
    steps: Vec<GrowthStep>,
    messages: usize,
    /// The memory after so many further messages.
    after: MemoryUse,
}

/// The measured bridge.
struct GrowthSubject {
    sandbox: ChildProcess,
    fleet: BridgeFleet,
    store: Option<RedisProcess>,
    sizes: BenchSizes,
}

/// Measures with the memory store, then with Redis. The program `platform` simulates the platform.
pub(crate) async fn measure(
    binary: &Path,
    platform: &Path,
    sizes: BenchSizes,
) -> Result<Vec<GrowthFigures>, BenchError> {
    let sandbox = setup::sandbox(platform).await?;
    let fleet = BridgeFleet::alone(binary, sandbox.address).await?;
    let memory = GrowthSubject { sandbox, fleet, store: None, sizes }.grow("memory store").await?;

    let (sandbox, store) = (setup::sandbox(platform).await?, RedisProcess::start().await?);
    let terms = BridgeTerms::new(sandbox.address).on(store.address());
    let fleet = BridgeFleet::start(binary, terms, &store, 1).await?;
    let redis = GrowthSubject { sandbox, fleet, store: Some(store), sizes }.grow("Redis").await?;
    Ok(vec![memory, redis])
}

impl GrowthSubject {
    /// Opens more conversations step by step, and measures after each step.
    async fn grow(self, store: &'static str) -> Result<GrowthFigures, BenchError> {
        let most = self.sizes.idle.iter().copied().max().unwrap_or_default();
        let mut callers =
            turns::HttpCallers::connect(&self.fleet.addresses(), self.sizes.callers, "idle", most).await?;
        let mut steps = vec![self.step(0).await?];
        let mut open = 0;
        for conversations in self.sizes.idle {
            eprintln!("{store}: opening conversations up to {conversations}");
            load::each(&mut callers, open..conversations).await?;
            open = conversations;
            steps.push(self.step(conversations).await?);
        }
        for _ in 0..FURTHER {
            load::each(&mut callers, 0..most).await?;
        }
        Ok(GrowthFigures { store, steps, messages: FURTHER * most, after: self.settled().await? })
    }

    async fn step(&self, conversations: usize) -> Result<GrowthStep, BenchError> {
        let kept = self.settled().await?;
        Ok(GrowthStep { conversations, kept, idle: self.idle().await? })
    }

    /// Measures a second without requests.
    async fn idle(&self) -> Result<IdleSecond, BenchError> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = RunProcesses { subject: &self.fleet.replicas, store, sandbox: &self.sandbox };
        let (before, began) = (parties.cpu()?, Instant::now());
        tokio::time::sleep(self.sizes.still).await;
        let (after, seconds) = (parties.cpu()?, began.elapsed().as_secs_f64());
        // The commands are counted separately, because MONITOR costs Redis CPU time.
        let commands = match &self.store {
            Some(store) => Some(monitor::idle(store, &ScriptNames::default(), self.sizes.still).await?.all()),
            None => None,
        };
        Ok(IdleSecond {
            bridge: after.0.saturating_sub(before.0).div_f64(seconds),
            store: after.1.saturating_sub(before.1).div_f64(seconds),
            commands,
        })
    }

    /// Returns the stable memory.
    async fn settled(&self) -> Result<MemoryUse, BenchError> {
        let bridge = run_meter::settled(&self.fleet.replicas, self.sizes.look).await? as f64;
        let store = match &self.store {
            Some(store) => Some(store.used().await? as f64 / 1024.0),
            None => None,
        };
        Ok(MemoryUse { bridge, store })
    }
}

/// Returns the KiB of the bridge and of Redis for each of so many.
fn each(from: MemoryUse, to: MemoryUse, count: f64) -> (f64, Option<f64>) {
    let store = to.store.zip(from.store).map(|(to, from)| (to - from) / count);
    ((to.bridge - from.bridge) / count, store)
}

impl GrowthFigures {
    fn between(from: &GrowthStep, to: &GrowthStep) -> (f64, Option<f64>) {
        each(from.kept, to.kept, to.conversations as f64 - from.conversations as f64)
    }

    /// Returns the KiB of each conversation without the first ones, and of each further message, with their names.
    pub(crate) fn each_kib(&self) -> Vec<(String, f64)> {
        let [_, first, .., last] = self.steps.as_slice() else { return Vec::new() };
        let store = self.store;
        let (bridge, redis) = Self::between(first, last);
        let message = each(last.kept, self.after, self.messages as f64);
        let mut all = vec![
            (format!("bridge KiB per idle conversation, {store}"), bridge),
            (format!("bridge KiB per ended message, {store}"), message.0),
        ];
        if let Some((redis, message)) = redis.zip(message.1) {
            all.push(("Redis KiB per idle conversation with its message".to_owned(), redis));
            all.push(("Redis KiB per ended message".to_owned(), message));
        }
        all
    }
}

impl fmt::Display for GrowthFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [empty, first, .., last] = self.steps.as_slice() else { return Ok(()) };
        writeln!(
            f,
            "{}: idle conversations, each had one turn and holds its socket. KiB each: over none, and over the first {}.\n",
            self.store, first.conversations
        )?;
        writeln!(
            f,
            "| idle conversations | bridge resident MiB | KiB each | without the first {0} | Redis used MiB | KiB each \
             | without the first {0} | bridge CPU ms per s | Redis CPU ms per s | commands per s |",
            first.conversations
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        let cell = |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.1}"));
        for step in &self.steps {
            let all = (step.conversations > 0).then(|| Self::between(empty, step));
            let further = (step.conversations > first.conversations).then(|| Self::between(first, step));
            writeln!(
                f,
                "| {} | {:.1} | {} | {} | {} | {} | {} | {:.1} | {:.1} | {} |",
                step.conversations,
                step.kept.bridge / 1024.0,
                cell(all.map(|all| all.0)),
                cell(further.map(|further| further.0)),
                cell(step.kept.store.map(|store| store / 1024.0)),
                cell(all.and_then(|all| all.1)),
                cell(further.and_then(|further| further.1)),
                step.idle.bridge.as_secs_f64() * 1e3,
                step.idle.store.as_secs_f64() * 1e3,
                cell(step.idle.commands)
            )?;
        }
        if let Some(between) = self.steps.get(2) {
            let (early, late) = (Self::between(first, between).0, Self::between(between, last).0);
            let (one, two, three) = (first.conversations, between.conversations, last.conversations);
            writeln!(
                f,
                "\nLinear: {early:.1} KiB of the bridge each from {one} to {two}, {late:.1} each from {two} to {three}."
            )?;
        }
        let message = each(last.kept, self.after, self.messages as f64);
        write!(f, "\nEach further ended message, of {}: {:.2} KiB of the bridge", self.messages, message.0)?;
        let conversation = Self::between(first, last).1;
        if let Some((message, conversation)) = message.1.zip(conversation) {
            write!(
                f,
                ", {message:.2} KiB of Redis, its entries in the journal included. \
                 So an idle conversation itself takes {:.2} KiB of Redis",
                conversation - message
            )?;
        }
        writeln!(f, ".\n")
    }
}
