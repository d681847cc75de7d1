//! One run: a machine, a platform, a store and callers in simulated time, drawn from one seed.

mod actions;
mod faults;
mod history_gaps;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rtm_bridge::config::{BotConfig, BotWebhookConfig, QuietRule};
use rtm_bridge::domain::{
    AcceptedMessage, Correlation, DeliveryKind, GapReason, Message, MessageContent, MessageEvent, MessageId,
    NewMessage, Reply, ResendPolicy, SessionRequest, Timestamp, TraceId, TurnOutcome, TurnRules,
};
use rtm_bridge::link::{ConnectFailure, Effect, HistoryFailure, Input, Machine, SocketLoss};
use rtm_bridge::rhythm::SharedRhythm;
use rtm_bridge::rtm::{BotResponse, ConnectMode, IncomingFrame};
use rtm_bridge::store::ConversationWrite;

use super::platform::{FaultPlan, OddRecords, Platform, PlatformEvent, chance};
use super::receivers::ReceiverModel;
use super::store::{StoreModel, WriteOutcome};
use super::support::{bot, callback, plain, webhook};
use super::trace::{tell_effect, tell_input, tell_said};

const START: u64 = 1_763_845_000_000;
/// The longest run in simulated milliseconds. No message may be open so long.
const END: u64 = 3_000_000;
const MOST_EFFECTS: usize = 24;

type CheckResult = Result<(), String>;

enum SimulationEvent {
    Post,
    /// A message that this life's machine may send at its accept arrives at the store.
    SendAtAccept(u32, u32, Box<NewMessage>),
    Hint(Arc<AcceptedMessage>),
    Scan,
    /// An input for the machine of this life only.
    Input(u32, Input),
    /// A write over the connections of this era. The flag says whether the machine still waits for the answer.
    Apply(u32, u32, Arc<ConversationWrite>, bool),
    ReadLane(u32),
    ReadHistory(u32, Option<Box<str>>),
    /// The answer to this connect only.
    Connected(u32, ConnectMode),
    ConnectFailed(u32, ConnectFailure),
    /// An event on this socket.
    PlatformEvent(u32, PlatformEvent),
    Received(u32, Arc<AcceptedMessage>),
    Pinged(u32),
    /// The bot sends an unsolicited reply.
    Unasked,
    Drain,
    Kill,
    /// The owner is paused, and wakes after a failover.
    Pause,
    Wake,
    TakeOver,
    Lease(bool),
    /// The store is unavailable for this time.
    Outage(u64),
    /// The store goes back by this number of steps.
    Failover(usize),
}

/// The answers that the machine waits for.
#[derive(Default)]
struct PendingAnswers {
    write: bool,
    lane: bool,
    connect: bool,
    history: u32,
}

/// Whether the lease is valid, and whether the machine knows.
struct Lease {
    valid: bool,
    known: bool,
}

impl Lease {
    const VALID: Self = Self { valid: true, known: true };
}

#[derive(Clone, Copy)]
struct SentMessage {
    step: u64,
    socket: u32,
    life: u32,
}

#[expect(clippy::struct_excessive_bools, reason = "independent states of store, lease and platform")]
pub(super) struct World {
    rng: Rng,
    /// Draws the receivers. It is separate, so that the rest of a run does not depend on it.
    receivers: Rng,
    /// Draws the times that frames carry, for the same reason.
    clocks: Rng,
    /// Draws the messages that only connect, for the same reason.
    connects: Rng,
    faults: FaultPlan,
    bot: Arc<BotConfig>,
    /// What was learned of the bot. All owners share it.
    rhythm: Option<Arc<SharedRhythm>>,
    now: u64,
    queue: BTreeMap<(u64, u64), SimulationEvent>,
    scheduled: u64,
    truth: StoreModel,
    /// The earlier states of a store that will go back.
    past: Vec<StoreModel>,
    /// The number of the store's failovers. Each drops the writes on their way.
    era: u32,
    /// When the outage of the store ends.
    away_until: u64,
    /// The time of outages and suspect leases.
    hindered: u64,
    lease: Lease,
    /// A paused machine, and whether it waits for a stored write.
    paused: Option<(Machine, bool)>,
    platform: Platform,
    /// The replies that no socket received, or that were received and not stored.
    missed: HashSet<Box<str>>,
    /// When the last connect succeeded.
    connected_at: u64,
    machine: Option<Machine>,
    /// The effects that are still to be performed, and whether one is being performed.
    effects: VecDeque<Effect>,
    performs: bool,
    life: u32,
    awaited: PendingAnswers,
    /// Whether the result of the last write is unknown, so that it will be repeated.
    unsettled: bool,
    draining: bool,
    rested: bool,
    /// The open socket, and whether its peer has died.
    socket: Option<(u32, bool)>,
    sockets: u32,
    /// The number of connects. Only the answer to the last one counts.
    attempts: u32,
    to_post: u32,
    posted: u32,
    /// The time without a machine.
    downtime: u64,
    killed_at: u64,
    /// The messages that were completed in this life.
    completed: HashSet<MessageId>,
    /// The messages that only connect.
    posted_connects: HashSet<MessageId>,
    /// The one of them that the running connect is for. What its socket brings looks like the greeting.
    connecting_for: Option<MessageId>,
    forgotten: HashSet<MessageId>,
    /// The messages whose sending the store confirmed.
    may_go: HashSet<MessageId>,
    /// The stored end of each message, over all lives.
    ends: HashMap<MessageId, Message>,
    ended_here: Vec<MessageId>,
    proved: HashSet<u64>,
    /// The whole replies that this owner heard, and when it heard each one first.
    delivered: HashMap<Box<str>, u64>,
    /// The last step that sent a message, and the first that delivered a reply, over all lives.
    sends: HashMap<MessageId, SentMessage>,
    first_heard: HashMap<Box<str>, u64>,
    /// The socket over which a reply was first delivered, at least its beginning.
    heard_on: HashMap<Box<str>, u32>,
    /// The owners that heard a reply, at least a piece.
    heard_by: HashSet<(u32, Box<str>)>,
    /// When a reply or a piece of it was delivered last.
    heard_at: u64,
    /// Whether no session was known at the last connect.
    first_connect: bool,
    /// The streams with a hole that nothing shows.
    masked: HashSet<Box<str>>,
    /// The sockets to which each message was written.
    written_to: HashMap<MessageId, HashSet<u32>>,
    /// The life in which a reply was first delivered.
    heard_in: HashMap<Box<str>, u32>,
    /// The echoes of the replies.
    echoes: HashMap<Box<str>, u64>,
    last_sent: u64,
    steps: u64,
    idle_ticks: u32,
    hash: u64,
    trace: Option<Vec<String>>,
}

/// The result of a run.
pub(super) struct SimulationRun {
    pub(super) hash: u64,
    pub(super) failure: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) outcomes: Vec<&'static str>,
}

fn draw_endpoints(rng: &mut Rng) -> Vec<BotWebhookConfig> {
    let mut endpoints: Vec<_> = rng.bool().then(webhook).into_iter().collect();
    if !endpoints.is_empty() && rng.bool() {
        let types = vec![DeliveryKind::MessageAnswered, DeliveryKind::ReplyUnsolicited];
        endpoints.push(BotWebhookConfig { name: "second".into(), types, ..webhook() });
    }
    endpoints
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let faults = FaultPlan::draw(&mut rng);
        let mut bot = bot();
        bot.history = rng.u8(0..5) != 0;
        bot.user_rate_per_minute = rng.choice([0, 0, 2, 5]).unwrap_or(0);
        bot.welcome = Duration::from_millis(rng.choice([500, 500, 0, 2000]).unwrap_or(500));
        bot.idle_ttl = rng.choice([Some(5), Some(60), Some(900), None]).flatten().map(Duration::from_secs);
        bot.history_settle = Duration::from_millis(rng.choice([3000, 3000, 100, 0]).unwrap_or(3000));
        bot.stuck_after = rng.choice([Some(10), Some(1), None]).flatten().map(Duration::from_secs);
        bot.session_timeout = Duration::from_secs(rng.choice([900, 30]).unwrap_or(900));
        bot.late_window = Duration::from_secs(rng.choice([60, 2]).unwrap_or(60));
        let mut receivers = Rng::with_seed(!seed);
        bot.webhooks = draw_endpoints(&mut receivers);
        let endpoints = bot.webhooks.clone();
        let mut clocks = Rng::with_seed(seed.rotate_left(32));
        let rhythm = draw_rhythm(&mut bot, seed);
        let odd = OddRecords::draw(&mut clocks);
        let mut world = Self {
            rhythm,
            receivers,
            clocks,
            connects: Rng::with_seed(seed.rotate_left(16)),
            bot: Arc::new(bot),
            now: START,
            queue: BTreeMap::new(),
            scheduled: 0,
            truth: StoreModel::of(ReceiverModel::of(endpoints)),
            past: Vec::new(),
            era: 0,
            away_until: START,
            hindered: 0,
            lease: Lease::VALID,
            paused: None,
            platform: Platform::of(odd),
            missed: HashSet::new(),
            connected_at: START,
            machine: None,
            effects: VecDeque::new(),
            performs: false,
            life: 0,
            awaited: PendingAnswers::default(),
            unsettled: false,
            draining: false,
            rested: false,
            socket: None,
            sockets: 0,
            attempts: 0,
            to_post: rng.u32(1..8),
            posted: 0,
            downtime: 0,
            killed_at: START,
            completed: HashSet::new(),
            posted_connects: HashSet::new(),
            connecting_for: None,
            forgotten: HashSet::new(),
            may_go: HashSet::new(),
            ends: HashMap::new(),
            ended_here: Vec::new(),
            proved: HashSet::new(),
            delivered: HashMap::new(),
            sends: HashMap::new(),
            first_heard: HashMap::new(),
            heard_on: HashMap::new(),
            heard_by: HashSet::new(),
            heard_at: START,
            first_connect: false,
            masked: HashSet::new(),
            written_to: HashMap::new(),
            heard_in: HashMap::new(),
            echoes: HashMap::new(),
            last_sent: 0,
            steps: 0,
            idle_ticks: 0,
            hash: 0,
            trace: traced.then(Vec::new),
            faults,
            rng,
        };
        let mut at = 0;
        for _ in 0..world.to_post {
            at += if world.rng.bool() { world.rng.u64(0..300) } else { world.rng.u64(0..40_000) };
            world.schedule(at, SimulationEvent::Post);
        }
        for _ in 0..3 {
            if chance(&mut world.rng, world.faults.kills) {
                let at = world.rng.u64(0..at + 60_000);
                let event = world.rng.choice([
                    SimulationEvent::Drain,
                    SimulationEvent::Drain,
                    SimulationEvent::Kill,
                    SimulationEvent::Pause,
                ]);
                world.schedule(at, event.unwrap_or(SimulationEvent::Kill));
            }
        }
        world.plan_faults(at + 60_000);
        world.plan_unasked(at + 60_000);
        world.schedule(0, SimulationEvent::TakeOver);
        world.schedule(1000, SimulationEvent::Scan);
        world
    }

    pub(super) fn run(mut self) -> SimulationRun {
        let failure = self.live().err();
        let mut outcomes = vec!["no message"; usize::from(self.truth.ended.is_empty())];
        for message in self.truth.ended.values() {
            outcomes.push(match &message.progress.outcome {
                Some(TurnOutcome::Answered(by)) => by.as_str(),
                Some(TurnOutcome::Failed(problem)) => problem.kind.slug(),
                None => "open",
            });
        }
        let mut trace = self.trace.unwrap_or_default();
        trace.insert(0, format!("{:?} {:?} {:?}", self.faults, self.platform.odd, self.bot));
        SimulationRun { hash: self.hash, failure, trace, outcomes }
    }

    fn live(&mut self) -> CheckResult {
        loop {
            let wake = self.machine.as_ref().and_then(Machine::wake_at).map(Timestamp::as_millis);
            let next = self.queue.first_key_value().map(|(&(at, _), _)| at);
            match (wake, next) {
                (None, None) => return Err("no event is left".into()),
                (Some(wake), next) if next.is_none_or(|next| wake <= next) => {
                    // A timer may come a little late.
                    let late = if self.rng.u8(0..8) == 0 { self.rng.u64(0..5) } else { 0 };
                    let late = late.min(next.map_or(late, |next| next.saturating_sub(wake)));
                    self.now = self.now.max(wake + late);
                    self.step(Input::Tick)?;
                }
                _ => {
                    let Some(((at, _), event)) = self.queue.pop_first() else { continue };
                    self.now = self.now.max(at);
                    self.happen(event)?;
                }
            }
            if self.is_over() {
                return self.at_the_end();
            }
            if self.now > START + END {
                let open: Vec<_> = self.truth.lane.iter().map(|open| open.accepted.id.to_string()).collect();
                return Err(format!("the run does not end; open: {open:?}, rested: {}", self.rested));
            }
        }
    }

    fn is_over(&self) -> bool {
        let answered = self.posted == self.to_post && self.truth.lane.is_empty() && self.machine.is_some();
        let never_rests = self.bot.idle_ttl.is_none_or(|ttl| ttl > Duration::from_mins(2));
        let idle = !self.awaited.write
            && !self.unsettled
            && self.machine.as_ref().is_some_and(|m| m.open_messages() == 0);
        // A stream may wait for its end, or for history.
        let quiet = self.now >= self.heard_at + 70_000;
        answered && (self.rested || never_rests && idle && quiet && self.queue.len() <= 1)
    }

    fn at_the_end(&self) -> CheckResult {
        if self.truth.ended.len() != self.posted as usize && !self.truth.lossy {
            return Err(format!("{} posted, {} ended", self.posted, self.truth.ended.len()));
        }
        let said = |id: &MessageId| self.completed.contains(id) || self.forgotten.contains(id);
        if let Some(id) = self.ended_here.iter().find(|id| !said(id)) {
            return Err(format!("{id} ended and was not completed"));
        }
        self.check_missed()?;
        for message in self.truth.ended.values() {
            self.check_replies(message)?;
        }
        for id in self.delivered.keys() {
            if !self.truth.replies.contains_key(id) && !self.truth.lossy {
                return Err(format!("{id} was heard and is not in the journal"));
            }
        }
        self.check_texts()
    }

    /// Checks that a reply has its whole text, or says that it has not.
    fn check_texts(&self) -> CheckResult {
        for (id, (text, partial)) in &self.truth.replies {
            let whole = self.platform.whole_text(id);
            if !partial && whole != Some(text) && !self.masked.contains(id) {
                return Err(format!("{id} is told as {text:?} and was {whole:?}"));
            }
        }
        let partial = self.truth.replies.values().any(|(_, partial)| *partial);
        let told = self.truth.gaps.iter().any(|(_, reason)| *reason == GapReason::ReplyCut);
        if partial && !told && !self.truth.lossy {
            return Err("a reply is partial, and the journal has no gap".into());
        }
        Ok(())
    }

    fn happen(&mut self, event: SimulationEvent) -> CheckResult {
        match event {
            SimulationEvent::Post if self.is_away() => {
                let wait = self.away_until - self.now + self.rng.u64(0..500);
                self.schedule(wait, SimulationEvent::Post);
            }
            SimulationEvent::Post => return self.post(),
            SimulationEvent::SendAtAccept(life, era, new) => self.accept_and_send(life, era, *new),
            SimulationEvent::Hint(message) => return self.tell_machine(Input::Accepted(message)),
            SimulationEvent::Scan => {
                let wait = 1000;
                self.schedule(wait, SimulationEvent::Scan);
                if !self.truth.lane.is_empty() && !self.is_away() {
                    return self.tell_machine(Input::Woken);
                }
            }
            SimulationEvent::Input(life, input) if life == self.life && self.machine.is_some() => {
                match &input {
                    Input::Stored { .. } | Input::WriteUnknown | Input::OutOfStep => {
                        self.awaited.write = false;
                        self.unsettled = matches!(input, Input::WriteUnknown);
                    }
                    Input::Lane(open) => {
                        self.awaited.lane = false;
                        let sent = open.lane.iter().filter(|open| open.progress.sent_at.is_some());
                        self.may_go.extend(sent.map(|open| open.accepted.id));
                    }
                    Input::History(page) => {
                        self.awaited.history -= 1;
                        for record in page.iter().flat_map(|page| &page.records) {
                            self.proved.extend(record.user_msg_id);
                        }
                    }
                    _ => {}
                }
                return self.step(input);
            }
            SimulationEvent::Apply(life, era, write, awaited) if life == self.life => {
                return self.apply(era, &write, awaited);
            }
            SimulationEvent::ReadLane(life) if life == self.life && self.is_away() => {
                let wait = self.away_until - self.now + self.lag();
                self.schedule(wait, SimulationEvent::ReadLane(life));
            }
            SimulationEvent::ReadLane(life) if life == self.life => {
                let lane = Box::new(self.truth.open());
                // It may be lost before the answer arrives.
                let sent = lane.lane.iter().filter(|open| open.progress.sent_at.is_some());
                self.may_go.extend(sent.map(|open| open.accepted.id));
                let wait = self.lag();
                self.schedule(wait, SimulationEvent::Input(life, Input::Lane(lane)));
            }
            SimulationEvent::ReadHistory(life, after) if life == self.life => {
                let page = if chance(&mut self.rng, self.faults.history_fails) {
                    Err(if self.rng.u8(0..4) == 0 {
                        HistoryFailure::Permanent
                    } else {
                        HistoryFailure::Temporary
                    })
                } else {
                    self.platform.history(self.now, after.as_deref())
                };
                let wait = self.rng.u64(1..300);
                self.schedule(wait, SimulationEvent::Input(life, Input::History(page)));
            }
            SimulationEvent::Connected(attempt, mode) if self.is_awaited(attempt) => {
                self.connected(mode);
                return self.step(Input::Connected);
            }
            SimulationEvent::ConnectFailed(attempt, failure) if self.is_awaited(attempt) => {
                self.awaited.connect = false;
                return self.step(Input::ConnectFailed(failure));
            }
            SimulationEvent::PlatformEvent(socket, said) => return self.say(socket, said),
            SimulationEvent::Received(socket, message) if self.is_open(socket) => {
                self.receive(socket, &message);
            }
            SimulationEvent::Pinged(socket) if self.is_open(socket) => {
                let input =
                    if self.rng.bool() { Input::PeerAlive } else { Input::Frame(IncomingFrame::Pong) };
                return self.step(input);
            }
            SimulationEvent::Unasked => self.speak_unasked(),
            SimulationEvent::Drain if self.machine.is_some() => {
                self.draining = true;
                return self.step(Input::Drain);
            }
            SimulationEvent::Kill => _ = self.kill("killed"),
            SimulationEvent::Pause => self.pause(),
            SimulationEvent::Wake => return self.wake(),
            SimulationEvent::Lease(valid) => return self.lease(valid),
            SimulationEvent::Outage(ms) => self.outage(ms),
            SimulationEvent::Failover(steps) => self.failover(steps),
            SimulationEvent::TakeOver if self.machine.is_none() => return self.take_over(),
            _ => {}
        }
        Ok(())
    }

    fn post(&mut self) -> CheckResult {
        let mut new = plain();
        let rng = &mut self.rng;
        let deadline = rng.u64(500..20_000);
        let expect = (rng.u8(0..3) == 0).then(|| rng.u64(1..4));
        let quiet = rng.bool().then(|| rng.u64(50..3000));
        if let Ok(rules) = TurnRules::new(expect, quiet, Some(deadline)) {
            new.rules = rules;
        }
        new.resend = if rng.bool() { ResendPolicy::Auto } else { ResendPolicy::Never };
        new.session = match rng.u8(0..8) {
            0 => SessionRequest::New,
            1 => SessionRequest::NewKeepAgent,
            2 => SessionRequest::Close,
            _ => SessionRequest::Continue,
        };
        new.callback =
            self.receivers.choice([None, Some(callback(None)), Some(callback(Some("crm")))]).flatten();
        new.trace = TraceId(self.receivers.choice([0, 7]).unwrap_or_default());
        if self.connects.u8(0..6) == 0 {
            new.event = Some(MessageEvent::Connect);
            new.content = MessageContent::without_text();
            if new.session == SessionRequest::Close || self.connects.bool() {
                new.session = SessionRequest::New;
            }
        }
        let now = Timestamp::from_millis(self.now);
        let continues = new.session == SessionRequest::Continue && !new.is_connect();
        let may_act = self.lease.valid && self.lease.known;
        if continues
            && may_act
            && self.machine.as_ref().is_some_and(|machine| machine.may_send_at_accept(now))
        {
            let lag = self.lag();
            self.schedule(lag, SimulationEvent::SendAtAccept(self.life, self.era, Box::new(new)));
            return self.step(Input::SendAtAcceptPending);
        }
        let message = self.accept(new, false);
        self.hint(&message);
        Ok(())
    }

    fn accept(&mut self, new: NewMessage, send_at_accept: bool) -> Arc<AcceptedMessage> {
        self.remember();
        self.posted += 1;
        let message = self.truth.accept(Timestamp::from_millis(self.now), new, send_at_accept);
        if message.new.is_connect() {
            self.posted_connects.insert(message.id);
        }
        self.note(|| {
            format!(
                "posted {} {:?} {:?} {:?} {:?}",
                message.id, message.new.event, message.new.rules, message.new.session, message.new.resend
            )
        });
        message
    }

    /// Accepts a message that its machine may send at its accept. The machine may be gone by then. If it does not learn
    /// of the accept, it finds the message in the lane.
    fn accept_and_send(&mut self, life: u32, era: u32, new: NewMessage) {
        if era != self.era || self.is_away() {
            // The caller retries.
            let wait = self.rng.u64(0..2000);
            self.schedule(wait, SimulationEvent::Post);
            self.schedule(1, SimulationEvent::Input(life, Input::NotSentAtAccept));
            return;
        }
        let owned = life == self.life && self.machine.is_some();
        let message = self.accept(new, owned);
        let sent = self.truth.lane.len() == 1 && owned;
        let wait = self.lag();
        if chance(&mut self.rng, self.faults.store_fails) {
            self.schedule(wait, SimulationEvent::Input(life, Input::NotSentAtAccept));
            return;
        }
        let input = if sent {
            self.may_go.insert(message.id);
            Input::SentAtAccept(message)
        } else {
            self.hint(&message);
            Input::NotSentAtAccept
        };
        self.schedule(wait, SimulationEvent::Input(life, input));
    }

    fn hint(&mut self, message: &Arc<AcceptedMessage>) {
        for _ in 0..2 {
            if !chance(&mut self.rng, self.faults.hint_lost) {
                let wait = self.rng.u64(0..3) * self.rng.u64(0..400);
                self.schedule(wait, SimulationEvent::Hint(Arc::clone(message)));
            }
            if !chance(&mut self.rng, self.faults.duplicate) {
                break;
            }
        }
    }

    fn connected(&mut self, mode: ConnectMode) {
        self.awaited.connect = false;
        self.sockets += 1;
        let socket = self.sockets;
        self.socket = Some((socket, false));
        if let Some(id) = self.connecting_for.take() {
            self.written_to.entry(id).or_default().insert(socket);
            self.truth.opened.insert(id);
        }
        self.connected_at = self.now;
        self.first_connect = !self.truth.knows_session();
        let new_session = match mode {
            ConnectMode::Default => !self.platform.session || self.rng.u8(0..3) == 0,
            ConnectMode::StartNew | ConnectMode::StartNewResumeAgent => true,
            ConnectMode::Reconnect => false,
        };
        self.platform.session = true;
        for (at, said) in self.platform.welcome(&mut self.rng, &self.faults, new_session) {
            self.schedule(at, SimulationEvent::PlatformEvent(socket, said));
        }
    }

    fn receive(&mut self, socket: u32, message: &AcceptedMessage) {
        if message.new.session == SessionRequest::Close {
            self.note(|| format!("the platform is to end the session: {}", message.id));
            let plan = self.platform.close(&mut self.rng, &self.faults, message.client_message_id);
            for (at, said) in plan {
                self.schedule(at, SimulationEvent::PlatformEvent(socket, said));
            }
            return;
        }
        let lag = self.history_lag();
        self.platform.received(self.now, lag, message.client_message_id);
        self.note(|| format!("the platform received {}", message.id));
        for (at, said) in self.platform.answer(&mut self.rng, &self.faults, message.client_message_id) {
            self.schedule(at, SimulationEvent::PlatformEvent(socket, said));
        }
    }

    fn say(&mut self, socket: u32, mut said: PlatformEvent) -> CheckResult {
        let mut socket = socket;
        if let PlatformEvent::Frame(IncomingFrame::Response(response)) = &mut said {
            let is_first = self.platform.first_said(self.now, response) == self.now;
            response.created_on = self.platform.created_on(&mut self.clocks, self.now, response);
            let lag = self.history_lag();
            self.platform.spoke(self.now, lag, response);
            self.note_missed(response, is_first);
            if !self.is_open(socket) && self.rng.bool() {
                // The platform may choose another socket of the user.
                socket = self.socket.map_or(socket, |(open, _)| open);
            }
        }
        if !self.is_open(socket) {
            self.note(|| format!("missed: {}", tell_said(&said)));
            if let PlatformEvent::Frame(IncomingFrame::Response(response)) = &said
                && self.socket.is_some_and(|(_, dead)| !dead)
            {
                // Another client heard a piece, and nothing tells us.
                self.masked.extend(response.message_id.clone());
            }
            return Ok(());
        }
        match said {
            PlatformEvent::Frame(frame) => {
                match &frame {
                    IncomingFrame::Ack { reply_to } => self.proved.extend(*reply_to),
                    IncomingFrame::Response(response) => self.heard(socket, response),
                    IncomingFrame::SessionEnd(_) => self.platform.session = false,
                    _ => {}
                }
                self.step(Input::Frame(frame))
            }
            PlatformEvent::Close(code) => {
                self.socket = None;
                self.step(Input::Lost(SocketLoss { code }))
            }
            PlatformEvent::Death => {
                self.note(|| "the peer is dead".into());
                self.socket = Some((socket, true));
                Ok(())
            }
        }
    }

    fn heard(&mut self, socket: u32, response: &BotResponse) {
        self.heard_at = self.now;
        self.proved.extend(response.correlation_id);
        let Some(id) = &response.message_id else { return };
        self.heard_on.entry(id.clone()).or_insert(socket);
        if self.heard_by.insert((self.life, id.clone())) {
            // The rest of a stream that began without a socket looks like an answer behind our message, and like a
            // greeting on the first connection.
            let begun = self.platform.text_so_far(id).len() > response.text.len();
            let answers = self.written_to.values().any(|sockets| sockets.contains(&socket));
            if begun && (answers || self.first_connect) {
                self.masked.insert(id.clone());
            }
        }
        self.echoes.extend(response.correlation_id.map(|echoed| (id.clone(), echoed)));
        self.heard_in.entry(id.clone()).or_insert(self.life);
        self.first_heard.entry(id.clone()).or_insert(self.steps + 1);
        if response.stream.as_ref().is_none_or(|stream| stream.last) {
            self.delivered.entry(id.clone()).or_insert(self.now);
        }
    }

    fn tell_machine(&mut self, input: Input) -> CheckResult {
        if self.machine.is_some() { self.step(input) } else { Ok(()) }
    }

    fn step(&mut self, input: Input) -> CheckResult {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        self.steps += 1;
        let now = Timestamp::from_millis(self.now);
        let input_text = self.trace.is_some().then(|| tell_input(&input));
        let is_tick = matches!(input, Input::Tick);
        // Neither a tick nor a late answer of history begins anything at rest.
        let stays_at_rest = is_tick || matches!(input, Input::History(_));
        self.hash = mix(self.hash, self.now ^ kind(&input));
        let mut effects = Vec::new();
        if self.lease.known != self.lease.valid {
            self.lease.known = self.lease.valid;
            machine.step(now, Input::Lease(self.lease.valid), &mut effects);
        }
        machine.step(now, input, &mut effects);
        let wake = machine.wake_at();
        let state = machine.link_state(now);
        self.hash = mix(self.hash, wake.map_or(1, Timestamp::as_millis));
        if let Some(input_text) = input_text {
            let effects: Vec<_> = effects.iter().map(tell_effect).collect();
            let wake = wake.map(|wake| wake.as_millis().wrapping_sub(START));
            self.note(|| format!("{input_text} -> {effects:?} {state:?} wake {wake:?}"));
        }
        if effects.len() > MOST_EFFECTS {
            return Err(format!("{} effects in one step", effects.len()));
        }
        self.rested = effects.is_empty() && self.rested && stays_at_rest;
        self.effects.extend(effects);
        if self.performs {
            // As in the driver, the effects of an effect come after the others.
            return Ok(());
        }
        self.performs = true;
        while let Some(effect) = self.effects.pop_front() {
            self.hash = mix(self.hash, kind(&effect));
            self.perform(effect)?;
        }
        self.performs = false;
        self.check_wake(is_tick)
    }

    fn check_wake(&mut self, is_tick: bool) -> CheckResult {
        let Some(machine) = &self.machine else { return Ok(()) };
        let wake = machine.wake_at();
        let due = wake.is_some_and(|wake| wake.as_millis() <= self.now);
        self.idle_ticks = if is_tick && due { self.idle_ticks + 1 } else { 0 };
        if self.idle_ticks > 3 {
            return Err("a busy loop: a tick does not move the time of the next".into());
        }
        let awaits =
            self.awaited.write || self.awaited.lane || self.awaited.connect || self.awaited.history > 0;
        if machine.open_messages() > 0 && !self.draining && !awaits && wake.is_none() {
            return Err("a dead wait: messages are open, nothing is awaited and no time is named".into());
        }
        Ok(())
    }

    /// Checks the stored end of a message: its time, and its replies.
    fn check_end(&mut self, id: MessageId, since: Timestamp, at: Timestamp) -> CheckResult {
        self.ended_here.push(id);
        let Some(message) = self.truth.ended.get(&id) else { return Ok(()) };
        if self.ends.insert(id, message.clone()).is_some() && !self.truth.lossy {
            return Err(format!("{id} ended twice"));
        }
        let deadline = message.accepted.new.rules.deadline().unwrap_or(self.bot.deadline);
        let rate = if self.bot.user_rate_per_minute > 0 { 60_000 } else { 0 };
        // An unavailable store delays every step by design.
        let store = if self.faults.store_fails > 0 { 30_000 } else { 5 * self.faults.store_lag };
        let lost = if self.truth.lossy { 60_000 } else { 0 };
        // Each new owner of a connect has five seconds to find the greeting.
        let resumed = if message.accepted.new.is_connect() { 5000 * u64::from(self.life) } else { 0 };
        let slack = 1000 + resumed + store + rate + lost + 2 * self.downtime + 2 * self.hindered;
        let most = 2 * u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) + slack;
        let took = u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        if took > most {
            return Err(format!("{id} ended after {took} ms, {most} ms at most"));
        }
        self.check_receipt(message)?;
        let Some(&SentMessage { step: sent, .. }) = self.sends.get(&id) else { return Ok(()) };
        // An echo may be of an earlier sending, whose mark the store lost.
        let is_joined = |reply: &&Arc<Reply>| !reply.late && reply.correlation != Correlation::Exact;
        for reply in message.progress.replies.iter().filter(is_joined) {
            // A reply that only an earlier owner heard comes from history without its start.
            let id_heard =
                reply.message_id.as_ref().filter(|id| self.heard_in.get(id.as_ref()) == Some(&self.life));
            let heard = id_heard.and_then(|id| self.first_heard.get(id));
            if heard.is_some_and(|&heard| heard <= sent) {
                return Err(format!(
                    "{:?} was heard before {id} was sent and is joined to it",
                    reply.message_id
                ));
            }
        }
        Ok(())
    }

    /// Checks that no reply of another link answers a message that never reached the platform.
    fn check_receipt(&self, message: &Message) -> CheckResult {
        let Message { accepted, progress } = message;
        // The open socket proves a message that only connects.
        if accepted.new.is_connect() || self.platform.has_received(accepted.client_message_id) {
            return Ok(());
        }
        // Without numbers, a new owner may take an earlier message with the same text for this one (docs/adr/0032).
        let sender = self.sends.get(&accepted.id).map(|sending| sending.life);
        if self.platform.odd.is_unnumbered() && sender != Some(self.life) {
            return Ok(());
        }
        let written_to = self.written_to.get(&accepted.id);
        let is_own = |on: &u32| written_to.is_some_and(|sockets| sockets.contains(on));
        let heard = progress.replies.iter().filter(|reply| !reply.late).filter_map(|reply| {
            let id = reply.message_id.as_ref()?;
            Some((id, self.heard_on.get(id)?))
        });
        // A reply behind the message on its own link counts as its answer, and proves the receipt.
        let proved = heard.clone().any(|(_, on)| is_own(on));
        match heard.filter(|(_, on)| !is_own(on)).map(|(id, _)| id).next() {
            Some(id) if !proved && !self.truth.lossy => {
                Err(format!("{id} answers {}, which was not received", accepted.id))
            }
            _ => Ok(()),
        }
    }

    /// Checks the joined replies against their echoes. A reply is exact if and only if its echo says so.
    fn check_replies(&self, message: &Message) -> CheckResult {
        let Message { accepted, progress } = message;
        if accepted.new.session == SessionRequest::Close && !progress.replies.is_empty() {
            return Err(format!("{} ends the session and has replies", accepted.id));
        }
        for reply in &progress.replies {
            let echoes = reply.message_id.as_ref().and_then(|id| self.echoes.get(id));
            let is_own = echoes == Some(&accepted.client_message_id);
            let is_exact = reply.correlation == Correlation::Exact;
            // History does not tell the answered message.
            let is_known = reply.correlation != Correlation::History;
            if is_exact != is_own && (is_exact || is_known) || is_known && echoes.is_some() && !is_own {
                return Err(format!(
                    "{:?} echoes {echoes:?} and is {:?} to {}",
                    reply.message_id, reply.correlation, accepted.id
                ));
            }
        }
        Ok(())
    }

    fn kill(&mut self, how: &str) -> Option<Machine> {
        let machine = self.machine.take()?;
        self.note(|| how.to_owned());
        self.note_unstored();
        self.socket = None;
        self.life += 1;
        self.killed_at = self.now;
        self.draining = false;
        self.rested = false;
        let wait = self.rng.u64(0..3) * self.rng.u64(0..12_000);
        self.schedule(wait, SimulationEvent::TakeOver);
        Some(machine)
    }

    fn take_over(&mut self) -> CheckResult {
        self.life += 1;
        self.downtime += self.now - self.killed_at;
        self.awaited = PendingAnswers::default();
        self.unsettled = false;
        self.completed.clear();
        self.forgotten.clear();
        self.may_go.clear();
        if self.truth.lossy {
            // A message that an earlier owner sent may be queued again.
            self.last_sent = 0;
        }
        self.lease = Lease::VALID;
        self.ended_here.clear();
        self.proved.clear();
        self.delivered.clear();
        if let Some(head) = self.truth.head().filter(|head| head.progress.sent_at.is_some()) {
            let id = head.accepted.id;
            self.truth.sent.insert(id);
            self.may_go.insert(id);
        }
        self.note(|| "a new owner".into());
        self.truth.forget_unnoticed();
        let now = Timestamp::from_millis(self.now);
        let seed = self.rng.u64(..);
        self.machine = Some(Machine::new(
            Arc::clone(&self.bot),
            self.rhythm.clone(),
            plain().conversation,
            self.truth.open(),
            now,
            seed,
        ));
        self.step(Input::Tick)
    }

    fn is_awaited(&self, attempt: u32) -> bool {
        self.awaited.connect && attempt == self.attempts && self.machine.is_some()
    }

    fn is_open(&self, socket: u32) -> bool {
        self.socket == Some((socket, false))
    }

    fn lag(&mut self) -> u64 {
        self.rng.u64(1..=self.faults.store_lag)
    }

    fn history_lag(&mut self) -> u64 {
        self.rng.u64(0..=self.faults.history_lag)
    }

    fn schedule(&mut self, wait: u64, event: SimulationEvent) {
        self.scheduled += 1;
        self.queue.insert((self.now + wait, self.scheduled), event);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let mut line = format!("{:>8} ", self.now - START);
            let _ = line.write_str(&what());
            trace.push(line);
        }
    }
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Returns the variant as a number.
fn kind<T>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    hasher.finish()
}

/// Gives a third of the bots a rhythm that is learned. It is drawn apart, so that the rest of a run does not depend on it.
fn draw_rhythm(bot: &mut BotConfig, seed: u64) -> Option<Arc<SharedRhythm>> {
    if Rng::with_seed(seed.rotate_left(48)).u8(0..3) == 0 {
        bot.quiet = QuietRule::Auto;
    }
    SharedRhythm::of(bot).map(Arc::new)
}
