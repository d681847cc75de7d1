//! Metrics of one bot's links.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Error, Histogram, IntCounter, IntGauge};

use super::labels::{CLOSE_CODES, NO_CODE, close_code_label};
use super::{
    BotConnectMetrics, BotUploadMetrics, CounterFamily, Metrics, SocketState, TurnStage, child, children,
};
use crate::domain::{BotName, EndedBy, ProblemKind, QuietSource, QuietWait};

impl Metrics {
    /// Returns the children of one bot, to be taken once at start.
    ///
    /// # Errors
    /// A declaration of this module is wrong.
    pub fn bot(&self, name: &BotName) -> Result<Arc<BotMetrics>, Error> {
        let bot = name.as_str();
        let outcomes =
            EndedBy::ALL.iter().map(|by| by.as_str()).chain(ProblemKind::ALL.iter().map(|kind| kind.slug()));
        let frames = |direction, kinds: &'static [&'static str]| {
            CounterFamily::new(kinds.iter().copied(), |kind| {
                self.frames.get_metric_with_label_values(&[bot, direction, kind])
            })
        };
        Ok(Arc::new(BotMetrics {
            turns: CounterFamily::new(outcomes, |word| {
                self.turns.get_metric_with_label_values(&[bot, word])
            })?,
            stages: children(TurnStage::ALL, |stage| {
                self.turn_stage_duration.get_metric_with_label_values(&[bot, stage.as_str()])
            })?,
            quiet: children(&QuietSource::ALL, |source| {
                self.turn_quiet.get_metric_with_label_values(&[bot, source.as_str()])
            })?,
            early_cuts: self.early_cuts.get_metric_with_label_values(&[bot])?,
            sockets: children(SocketState::ALL, |state| {
                self.sockets.get_metric_with_label_values(&[bot, state.as_str()])
            })?,
            links_down: self.links_down.get_metric_with_label_values(&[bot])?,
            connects: self.connects.bot(name)?,
            socket_closes: CounterFamily::new(
                CLOSE_CODES.iter().map(|(_, word)| *word).chain([NO_CODE]),
                |code| self.socket_closes.get_metric_with_label_values(&[bot, code]),
            )?,
            replies_outside_turns: CounterFamily::new(
                ["late", "unsolicited", "duplicate"].into_iter(),
                |kind| self.replies_outside_turns.get_metric_with_label_values(&[bot, kind]),
            )?,
            far_off_times: self.far_off_times.get_metric_with_label_values(&[bot])?,
            frames_in: frames("in", self.words.frames_in)?,
            frames_out: frames("out", self.words.frames_out)?,
            uploads: self.uploads.bot(name)?,
        }))
    }
}

/// Metrics of the links of one bot's conversations.
#[derive(Debug)]
pub struct BotMetrics {
    turns: CounterFamily,
    stages: Vec<(TurnStage, Histogram)>,
    quiet: Vec<(QuietSource, Histogram)>,
    early_cuts: IntCounter,
    sockets: Vec<(SocketState, IntGauge)>,
    links_down: IntGauge,
    socket_closes: CounterFamily,
    replies_outside_turns: CounterFamily,
    far_off_times: IntCounter,
    frames_in: CounterFamily,
    frames_out: CounterFamily,
    /// Connects to the platform.
    pub connects: BotConnectMetrics,
    /// Files for the bot.
    pub uploads: BotUploadMetrics,
}

impl BotMetrics {
    /// Counts an ended turn by the word of its [`EndedBy`] or the slug of its [`ProblemKind`].
    pub fn turn_ended(&self, outcome: &str) {
        self.turns.count(outcome);
    }

    /// Records the duration of a turn's stage.
    pub fn stage_ended(&self, stage: TurnStage, duration: Duration) {
        if let Some(histogram) = child(&self.stages, stage) {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// Records the silence that ended a turn.
    pub fn quiet_ended_turn(&self, quiet: QuietWait) {
        if let Some(histogram) = child(&self.quiet, quiet.by) {
            histogram.observe(quiet.wait.as_secs_f64());
        }
    }

    /// Counts a turn that a learned quiet time ended although the bot then went on.
    pub fn early_cut(&self) {
        self.early_cuts.inc();
    }

    /// Moves a link from one state to another. A conversation without a link has no state.
    pub fn socket_changed(&self, from: Option<SocketState>, to: Option<SocketState>) {
        if let Some(gauge) = from.and_then(|state| child(&self.sockets, state)) {
            gauge.dec();
        }
        if let Some(gauge) = to.and_then(|state| child(&self.sockets, state)) {
            gauge.inc();
        }
        let is_down = |state: Option<SocketState>| i64::from(state.is_some_and(SocketState::is_down));
        self.links_down.add(is_down(to) - is_down(from));
    }

    /// Counts a closed web socket. A connection that broke has no code.
    pub fn socket_closed(&self, code: Option<u16>) {
        self.socket_closes.count(close_code_label(code));
    }

    /// Counts a reply outside the open turn: `late`, `unsolicited` or `duplicate`.
    pub fn reply_outside_turn(&self, kind: &str) {
        self.replies_outside_turns.count(kind);
    }

    /// Counts a time of the platform that is far from the present.
    pub fn time_far_off(&self) {
        self.far_off_times.inc();
    }

    /// Counts an incoming web socket message.
    pub fn frame_received(&self, kind: &str) {
        self.frames_in.count(kind);
    }

    /// Counts an outgoing web socket message.
    pub fn frame_sent(&self, kind: &str) {
        self.frames_out.count(kind);
    }
}
