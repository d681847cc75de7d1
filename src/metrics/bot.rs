//! What is counted of one bot's links.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntGauge};

use super::label::{CLOSES, NO_CODE, close_word};
use super::{Connect, Family, Metrics, Part, Phase, SocketState, child, children};
use crate::domain::{BotName, EndedBy, ProblemKind};

impl Metrics {
    /// The children of one bot; taken once, at start.
    ///
    /// # Errors
    /// Only where a declaration of this module is wrong.
    pub fn bot(&self, bot: &BotName) -> Result<Arc<BotMetrics>, Error> {
        let bot = bot.as_str();
        let outcomes =
            EndedBy::ALL.iter().map(|by| by.as_str()).chain(ProblemKind::ALL.iter().map(|kind| kind.slug()));
        let frames = |direction, kinds: &'static [&'static str]| {
            Family::new(kinds.iter().copied(), |kind| {
                self.frames.get_metric_with_label_values(&[bot, direction, kind])
            })
        };
        Ok(Arc::new(BotMetrics {
            turns: Family::new(outcomes, |word| self.turns.get_metric_with_label_values(&[bot, word]))?,
            parts: children(Part::ALL, |part| {
                self.turn_seconds.get_metric_with_label_values(&[bot, part.as_str()])
            })?,
            sockets: children(SocketState::ALL, |state| {
                self.sockets.get_metric_with_label_values(&[bot, state.as_str()])
            })?,
            connects: children(Phase::ALL, |phase| {
                children(Connect::ALL, |result| {
                    self.connects.get_metric_with_label_values(&[bot, phase.as_str(), result.as_str()])
                })
            })?,
            closes: Family::new(CLOSES.iter().map(|(_, word)| *word).chain([NO_CODE]), |code| {
                self.closes.get_metric_with_label_values(&[bot, code])
            })?,
            asides: Family::new(["late", "unsolicited", "duplicate"].into_iter(), |kind| {
                self.asides.get_metric_with_label_values(&[bot, kind])
            })?,
            frames_in: frames("in", self.words.frames_in)?,
            frames_out: frames("out", self.words.frames_out)?,
        }))
    }
}

/// What the link of one bot's conversations counts.
#[derive(Debug)]
pub struct BotMetrics {
    turns: Family,
    parts: Vec<(Part, Histogram)>,
    sockets: Vec<(SocketState, IntGauge)>,
    connects: Vec<(Phase, Vec<(Connect, IntCounter)>)>,
    closes: Family,
    asides: Family,
    frames_in: Family,
    frames_out: Family,
}

impl BotMetrics {
    /// A turn ended: with the word of an [`EndedBy`] or the slug of a [`ProblemKind`].
    pub fn turn_ended(&self, outcome: &str) {
        self.turns.count(outcome);
    }

    /// A part of a turn took this long.
    pub fn turn_part(&self, part: Part, took: Duration) {
        if let Some(histogram) = child(&self.parts, part) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// A link went from one state to another; none is a conversation without one.
    pub fn socket(&self, from: Option<SocketState>, to: Option<SocketState>) {
        if let Some(gauge) = from.and_then(|state| child(&self.sockets, state)) {
            gauge.dec();
        }
        if let Some(gauge) = to.and_then(|state| child(&self.sockets, state)) {
            gauge.inc();
        }
    }

    /// A step of a connect ended.
    pub fn connect(&self, phase: Phase, result: Connect) {
        if let Some(counter) = child(&self.connects, phase).and_then(|results| child(results, result)) {
            counter.inc();
        }
    }

    /// A web socket closed; without a code where the link just broke.
    pub fn closed(&self, code: Option<u16>) {
        self.closes.count(close_word(code));
    }

    /// A reply ended no turn: `late`, `unsolicited` or `duplicate`.
    pub fn aside(&self, kind: &str) {
        self.asides.count(kind);
    }

    /// A web socket message came in.
    pub fn frame_in(&self, kind: &str) {
        self.frames_in.count(kind);
    }

    /// A web socket message went out.
    pub fn frame_out(&self, kind: &str) {
        self.frames_out.count(kind);
    }
}
