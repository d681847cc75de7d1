//! One turn: how far its message has come, and when it ends.
//!
//! The protocol has no end mark (protocol.md 7.7). A turn ends by the first of the five rules of api.md section 1,
//! which [`Turn::verdict`] checks in their order.

mod connect_turn;
mod quiet_time;
mod receipt;

use std::sync::Arc;
use std::time::Duration;

use self::connect_turn::CONNECT_DEADLINE;
use super::open_streams::JoinedReply;
use super::turn_rhythm::TurnRhythm;
use crate::config::{BotConfig, QuietRule};
use crate::domain::{
    AcceptedMessage, EndedBy, Fingerprint, Message, MessageProgress, Problem, ProblemKind, QuietSource,
    QuietWait, Reply, SessionRequest, Timestamp, TurnOutcome,
};
use crate::store::OpenMessage;

/// The time for later frames after an end signal. The order of the signal and the last reply is not documented
/// (protocol.md 12, question 10).
const SIGNAL_SETTLE: Duration = Duration::from_millis(150);
/// The quiet time if the bot announced more, or a stream has not ended.
const STRETCHED_QUIET: Duration = Duration::from_secs(15);
/// The deadline for sending the end of a session if its caller sets none.
const SESSION_END_DEADLINE: Duration = Duration::from_secs(30);
/// The same before an erasure. The data has to go also if the platform is away.
const ERASURE_DEADLINE: Duration = Duration::from_secs(10);
/// The wait for `session_end` after the end of a session was sent. The platform's answer is not documented
/// (protocol.md 12, question 15).
const SESSION_END_GRACE: Duration = Duration::from_secs(2);
/// The time before the deadline at which history is read if the bot has not answered: its answer may have gone to a dead
/// socket. A short deadline leaves a quarter.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// The shortest deadline before which history is read. Its answer would come too late in a shorter turn.
const LOOKED_AT_LEAST: Duration = Duration::from_secs(5);
const MAX_REPLIES: usize = 100;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How far the message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnPhase {
    /// The store is being told that the message is about to be sent.
    Storing,
    /// The store knows. The message is sent as soon as the link is ready.
    Ready,
    /// The message is handed to the socket. No byte of it was written.
    Sending,
    /// The message was sent, and the replies of the bot belong to it.
    Sent,
    /// The message was sent and the link was lost. The backfill has not settled yet.
    Broken,
    /// The end is decided and being stored.
    Ending,
}

/// The turn of the head, from the decision to send until its end is stored.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(crate) struct Turn {
    pub(crate) message: Arc<AcceptedMessage>,
    pub(crate) progress: MessageProgress,
    pub(crate) phase: TurnPhase,
    /// Whether history was read because the bot sent no reply for long.
    pub(crate) probed: bool,
    /// Whether history was read before the deadline.
    pub(crate) looked: bool,
    pub(crate) head_at: Timestamp,
    send_by: Timestamp,
    /// Whether the message is sent again, because its receipt was not proved.
    resent: bool,
    expect: Option<usize>,
    quiet: Option<QuietWait>,
    /// The rhythm of the bot, if it is learned.
    rhythm: Option<Box<TurnRhythm>>,
    /// The quiet time without the rhythm, if the rhythm sets it.
    unlearned: Option<QuietWait>,
    deadline: Duration,
    signal: Option<(EndedBy, Timestamp)>,
    /// The start of the quiet time: the last reply or chunk, or the close of a later gap.
    quiet_from: Option<Timestamp>,
    more_follows: bool,
    bytes: usize,
    /// Replies over a later link while the receipt is not proved. A proof joins them.
    deferred: Vec<JoinedReply>,
    deferred_signal: Option<EndedBy>,
    /// The number that a reply named in place of this message's.
    named_instead: Option<u64>,
    /// When this owner wrote the message to a socket last. For a message that only connects, when the socket opened.
    pub(crate) written_at: Option<Timestamp>,
    /// The newest whole reply before this owner wrote the message first. History has the message behind it.
    pub(crate) follows: Option<Fingerprint>,
    /// When this owner sent the message before it.
    pub(crate) previous_sent_at: Option<Timestamp>,
    /// When this owner resumed the turn of an earlier one.
    resumed_at: Option<Timestamp>,
    /// Whether the link was lost in this turn.
    lost: bool,
    /// Whether history did not tell what the bot said without a link.
    unheard: bool,
}

impl Turn {
    pub(crate) fn begin(
        message: Arc<AcceptedMessage>,
        bot: &BotConfig,
        head_at: Timestamp,
        send_by: Timestamp,
    ) -> Self {
        let rules = message.new.rules;
        let expect = rules.expect_replies();
        let by_caller = rules.quiet().map(|wait| QuietWait { wait, by: QuietSource::Caller });
        let by_bot = expect.is_none().then(|| bot.unlearned_quiet());
        Self {
            progress: MessageProgress::default(),
            phase: TurnPhase::Storing,
            probed: false,
            looked: false,
            head_at,
            send_by,
            resent: false,
            expect,
            unlearned: by_bot.filter(|_| by_caller.is_none() && bot.quiet == QuietRule::Auto),
            quiet: by_caller.or(by_bot),
            rhythm: None,
            deadline: turn_time(&message, bot),
            signal: None,
            quiet_from: None,
            more_follows: false,
            bytes: 0,
            deferred: Vec::new(),
            deferred_signal: None,
            named_instead: None,
            written_at: None,
            follows: None,
            previous_sent_at: None,
            resumed_at: None,
            lost: false,
            unheard: false,
            message,
        }
    }

    /// Resumes the turn of a message that an earlier owner sent. Its link is lost.
    pub(crate) fn resume(open: OpenMessage, bot: &BotConfig, head_at: Timestamp, now: Timestamp) -> Self {
        let mut turn = Self::begin(open.accepted, bot, head_at, now);
        turn.on_lost();
        turn.resumed_at = Some(now);
        if turn.ends_session() {
            // The end of a session may be sent twice.
            turn.resend();
        }
        turn.bytes = open.progress.replies.iter().map(|reply| reply.event.get().len()).sum();
        turn.quiet_from = open.progress.first_reply_at.map(|_| now);
        turn.progress = open.progress;
        turn
    }

    /// Returns whether an ack or a reply proves that the platform has the message. The open socket proves a connect.
    pub(crate) fn is_proved(&self) -> bool {
        self.progress.acked_at.is_some() || self.progress.first_reply_at.is_some() || self.is_connect()
    }

    /// Notes that the link was lost after sending.
    pub(crate) fn on_lost(&mut self) {
        self.phase = TurnPhase::Broken;
        self.lost = true;
        // Replies may be missed, or come later than they were said.
        self.leave_rhythm();
    }

    /// Returns whether the message was sent and the end is not decided.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, TurnPhase::Sent | TurnPhase::Broken)
    }

    /// Returns whether the message only ends the session. No reply belongs to it.
    pub(crate) fn ends_session(&self) -> bool {
        self.message.new.session.is_end()
    }

    /// Returns whether no byte of the message was sent, although the store may know it as sent.
    pub(crate) const fn is_unsent(&self) -> bool {
        let waits = matches!(self.phase, TurnPhase::Storing | TurnPhase::Ready | TurnPhase::Sending);
        waits && !self.resent
    }

    /// Returns whether the link was lost and the receipt is not proved. A frame of a later link then proves it only
    /// by naming the message.
    pub(crate) fn awaits_proof(&self) -> bool {
        self.phase == TurnPhase::Broken && !self.is_proved() && !self.ends_session()
    }

    /// Returns whether a human agent took over in this turn. Until the end, the words of the agent belong to it.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.signal.is_some_and(|(by, _)| by == EndedBy::Agent)
    }

    /// Returns whether a human agent who has the conversation ends the turn, once it is proved.
    pub(crate) fn ends_with_agent(&self) -> bool {
        !self.is_handed_over() && !self.ends_session()
    }

    pub(crate) fn on_session_end_sent(&mut self, now: Timestamp) {
        self.signal = Some((EndedBy::SessionEnd, now + SESSION_END_GRACE));
    }

    pub(crate) const fn on_session_ended(&mut self, now: Timestamp) {
        self.signal = Some((EndedBy::SessionEnd, now));
    }

    /// Notes a reply or its first chunk.
    pub(crate) fn on_reply_begun(&mut self, now: Timestamp) {
        self.progress.first_reply_at.get_or_insert(now);
        self.quiet_from = Some(now);
    }

    pub(crate) fn on_reply(&mut self, reply: Arc<Reply>, more_follows: bool, now: Timestamp) {
        self.on_reply_begun(now);
        self.more_follows = more_follows;
        self.bytes += reply.event.get().len();
        self.progress.replies.push(reply);
    }

    /// Notes that a reply named another message. It does not answer this one.
    pub(crate) fn on_reply_to_another(&mut self, client_message_id: u64) {
        self.named_instead = Some(client_message_id);
    }

    /// Notes that the bot announced more without a text.
    pub(crate) fn on_announced(&mut self, now: Timestamp) {
        self.more_follows = true;
        self.quiet_from = self.quiet_from.map(|_| now);
    }

    /// Notes an end signal of the platform. A repeated signal changes nothing.
    pub(crate) fn on_signal(&mut self, by: EndedBy, now: Timestamp) {
        if self.awaits_proof() {
            self.deferred_signal = Some(by);
            return;
        }
        match self.signal {
            Some((known, _)) if known == by || by == EndedBy::InputWait => {}
            _ => self.signal = Some((by, now + SIGNAL_SETTLE)),
        }
    }

    /// Defers a reply until the receipt is proved. Gives it back if there are too many.
    pub(crate) fn defer(&mut self, reply: JoinedReply) -> Option<JoinedReply> {
        let size = |reply: &JoinedReply| reply.response.event.get().len() + reply.response.text.len();
        let bytes: usize = self.deferred.iter().map(size).sum();
        if self.deferred.len() == MAX_REPLIES || bytes + size(&reply) > MAX_BYTES {
            return Some(reply);
        }
        self.deferred.push(reply);
        None
    }

    /// Returns whether a reply with this id is deferred.
    pub(crate) fn defers(&self, id: &str) -> bool {
        self.deferred.iter().any(|reply| reply.response.message_id.as_deref() == Some(id))
    }

    /// Takes out the deferred reply with this id.
    pub(crate) fn take_deferred(&mut self, id: &str) -> Option<JoinedReply> {
        let at = self.deferred.iter().position(|reply| reply.response.message_id.as_deref() == Some(id))?;
        Some(self.deferred.remove(at))
    }

    /// Takes out all deferred replies, and the end signal that came with them.
    pub(crate) fn take_all_deferred(&mut self) -> (Vec<JoinedReply>, Option<EndedBy>) {
        (std::mem::take(&mut self.deferred), self.deferred_signal.take())
    }

    /// Returns whether a reply or an end signal is deferred.
    pub(crate) const fn has_deferred(&self) -> bool {
        !self.deferred.is_empty() || self.deferred_signal.is_some()
    }

    /// Notes that the backfill has settled. The quiet time restarts.
    pub(crate) fn on_gap_closed(&mut self, now: Timestamp) {
        self.phase = TurnPhase::Sent;
        if self.quiet_from.is_some() {
            self.quiet_from = Some(now);
        }
    }

    /// Returns the outcome if the turn is over. The machine calls it after each event and at [`Turn::wake_at`].
    /// `streaming` is the size of the open stream, `agent` says whether a human agent has the conversation.
    pub(crate) fn verdict(
        &mut self,
        now: Timestamp,
        streaming: Option<usize>,
        agent: bool,
    ) -> Option<TurnOutcome> {
        if !self.is_open() {
            return None;
        }
        if agent && self.is_proved() && self.ends_with_agent() {
            // An agent answers at any time, and no message in particular.
            return Some(TurnOutcome::Answered(EndedBy::Agent));
        }
        let replies = self.progress.replies.len();
        if self.expect.is_some_and(|expected| replies >= expected) {
            return Some(TurnOutcome::Answered(EndedBy::ReplyCount));
        }
        if replies >= MAX_REPLIES || self.bytes + streaming.unwrap_or_default() >= MAX_BYTES {
            return Some(TurnOutcome::Answered(EndedBy::Limit));
        }
        if let Some((by, _)) = self.signal
            && self.signal_settles_at(streaming.is_some()).is_some_and(|at| now >= at)
        {
            if by != EndedBy::InputWait || self.progress.first_reply_at.is_some() {
                return Some(TurnOutcome::Answered(by));
            }
            self.signal = None;
        }
        if self.quiet_end(streaming.is_some()).is_some_and(|at| now >= at) {
            return Some(TurnOutcome::Answered(EndedBy::Quiet(self.quiet_wait(streaming.is_some()))));
        }
        (now >= self.ends_by()).then(|| self.deadline_outcome())
    }

    /// Returns when the turn is to be checked without an event.
    pub(crate) fn wake_at(&self, streaming: bool) -> Option<Timestamp> {
        match self.phase {
            TurnPhase::Storing | TurnPhase::Ready | TurnPhase::Sending => Some(self.limit()),
            TurnPhase::Ending => None,
            TurnPhase::Sent | TurnPhase::Broken => {
                [self.signal_settles_at(streaming), self.quiet_end(streaming), Some(self.ends_by())]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// Has the message sent again, because its receipt was not proved.
    pub(crate) fn resend(&mut self) {
        self.phase = TurnPhase::Ready;
        self.resent = true;
    }

    pub(crate) const fn was_sent(&self) -> bool {
        self.resent
    }

    /// Returns the deadline for sending. It counts from the start of the head, and for a resend from the first
    /// sending.
    pub(crate) fn limit(&self) -> Timestamp {
        if self.resent { self.ends_by() } else { self.send_by }
    }

    pub(crate) fn message(&self) -> Message {
        Message { accepted: Arc::clone(&self.message), progress: self.progress.clone() }
    }

    pub(crate) fn ends_by(&self) -> Timestamp {
        let at = self.progress.sent_at.unwrap_or(self.send_by) + self.deadline;
        self.resumed_until().map_or(at, |resumed| at.max(resumed))
    }

    /// Returns when history is read for the last time before the deadline, if the bot has not answered.
    pub(crate) fn last_look_at(&self) -> Option<Timestamp> {
        let silent = self.is_open() && !self.ends_session() && self.progress.first_reply_at.is_none();
        let ahead = LAST_LOOK;
        let at = self.progress.sent_at? + self.deadline.saturating_sub(ahead);
        (silent && !self.looked && self.deadline >= LOOKED_AT_LEAST).then_some(at)
    }

    /// Returns when the signal ends the turn. A bot that waits for input still ends its stream.
    fn signal_settles_at(&self, streaming: bool) -> Option<Timestamp> {
        let (by, at) = self.signal?;
        let heard = self.quiet_from.filter(|_| streaming && by == EndedBy::InputWait);
        Some(heard.map_or(at, |heard| at.max(heard + STRETCHED_QUIET)))
    }

    fn deadline_outcome(&self) -> TurnOutcome {
        let secs = self.deadline.as_secs_f64();
        if self.progress.first_reply_at.is_some() {
            TurnOutcome::Answered(EndedBy::Deadline)
        } else if self.is_connect() {
            self.silence_outcome()
        } else if self.progress.acked_at.is_some() {
            let detail = match self.named_instead {
                None => format!("the platform has the message, but the bot did not answer within {secs} s"),
                Some(number) => format!(
                    "the platform has the message, but no reply to it came within {secs} s; a reply came that names \
                     another message (clientMessageId {number})"
                ),
            };
            TurnOutcome::Failed(Problem::new(ProblemKind::NoReply, detail))
        } else if self.phase == TurnPhase::Broken {
            TurnOutcome::Failed(uncertain("the link broke after sending and did not come back in time"))
        } else {
            let detail = match self.named_instead {
                None => format!("neither an ack nor a reply came within {secs} s after sending"),
                Some(number) => format!(
                    "neither an ack nor a reply to it came within {secs} s after sending; a reply came that names \
                     another message (clientMessageId {number})"
                ),
            };
            TurnOutcome::Failed(Problem::new(ProblemKind::NoAck, detail))
        }
    }
}

/// Returns the time for sending the message, or for connecting if it only connects.
pub(crate) fn send_time(message: &AcceptedMessage, bot: &BotConfig) -> Duration {
    let default = match message.new.session {
        SessionRequest::Close => SESSION_END_DEADLINE,
        SessionRequest::Erase => ERASURE_DEADLINE,
        SessionRequest::Continue | SessionRequest::New | SessionRequest::NewKeepAgent => bot.deadline,
    };
    message.new.rules.deadline().unwrap_or(default)
}

/// Returns the time for the turn of the message from then on.
fn turn_time(message: &AcceptedMessage, bot: &BotConfig) -> Duration {
    let rule = message.new.rules.deadline();
    if message.new.is_connect() { rule.unwrap_or(CONNECT_DEADLINE) } else { send_time(message, bot) }
}

/// Returns the problem of a message that may have reached the bot.
pub(crate) fn uncertain(what: &str) -> Problem {
    let detail = format!("{what}; the bot may have it: ask it, or send with \"resend\": \"auto\"");
    Problem::new(ProblemKind::Uncertain, detail)
}
