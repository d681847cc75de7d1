//! A script for the machine: inputs at simulated times, and their effects.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::fixtures::START;
use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, EndedBy, EntryBody, Message, MessageId, NewMessage, ProblemKind,
    Reply, ReplyChunk, SignalKind, Timestamp, TurnOutcome, TurnRules,
};
use rtm_bridge::link::{AbandonReason, Effect, HistoryFailure, Input, Machine, SocketLoss};
use rtm_bridge::rhythm::{SharedRhythm, TurnObservation};
use rtm_bridge::rtm::{BotResponse, ConnectMode, DeliveryMarks, HistoryPage, HistoryRecord, IncomingFrame};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite};
use serde_json::value::RawValue;

use super::support::{accepted, advance, bot, event, plain, reply};

/// A machine whose store answers at once, unless `store_hangs`.
pub(super) struct Bench {
    pub(super) machine: Machine,
    /// What was learned of the bot, and the turns that showed it.
    pub(super) rhythm: Option<Arc<SharedRhythm>>,
    pub(super) learned: Vec<TurnObservation>,
    pub(super) now: Timestamp,
    posted: u64,
    /// Whether writes stay unanswered.
    pub(super) store_hangs: bool,
    /// Whether the lease becomes suspect right before a send.
    pub(super) withholds: bool,
    /// An input between the next send and its first byte.
    pub(super) early: Option<Input>,
    pub(super) connects: Vec<ConnectMode>,
    /// The messages whose context the connects carry.
    pub(super) contexts: Vec<Option<MessageId>>,
    pub(super) sends: Vec<(u64, Timestamp)>,
    pub(super) history_reads: Vec<(Option<Box<str>>, Timestamp)>,
    pub(super) completed: Vec<Message>,
    pub(super) replies: Vec<Arc<Reply>>,
    pub(super) pings: usize,
    pub(super) closes: usize,
    pub(super) abandons: Vec<AbandonReason>,
    pub(super) forgotten: Vec<MessageId>,
    pub(super) rests: usize,
    pub(super) lane_reads: usize,
    pub(super) rebased: usize,
    pub(super) far_off_times: usize,
    pub(super) chunks: Vec<Arc<ReplyChunk>>,
    pub(super) live_frames: Vec<Arc<RawValue>>,
    pub(super) erasures: usize,
    pub(super) signals: Vec<(SignalKind, u64)>,
    pub(super) acknowledged: Vec<DeliveryMarks>,
    /// Every write, with repeats.
    pub(super) writes: Vec<Arc<ConversationWrite>>,
}

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut BotConfig)) -> Self {
        Self::opened(ConversationSnapshot::default(), change)
    }

    /// A machine that loads this stored conversation.
    pub(super) fn opened(open: ConversationSnapshot, change: impl FnOnce(&mut BotConfig)) -> Self {
        let mut bot = bot();
        change(&mut bot);
        let now = START;
        let posted = open.next_position;
        let rhythm = SharedRhythm::of(&bot).map(Arc::new);
        let machine = Machine::new(Arc::new(bot), rhythm.clone(), plain().conversation, open, now, 7);
        let mut bench = Self {
            machine,
            rhythm,
            learned: Vec::new(),
            now,
            posted,
            store_hangs: false,
            withholds: false,
            early: None,
            connects: Vec::new(),
            contexts: Vec::new(),
            sends: Vec::new(),
            history_reads: Vec::new(),
            completed: Vec::new(),
            replies: Vec::new(),
            pings: 0,
            closes: 0,
            abandons: Vec::new(),
            forgotten: Vec::new(),
            lane_reads: 0,
            rebased: 0,
            far_off_times: 0,
            chunks: Vec::new(),
            live_frames: Vec::new(),
            erasures: 0,
            signals: Vec::new(),
            acknowledged: Vec::new(),
            writes: Vec::new(),
            rests: 0,
        };
        bench.give(Input::Tick);
        bench
    }

    /// A machine with an open socket whose welcome is over.
    pub(super) fn connected() -> Self {
        Self::connected_with(|_| ())
    }

    /// The same of a bot with these changes.
    pub(super) fn connected_with(change: impl FnOnce(&mut BotConfig)) -> Self {
        let mut bench = Self::with(|bot| {
            bot.welcome = Duration::ZERO;
            change(bot);
        });
        bench.post();
        bench.give(Input::Connected);
        bench.say("ms-first");
        bench.give(Input::Frame(IncomingFrame::WaitingForInput));
        bench.pass(ms(150));
        assert_eq!(bench.end().1, "inputWait");
        bench.sends.clear();
        bench
    }

    pub(super) fn give(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.machine.step(self.now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(write) => {
                    for change in &write.changes {
                        if let ConversationChange::Append(entry) = change
                            && let EntryBody::Reply(reply) = &entry.body
                        {
                            self.replies.push(Arc::clone(reply));
                        }
                    }
                    self.writes.push(write);
                    if !self.store_hangs {
                        self.give(Input::Stored { lost: false });
                    }
                }
                Effect::Connect(request) => {
                    self.connects.push(request.mode);
                    self.contexts.push(request.context);
                }
                Effect::Send(message) => {
                    if self.withholds {
                        self.give(Input::Lease(false));
                        self.give(Input::Withheld);
                    }
                    if let Some(early) = self.early.take() {
                        self.give(early);
                    }
                    if self.machine.is_sending(message.id) {
                        self.sends.push((message.client_message_id, self.now));
                        self.give(Input::Writing);
                    }
                }
                Effect::ReadHistory(after) => self.history_reads.push((after, self.now)),
                Effect::Complete { message, .. } => self.completed.push(message),
                Effect::Ping => self.pings += 1,
                Effect::Close(_) => self.closes += 1,
                Effect::Abandon(why) => self.abandons.push(why),
                Effect::ReportLoss(id) => self.forgotten.push(id),
                Effect::Rest => self.rests += 1,
                Effect::Erase => self.erasures += 1,
                Effect::Signal(sent) => self.signals.push((sent.signal.kind, sent.number)),
                Effect::Acknowledge(marks) => self.acknowledged.push(marks),
                Effect::ReadLane => self.lane_reads += 1,
                Effect::Reconciled => self.rebased += 1,
                Effect::OutOfTurn(_) => {}
                Effect::Learn(turn) => {
                    if let Some(rhythm) = &self.rhythm {
                        rhythm.learn((*turn).clone());
                    }
                    self.learned.push(*turn);
                }
                Effect::FarOffTime => self.far_off_times += 1,
                Effect::Chunk(chunk) => self.chunks.push(chunk),
                Effect::Platform(frame) => self.live_frames.push(frame),
            }
        }
    }

    /// Lets time pass, with every tick that the machine asks for.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut ticks = 0;
        while advance(&mut self.now, &self.machine, end) {
            self.give(Input::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "a busy loop");
        }
    }

    /// Lets minutes pass on a socket whose peer answers.
    pub(super) fn idle(&mut self, minutes: u64) {
        for _ in 0..minutes * 3 {
            self.pass(ms(20_000));
            self.give(Input::PeerAlive);
        }
    }

    pub(super) fn post(&mut self) -> Arc<AcceptedMessage> {
        self.post_with(|_| ())
    }

    pub(super) fn post_ruled(&mut self, expect: Option<u64>, quiet: Option<u64>, deadline: Option<u64>) {
        let rules = TurnRules::new(expect, quiet, deadline).unwrap();
        self.post_with(|new| new.rules = rules);
    }

    pub(super) fn post_until(&mut self, deadline: Option<u64>) -> Arc<AcceptedMessage> {
        let rules = TurnRules::new(None, None, deadline).unwrap();
        self.post_with(|new| new.rules = rules)
    }

    pub(super) fn post_with(&mut self, change: impl FnOnce(&mut NewMessage)) -> Arc<AcceptedMessage> {
        let mut new = plain();
        change(&mut new);
        let message = accepted(self.posted, self.now, new);
        self.posted += 1;
        self.give(Input::Accepted(Arc::clone(&message)));
        message
    }

    /// Posts a message whose mark is stored, and which is not sent because the lease is not valid.
    pub(super) fn post_held(&mut self) -> Arc<AcceptedMessage> {
        self.store_hangs = true;
        let message = self.post();
        self.give(Input::Lease(false));
        self.store_hangs = false;
        self.give(Input::Stored { lost: false });
        message
    }

    pub(super) fn say(&mut self, id: &str) {
        self.respond(reply(id, id));
    }

    pub(super) fn respond(&mut self, response: BotResponse) {
        self.give(Input::Frame(IncomingFrame::Response(Box::new(response))));
    }

    pub(super) fn ack(&mut self, message: &AcceptedMessage) {
        self.give(Input::Frame(IncomingFrame::Ack { reply_to: Some(message.client_message_id) }));
    }

    pub(super) fn lose(&mut self, code: u16) {
        self.give(Input::Lost(SocketLoss { code }));
    }

    /// Lets the wait for the next connect pass, and lets that connect succeed.
    pub(super) fn reconnect(&mut self) {
        let before = self.connects.len();
        for _ in 0..100 {
            if self.connects.len() > before {
                break;
            }
            self.pass(ms(50));
        }
        assert!(self.connects.len() > before, "no connect");
        self.give(Input::Connected);
    }

    pub(super) fn history(&mut self, records: Vec<HistoryRecord>) {
        self.give(Input::History(Ok(HistoryPage { records, more: false })));
    }

    pub(super) fn history_fails(&mut self) {
        self.give(Input::History(Err(HistoryFailure::Permanent)));
    }

    /// Returns the number of replies of the message that ended last, and the rule or problem that ended it.
    pub(super) fn end(&self) -> (usize, &'static str) {
        let Some(message) = self.completed.last() else { return (0, "no message ended") };
        let how = match &message.progress.outcome {
            Some(TurnOutcome::Answered(by)) => EndedBy::as_str(*by),
            Some(TurnOutcome::Failed(problem)) => ProblemKind::slug(problem.kind),
            None => "open",
        };
        (message.progress.replies.len(), how)
    }

    /// Returns the quiet time that ended the last message, in milliseconds, and its source.
    pub(super) fn quiet(&self) -> Option<(u64, &'static str)> {
        let Some(TurnOutcome::Answered(by)) = self.completed.last()?.progress.outcome else { return None };
        by.quiet().map(|quiet| (quiet.millis(), quiet.by.as_str()))
    }

    /// Returns the record of the last write.
    pub(super) fn record(&self) -> ConversationRecord {
        self.writes.last().unwrap().record.clone()
    }

    pub(super) fn reply(&self, id: &str) -> &Reply {
        self.replies.iter().find(|reply| reply.message_id.as_deref() == Some(id)).unwrap()
    }
}

/// The history record of a message of ours.
pub(super) fn incoming(message: &AcceptedMessage) -> HistoryRecord {
    HistoryRecord { from_user: true, user_msg_id: Some(message.client_message_id), ..outgoing("user-1") }
}

/// The history record of a message of the user without a number, said at this time.
pub(super) fn unnumbered(text: &str, at: Timestamp) -> HistoryRecord {
    HistoryRecord { from_user: true, text: text.into(), created_on: Some(at), ..outgoing("user-2") }
}

/// The history record of a reply.
pub(super) fn outgoing(id: &str) -> HistoryRecord {
    HistoryRecord {
        id: Some(id.into()),
        from_user: false,
        user_msg_id: None,
        text: id.into(),
        choices: Box::default(),
        media: Box::default(),
        is_blank: false,
        agent: false,
        created_on: None,
        session_id: None,
        event: event(),
    }
}
