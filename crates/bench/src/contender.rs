//! The contenders of a measurement of turns: their processes, their callers, and the rounds of each load.

use std::path::Path;
use std::slice;

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::BridgeFleet;
use crate::load;
use crate::run_meter::{MeteredRun, RunProcesses, figures, quantile};
use crate::setup::{AnswerPace, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns::{DirectCallers, HttpCallers, TurnCallers};

/// A load of one round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnLoad {
    /// Each caller takes turn after turn.
    Saturation,
    /// Turns at the fixed rate, from a bot that answers so.
    Paced(AnswerPace),
}

impl TurnLoad {
    /// All loads of a round, in order.
    pub(crate) const ALL: [Self; 3] =
        [Self::Saturation, Self::Paced(AnswerPace::AtOnce), Self::Paced(AnswerPace::Slow)];

    /// Describes the load.
    pub(crate) fn name(self, sizes: BenchSizes) -> String {
        let BenchSizes { rate, callers, slow_callers, .. } = sizes;
        match self {
            Self::Saturation => "at saturation".to_owned(),
            Self::Paced(AnswerPace::AtOnce) => {
                format!("{rate} turns per second, {callers} callers, the bot answers at once")
            }
            Self::Paced(AnswerPace::Slow) => {
                format!("{rate} turns per second, {slow_callers} callers, the bot takes 200 ms")
            }
        }
    }
}

/// All rounds of one contender.
#[derive(Default)]
pub(crate) struct ContenderRounds {
    saturated: Vec<MeteredRun>,
    paced: Vec<MeteredRun>,
    slow: Vec<MeteredRun>,
}

impl ContenderRounds {
    /// Returns the rounds of a load.
    pub(crate) fn of(&self, load: TurnLoad) -> &[MeteredRun] {
        match load {
            TurnLoad::Saturation => &self.saturated,
            TurnLoad::Paced(AnswerPace::AtOnce) => &self.paced,
            TurnLoad::Paced(AnswerPace::Slow) => &self.slow,
        }
    }

    /// Returns one figure of each round of a load.
    pub(crate) fn figures(&self, load: TurnLoad, figure: impl Fn(&MeteredRun) -> f64) -> Vec<f64> {
        figures(self.of(load), figure)
    }

    /// Returns a quantile of the latencies of each round of a load less that of the direct sockets in it, in milliseconds.
    pub(crate) fn added(&self, load: TurnLoad, direct: &Self, q: f64) -> Vec<f64> {
        let pairs = self.of(load).iter().zip(direct.of(load));
        pairs
            .map(|(of, direct)| quantile(slice::from_ref(of), q) - quantile(slice::from_ref(direct), q))
            .collect()
    }

    fn add(&mut self, load: TurnLoad, run: MeteredRun) {
        match load {
            TurnLoad::Saturation => self.saturated.push(run),
            TurnLoad::Paced(AnswerPace::AtOnce) => self.paced.push(run),
            TurnLoad::Paced(AnswerPace::Slow) => self.slow.push(run),
        }
    }
}

/// The callers of one contender, for bots of each pace.
pub(crate) struct ContenderCallers<C> {
    pub(crate) usual: C,
    pub(crate) slow: C,
}

impl<C: TurnCallers> ContenderCallers<C> {
    /// Takes one turn for each user.
    async fn open(&mut self, group: &str, sizes: BenchSizes) -> Result<(), BenchError> {
        eprintln!("opening {} conversations: {group}", sizes.users);
        load::each(&mut self.usual, 0..sizes.users).await.map(|_| ())
    }

    /// Adds a round of a load.
    pub(crate) async fn run(
        &mut self,
        load: TurnLoad,
        parties: RunProcesses<'_>,
        rounds: &mut ContenderRounds,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let BenchSizes { users, rate, paced, saturation, .. } = sizes;
        let run = match load {
            TurnLoad::Saturation => parties.metered(load::saturate(&mut self.usual, users, saturation)).await,
            TurnLoad::Paced(AnswerPace::AtOnce) => {
                parties.metered(load::pace(&mut self.usual, users, rate, paced)).await
            }
            TurnLoad::Paced(AnswerPace::Slow) => {
                parties.metered(load::pace(&mut self.slow, users, rate, paced)).await
            }
        };
        rounds.add(load, run?);
        Ok(())
    }
}

impl ContenderCallers<DirectCallers> {
    /// Connects callers with sockets of their own.
    pub(crate) async fn direct(sandbox: &ChildProcess, sizes: BenchSizes) -> Result<Self, BenchError> {
        let usual = DirectCallers::connect(sandbox.address, sizes.callers, sizes.users).await?;
        let slow = usual.of_bot(AnswerPace::Slow, sizes.slow_callers);
        let mut callers = Self { usual, slow };
        callers.open("direct sockets", sizes).await?;
        Ok(callers)
    }
}

/// A fleet with its store and its callers.
pub(crate) struct Contender {
    fleet: BridgeFleet,
    pub(crate) store: Option<RedisProcess>,
    callers: ContenderCallers<HttpCallers>,
    pub(crate) rounds: ContenderRounds,
}

impl Contender {
    /// Starts one replica with the memory store, and opens a conversation for each user of the group.
    pub(crate) async fn on_memory(
        binary: &Path,
        sandbox: &ChildProcess,
        group: &str,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        Self::open(BridgeFleet::alone(binary, sandbox.address).await?, None, group, sizes).await
    }

    /// Starts so many replicas with a Redis of their own.
    pub(crate) async fn on_redis(
        binary: &Path,
        sandbox: &ChildProcess,
        replicas: usize,
        group: &str,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        let store = RedisProcess::start().await?;
        let terms = BridgeTerms::new(sandbox.address).on(store.address());
        let fleet = BridgeFleet::start(binary, terms, &store, replicas).await?;
        Self::open(fleet, Some(store), group, sizes).await
    }

    async fn open(
        fleet: BridgeFleet,
        store: Option<RedisProcess>,
        group: &str,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        let (addresses, users) = (fleet.addresses(), sizes.users);
        let mut callers = ContenderCallers {
            usual: HttpCallers::connect(&addresses, sizes.callers, group, users).await?,
            slow: HttpCallers::of_bot(AnswerPace::Slow, &addresses, sizes.slow_callers, group, users).await?,
        };
        callers.open(group, sizes).await?;
        Ok(Self { fleet, store, callers, rounds: ContenderRounds::default() })
    }

    /// Adds a round of a load.
    pub(crate) async fn run(
        &mut self,
        load: TurnLoad,
        sandbox: &ChildProcess,
        sizes: BenchSizes,
    ) -> Result<(), BenchError> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = RunProcesses { subject: &self.fleet.replicas, store, sandbox };
        self.callers.run(load, parties, &mut self.rounds, sizes).await
    }
}
