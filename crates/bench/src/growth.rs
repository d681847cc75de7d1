//! What more and more idle conversations cost, each after one turn and with its socket open: memory, CPU, and what is
//! asked of Redis meanwhile; and what each ended message adds.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::meter::{self, Parties};
use crate::monitor::{self, Names};
use crate::setup::{self, Sizes, Terms};
use crate::store::Store;
use crate::{load, turns};

/// Turns that each conversation takes at the end, one after the other, for what a message costs.
const FURTHER: usize = 4;

/// KiB.
#[derive(Clone, Copy)]
struct Kept {
    /// Resident in the bridge.
    bridge: f64,
    /// Allocated in Redis.
    store: Option<f64>,
}

/// What an idle second takes.
struct Idle {
    bridge: Duration,
    store: Duration,
    commands: Option<f64>,
}

struct Step {
    conversations: usize,
    kept: Kept,
    idle: Idle,
}

/// All steps with one kind of store.
pub(crate) struct Growth {
    store: &'static str,
    steps: Vec<Step>,
    messages: usize,
    /// After that many further messages.
    after: Kept,
}

/// The bridge that is looked at.
struct Subject {
    sandbox: Child,
    fleet: Fleet,
    store: Option<Store>,
    sizes: Sizes,
}

/// First the memory store, then Redis.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Vec<Growth>, Failure> {
    let sandbox = setup::sandbox(binary).await?;
    let fleet = Fleet::alone(binary, sandbox.address).await?;
    let memory = Subject { sandbox, fleet, store: None, sizes }.grow("memory store").await?;

    let (sandbox, store) = (setup::sandbox(binary).await?, Store::start().await?);
    let terms = Terms::new(sandbox.address).on(store.address());
    let fleet = Fleet::start(binary, terms, &store, 1).await?;
    let redis = Subject { sandbox, fleet, store: Some(store), sizes }.grow("Redis").await?;
    Ok(vec![memory, redis])
}

impl Subject {
    /// Opens more and more conversations, and looks after each step.
    async fn grow(self, store: &'static str) -> Result<Growth, Failure> {
        let most = self.sizes.idle.iter().copied().max().unwrap_or_default();
        let mut callers =
            turns::Http::connect(&self.fleet.addresses(), self.sizes.callers, "idle", most).await?;
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
        Ok(Growth { store, steps, messages: FURTHER * most, after: self.settled().await? })
    }

    async fn step(&self, conversations: usize) -> Result<Step, Failure> {
        let kept = self.settled().await?;
        Ok(Step { conversations, kept, idle: self.idle().await? })
    }

    /// A second in which nobody asks for anything.
    async fn idle(&self) -> Result<Idle, Failure> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = Parties { subject: &self.fleet.replicas, store, sandbox: &self.sandbox };
        let (before, began) = (parties.cpu()?, Instant::now());
        tokio::time::sleep(self.sizes.still).await;
        let (after, seconds) = (parties.cpu()?, began.elapsed().as_secs_f64());
        // Apart from the CPU time: being watched costs Redis some.
        let commands = match &self.store {
            Some(store) => Some(monitor::idle(store, &Names::default(), self.sizes.still).await?.all()),
            None => None,
        };
        Ok(Idle {
            bridge: after.0.saturating_sub(before.0).div_f64(seconds),
            store: after.1.saturating_sub(before.1).div_f64(seconds),
            commands,
        })
    }

    /// Once it has stopped moving.
    async fn settled(&self) -> Result<Kept, Failure> {
        let bridge = meter::settled(&self.fleet.replicas, self.sizes.look).await? as f64;
        let store = match &self.store {
            Some(store) => Some(store.used().await? as f64 / 1024.0),
            None => None,
        };
        Ok(Kept { bridge, store })
    }
}

/// KiB for each of so many, of the bridge and of Redis.
fn each(from: Kept, to: Kept, count: f64) -> (f64, Option<f64>) {
    let store = to.store.zip(from.store).map(|(to, from)| (to - from) / count);
    ((to.bridge - from.bridge) / count, store)
}

impl Growth {
    fn between(from: &Step, to: &Step) -> (f64, Option<f64>) {
        each(from.kept, to.kept, to.conversations as f64 - from.conversations as f64)
    }
}

impl fmt::Display for Growth {
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
