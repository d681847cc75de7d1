//! Turns per second, CPU and latency: all contenders, round after round.

use std::fmt;
use std::path::Path;
use std::slice;

use crate::child::Child;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::meter::{Metered, Parties, figures, median, quantile, spread};
use crate::setup::{self, Sizes, Terms};
use crate::store::Store;
use crate::turns::{Callers, Direct, Http};
use crate::{baseline, load};

/// The replicas of the largest fleet.
const FLEET: usize = 3;

/// All rounds of one contender.
#[derive(Default)]
struct Rounds {
    saturated: Vec<Metered>,
    paced: Vec<Metered>,
}

impl Rounds {
    /// One more, at saturation.
    async fn saturate<C: Callers>(
        &mut self,
        parties: Parties<'_>,
        callers: &mut C,
        sizes: Sizes,
    ) -> Result<(), Failure> {
        let run = load::saturate(callers, sizes.users, sizes.saturation);
        self.saturated.push(parties.metered(run).await?);
        Ok(())
    }

    /// One more, at the fixed rate.
    async fn pace<C: Callers>(
        &mut self,
        parties: Parties<'_>,
        callers: &mut C,
        sizes: Sizes,
    ) -> Result<(), Failure> {
        let run = load::pace(callers, sizes.users, sizes.rate, sizes.paced);
        self.paced.push(parties.metered(run).await?);
        Ok(())
    }

    fn micros(&self) -> Vec<f64> {
        figures(&self.saturated, Metered::micros)
    }
}

/// A fleet with its store and its callers.
struct Contender {
    fleet: Fleet,
    store: Option<Store>,
    callers: Http,
    rounds: Rounds,
}

impl Contender {
    /// Opens a conversation for each user.
    async fn open(
        fleet: Fleet,
        store: Option<Store>,
        group: &'static str,
        sizes: Sizes,
    ) -> Result<Self, Failure> {
        eprintln!("opening {} conversations: {group}", sizes.users);
        let mut callers = Http::connect(&fleet.addresses(), sizes.callers, group, sizes.users).await?;
        load::each(&mut callers, 0..sizes.users).await?;
        Ok(Self { fleet, store, callers, rounds: Rounds::default() })
    }

    async fn on_redis(
        binary: &Path,
        sandbox: &Child,
        replicas: usize,
        group: &'static str,
        sizes: Sizes,
    ) -> Result<Self, Failure> {
        let store = Store::start().await?;
        let terms = Terms::new(sandbox.address).on(store.address());
        let fleet = Fleet::start(binary, terms, &store, replicas).await?;
        Self::open(fleet, Some(store), group, sizes).await
    }

    async fn saturate(&mut self, sandbox: &Child, sizes: Sizes) -> Result<(), Failure> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = Parties { subject: &self.fleet.replicas, store, sandbox };
        self.rounds.saturate(parties, &mut self.callers, sizes).await
    }

    async fn pace(&mut self, sandbox: &Child, sizes: Sizes) -> Result<(), Failure> {
        let store = self.store.as_ref().map(|store| &store.server);
        let parties = Parties { subject: &self.fleet.replicas, store, sandbox };
        self.rounds.pace(parties, &mut self.callers, sizes).await
    }
}

/// All rounds of all contenders.
pub(crate) struct Speed {
    sizes: Sizes,
    redis: String,
    memory: Rounds,
    one: Rounds,
    three: Rounds,
    direct: Rounds,
    bare_http: Rounds,
    bare_socket: Vec<Metered>,
}

/// Measures.
pub(crate) async fn measure(binary: &Path, sizes: Sizes) -> Result<Speed, Failure> {
    let sandbox = setup::sandbox(binary).await?;
    let bare = baseline::start_http().await?;
    let mut bare_socket = baseline::BareSocket::start(sandbox.address, sizes).await?;

    let mut memory =
        Contender::open(Fleet::alone(binary, sandbox.address).await?, None, "memory", sizes).await?;
    let mut one = Contender::on_redis(binary, &sandbox, 1, "one", sizes).await?;
    let mut three = Contender::on_redis(binary, &sandbox, FLEET, "three", sizes).await?;
    let mut direct = Direct::connect(sandbox.address, sizes.callers, sizes.users).await?;
    load::each(&mut direct, 0..sizes.users).await?;
    let mut plain = Http::connect(&[bare.address], sizes.callers, "bare", sizes.users).await?;
    load::each(&mut plain, 0..sizes.users).await?;

    let redis = one.store.as_ref().ok_or(Failure::Proc("no Redis"))?.version().await?;
    let (mut directly, mut barely, mut socketly) = (Rounds::default(), Rounds::default(), Vec::new());
    let only_sandbox = Parties { subject: slice::from_ref(&sandbox), store: None, sandbox: &sandbox };
    let only_bare = Parties { subject: slice::from_ref(&bare), ..only_sandbox };
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
    Ok(Speed {
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

/// How many turns the contender takes for each of the memory store's in the same round, in percent.
fn share(of: &Rounds, memory: &Rounds) -> Vec<f64> {
    let pairs = of.saturated.iter().zip(&memory.saturated);
    pairs.map(|(of, memory)| 100.0 * of.rate() / memory.rate()).collect()
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { callers, users, rounds, saturation, rate, paced, .. } = self.sizes;
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
            ("CPU µs per turn", Metered::micros as fn(&Metered) -> f64),
            ("CPU µs per turn of redis-server", Metered::store_micros),
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

impl Speed {
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
        row(f, "turns per second", all.map(|rounds| spread(figures(&rounds.saturated, Metered::rate), 0)))?;
        let [one, three] =
            [&self.one, &self.three].map(|rounds| format!("**{}**", spread(share(rounds, &self.memory), 1)));
        row(f, "% of the memory store's, round by round", [String::new(), one, three, String::new()])?;
        let [memory, one, three] = [&self.memory, &self.one, &self.three].map(|of| spread(of.micros(), 1));
        row(f, "CPU µs per turn of the bridge, all replicas", [memory, one, three, String::new()])?;
        let [one, three] = [&self.one, &self.three]
            .map(|rounds| spread(figures(&rounds.saturated, Metered::store_micros), 1));
        row(f, "CPU µs per turn of redis-server", [String::new(), one, three, String::new()])?;
        row(
            f,
            "CPU µs per turn of the sandbox",
            all.map(|rounds| spread(figures(&rounds.saturated, Metered::sandbox_micros), 1)),
        )?;
        writeln!(f)
    }

    fn floor(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, socket) = (self.bare_http.micros(), figures(&self.bare_socket, Metered::micros));
        let floor = median(http.clone()) + median(socket.clone());
        writeln!(f, "| the floor, at saturation | (a) bare actix-web | (b) bare awc socket | together |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        writeln!(
            f,
            "| turns per second | {} | {} | |",
            spread(figures(&self.bare_http.saturated, Metered::rate), 0),
            spread(figures(&self.bare_socket, Metered::rate), 0)
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
