//! The cost of an attack of one caller: the latency of the others' turns, and the memory of the replica.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::attacker::{Attack, AttackTarget, RunningAttack, VICTIM};
use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::fleet::BridgeFleet;
use crate::http::HttpConnection;
use crate::load;
use crate::run_meter::LoadRun;
use crate::setup::{self, AnswerPace, BenchSizes, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns::HttpCallers;

const GROUP: &str = "others";
/// The keys of the two callers.
const OTHERS_KEY: &str = "rtmb_the-key-of-the-others";
const ATTACKER_KEY: &str = "rtmb_the-key-of-the-attacker";
/// Turns of the others in a second. They leave most of two cores free.
const RATE: u32 = 100;
/// Most conversations of the others. They leave room in the limit of connects.
const USERS: usize = 100;
/// The number of texts of 4 KB that make a page as long as it may be.
const LONG_PAGE: usize = 1000;

/// The figures of one bridge under one attack.
struct AttackRun {
    name: String,
    quiet: LoadRun,
    /// The same load while the attack is on another bridge of this machine.
    beside: LoadRun,
    attacked: LoadRun,
    /// The greatest resident memory after the others' first turns, and after all, in KiB.
    peaks: [u64; 2],
}

/// All results.
pub(crate) struct AttackFigures {
    span: Duration,
    runs: Vec<AttackRun>,
}

/// Measures these attacks, or all if there are none. Each has a bridge of its own, with one Redis and the limits of the chart.
pub(crate) async fn measure(
    binary: &Path,
    attacks: &[Attack],
    sizes: BenchSizes,
) -> Result<AttackFigures, BenchError> {
    let mut runs = Vec::new();
    for &attack in if attacks.is_empty() { &Attack::ALL[..] } else { attacks } {
        eprintln!("attack: {}", attack.name(sizes.attack_scale));
        runs.push(run(binary, attack, sizes).await?);
    }
    Ok(AttackFigures { span: sizes.paced, runs })
}

/// A bridge with a platform and a store of its own.
struct AttackedBridge {
    sandbox: ChildProcess,
    fleet: BridgeFleet,
    address: SocketAddr,
    _store: RedisProcess,
}

impl AttackedBridge {
    async fn start(binary: &Path) -> Result<Self, BenchError> {
        let sandbox = setup::sandbox(binary).await?;
        let store = RedisProcess::start().await?;
        let callers = vec![("others", OTHERS_KEY), ("attacker", ATTACKER_KEY)];
        let terms = BridgeTerms { callers, ..BridgeTerms::new(sandbox.address).on(store.address()) };
        let fleet = BridgeFleet::start(binary, terms, &store, 1).await?;
        let [address, ..] = fleet.addresses()[..] else { return Err(BenchError::Proc("no replica")) };
        Ok(Self { sandbox, fleet, address, _store: store })
    }

    /// Makes the attacker's conversation, with a long page if the attack needs one.
    async fn prepare(&self, attack: Attack) -> Result<(), BenchError> {
        let mut connection = HttpConnection::open(self.address).await?;
        let greeting = setup::request_with_key(VICTIM, ATTACKER_KEY, AnswerPace::AtOnce);
        connection.exchange(&greeting).await?;
        if attack == Attack::UnreadPages {
            let mut bot = HttpConnection::open(self.sandbox.address).await?;
            let text = setup::push(self.sandbox.address, VICTIM, &"m".repeat(4000));
            for _ in 0..LONG_PAGE {
                bot.exchange(&text).await?;
            }
        }
        Ok(())
    }

    /// Returns the greatest resident memory of the replica up to now, in KiB.
    fn peak(&self) -> Result<u64, BenchError> {
        let [replica, ..] = &self.fleet.replicas[..] else { return Err(BenchError::Proc("no replica")) };
        replica.peak()
    }

    /// Starts the attack on this bridge.
    fn attack(&self, attack: Attack, scale: usize) -> Result<RunningAttack, BenchError> {
        let target = AttackTarget { bridge: self.address, sandbox: self.sandbox.address, key: ATTACKER_KEY };
        RunningAttack::start(attack, target, scale)
    }
}

async fn run(binary: &Path, attack: Attack, sizes: BenchSizes) -> Result<AttackRun, BenchError> {
    let bridge = AttackedBridge::start(binary).await?;
    let users = sizes.users.min(USERS);
    let requests = (0..users)
        .map(|user| setup::request_with_key(&setup::user(GROUP, user), OTHERS_KEY, AnswerPace::AtOnce));
    let mut others = HttpCallers::asking(&[bridge.address], sizes.callers, requests.collect()).await?;
    load::each(&mut others, 0..users).await?;
    bridge.prepare(attack).await?;
    let quiet = load::pace(&mut others, users, RATE, sizes.paced).await?;
    let beside = {
        let neighbour = AttackedBridge::start(binary).await?;
        neighbour.prepare(attack).await?;
        let _running = neighbour.attack(attack, sizes.attack_scale)?;
        load::pace(&mut others, users, RATE, sizes.paced).await?
    };
    let before = bridge.peak()?;
    let running = bridge.attack(attack, sizes.attack_scale)?;
    let attacked = load::pace(&mut others, users, RATE, sizes.paced).await?;
    drop(running);
    let peaks = [before, bridge.peak()?];
    Ok(AttackRun { name: attack.name(sizes.attack_scale), quiet, beside, attacked, peaks })
}

impl fmt::Display for AttackFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Turns of other callers, {RATE} a second for {:?}; milliseconds. First alone, then with an attack on another bridge \
             of this machine, then with one on theirs. No turn failed. The greatest memory of the replica, before and with the \
             attack.\n",
            self.span
        )?;
        writeln!(
            f,
            "| attack | p50 | p99 | p99, other bridge | p99 with it | times | most with it | MiB before | MiB with it |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for AttackRun { name, quiet, beside, attacked, peaks } in &self.runs {
            let millis = |run: &LoadRun, q| {
                let latency = run.latency.as_ref().map_or(0, |latency| latency.value_at_quantile(q));
                Duration::from_micros(latency).as_secs_f64() * 1e3
            };
            let [quiet_p99, beside, p99] = [quiet, beside, attacked].map(|run| millis(run, 0.99));
            let [p50, most] = [millis(quiet, 0.5), millis(attacked, 1.0)];
            let [before, after] = peaks.map(|kib| kib as f64 / 1024.0);
            writeln!(
                f,
                "| {name} | {p50:.2} | {quiet_p99:.2} | {beside:.2} | {p99:.2} | **{:.1}** | {most:.1} | {before:.0} | {after:.0} |",
                p99 / quiet_p99
            )?;
        }
        writeln!(f)
    }
}
