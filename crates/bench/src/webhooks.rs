//! What deliveries cost: how many a second, the CPU time of each, how long one takes, and what a dead receiver does to
//! the others.
//!
//! The bot says numbers unasked, so that the turns' own work is left out. The same is said at the same rate where
//! nobody is to be told: the difference is the delivery.

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use crate::child::{self, Child};
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::load;
use crate::meter::{Parties, Run, median, spread};
use crate::monitor::{self, Counts, Names};
use crate::receiver::{Book, Receiver};
use crate::sayers::{Person, Sayers};
use crate::setup::{self, Hook, Sizes, Terms};
use crate::store::Store;
use crate::turns;

/// Numbers that are on their way at the same time, at saturation: as many attempts as a replica makes at once.
const WINDOW: usize = 256;
/// What has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(2);

const GROUP: &str = "webhooks";
const ONE: &str = "one";
const SILENT: &str = "silent";
const ABSENT: &str = "absent";

/// CPU time of everybody who took part.
#[derive(Clone, Copy, Default)]
struct Spent {
    bridge: Duration,
    store: Duration,
    sandbox: Duration,
    receiver: Duration,
    load: Duration,
}

/// Numbers that were said, and what came of them.
struct Told {
    said: u64,
    /// From the first being said to the last being delivered, or said where nobody is told.
    elapsed: Duration,
    latency: Histogram<u64>,
    spent: Spent,
}

impl Told {
    fn rate(&self) -> f64 {
        self.said as f64 / self.elapsed.as_secs_f64()
    }

    fn micros(&self, part: impl Fn(&Spent) -> Duration) -> f64 {
        part(&self.spent).as_secs_f64() * 1e6 / self.said as f64
    }

    fn millis(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// One round with one store.
struct Round {
    /// At saturation: to one receiver, and to all.
    one: Told,
    all: Told,
    /// At the rate of the other parts' turns: to all, and to nobody.
    told: Told,
    none: Told,
    /// At the fixed rate: all are well, one does not answer, one is not there.
    well: Told,
    silent: Told,
    absent: Told,
}

/// One of the figures of a round.
type Pick = fn(&Round) -> &Told;

/// What was asked of Redis: in idle seconds, and for so many deliveries.
struct Asked {
    idle: Counts,
    counts: Counts,
    deliveries: u64,
}

/// All that was found.
pub(crate) struct Hooked {
    sizes: Sizes,
    stores: Vec<(&'static str, Vec<Round>)>,
    asked: Asked,
}

/// Measures.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Hooked, Failure> {
    let (mut memory, mut redis) = (Vec::new(), Vec::new());
    // A fleet for each: what could not be delivered in a round must not be tried again in the next one.
    for round in 1..=sizes.rounds {
        eprintln!("deliveries, round {round} of {}: memory store", sizes.rounds);
        memory.push(Scene::start(binary, None, sizes).await?.round().await?);
        eprintln!("deliveries, round {round} of {}: Redis", sizes.rounds);
        redis.push(Scene::start(binary, Some(Rc::new(Store::start().await?)), sizes).await?.round().await?);
    }
    eprintln!("deliveries: commands");
    let (store, names) = (Rc::new(Store::start().await?), Names::default());
    // Watched only for the names of scripts.
    let opening = async {
        let scene = Scene::start(binary, Some(Rc::clone(&store)), sizes).await?;
        let all = scene.crowd(Target::All).await?;
        scene.saturate(&all).await?;
        Ok((scene, all))
    };
    let ((scene, all), _) = monitor::during(&store, &names, opening).await?;
    let idle = monitor::idle(&store, &names, sizes.still).await?;
    let (told, counts) = monitor::during(&store, &names, scene.saturate(&all)).await?;
    let asked = Asked { idle, counts, deliveries: told.said };
    Ok(Hooked { sizes, stores: vec![("memory store", memory), ("Redis, one replica", redis)], asked })
}

/// Whom the bot's words are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Nobody,
    One,
    All,
    /// All, but one of them does not answer.
    AllButSilent,
    /// All, but one of them is not there.
    AllButAbsent,
}

/// A fleet, and receivers.
struct Scene {
    receiver: Receiver,
    sandbox: Child,
    fleet: Fleet,
    store: Option<Rc<Store>>,
    sizes: Sizes,
}

impl Scene {
    async fn start(binary: &Path, store: Option<Rc<Store>>, sizes: Sizes) -> Result<Self, Failure> {
        let receiver = Receiver::start(sizes.targets + 1).await?;
        let [one, ref all @ ..] = receiver.targets[..] else { return Err(Failure::Proc("no receiver")) };
        let hook = |(bot, address)| Hook { bot, address };
        let named = [(ONE, one), (SILENT, receiver.silent), (ABSENT, receiver.absent)];
        let named = named.map(|(bot, address)| (bot.to_owned(), address));
        let hooks: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(target, &address)| (many(target), address))
            .chain(named)
            .map(hook)
            .collect();
        let sandbox = setup::sandbox_of(binary, &hooks).await?;
        let mut terms = Terms { hooks, ..Terms::new(sandbox.address) };
        let fleet = match &store {
            Some(store) => {
                terms = terms.on(store.address());
                Fleet::start(binary, terms, store, 1).await?
            }
            None => Fleet::alone_on(binary, terms).await?,
        };
        Ok(Self { receiver, sandbox, fleet, store, sizes })
    }

    /// Everything that is measured with one store.
    async fn round(&self) -> Result<Round, Failure> {
        let one = self.saturate(&self.crowd(Target::One).await?).await?;
        let everybody = self.crowd(Target::All).await?;
        let all = self.saturate(&everybody).await?;
        let nobody = self.crowd(Target::Nobody).await?;
        let [span, paced] = self.sizes.delivering;
        let told = self.pace(&everybody, self.sizes.rate, span).await?;
        let none = self.pace(&nobody, self.sizes.rate, span).await?;
        let rate = self.sizes.deliveries;
        let well = self.pace(&everybody, rate, paced).await?;
        // Each opens its conversations late: once it is there, deliveries to it fail.
        let silent = self.pace(&self.crowd(Target::AllButSilent).await?, rate, paced).await?;
        let absent = self.pace(&self.crowd(Target::AllButAbsent).await?, rate, paced).await?;
        Ok(Round { one, all, told, none, well, silent, absent })
    }

    /// Users with an open conversation each.
    async fn crowd(&self, target: Target) -> Result<Rc<[Person]>, Failure> {
        let bot = |user: usize| match (target, user % self.sizes.targets) {
            (Target::Nobody, _) => setup::BOT.to_owned(),
            (Target::One, _) => ONE.to_owned(),
            (Target::AllButSilent, 0) => SILENT.to_owned(),
            (Target::AllButAbsent, 0) => ABSENT.to_owned(),
            (_, place) => many(place),
        };
        let heard = |bot: &str| ![setup::BOT, SILENT, ABSENT].contains(&bot);
        let person = |user| {
            let bot = bot(user);
            Person { heard: heard(&bot), user: setup::user(GROUP, user), bot }
        };
        let people: Rc<[Person]> = (0..self.sizes.users).map(person).collect();
        let requests = people.iter().map(|person| setup::request_to(&person.bot, &person.user)).collect();
        // The end of each turn is delivered too.
        let awaited = people.iter().filter(|person| person.heard).count() + self.receiver.book().others;
        let mut turns = turns::Http::asking(&self.fleet.addresses(), self.sizes.callers, requests).await?;
        load::each(&mut turns, 0..people.len()).await?;
        self.until("the ends of turns at the receivers", |book| book.others >= awaited).await?;
        Ok(people)
    }

    /// As many as can be, with so many on their way.
    async fn saturate(&self, people: &Rc<[Person]>) -> Result<Told, Failure> {
        let window = Arc::new(Semaphore::new(WINDOW));
        self.receiver.book().window = Arc::clone(&window);
        let mut sayers = self.sayers(people, Some(&window)).await?;
        let [span, _] = self.sizes.delivering;
        self.tell(load::saturate(&mut sayers, people.len(), span)).await
    }

    async fn pace(&self, people: &Rc<[Person]>, rate: u32, span: Duration) -> Result<Told, Failure> {
        let mut sayers = self.sayers(people, None).await?;
        self.tell(load::pace(&mut sayers, people.len(), rate, span)).await
    }

    async fn sayers(
        &self,
        people: &Rc<[Person]>,
        window: Option<&Arc<Semaphore>>,
    ) -> Result<Sayers, Failure> {
        let book = self.receiver.shared();
        Sayers::connect(self.sandbox.address, self.sizes.callers, people, &book, window).await
    }

    /// Numbers are said, until all have come.
    async fn tell(&self, run: impl Future<Output = Result<Run, Failure>>) -> Result<Told, Failure> {
        {
            let mut book = self.receiver.book();
            book.latency.reset();
            book.last = None;
        }
        let (before, began) = (self.spent()?, Instant::now());
        let run = run.await?;
        self.until("deliveries of everything that was said", Book::is_closed).await?;
        let spent = self.spent()?.since(before);
        let book = self.receiver.book();
        let elapsed = book.last.map_or(run.elapsed, |last| run.elapsed.max(last - began));
        Ok(Told { said: run.turns, elapsed, latency: book.latency.clone(), spent })
    }

    async fn until(&self, what: &'static str, fact: impl Fn(&Book) -> bool) -> Result<(), Failure> {
        let began = Instant::now();
        while !fact(&self.receiver.book()) {
            if began.elapsed() > PATIENCE {
                return Err(Failure::Missed { what, after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    fn spent(&self) -> Result<Spent, Failure> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = Parties { subject: &self.fleet.replicas, store, sandbox: &self.sandbox };
        let (bridge, store, sandbox) = parties.cpu()?;
        let receiver = self.receiver.cpu()?;
        let load = child::cpu("/proc/self/stat")?.saturating_sub(receiver);
        Ok(Spent { bridge, store, sandbox, receiver, load })
    }
}

/// The name of one bot of many, each with a receiver of its own.
fn many(target: usize) -> String {
    format!("target-{target}")
}

impl Spent {
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

impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { users, targets, rate, deliveries, rounds, delivering: [span, paced], .. } = self.sizes;
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
            let rows: [(String, Pick); 4] = [
                ("to one receiver".to_owned(), |round| &round.one),
                (format!("to {targets} receivers"), |round| &round.all),
                (format!("to {targets} receivers, {rate} a second"), |round| &round.told),
                (format!("to nobody, {rate} a second"), |round| &round.none),
            ];
            for (what, told) in rows {
                let figures =
                    |figure: &dyn Fn(&Told) -> f64| rounds.iter().map(|round| figure(told(round))).collect();
                let cpu = |part: fn(&Spent) -> Duration| spread(figures(&|told| told.micros(part)), 0);
                let ours = |spent: &Spent| spent.bridge + spent.store;
                let most = median(figures(&|told| 2e6 / told.micros(ours)));
                writeln!(
                    f,
                    "| {store}, {what} | {} | {} | {} | {} | {} | {} | {most:.0} |",
                    spread(figures(&Told::rate), 0),
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
            let rows: [(&str, Pick); 3] = [
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
                let ratio = |round: &Round| told(round).millis(0.99) / round.well.millis(0.99);
                writeln!(f, " {} |", spread(rounds.iter().map(ratio).collect(), 2))?;
            }
        }
        let Asked { idle, counts, deliveries } = &self.asked;
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
