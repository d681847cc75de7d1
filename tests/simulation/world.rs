//! One run: a machine, a platform, a store and callers in simulated time, all drawn from one seed.

mod deeds;
mod missed;
mod trouble;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::{
    AcceptedMessage, Correlation, Message, MessageId, NewMessage, ResendPolicy, SessionRequest, Timestamp,
    TraceId, TurnOutcome, TurnRules,
};
use rtm_bridge::link::{ConnectFailure, HistoryFailure, Input, Machine, SocketLoss};
use rtm_bridge::rtm::{BotResponse, ConnectMode, IncomingFrame};
use rtm_bridge::store::ConversationWrite;

use super::platform::{Platform, Said, Temper, chance};
use super::receivers::Receivers;
use super::store::{Applied, Truth};
use super::support::{bot, callback, plain, webhook};
use super::trace::{tell_effect, tell_input, tell_said};

const START: u64 = 1_763_845_000_000;
/// No run is longer than this many simulated milliseconds; no message may be open so long.
const END: u64 = 3_000_000;
const MOST_EFFECTS: usize = 24;

type Outcomes = Result<(), String>;

enum Event {
    Post,
    /// A message that this life's machine may send at its accept arrives at the store.
    SendAtAccept(u32, u32, Box<NewMessage>),
    Hint(Arc<AcceptedMessage>),
    Scan,
    /// For the machine of this life only.
    Input(u32, Input),
    /// Over the connections of this time; somebody waits for the answer or has given up.
    Apply(u32, u32, Arc<ConversationWrite>, bool),
    ReadLane(u32),
    ReadHistory(u32, Option<Box<str>>),
    /// For this connect only.
    Connected(u32, ConnectMode),
    ConnectFailed(u32, ConnectFailure),
    /// Over this socket.
    Said(u32, Said),
    Received(u32, Arc<AcceptedMessage>),
    Pinged(u32),
    /// The bot speaks of itself.
    Unasked,
    Drain,
    Kill,
    /// The owner stands still, and goes on when another one has taken over.
    Pause,
    Wake,
    TakeOver,
    Lease(bool),
    /// The store is away for so long.
    Outage(u64),
    /// The store goes back by so many steps.
    Failover(usize),
}

/// What the machine waits for.
#[derive(Default)]
struct Awaited {
    write: bool,
    lane: bool,
    connect: bool,
    history: u32,
}

/// Whether the lease is sure, and whether the machine was told so.
struct Lease {
    sure: bool,
    told: bool,
}

impl Lease {
    const SURE: Self = Self { sure: true, told: true };
}

#[derive(Clone, Copy)]
struct Sending {
    step: u64,
    socket: u32,
    life: u32,
}

pub(super) struct World {
    rng: Rng,
    /// Draws who is to be told: apart, so that nothing else of a run depends on it.
    receivers: Rng,
    temper: Temper,
    bot: Arc<BotConfig>,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    truth: Truth,
    /// What the store was, step by step, where it will go back.
    past: Vec<Truth>,
    /// Counts the store's failovers: what was on its way to it is gone then.
    era: u32,
    /// When the store is there again.
    away_until: u64,
    /// Time in which the store was away or the lease not sure.
    hindered: u64,
    lease: Lease,
    /// A machine that stands still, and whether it waits for a write that is carried out.
    paused: Option<(Machine, bool)>,
    platform: Platform,
    /// What the bot said that nobody heard, or that was heard and not stored.
    missed: HashSet<Box<str>>,
    /// When the last connect succeeded.
    connected_at: u64,
    machine: Option<Machine>,
    life: u32,
    awaited: Awaited,
    /// The store's last answer was none: the write will be repeated.
    unsettled: bool,
    draining: bool,
    rested: bool,
    /// The socket that is open, and whether its peer has died.
    socket: Option<(u32, bool)>,
    sockets: u32,
    /// Connects so far; the answers to all but the last come to nothing.
    attempts: u32,
    to_post: u32,
    posted: u32,
    /// Time in which no machine lived.
    downtime: u64,
    killed_at: u64,
    /// In this life: messages that were told and that ended, that are known to be received; replies delivered.
    told: HashSet<MessageId>,
    forgotten: HashSet<MessageId>,
    /// Messages whose sending the store confirmed.
    may_go: HashSet<MessageId>,
    /// What was stored of each end, over all lives.
    ends: HashMap<MessageId, Message>,
    ended_here: Vec<MessageId>,
    proved: HashSet<u64>,
    delivered: HashSet<Box<str>>,
    /// The last step that sent a message, and the first that delivered a reply, over all lives.
    sends: HashMap<MessageId, Sending>,
    first_heard: HashMap<Box<str>, u64>,
    /// The life in which a reply was first delivered.
    heard_in: HashMap<Box<str>, u32>,
    /// What replies said that they answer.
    echoes: HashMap<Box<str>, u64>,
    last_sent: u64,
    steps: u64,
    idle_ticks: u32,
    hash: u64,
    trace: Option<Vec<String>>,
}

/// How a run went.
pub(super) struct Run {
    pub(super) hash: u64,
    pub(super) failure: Option<String>,
    pub(super) trace: Vec<String>,
    pub(super) outcomes: Vec<&'static str>,
}

impl World {
    pub(super) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let temper = Temper::draw(&mut rng);
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
        bot.webhook = receivers.bool().then(webhook);
        let webhook =
            bot.webhook.as_ref().and_then(|webhook| webhook.url.as_ref()).map(|url| url.as_str().into());
        let mut world = Self {
            receivers,
            bot: Arc::new(bot),
            now: START,
            queue: BTreeMap::new(),
            scheduled: 0,
            truth: Truth::of(Receivers::of(webhook)),
            past: Vec::new(),
            era: 0,
            away_until: START,
            hindered: 0,
            lease: Lease::SURE,
            paused: None,
            platform: Platform::default(),
            missed: HashSet::new(),
            connected_at: START,
            machine: None,
            life: 0,
            awaited: Awaited::default(),
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
            told: HashSet::new(),
            forgotten: HashSet::new(),
            may_go: HashSet::new(),
            ends: HashMap::new(),
            ended_here: Vec::new(),
            proved: HashSet::new(),
            delivered: HashSet::new(),
            sends: HashMap::new(),
            first_heard: HashMap::new(),
            heard_in: HashMap::new(),
            echoes: HashMap::new(),
            last_sent: 0,
            steps: 0,
            idle_ticks: 0,
            hash: 0,
            trace: traced.then(Vec::new),
            temper,
            rng,
        };
        let mut at = 0;
        for _ in 0..world.to_post {
            at += if world.rng.bool() { world.rng.u64(0..300) } else { world.rng.u64(0..40_000) };
            world.schedule(at, Event::Post);
        }
        for _ in 0..3 {
            if chance(&mut world.rng, world.temper.kills) {
                let at = world.rng.u64(0..at + 60_000);
                let event = world.rng.choice([Event::Drain, Event::Drain, Event::Kill, Event::Pause]);
                world.schedule(at, event.unwrap_or(Event::Kill));
            }
        }
        world.plan_trouble(at + 60_000);
        world.plan_unasked(at + 60_000);
        world.schedule(0, Event::TakeOver);
        world.schedule(1000, Event::Scan);
        world
    }

    pub(super) fn run(mut self) -> Run {
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
        trace.insert(0, format!("{:?} {:?}", self.temper, self.bot));
        Run { hash: self.hash, failure, trace, outcomes }
    }

    fn live(&mut self) -> Outcomes {
        loop {
            let wake = self.machine.as_ref().and_then(Machine::wake_at).map(Timestamp::as_millis);
            let next = self.queue.first_key_value().map(|(&(at, _), _)| at);
            match (wake, next) {
                (None, None) => return Err("nothing will ever happen again".into()),
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
        answered && (self.rested || never_rests && idle && self.queue.len() <= 1)
    }

    fn at_the_end(&self) -> Outcomes {
        if self.truth.ended.len() != self.posted as usize && !self.truth.lossy {
            return Err(format!("{} posted, {} ended", self.posted, self.truth.ended.len()));
        }
        let said = |id: &MessageId| self.told.contains(id) || self.forgotten.contains(id);
        if let Some(id) = self.ended_here.iter().find(|id| !said(id)) {
            return Err(format!("{id} ended and was not told"));
        }
        self.check_missed()?;
        for message in self.truth.ended.values() {
            self.check_replies(message)?;
        }
        for id in &self.delivered {
            if !self.truth.replies.contains(id) && !self.truth.lossy {
                return Err(format!("{id} was heard and is not in the journal"));
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Outcomes {
        match event {
            Event::Post if self.is_away() => {
                let wait = self.away_until - self.now + self.rng.u64(0..500);
                self.schedule(wait, Event::Post);
            }
            Event::Post => return self.post(),
            Event::SendAtAccept(life, era, new) => self.accept_and_send(life, era, *new),
            Event::Hint(message) => return self.tell_machine(Input::Accepted(message)),
            Event::Scan => {
                let wait = 1000;
                self.schedule(wait, Event::Scan);
                if !self.truth.lane.is_empty() && !self.is_away() {
                    return self.tell_machine(Input::Woken);
                }
            }
            Event::Input(life, input) if life == self.life && self.machine.is_some() => {
                match &input {
                    Input::Stored { .. } | Input::Unknown | Input::OutOfStep => {
                        self.awaited.write = false;
                        self.unsettled = matches!(input, Input::Unknown);
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
            Event::Apply(life, era, write, awaited) if life == self.life => {
                return self.apply(era, &write, awaited);
            }
            Event::ReadLane(life) if life == self.life && self.is_away() => {
                let wait = self.away_until - self.now + self.lag();
                self.schedule(wait, Event::ReadLane(life));
            }
            Event::ReadLane(life) if life == self.life => {
                let lane = Box::new(self.truth.open());
                // It may be lost before the answer arrives.
                let sent = lane.lane.iter().filter(|open| open.progress.sent_at.is_some());
                self.may_go.extend(sent.map(|open| open.accepted.id));
                let wait = self.lag();
                self.schedule(wait, Event::Input(life, Input::Lane(lane)));
            }
            Event::ReadHistory(life, after) if life == self.life => {
                let page = if chance(&mut self.rng, self.temper.history_fails) {
                    Err(if self.rng.u8(0..4) == 0 { HistoryFailure::ForGood } else { HistoryFailure::Now })
                } else {
                    self.platform.history(self.now, after.as_deref())
                };
                let wait = self.rng.u64(1..300);
                self.schedule(wait, Event::Input(life, Input::History(page)));
            }
            Event::Connected(attempt, mode) if self.is_awaited(attempt) => {
                self.connected(mode);
                return self.step(Input::Connected);
            }
            Event::ConnectFailed(attempt, failure) if self.is_awaited(attempt) => {
                self.awaited.connect = false;
                return self.step(Input::ConnectFailed(failure));
            }
            Event::Said(socket, said) => return self.say(socket, said),
            Event::Received(socket, message) if self.is_open(socket) => self.receive(socket, &message),
            Event::Pinged(socket) if self.is_open(socket) => {
                let input = if self.rng.bool() { Input::Heard } else { Input::Frame(IncomingFrame::Pong) };
                return self.step(input);
            }
            Event::Unasked => self.speak_unasked(),
            Event::Drain if self.machine.is_some() => {
                self.draining = true;
                return self.step(Input::Drain);
            }
            Event::Kill => _ = self.kill("killed"),
            Event::Pause => self.pause(),
            Event::Wake => return self.wake(),
            Event::Lease(sure) => return self.lease(sure),
            Event::Outage(ms) => self.outage(ms),
            Event::Failover(steps) => self.failover(steps),
            Event::TakeOver if self.machine.is_none() => return self.take_over(),
            _ => {}
        }
        Ok(())
    }

    fn post(&mut self) -> Outcomes {
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
        self.posted += 1;
        let now = Timestamp::from_millis(self.now);
        let continues = new.session == SessionRequest::Continue;
        let may_act = self.lease.sure && self.lease.told;
        if continues
            && may_act
            && self.machine.as_ref().is_some_and(|machine| machine.may_send_at_accept(now))
        {
            let lag = self.lag();
            self.schedule(lag, Event::SendAtAccept(self.life, self.era, Box::new(new)));
            return self.step(Input::SendAtAcceptPending);
        }
        let message = self.accept(new, false);
        self.hint(&message);
        Ok(())
    }

    fn accept(&mut self, new: NewMessage, send_at_accept: bool) -> Arc<AcceptedMessage> {
        self.remember();
        let message = self.truth.accept(Timestamp::from_millis(self.now), new, send_at_accept);
        self.note(|| {
            format!(
                "posted {} {:?} {:?} {:?}",
                message.id, message.new.rules, message.new.session, message.new.resend
            )
        });
        message
    }

    /// Accepts a message that its machine may send at its accept. The machine may be gone by then. If it does not learn
    /// of the accept, it finds the message in the lane.
    fn accept_and_send(&mut self, life: u32, era: u32, new: NewMessage) {
        if era != self.era || self.is_away() {
            // Its caller tries again.
            self.posted -= 1;
            let wait = self.rng.u64(0..2000);
            self.schedule(wait, Event::Post);
            self.schedule(1, Event::Input(life, Input::NotSentAtAccept));
            return;
        }
        let owned = life == self.life && self.machine.is_some();
        let message = self.accept(new, owned);
        let sent = self.truth.lane.len() == 1 && owned;
        let wait = self.lag();
        if chance(&mut self.rng, self.temper.store_fails) {
            self.schedule(wait, Event::Input(life, Input::NotSentAtAccept));
            return;
        }
        let input = if sent {
            self.may_go.insert(message.id);
            Input::SentAtAccept(message)
        } else {
            self.hint(&message);
            Input::NotSentAtAccept
        };
        self.schedule(wait, Event::Input(life, input));
    }

    fn hint(&mut self, message: &Arc<AcceptedMessage>) {
        for _ in 0..2 {
            if !chance(&mut self.rng, self.temper.hint_lost) {
                let wait = self.rng.u64(0..3) * self.rng.u64(0..400);
                self.schedule(wait, Event::Hint(Arc::clone(message)));
            }
            if !chance(&mut self.rng, self.temper.duplicate) {
                break;
            }
        }
    }

    fn connected(&mut self, mode: ConnectMode) {
        self.awaited.connect = false;
        self.sockets += 1;
        let socket = self.sockets;
        self.socket = Some((socket, false));
        self.connected_at = self.now;
        let new_session = match mode {
            ConnectMode::Default => !self.platform.session || self.rng.u8(0..3) == 0,
            ConnectMode::StartNew | ConnectMode::StartNewResumeAgent => true,
            ConnectMode::Reconnect => false,
        };
        self.platform.session = true;
        for (at, said) in self.platform.welcome(&mut self.rng, &self.temper, new_session) {
            self.schedule(at, Event::Said(socket, said));
        }
    }

    fn receive(&mut self, socket: u32, message: &AcceptedMessage) {
        if message.new.session == SessionRequest::Close {
            self.note(|| format!("the platform is to end the session: {}", message.id));
            let plan = self.platform.close(&mut self.rng, &self.temper, message.client_message_id);
            for (at, said) in plan {
                self.schedule(at, Event::Said(socket, said));
            }
            return;
        }
        let lag = self.history_lag();
        self.platform.received(self.now, lag, message.client_message_id);
        self.note(|| format!("the platform received {}", message.id));
        for (at, said) in self.platform.answer(&mut self.rng, &self.temper, message.client_message_id) {
            self.schedule(at, Event::Said(socket, said));
        }
    }

    fn say(&mut self, socket: u32, mut said: Said) -> Outcomes {
        let mut socket = socket;
        if let Said::Frame(IncomingFrame::Response(response)) = &mut said {
            response.created_on = Some(self.platform.created_on(self.now, response));
            let lag = self.history_lag();
            self.platform.spoke(self.now, lag, response);
            self.note_missed(response);
            if !self.is_open(socket) && self.rng.bool() {
                // Another socket of the user is there: the platform may choose it.
                socket = self.socket.map_or(socket, |(open, _)| open);
            }
        }
        if !self.is_open(socket) {
            self.note(|| format!("missed: {}", tell_said(&said)));
            return Ok(());
        }
        match said {
            Said::Frame(frame) => {
                match &frame {
                    IncomingFrame::Ack { reply_to } => self.proved.extend(*reply_to),
                    IncomingFrame::Response(response) => self.heard(response),
                    IncomingFrame::SessionEnd(_) => self.platform.session = false,
                    _ => {}
                }
                self.step(Input::Frame(frame))
            }
            Said::Close(code) => {
                self.socket = None;
                self.step(Input::Lost(SocketLoss { code }))
            }
            Said::Death => {
                self.note(|| "the peer is dead".into());
                self.socket = Some((socket, true));
                Ok(())
            }
        }
    }

    fn heard(&mut self, response: &BotResponse) {
        self.proved.extend(response.correlation_id);
        let Some(id) = &response.message_id else { return };
        self.echoes.extend(response.correlation_id.map(|echoed| (id.clone(), echoed)));
        self.heard_in.entry(id.clone()).or_insert(self.life);
        self.first_heard.entry(id.clone()).or_insert(self.steps + 1);
        if response.stream.as_ref().is_none_or(|stream| stream.last) {
            self.delivered.insert(id.clone());
        }
    }

    fn tell_machine(&mut self, input: Input) -> Outcomes {
        if self.machine.is_some() { self.step(input) } else { Ok(()) }
    }

    fn step(&mut self, input: Input) -> Outcomes {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        self.steps += 1;
        let now = Timestamp::from_millis(self.now);
        let told = self.trace.is_some().then(|| tell_input(&input));
        let is_tick = matches!(input, Input::Tick);
        self.hash = mix(self.hash, self.now ^ kind(&input));
        let mut effects = Vec::new();
        if self.lease.told != self.lease.sure {
            self.lease.told = self.lease.sure;
            machine.step(now, Input::Lease(self.lease.sure), &mut effects);
        }
        machine.step(now, input, &mut effects);
        let wake = machine.wake_at();
        let state = machine.link_state(now);
        self.hash = mix(self.hash, wake.map_or(1, Timestamp::as_millis));
        if let Some(told) = told {
            let effects: Vec<_> = effects.iter().map(tell_effect).collect();
            let wake = wake.map(|wake| wake.as_millis().wrapping_sub(START));
            self.note(|| format!("{told} -> {effects:?} {state:?} wake {wake:?}"));
        }
        if effects.len() > MOST_EFFECTS {
            return Err(format!("{} effects in one step", effects.len()));
        }
        self.rested = effects.is_empty() && self.rested && is_tick;
        for effect in effects {
            self.hash = mix(self.hash, kind(&effect));
            self.perform(effect)?;
        }
        self.check_wake(is_tick, wake)
    }

    fn check_wake(&mut self, is_tick: bool, wake: Option<Timestamp>) -> Outcomes {
        let Some(machine) = &self.machine else { return Ok(()) };
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

    /// A message ended in the store: in time, and with replies that could have been its own.
    fn check_end(&mut self, id: MessageId, since: Timestamp, at: Timestamp) -> Outcomes {
        self.ended_here.push(id);
        let Some(message) = self.truth.ended.get(&id) else { return Ok(()) };
        if self.ends.insert(id, message.clone()).is_some() && !self.truth.lossy {
            return Err(format!("{id} ended twice"));
        }
        let deadline = message.accepted.new.rules.deadline().unwrap_or(self.bot.deadline);
        let rate = if self.bot.user_rate_per_minute > 0 { 60_000 } else { 0 };
        // A store that does not answer holds every step up, by design.
        let store = if self.temper.store_fails > 0 { 30_000 } else { 5 * self.temper.store_lag };
        let lost = if self.truth.lossy { 60_000 } else { 0 };
        let slack = 1000 + store + rate + lost + 2 * self.downtime + 2 * self.hindered;
        let most = 2 * u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) + slack;
        let took = u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        if took > most {
            return Err(format!("{id} ended after {took} ms, {most} ms at most"));
        }
        let Some(&Sending { step: sent, .. }) = self.sends.get(&id) else { return Ok(()) };
        for reply in message.progress.replies.iter().filter(|reply| !reply.late) {
            // What an earlier owner heard and took with it, history tells the next one without its beginning.
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

    /// What is joined to a message says nothing else itself; and it is sure where it says so, and only there.
    fn check_replies(&self, message: &Message) -> Outcomes {
        let Message { accepted, progress } = message;
        if accepted.new.session == SessionRequest::Close && !progress.replies.is_empty() {
            return Err(format!("{} ends the session and has replies", accepted.id));
        }
        for reply in &progress.replies {
            let echoes = reply.message_id.as_ref().and_then(|id| self.echoes.get(id));
            let is_own = echoes == Some(&accepted.client_message_id);
            let is_exact = reply.correlation == Correlation::Exact;
            // History is not asked what a reply answers.
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
        self.schedule(wait, Event::TakeOver);
        Some(machine)
    }

    fn take_over(&mut self) -> Outcomes {
        self.life += 1;
        self.downtime += self.now - self.killed_at;
        self.awaited = Awaited::default();
        self.unsettled = false;
        self.told.clear();
        self.forgotten.clear();
        self.may_go.clear();
        if self.truth.lossy {
            // What an earlier owner sent may be queued again.
            self.last_sent = 0;
        }
        self.lease = Lease::SURE;
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
        self.machine =
            Some(Machine::new(Arc::clone(&self.bot), plain().conversation, self.truth.open(), now, seed));
        self.step(Input::Tick)
    }

    fn is_awaited(&self, attempt: u32) -> bool {
        self.awaited.connect && attempt == self.attempts && self.machine.is_some()
    }

    fn is_open(&self, socket: u32) -> bool {
        self.socket == Some((socket, false))
    }

    fn lag(&mut self) -> u64 {
        self.rng.u64(1..=self.temper.store_lag)
    }

    fn history_lag(&mut self) -> u64 {
        self.rng.u64(0..=self.temper.history_lag)
    }

    fn schedule(&mut self, wait: u64, event: Event) {
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

/// Which variant it is, as a number.
fn kind<T>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    hasher.finish()
}
