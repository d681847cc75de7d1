//! The metrics of a bridge, each declared once with its help text.
//!
//! Every [`Metrics`] has a registry of its own, so that many bridges can live in one process. Hot paths take their
//! children at start ([`Metrics::bot`], [`Metrics::store`], [`Metrics::shard`]). Counting is then an atomic addition,
//! without a label lookup and its lock. Labels come from closed sets and from the configuration. No text of a caller or
//! a user becomes a label.
//!
//! This module is a leaf: other layers hand in the words of frames and routes as [`LabelSets`] and serve the text.

mod bot;
mod callers;
mod clocks;
mod connections;
mod connects;
mod deliveries;
mod event_streams;
mod fleet;
mod http_requests;
mod labels;
mod limits;
mod metric_factory;
mod oldest_open_message;
#[cfg(target_os = "linux")]
mod process;
mod refused_users;
mod subscribers;
mod uploads;

use std::time::Duration;

use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use connects::ConnectMetrics;
use http_requests::HttpRequestMetrics;
use labels::OTHER;
use metric_factory::MetricFactory;

pub use bot::BotMetrics;
pub use callers::CallerMetrics;
pub use clocks::{ClockDifference, ClockMetrics};
pub use connections::ConnectionMetrics;
pub use connects::BotConnectMetrics;
pub use deliveries::{BotDeliveryMetrics, DeliveryMetrics};
pub use event_streams::EventStreamMetrics;
pub use fleet::FleetMetrics;
pub use labels::{
    AttemptEnd, ConnectResult, ConnectStep, ConnectionEndReason, SocketState, StreamEndReason, TurnStage,
    UploadCall,
};
pub use limits::{LimitMetrics, StoreMemoryMetrics};
pub use oldest_open_message::OldestOpenMessage;
pub use subscribers::SubscriberMetrics;
pub use uploads::{BotUploadMetrics, UploadMetrics};

/// Buckets from a hit in memory to the longest wait, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0];

/// Buckets of one store operation, in seconds. Its timeout is a few seconds at most.
const STORE_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The git revision of this build, as the build's environment names it.
const REVISION: &str = match option_env!("RTM_BRIDGE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Words of other layers that become labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelSets {
    /// Kinds of incoming frames.
    pub frames_in: &'static [&'static str],
    /// Kinds of outgoing frames.
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
    turn_stage_duration: HistogramVec,
    turn_quiet: HistogramVec,
    early_cuts: IntCounterVec,
    sockets: IntGaugeVec,
    links_down: IntGaugeVec,
    connects: ConnectMetrics,
    socket_closes: IntCounterVec,
    replies_outside_turns: IntCounterVec,
    far_off_times: IntCounterVec,
    frames: IntCounterVec,
    store_operation_duration: HistogramVec,
    store_errors: IntCounterVec,
    shard_queue_length: IntGaugeVec,
    http_requests: HttpRequestMetrics,
    /// Conversations in memory.
    pub conversations: IntGauge,
    /// Accepted messages of this replica's partitions that have not ended.
    pub open_messages: IntGauge,
    /// Age of the oldest open message.
    pub oldest_open_message: OldestOpenMessage,
    /// Caught panics. Each is a bug.
    pub panics: IntCounter,
    /// Differences of other clocks to this replica's.
    pub clocks: ClockMetrics,
    /// This replica's place in the fleet.
    pub fleet: FleetMetrics,
    /// Subscribers of conversations on this replica.
    pub subscribers: SubscriberMetrics,
    /// Event streams and the events that callers got.
    pub event_streams: EventStreamMetrics,
    /// Callers' connections.
    pub connections: ConnectionMetrics,
    /// Memory of requests, answers and event streams, in bytes.
    pub request_memory: IntGauge,
    /// Configured limits.
    pub limits: LimitMetrics,
    /// Memory of the store.
    pub store_memory: StoreMemoryMetrics,
    /// Deliveries to receivers of webhooks.
    pub deliveries: DeliveryMetrics,
    /// Files that callers upload.
    pub uploads: UploadMetrics,
    /// Callers.
    pub callers: CallerMetrics,
}

impl Metrics {
    /// Declares all metrics in a new registry.
    ///
    /// # Errors
    /// A declaration of this module is wrong. Its tests would show that.
    pub fn new(words: LabelSets) -> Result<Self, Error> {
        let factory = MetricFactory(Registry::new());
        factory
            .gauges(
                "build_info",
                "Always 1; the labels hold the running version and its git revision.",
                &["version", "revision"],
            )?
            .get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION])?
            .set(1);
        let clocks = ClockMetrics::declare(&factory)?;
        #[cfg(target_os = "linux")]
        factory.0.register(Box::new(process::ProcessCollector::new()?))?;
        Ok(Self {
            words,
            http_requests: HttpRequestMetrics::declare(&factory, words.routes)?,
            turns: factory.counters(
                "turns_total",
                "Ended turns by outcome: the rule that ended the turn, or the problem that it failed with.",
                &["bot", "outcome"],
            )?,
            turn_stage_duration: factory.histograms(
                "turn_stage_duration_seconds",
                "Duration of a turn's stage: queue until head, connect until sent; ack, first_reply and end since sent.",
                &["bot", "stage"],
                SECONDS,
            )?,
            turn_quiet: factory.histograms(
                "turn_quiet_seconds",
                "Silence that ended a turn, from its last reply, by the source of its length.",
                &["bot", "by"],
                SECONDS,
            )?,
            early_cuts: factory.counters(
                "turn_early_cuts_total",
                "Turns that a learned quiet time ended although the bot then went on.",
                &["bot"],
            )?,
            sockets: factory.gauges("sockets", "Links to the platform by state.", &["bot", "state"])?,
            links_down: factory.gauges("links_down", "Links that are wanted and have no socket.", &["bot"])?,
            connects: ConnectMetrics::declare(&factory)?,
            socket_closes: factory.counters(
                "socket_closes_total",
                "Closed web sockets by close code; code=\"none\" is a connection that broke.",
                &["bot", "code"],
            )?,
            replies_outside_turns: factory.counters(
                "replies_outside_turns_total",
                "Replies outside the open turn: late, unsolicited, or dropped as duplicates.",
                &["bot", "kind"],
            )?,
            far_off_times: factory.counters(
                "far_off_times_total",
                "Times in frames and history that are far from the present; they decide nothing.",
                &["bot"],
            )?,
            frames: factory.counters(
                "frames_total",
                "Web socket messages by direction and type.",
                &["bot", "direction", "type"],
            )?,
            store_operation_duration: factory.histograms(
                "store_operation_duration_seconds",
                "Duration of a store operation, failed ones included.",
                &["operation"],
                STORE_SECONDS,
            )?,
            store_errors: factory.counters(
                "store_errors_total",
                "Failed store operations by kind of failure.",
                &["operation", "kind"],
            )?,
            shard_queue_length: factory.gauges(
                "shard_queue_length",
                "Commands of other threads that wait for a shard; its thread is overloaded near the bound of 1024.",
                &["shard"],
            )?,
            conversations: factory.gauge("conversations", "Conversations in memory.")?,
            open_messages: factory.gauge("open_messages", "Accepted messages that have not ended.")?,
            oldest_open_message: OldestOpenMessage::declare(&factory)?,
            panics: factory.counter("panics_total", "Caught panics; each is a bug.")?,
            fleet: FleetMetrics::declare(&factory, &clocks)?,
            clocks,
            subscribers: SubscriberMetrics::declare(&factory)?,
            event_streams: EventStreamMetrics::declare(&factory)?,
            connections: ConnectionMetrics::declare(&factory)?,
            request_memory: factory.gauge(
                "request_memory_bytes",
                "Memory of requests, answers and event streams; new requests are refused at server.memory_limit.",
            )?,
            limits: LimitMetrics::declare(&factory)?,
            store_memory: StoreMemoryMetrics::declare(&factory)?,
            deliveries: DeliveryMetrics::declare(&factory)?,
            uploads: UploadMetrics::declare(&factory)?,
            callers: CallerMetrics::declare(&factory)?,
            registry: factory.0,
        })
    }

    /// Returns the children of one store operation, to be taken once at start.
    ///
    /// # Errors
    /// A declaration of this module is wrong.
    pub fn store(&self, operation: &'static str) -> Result<StoreMetrics, Error> {
        Ok(StoreMetrics {
            duration: self.store_operation_duration.get_metric_with_label_values(&[operation])?,
            fenced: self.store_errors.get_metric_with_label_values(&[operation, "fenced"])?,
            unknown: self.store_errors.get_metric_with_label_values(&[operation, "unknown"])?,
        })
    }

    /// Returns the gauge of a shard's queue, to be taken once at start.
    ///
    /// # Errors
    /// A declaration of this module is wrong.
    pub fn shard(&self, index: usize) -> Result<IntGauge, Error> {
        self.shard_queue_length.get_metric_with_label_values(&[index.to_string()])
    }

    /// Counts an answered request. Requests of a route outside [`LabelSets::routes`] are not counted.
    pub fn request_answered(&self, route: &str, method: &str, status: &str, duration: Duration) {
        self.http_requests.answered(route, method, status, duration);
    }

    /// Counts a request that the HTTP server refused with this status before any route.
    pub fn malformed_request(&self, status: u16) {
        self.http_requests.refused(status);
    }

    /// Writes everything as Prometheus text, version 0.0.4.
    ///
    /// # Errors
    /// The registry holds a metric without a name.
    pub fn text(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Metrics of one store operation.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    /// Duration in seconds, failed operations included.
    pub duration: Histogram,
    /// Refused operations: the partition belongs to another owner.
    pub fenced: IntCounter,
    /// Operations without an answer in time.
    pub unknown: IntCounter,
}

/// Counters by the words of a closed set, and one for all other words. The sets are small: a scan beats a map.
#[derive(Debug)]
struct CounterFamily {
    words: Vec<(&'static str, IntCounter)>,
    other: IntCounter,
}

impl CounterFamily {
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
