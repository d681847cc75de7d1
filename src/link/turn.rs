//! One turn: how far its message has come and when it ends.
//!
//! The protocol has no end mark (protocol.md 7.7), so a turn ends by the first of five rules, which api.md
//! section 1 numbers and [`Turn::verdict`] checks in that order.

use std::sync::Arc;
use std::time::Duration;

use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, EndedBy, Message, MessageProgress, Problem, ProblemKind, Reply, SessionRequest,
    Timestamp, TurnOutcome,
};
use crate::store::OpenMessage;

/// After a sign of the end, later frames may still use this long: the order of the sign and the last reply is
/// not documented (protocol.md 12, question 10).
const SETTLING: Duration = Duration::from_millis(150);
/// The quiet time where the bot said that more follows, or a stream has not ended.
const STRETCHED: Duration = Duration::from_secs(15);
/// How long the end of a session may take to get out, where its caller does not say.
const CLOSING: Duration = Duration::from_secs(30);
/// What the platform answers to the end of a session is not documented (protocol.md 12, question 15): without a
/// `session_end` it has ended after this time.
const CLOSED: Duration = Duration::from_secs(2);
/// The most replies a turn may have.
const MAX_REPLIES: usize = 100;
/// The most bytes of replies a turn may have.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How far the sending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnPhase {
    /// The store is being told that it is about to go out.
    Storing,
    /// The store knows; it goes out as soon as the link is ready.
    Ready,
    /// It went out: what the bot says now belongs to it.
    Out,
    /// It went out and the link was lost; history has not told all yet.
    Broken,
    /// The end is decided and being stored.
    Ending,
}

/// The turn of the lane's head, from the decision to send until its end is stored.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) message: Arc<AcceptedMessage>,
    pub(crate) progress: MessageProgress,
    pub(crate) phase: TurnPhase,
    /// Whether history was asked because the bot said nothing for long.
    pub(crate) probed: bool,
    /// When the message became the head of its lane.
    pub(crate) head_at: Timestamp,
    /// Until when it must have gone out.
    send_by: Timestamp,
    /// Whether it goes out again because nothing proved its receipt.
    resent: bool,
    expect: Option<usize>,
    quiet: Option<Duration>,
    deadline: Duration,
    signal: Option<(EndedBy, Timestamp)>,
    /// From when the quiet time counts: the last reply or piece of one, or the closing of a gap after it.
    quiet_from: Option<Timestamp>,
    more_follows: bool,
    bytes: usize,
}

impl Turn {
    /// The turn of a message that is about to be sent.
    pub(crate) fn begin(
        message: Arc<AcceptedMessage>,
        bot: &BotConfig,
        head_at: Timestamp,
        send_by: Timestamp,
    ) -> Self {
        let rules = message.new.rules;
        let expect = rules.expect_replies();
        Self {
            progress: MessageProgress::default(),
            phase: TurnPhase::Storing,
            probed: false,
            head_at,
            send_by,
            resent: false,
            expect,
            quiet: rules.quiet().or(if expect.is_none() { Some(bot.quiet) } else { None }),
            deadline: deadline(&message, bot),
            signal: None,
            quiet_from: None,
            more_follows: false,
            bytes: 0,
            message,
        }
    }

    /// The turn of a message that an earlier owner sent, or was about to: its link is lost.
    pub(crate) fn resume(open: OpenMessage, bot: &BotConfig, head_at: Timestamp, now: Timestamp) -> Self {
        let mut turn = Self::begin(open.accepted, bot, head_at, now);
        turn.phase = TurnPhase::Broken;
        if turn.closes() {
            // It may be said twice.
            turn.resend();
        }
        turn.bytes = open.progress.replies.iter().map(|reply| reply.event.get().len()).sum();
        turn.quiet_from = open.progress.first_reply_at.map(|_| now);
        turn.progress = open.progress;
        turn
    }

    /// Whether something proves that the platform has the message: its ack, or a reply.
    pub(crate) const fn is_proved(&self) -> bool {
        self.progress.acked_at.is_some() || self.progress.first_reply_at.is_some()
    }

    /// Whether it is out and runs.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, TurnPhase::Out | TurnPhase::Broken)
    }

    /// Whether it only ends the session: nothing that the bot says belongs to it.
    pub(crate) fn closes(&self) -> bool {
        self.message.new.session == SessionRequest::Close
    }

    /// Whether the bot says that it answers this message, whose bytes went out.
    pub(crate) fn is_echoed(&self, id: Option<u64>) -> bool {
        let went_out = self.is_open() || self.phase == TurnPhase::Ready && self.resent;
        went_out && !self.closes() && id == Some(self.message.client_message_id)
    }

    /// The bot answers it: it does not go out again.
    pub(crate) fn on_echo(&mut self) {
        if self.phase == TurnPhase::Ready {
            self.phase = TurnPhase::Out;
        }
    }

    /// Whether a human agent took over in it: until it ends, what is said still belongs to it.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.signal.is_some_and(|(by, _)| by == EndedBy::Agent)
    }

    /// The end of the session goes out.
    pub(crate) fn on_closing(&mut self, now: Timestamp) {
        self.signal = Some((EndedBy::SessionEnd, now + CLOSED));
    }

    /// The session has ended.
    pub(crate) const fn on_closed(&mut self, now: Timestamp) {
        self.signal = Some((EndedBy::SessionEnd, now));
    }

    /// A reply, or a piece of one, arrived.
    pub(crate) fn on_reply_begun(&mut self, now: Timestamp) {
        self.progress.first_reply_at.get_or_insert(now);
        self.quiet_from = Some(now);
    }

    /// A whole reply arrived.
    pub(crate) fn on_reply(&mut self, reply: Arc<Reply>, more_follows: bool, now: Timestamp) {
        self.on_reply_begun(now);
        self.more_follows = more_follows;
        self.bytes += reply.event.get().len();
        self.progress.replies.push(reply);
    }

    /// The platform signalled an end. A repeat of the same sign changes nothing.
    pub(crate) fn on_signal(&mut self, by: EndedBy, now: Timestamp) {
        match self.signal {
            Some((known, _)) if known == by || by == EndedBy::InputWait => {}
            _ => self.signal = Some((by, now + SETTLING)),
        }
    }

    /// What the link's loss left open is closed: the quiet time begins anew.
    pub(crate) fn on_gap_closed(&mut self, now: Timestamp) {
        self.phase = TurnPhase::Out;
        if self.quiet_from.is_some() {
            self.quiet_from = Some(now);
        }
    }

    /// Whether the turn is over, and how. Call it whenever something happened and at [`Turn::wake_at`]. `agent` says
    /// whether a human agent has the conversation.
    pub(crate) fn verdict(
        &mut self,
        now: Timestamp,
        streaming: Option<usize>,
        agent: bool,
    ) -> Option<TurnOutcome> {
        if !self.is_open() {
            return None;
        }
        if agent && self.is_proved() && !self.is_handed_over() && !self.closes() {
            // A person answers when it pleases, and what it says answers no message in particular.
            return Some(TurnOutcome::Answered(EndedBy::Agent));
        }
        let replies = self.progress.replies.len();
        if self.expect.is_some_and(|expected| replies >= expected) {
            return Some(TurnOutcome::Answered(EndedBy::ReplyCount));
        }
        if replies >= MAX_REPLIES || self.bytes + streaming.unwrap_or_default() >= MAX_BYTES {
            return Some(TurnOutcome::Answered(EndedBy::Limit));
        }
        if let Some((by, at)) = self.signal
            && now >= at
        {
            if by != EndedBy::InputWait || self.progress.first_reply_at.is_some() {
                return Some(TurnOutcome::Answered(by));
            }
            self.signal = None;
        }
        if self.quiet_end(streaming.is_some()).is_some_and(|at| now >= at) {
            return Some(TurnOutcome::Answered(EndedBy::Quiet));
        }
        (now >= self.ends_by()).then(|| self.cut())
    }

    /// When a look is worth while although nothing happens.
    pub(crate) fn wake_at(&self, streaming: bool) -> Option<Timestamp> {
        match self.phase {
            TurnPhase::Storing | TurnPhase::Ready => Some(self.limit()),
            TurnPhase::Ending => None,
            TurnPhase::Out | TurnPhase::Broken => {
                [self.signal.map(|(_, at)| at), self.quiet_end(streaming), Some(self.ends_by())]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Nothing proved that the platform has it: it is to go out again.
    pub(crate) fn resend(&mut self) {
        self.phase = TurnPhase::Ready;
        self.resent = true;
    }

    /// Whether its bytes went out before.
    pub(crate) const fn was_sent(&self) -> bool {
        self.resent
    }

    /// Until when it must have gone out: counted from the head's beginning, or for another sending from the
    /// first.
    pub(crate) fn limit(&self) -> Timestamp {
        if self.resent { self.ends_by() } else { self.send_by }
    }

    /// The Message as it stands.
    pub(crate) fn message(&self) -> Message {
        Message { accepted: Arc::clone(&self.message), progress: self.progress.clone() }
    }

    fn ends_by(&self) -> Timestamp {
        self.progress.sent_at.unwrap_or(self.send_by) + self.deadline
    }

    /// When the quiet time is over. While a gap is open nobody knows what was missed, so it does not run.
    fn quiet_end(&self, streaming: bool) -> Option<Timestamp> {
        let quiet = self.quiet?;
        let from = self.quiet_from?;
        if self.phase == TurnPhase::Broken {
            return None;
        }
        let stretched = self.more_follows || streaming;
        Some(from + if stretched { quiet.max(STRETCHED) } else { quiet })
    }

    /// What the deadline makes of the turn.
    fn cut(&self) -> TurnOutcome {
        let secs = self.deadline.as_secs_f64();
        if self.progress.first_reply_at.is_some() {
            TurnOutcome::Answered(EndedBy::Deadline)
        } else if self.progress.acked_at.is_some() {
            let detail = format!("the platform has the message, but the bot said nothing within {secs} s");
            TurnOutcome::Failed(Problem::new(ProblemKind::NoReply, detail))
        } else if self.phase == TurnPhase::Broken {
            TurnOutcome::Failed(uncertain("the link broke after sending and did not come back in time"))
        } else {
            let detail = format!("neither an ack nor a reply came within {secs} s after sending");
            TurnOutcome::Failed(Problem::new(ProblemKind::NoAck, detail))
        }
    }
}

/// How long the message may take to get out, and its turn from then on.
pub(crate) fn deadline(message: &AcceptedMessage, bot: &BotConfig) -> Duration {
    let default = if message.new.session == SessionRequest::Close { CLOSING } else { bot.deadline };
    message.new.rules.deadline().unwrap_or(default)
}

/// The Problem of a message that may or may not have reached the bot.
pub(crate) fn uncertain(what: &str) -> Problem {
    let detail = format!("{what}; the bot may have it: ask it, or send with \"resend\": \"auto\"");
    Problem::new(ProblemKind::Uncertain, detail)
}
