//! The cost of deliveries: rate, CPU time, latency, and the effect of a dead receiver on the others.
//!
//! The bot says numbers unasked, which excludes the cost of turns. A run at the same rate without receivers gives the
//! difference.

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use crate::bench_error::BenchError;
use crate::bot_load::{BotSpeakers, WebhookUser};
use crate::child_process::{self, ChildProcess};
use crate::fleet::BridgeFleet;
use crate::load;
use crate::monitor::{self, CommandCounts, ScriptNames};
use crate::receiver::{CountingReceiver, DeliveryBook};
use crate::run_meter::{LoadRun, RunProcesses, median, spread};
use crate::setup::{self, BenchSizes, BotReceiver, BridgeTerms};
use crate::store::RedisProcess;
use crate::turns;

/// The number of concurrent deliveries at saturation, equal to the concurrent attempts of a replica.
const WINDOW: usize = 256;
/// The timeout of a delivery.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(2);

const GROUP: &str = "webhooks";
const ONE: &str = "one";
const SILENT: &str = "silent";
const ABSENT: &str = "absent";

/// The CPU time of all processes.
#[derive(Clone, Copy, Default)]
struct CpuShares {
    bridge: Duration,
    store: Duration,
    sandbox: Duration,
    receiver: Duration,
    load: Duration,
}

/// The results of one run of numbers.
struct NumberRun {
    said: u64,
    /// The time from the first number to the last delivery, or to the last number without receivers.
    elapsed: Duration,
    latency: Histogram<u64>,
    spent: CpuShares,
}

impl NumberRun {
    fn rate(&self) -> f64 {
        self.said as f64 / self.elapsed.as_secs_f64()
    }

    fn micros(&self, part: impl Fn(&CpuShares) -> Duration) -> f64 {
        part(&self.spent).as_secs_f64() * 1e6 / self.said as f64
    }

    fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// One round with one store.
struct WebhookRound {
    /// At saturation: to one receiver, and to all.
    one: NumberRun,
    all: NumberRun,
    /// At the rate of the turns: to all receivers, and without receivers.
    told: NumberRun,
    none: NumberRun,
    /// At the fixed rate: all receivers work, one does not answer, one refuses connections.
    well: NumberRun,
    silent: NumberRun,
    absent: NumberRun,
}

/// A figure of a round.
type RunPick = fn(&WebhookRound) -> &NumberRun;

/// The commands to Redis in idle seconds and for some deliveries.
struct DeliveryCommands {
    idle: CommandCounts,
    counts: CommandCounts,
    deliveries: u64,
}

/// All results.
pub(crate) struct WebhookFigures {
    sizes: BenchSizes,
    stores: Vec<(&'static str, Vec<WebhookRound>)>,
    asked: DeliveryCommands,
}

/// Measures deliveries.
pub(crate) async fn measure(binary: &Path, sizes: BenchSizes) -> Result<WebhookFigures, BenchError> {
    let (mut memory, mut redis) = (Vec::new(), Vec::new());
    // Each round has a fleet of its own, because the next round must not retry its failed deliveries.
    for round in 1..=sizes.rounds {
        eprintln!("deliveries, round {round} of {}: memory store", sizes.rounds);
        memory.push(WebhookScene::start(binary, binary, None, sizes).await?.round().await?);
        eprintln!("deliveries, round {round} of {}: Redis", sizes.rounds);
        redis.push(
            WebhookScene::start(binary, binary, Some(Rc::new(RedisProcess::start().await?)), sizes)
                .await?
                .round()
                .await?,
        );
    }
    eprintln!("deliveries: commands");
    let (store, names) = (Rc::new(RedisProcess::start().await?), ScriptNames::default());
    // This run only learns the names of scripts.
    let opening = async {
        let scene = WebhookScene::start(binary, binary, Some(Rc::clone(&store)), sizes).await?;
        let all = scene.crowd(DeliveryTarget::All).await?;
        scene.saturate(&all).await?;
        Ok((scene, all))
    };
    let ((scene, all), _) = monitor::during(&store, &names, opening).await?;
    let idle = monitor::idle(&store, &names, sizes.still).await?;
    let (told, counts) = monitor::during(&store, &names, scene.saturate(&all)).await?;
    let asked = DeliveryCommands { idle, counts, deliveries: told.said };
    Ok(WebhookFigures { sizes, stores: vec![("memory store", memory), ("Redis, one replica", redis)], asked })
}

/// Measures deliveries with Redis to all receivers at saturation: their rate per second, and the CPU microseconds of
/// bridge and Redis for each. The program `platform` simulates the platform.
pub(crate) async fn saturate(
    binary: &Path,
    platform: &Path,
    sizes: BenchSizes,
) -> Result<[f64; 3], BenchError> {
    let store = Some(Rc::new(RedisProcess::start().await?));
    let scene = WebhookScene::start(binary, platform, store, sizes).await?;
    let run = scene.saturate(&scene.crowd(DeliveryTarget::All).await?).await?;
    Ok([run.rate(), run.micros(|spent| spent.bridge), run.micros(|spent| spent.store)])
}

/// The receivers of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DeliveryTarget {
    Nobody,
    One,
    All,
    /// All receivers, one of which does not answer.
    AllButSilent,
    /// All receivers, one of which refuses connections.
    AllButAbsent,
}

/// A fleet with receivers.
struct WebhookScene {
    receiver: CountingReceiver,
    sandbox: ChildProcess,
    fleet: BridgeFleet,
    store: Option<Rc<RedisProcess>>,
    sizes: BenchSizes,
}

impl WebhookScene {
    async fn start(
        binary: &Path,
        platform: &Path,
        store: Option<Rc<RedisProcess>>,
        sizes: BenchSizes,
    ) -> Result<Self, BenchError> {
        let receiver = CountingReceiver::start(sizes.targets + 1).await?;
        let [one, ref all @ ..] = receiver.targets[..] else { return Err(BenchError::Proc("no receiver")) };
        let hook = |(bot, address)| BotReceiver { bot, address };
        let named = [(ONE, one), (SILENT, receiver.silent), (ABSENT, receiver.absent)];
        let named = named.map(|(bot, address)| (bot.to_owned(), address));
        let hooks: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(target, &address)| (many(target), address))
            .chain(named)
            .map(hook)
            .collect();
        let sandbox = setup::sandbox_of(platform, &hooks).await?;
        let mut terms = BridgeTerms { hooks, ..BridgeTerms::new(sandbox.address) };
        let fleet = match &store {
            Some(store) => {
                terms = terms.on(store.address());
                BridgeFleet::start(binary, terms, store, 1).await?
            }
            None => BridgeFleet::alone_on(binary, terms).await?,
        };
        Ok(Self { receiver, sandbox, fleet, store, sizes })
    }

    /// Measures one round.
    async fn round(&self) -> Result<WebhookRound, BenchError> {
        let one = self.saturate(&self.crowd(DeliveryTarget::One).await?).await?;
        let everybody = self.crowd(DeliveryTarget::All).await?;
        let all = self.saturate(&everybody).await?;
        let nobody = self.crowd(DeliveryTarget::Nobody).await?;
        let [span, paced] = self.sizes.delivering;
        let told = self.pace(&everybody, self.sizes.rate, span).await?;
        let none = self.pace(&nobody, self.sizes.rate, span).await?;
        let rate = self.sizes.deliveries;
        let well = self.pace(&everybody, rate, paced).await?;
        // The conversations of each target open late, because their deliveries fail from then on.
        let silent = self.pace(&self.crowd(DeliveryTarget::AllButSilent).await?, rate, paced).await?;
        let absent = self.pace(&self.crowd(DeliveryTarget::AllButAbsent).await?, rate, paced).await?;
        Ok(WebhookRound { one, all, told, none, well, silent, absent })
    }

    /// Creates users with an open conversation each.
    async fn crowd(&self, target: DeliveryTarget) -> Result<Rc<[WebhookUser]>, BenchError> {
        let bot = |user: usize| match (target, user % self.sizes.targets) {
            (DeliveryTarget::Nobody, _) => setup::BOT.to_owned(),
            (DeliveryTarget::One, _) => ONE.to_owned(),
            (DeliveryTarget::AllButSilent, 0) => SILENT.to_owned(),
            (DeliveryTarget::AllButAbsent, 0) => ABSENT.to_owned(),
            (_, place) => many(place),
        };
        let heard = |bot: &str| ![setup::BOT, SILENT, ABSENT].contains(&bot);
        let person = |user| {
            let bot = bot(user);
            WebhookUser { heard: heard(&bot), user: setup::user(GROUP, user), bot }
        };
        let people: Rc<[WebhookUser]> = (0..self.sizes.users).map(person).collect();
        let requests = people.iter().map(|person| setup::request_to(&person.bot, &person.user)).collect();
        // The receivers also get the end of each turn.
        let awaited = people.iter().filter(|person| person.heard).count() + self.receiver.book().others;
        let mut turns =
            turns::HttpCallers::asking(&self.fleet.addresses(), self.sizes.callers, requests).await?;
        load::each(&mut turns, 0..people.len()).await?;
        self.until("the ends of turns at the receivers", |book| book.others >= awaited).await?;
        Ok(people)
    }

    /// Runs at saturation, with a limit of concurrent deliveries.
    async fn saturate(&self, people: &Rc<[WebhookUser]>) -> Result<NumberRun, BenchError> {
        let window = Arc::new(Semaphore::new(WINDOW));
        self.receiver.book().window = Arc::clone(&window);
        let mut sayers = self.sayers(people, Some(&window)).await?;
        let [span, _] = self.sizes.delivering;
        self.tell(load::saturate(&mut sayers, people.len(), span)).await
    }

    async fn pace(
        &self,
        people: &Rc<[WebhookUser]>,
        rate: u32,
        span: Duration,
    ) -> Result<NumberRun, BenchError> {
        let mut sayers = self.sayers(people, None).await?;
        self.tell(load::pace(&mut sayers, people.len(), rate, span)).await
    }

    async fn sayers(
        &self,
        people: &Rc<[WebhookUser]>,
        window: Option<&Arc<Semaphore>>,
    ) -> Result<BotSpeakers, BenchError> {
        let book = self.receiver.shared();
        BotSpeakers::connect(self.sandbox.address, self.sizes.callers, people, &book, window).await
    }

    /// Runs a load of numbers until all have arrived.
    async fn tell(
        &self,
        run: impl Future<Output = Result<LoadRun, BenchError>>,
    ) -> Result<NumberRun, BenchError> {
        {
            let mut book = self.receiver.book();
            book.latency.reset();
            book.last = None;
        }
        let (before, began) = (self.spent()?, Instant::now());
        let run = run.await?;
        self.until("deliveries of everything that was said", DeliveryBook::is_closed).await?;
        let spent = self.spent()?.since(before);
        let book = self.receiver.book();
        let elapsed = book.last.map_or(run.elapsed, |last| run.elapsed.max(last - began));
        Ok(NumberRun { said: run.turns, elapsed, latency: book.latency.clone(), spent })
    }

    async fn until(
        &self,
        what: &'static str,
        fact: impl Fn(&DeliveryBook) -> bool,
    ) -> Result<(), BenchError> {
        let began = Instant::now();
        while !fact(&self.receiver.book()) {
            if began.elapsed() > PATIENCE {
                return Err(BenchError::Missed { what, after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    fn spent(&self) -> Result<CpuShares, BenchError> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = RunProcesses { subject: &self.fleet.replicas, store, sandbox: &self.sandbox };
        let (bridge, store, sandbox) = parties.cpu()?;
        let receiver = self.receiver.cpu()?;
        let load = child_process::cpu("/proc/self/stat")?.saturating_sub(receiver);
        Ok(CpuShares { bridge, store, sandbox, receiver, load })
    }
}

/// Returns the name of one of many bots with a receiver of its own.
fn many(target: usize) -> String {
    format!("target-{target}")
}

impl CpuShares {
    fn since(self, before: Self) -> Self {
        Self {
            bridge: self.bridge.saturating_sub(before.bridge),
            store: self.store.saturating_sub(before.store),
            sandbox: self.sandbox.saturating_sub(before.sandbox),
            receiver: self.receiver.saturating_sub(before.receiver),
            load: self.load.saturating_sub(before.load),
        }
    }
}

impl fmt::Display for WebhookFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BenchSizes { users, targets, rate, deliveries, rounds, delivering: [span, paced], .. } =
            self.sizes;
        writeln!(
            f,
            "Deliveries of what the bot says unasked in {users} conversations: {WINDOW} of them on their way at any time, \
             and {rate} a second with webhooks and without; {span:?} a round, {rounds} rounds, median (least to most). \
             CPU µs for each, from the frame to the store's note that it was taken.\n"
        )?;
        writeln!(
            f,
            "| deliveries | a second | bridge CPU µs | Redis CPU µs | sandbox | receiver | load | by CPU, two cores for bridge and Redis |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for (store, rounds) in &self.stores {
            let rows: [(String, RunPick); 4] = [
                ("to one receiver".to_owned(), |round| &round.one),
                (format!("to {targets} receivers"), |round| &round.all),
                (format!("to {targets} receivers, {rate} a second"), |round| &round.told),
                (format!("to nobody, {rate} a second"), |round| &round.none),
            ];
            for (what, told) in rows {
                let figures = |figure: &dyn Fn(&NumberRun) -> f64| {
                    rounds.iter().map(|round| figure(told(round))).collect()
                };
                let cpu = |part: fn(&CpuShares) -> Duration| spread(figures(&|told| told.micros(part)), 0);
                let ours = |spent: &CpuShares| spent.bridge + spent.store;
                let most = median(figures(&|told| 2e6 / told.micros(ours)));
                writeln!(
                    f,
                    "| {store}, {what} | {} | {} | {} | {} | {} | {} | {most:.0} |",
                    spread(figures(&NumberRun::rate), 0),
                    cpu(|spent| spent.bridge),
                    cpu(|spent| spent.store),
                    cpu(|spent| spent.sandbox),
                    cpu(|spent| spent.receiver),
                    cpu(|spent| spent.load),
                )?;
            }
        }
        writeln!(
            f,
            "\n{deliveries} frames a second for {paced:?}, to {targets} receivers, of which one is dead: it takes \
             connections and never answers, or refuses them. From the bot's saying it to the body being with one of \
             the others, milliseconds, all rounds together; p99 as a multiple of the same round's without a dead \
             one, median (least to most).\n"
        )?;
        writeln!(f, "| deliveries | p50 | p99 | p99.9 | most | p99 as a multiple |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for (store, rounds) in &self.stores {
            let rows: [(&str, RunPick); 3] = [
                ("all are well", |round| &round.well),
                ("one does not answer", |round| &round.silent),
                ("one refuses connections", |round| &round.absent),
            ];
            for (what, told) in rows {
                write!(f, "| {store}, {what} |")?;
                let mut all = load::histogram().map_err(|_| fmt::Error)?;
                for round in rounds {
                    all += &told(round).latency;
                }
                for quantile in [0.5, 0.99, 0.999, 1.0] {
                    write!(f, " {:.2} |", all.value_at_quantile(quantile) as f64 / 1e3)?;
                }
                let ratio = |round: &WebhookRound| told(round).millis(0.99) / round.well.millis(0.99);
                writeln!(f, " {} |", spread(rounds.iter().map(ratio).collect(), 2))?;
            }
        }
        let DeliveryCommands { idle, counts, deliveries } = &self.asked;
        writeln!(f, "\nCommands for each delivery at saturation, what is sent anyway left out:\n")?;
        writeln!(f, "| command | for each delivery |\n| --- | --- |")?;
        for name in counts.by_name.keys() {
            let each = (counts.rate(name) - idle.rate(name)) * counts.span.as_secs_f64() / *deliveries as f64;
            if each >= 0.005 {
                writeln!(f, "| {name} | {each:.2} |")?;
            }
        }
        writeln!(f)
    }
}
