//! The figures, and the tables that are made of them.

use std::fmt;
use std::fs;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load;
use crate::setup::Sizes;

/// What came of a run.
pub(crate) struct Run {
    pub(crate) turns: u64,
    pub(crate) elapsed: Duration,
    /// Of each turn, in microseconds; not of those that another process took.
    pub(crate) latency: Option<Histogram<u64>>,
}

/// A run, and the CPU time that was spent on it.
pub(crate) struct Metered {
    pub(crate) run: Run,
    /// By the process under test.
    pub(crate) cpu: Duration,
    pub(crate) sandbox: Duration,
}

impl Metered {
    fn rate(&self) -> f64 {
        self.run.turns as f64 / self.run.elapsed.as_secs_f64()
    }

    fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.run.turns as f64
    }

    fn sandbox_micros(&self) -> f64 {
        self.sandbox.as_secs_f64() * 1e6 / self.run.turns as f64
    }
}

/// All rounds of all contenders.
#[derive(Default)]
pub(crate) struct Speed {
    pub(crate) bridge: Vec<Metered>,
    pub(crate) direct: Vec<Metered>,
    pub(crate) bare_http: Vec<Metered>,
    pub(crate) bare_socket: Vec<Metered>,
    pub(crate) bridge_paced: Vec<Metered>,
    pub(crate) direct_paced: Vec<Metered>,
}

/// Resident KiB of the bridge with so many idle conversations.
pub(crate) struct Step {
    pub(crate) conversations: usize,
    pub(crate) resident: u64,
}

/// Everything that was measured.
pub(crate) struct Report {
    sizes: Sizes,
    pub(crate) speed: Option<Speed>,
    pub(crate) memory: Vec<Step>,
}

impl Report {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self { sizes, speed: None, memory: Vec::new() }
    }
}

/// The middle one of all rounds.
fn median(runs: &[Metered], figure: impl Fn(&Metered) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The middle, the least and the most.
fn spread(runs: &[Metered], figure: impl Fn(&Metered) -> f64 + Copy) -> (f64, f64, f64) {
    let least = runs.iter().map(figure).fold(f64::INFINITY, f64::min);
    let most = runs.iter().map(figure).fold(f64::NEG_INFINITY, f64::max);
    (median(runs, figure), least, most)
}

fn rates(runs: &[Metered]) -> String {
    let (middle, least, most) = spread(runs, Metered::rate);
    format!("{middle:.0} ({least:.0} to {most:.0})")
}

fn micros(runs: &[Metered], figure: impl Fn(&Metered) -> f64 + Copy) -> String {
    let (middle, least, most) = spread(runs, figure);
    format!("{middle:.1} ({least:.1} to {most:.1})")
}

/// The latencies of all rounds together, in milliseconds.
fn quantile(runs: &[Metered], quantile: f64) -> f64 {
    let Ok(mut all) = load::histogram() else { return f64::NAN };
    for latency in runs.iter().filter_map(|metered| metered.run.latency.as_ref()) {
        all += latency;
    }
    all.value_at_quantile(quantile) as f64 / 1e3
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", machine())?;
        if let Some(speed) = &self.speed {
            self.speed(f, speed)?;
        }
        if !self.memory.is_empty() {
            memory(f, &self.memory)?;
        }
        Ok(())
    }
}

impl Report {
    fn speed(&self, f: &mut fmt::Formatter<'_>, speed: &Speed) -> fmt::Result {
        let Sizes { callers, users, rounds, saturation, rate, paced, .. } = self.sizes;
        writeln!(
            f,
            "{callers} callers, {users} users, `expectReplies: 1`, loopback; {rounds} rounds, median (least to most). \
             Saturation {saturation:?} a round, fixed rate {paced:?} a round.\n"
        )?;
        writeln!(
            f,
            "| at saturation | bridge | direct sockets | (a) bare actix-web | (b) bare awc socket |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        writeln!(
            f,
            "| turns per second | {} | {} | {} | {} |",
            rates(&speed.bridge),
            rates(&speed.direct),
            rates(&speed.bare_http),
            rates(&speed.bare_socket)
        )?;
        writeln!(
            f,
            "| CPU µs per turn | {} | | {} | {} |",
            micros(&speed.bridge, Metered::micros),
            micros(&speed.bare_http, Metered::micros),
            micros(&speed.bare_socket, Metered::micros)
        )?;
        writeln!(
            f,
            "| CPU µs per turn of the sandbox | {} | {} | | {} |",
            micros(&speed.bridge, Metered::sandbox_micros),
            micros(&speed.direct, Metered::sandbox_micros),
            micros(&speed.bare_socket, Metered::sandbox_micros)
        )?;
        let floor = median(&speed.bare_http, Metered::micros) + median(&speed.bare_socket, Metered::micros);
        let bridge = median(&speed.bridge, Metered::micros);
        writeln!(
            f,
            "| CPU per turn as a multiple of (a) + (b) | **{:.2}** | | {floor:.1} µs together | |\n",
            bridge / floor
        )?;

        writeln!(f, "| latency at {rate} turns per second, ms | bridge | direct sockets | added |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let (through, direct) = (quantile(&speed.bridge_paced, q), quantile(&speed.direct_paced, q));
            writeln!(f, "| {name} | {through:.2} | {direct:.2} | {:.2} |", through - direct)?;
        }
        let (middle, ..) = spread(&speed.bridge_paced, Metered::micros);
        writeln!(f, "| CPU µs per turn | {middle:.1} | | |\n")
    }
}

fn memory(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    let [empty, first, .., last] = steps else { return Ok(()) };
    writeln!(
        f,
        "Memory of the bridge with idle conversations: each had one turn, which the memory store keeps, and holds its socket.\n"
    )?;
    writeln!(
        f,
        "| idle conversations | resident MiB | KiB each | KiB each without the first {} |",
        first.conversations
    )?;
    writeln!(f, "| --- | --- | --- | --- |")?;
    for step in steps {
        let all = if step.conversations == 0 { String::new() } else { format!("{:.1}", slope(empty, step)) };
        let further = if step.conversations <= first.conversations {
            String::new()
        } else {
            format!("{:.1}", slope(first, step))
        };
        writeln!(f, "| {} | {:.1} | {all} | {further} |", step.conversations, step.resident as f64 / 1024.0)?;
    }
    if let Some(between) = steps.get(2) {
        let (early, late) = (slope(first, between), slope(between, last));
        let (one, two, three) = (first.conversations, between.conversations, last.conversations);
        writeln!(
            f,
            "\nLinear: {early:.1} KiB each from {one} to {two}, {late:.1} each from {two} to {three}."
        )?;
    }
    Ok(())
}

/// KiB for each conversation between two steps.
fn slope(from: &Step, to: &Step) -> f64 {
    (to.resident as f64 - from.resident as f64) / (to.conversations as f64 - from.conversations as f64)
}

/// The machine, in one line.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let gib = field("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0)
        / 1_048_576.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "rtm-bridge {}; {cores} cores of {}, {gib:.0} GiB, Linux {}; sandbox, bridge and load share them.",
        env!("CARGO_PKG_VERSION"),
        field("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}
