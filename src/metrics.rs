//! What is counted, each metric declared once with its help text.
//!
//! Every [`Metrics`] has a registry of its own, so that many bridges can live in one process. Whoever counts
//! on a hot path takes its children at start ([`Metrics::bot`], [`Metrics::store`], [`Metrics::shard`]):
//! counting is then an atomic addition, without a label lookup and its lock. Labels come from closed sets and
//! from the configuration; nothing a caller or a user sent ever becomes one.
//!
//! What it does not know: who serves the text, and what the words of frames and routes mean; they are handed
//! in as [`LabelSets`], for this module is a leaf.

mod bot;
mod declare;
mod deliveries;
mod fleet;
mod label;
mod oldest;
#[cfg(target_os = "linux")]
mod process;
mod readers;
mod route;
mod streams;

use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use declare::Declare;
use label::OTHER;

pub use bot::BotMetrics;
pub use deliveries::{BotDeliveries, DeliveryMetrics};
pub use fleet::FleetMetrics;
pub use label::{AttemptEnd, Connect, Part, Phase, SocketState};
pub use oldest::OldestTurn;
pub use readers::ReaderMetrics;
pub use route::RouteMetrics;
pub use streams::{StreamEnd, StreamMetrics};

/// Seconds, from a hit in memory to the longest wait.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0];

/// Seconds of one store operation, which is over after a command time-out of a few seconds at most.
const STORE_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Words of other layers that become labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelSets {
    /// Kinds of frames that come in.
    pub frames_in: &'static [&'static str],
    /// Kinds of frames that go out.
    pub frames_out: &'static [&'static str],
    /// Route patterns of the HTTP interface.
    pub routes: &'static [&'static str],
}

/// All metrics of one bridge.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    words: LabelSets,
    turns: IntCounterVec,
    turn_seconds: HistogramVec,
    sockets: IntGaugeVec,
    connects: IntCounterVec,
    closes: IntCounterVec,
    asides: IntCounterVec,
    frames: IntCounterVec,
    store_seconds: HistogramVec,
    store_errors: IntCounterVec,
    shard_queue: IntGaugeVec,
    routes: Vec<(&'static str, RouteMetrics)>,
    /// Conversations held in memory.
    pub conversations: IntGauge,
    /// Accepted messages of this replica's partitions that have not ended.
    pub open_messages: IntGauge,
    /// The one of them that is open longest.
    pub oldest_turn: OldestTurn,
    /// Panics that were caught; each is a bug.
    pub panics: IntCounter,
    /// This replica's place in the fleet.
    pub fleet: FleetMetrics,
    /// Those who read conversations live here.
    pub readers: ReaderMetrics,
    /// Those who read events.
    pub streams: StreamMetrics,
    /// Deliveries to receivers of webhooks.
    pub deliveries: DeliveryMetrics,
}

impl Metrics {
    /// Declares all metrics in a new registry.
    ///
    /// # Errors
    /// Only where a declaration of this module is wrong, which its test would show.
    pub fn new(words: LabelSets) -> Result<Self, Error> {
        let declare = Declare(Registry::new());
        declare
            .gauges("build_info", "Always 1; the label says which version runs.", &["version"])?
            .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?
            .set(1);
        let requests = declare.counters(
            "http_requests_total",
            "Answered HTTP requests by route pattern, method and class of status.",
            &["route", "method", "status"],
        )?;
        let request_seconds = declare.histograms(
            "http_seconds",
            "Seconds from a request's head to its response, the wait for the bot included.",
            &["route"],
            SECONDS,
        )?;
        let routes = words
            .routes
            .iter()
            .map(|route| Ok((*route, RouteMetrics::new(&requests, &request_seconds, route)?)))
            .collect::<Result<_, Error>>()?;
        #[cfg(target_os = "linux")]
        declare.0.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self {
            words,
            routes,
            turns: declare.counters(
                "turns_total",
                "Ended turns by outcome: the rule that ended them, or the problem they failed with.",
                &["bot", "outcome"],
            )?,
            turn_seconds: declare.histograms(
                "turn_seconds",
                "Seconds of a turn: queue until head, connect until sent; ack, first_reply and end since sent.",
                &["bot", "part"],
                SECONDS,
            )?,
            sockets: declare.gauges("sockets", "Links to the platform by state.", &["bot", "state"])?,
            connects: declare.counters(
                "connects_total",
                "Steps of connects to the platform by phase and result.",
                &["bot", "phase", "result"],
            )?,
            closes: declare.counters(
                "socket_closes_total",
                "Closed web sockets by close code; none where the link just broke.",
                &["bot", "code"],
            )?,
            asides: declare.counters(
                "replies_outside_turns_total",
                "Replies that ended no turn: late, unsolicited, or duplicates that were dropped.",
                &["bot", "kind"],
            )?,
            frames: declare.counters(
                "frames_total",
                "Web socket messages by direction and type.",
                &["bot", "direction", "type"],
            )?,
            store_seconds: declare.histograms(
                "store_seconds",
                "Seconds of an operation of the store.",
                &["operation"],
                STORE_SECONDS,
            )?,
            store_errors: declare.counters(
                "store_errors_total",
                "Operations that the store did not carry out, by kind of failure.",
                &["operation", "kind"],
            )?,
            shard_queue: declare.gauges(
                "shard_queue",
                "Commands that wait for a shard thread; near its bound the replica is overloaded.",
                &["shard"],
            )?,
            conversations: declare.gauge("conversations", "Conversations held in memory.")?,
            open_messages: declare.gauge("open_messages", "Accepted messages that have not ended.")?,
            oldest_turn: OldestTurn::declare(&declare)?,
            panics: declare.counter("panics_total", "Panics that were caught; each is a bug.")?,
            fleet: FleetMetrics::declare(&declare)?,
            readers: ReaderMetrics::declare(&declare)?,
            streams: StreamMetrics::declare(&declare)?,
            deliveries: DeliveryMetrics::declare(&declare)?,
            registry: declare.0,
        })
    }

    /// The children of one operation of the store; taken once, at start.
    ///
    /// # Errors
    /// Only where a declaration of this module is wrong.
    pub fn store(&self, operation: &'static str) -> Result<StoreMetrics, Error> {
        Ok(StoreMetrics {
            seconds: self.store_seconds.get_metric_with_label_values(&[operation])?,
            fenced: self.store_errors.get_metric_with_label_values(&[operation, "fenced"])?,
            unknown: self.store_errors.get_metric_with_label_values(&[operation, "unknown"])?,
        })
    }

    /// How many commands wait for this shard; taken once, at start.
    ///
    /// # Errors
    /// Only where a declaration of this module is wrong.
    pub fn shard(&self, index: usize) -> Result<IntGauge, Error> {
        self.shard_queue.get_metric_with_label_values(&[index.to_string()])
    }

    /// The children of a route, if it is one of [`LabelSets::routes`].
    pub fn route(&self, pattern: &str) -> Option<&RouteMetrics> {
        self.routes.iter().find(|(route, _)| *route == pattern).map(|(_, metrics)| metrics)
    }

    /// Everything as Prometheus text, version 0.0.4.
    ///
    /// # Errors
    /// Where the registry holds a metric without a name, which none of ours is.
    pub fn text(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// What one operation of the store counts.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Seconds it took, failed ones included.
    pub seconds: Histogram,
    /// Refused: the partition belongs to another owner.
    pub fenced: IntCounter,
    /// No answer in time.
    pub unknown: IntCounter,
}

/// Counters by words of a closed set, and one for every other word. The sets are small: a scan beats a map.
#[derive(Debug)]
struct Family {
    words: Vec<(&'static str, IntCounter)>,
    other: IntCounter,
}

impl Family {
    fn new(
        words: impl Iterator<Item = &'static str>,
        child: impl Fn(&'static str) -> Result<IntCounter, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            words: words.map(|word| Ok((word, child(word)?))).collect::<Result<_, Error>>()?,
            other: child(OTHER)?,
        })
    }

    fn count(&self, word: &str) {
        self.words.iter().find(|(known, _)| *known == word).map_or(&self.other, |(_, counter)| counter).inc();
    }
}

fn children<L: Copy, M>(labels: &[L], child: impl Fn(L) -> Result<M, Error>) -> Result<Vec<(L, M)>, Error> {
    labels.iter().map(|&label| Ok((label, child(label)?))).collect()
}

fn child<L: Copy + PartialEq, M>(children: &[(L, M)], label: L) -> Option<&M> {
    children.iter().find(|(known, _)| *known == label).map(|(_, child)| child)
}

#[cfg(test)]
mod tests;
