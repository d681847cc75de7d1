//! The thin shell around the machine: performs its effects and feeds back what happened.
//!
//! One local task per conversation, on a shard's thread. All waiting is in one place, [`Driver::event`]; calls that
//! take time (connect, write, history) are boxed while they run, so that an idle conversation keeps none of their
//! memory. It decides nothing.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::clock::StoreClock;
use super::input::{Aside, ConnectFailure, Effect, HistoryFailure, Input, Loss};
use super::machine::{LinkState, Machine};
use super::mailbox::{Mail, Mailbox};
use crate::config::Bot;
use crate::domain::{ConversationId, Entry, EntryBody, Message, Outcome, Problem, ProblemKind, Timestamp};
use crate::metrics::{BotMetrics, StoreMetrics};
use crate::rtm::{
    ConnectError, ConnectMode, Connector, Grant, HistoryPage, Incoming, Received, Retry, Socket, frame,
    history_page, translate,
};
use crate::store::{Change, Fence, Open, Store, StoreError, Write};

/// What a conversation needs of the shard it lives on.
pub trait Host: 'static {
    /// The store.
    fn store(&self) -> &Store;
    /// The store's time.
    fn clock(&self) -> &StoreClock;
    /// Opens sockets.
    fn connector(&self) -> &Connector;
    /// Comes back when the bot's connect budget allows one more.
    fn connect_permit(&self, bot: &Bot) -> impl Future<Output = ()>;
    /// The message's end is stored: tells whoever waits for it.
    fn tell(&self, message: Message);
    /// The conversation has nothing open since then, or has something open again.
    fn idle(&self, mailbox: &Mailbox, since: Option<Timestamp>);
    /// What the bot's links count.
    fn bot_metrics(&self, bot: &Bot) -> Option<Arc<BotMetrics>>;
    /// What writes count.
    fn write_metrics(&self) -> &StoreMetrics;
}

/// Words under which incoming frames are counted.
pub const FRAMES_IN: &[&str] = &Incoming::KINDS;

/// Words under which outgoing frames are counted.
pub const FRAMES_OUT: &[&str] = &["message", "ping"];

/// Why a conversation left memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is open.
    Rested,
    /// It was told to stop; what is open goes over as recorded.
    Stopped,
    /// The partition belongs to another owner.
    Fenced,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Lives a conversation: loads it, drives it, and returns when it leaves memory.
pub async fn run<H: Host>(
    host: Rc<H>,
    bot: Arc<Bot>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
) -> Exit {
    let Some(metrics) = host.bot_metrics(&bot) else { return Exit::Stopped };
    let Some(open) = Box::pin(load(&*host, fence, &conversation)).await else { return Exit::Fenced };
    let now = host.clock().now();
    let machine = Machine::new(Arc::clone(&bot), open, now, fastrand::u64(..));
    let driver = Driver {
        metrics,
        host,
        bot,
        conversation,
        fence,
        mailbox,
        machine,
        effects: Vec::new(),
        socket: None,
        grant: Rc::default(),
        connecting: None,
        writing: None,
        reading: None,
        history: None,
        timer: Box::pin(sleep_until(Instant::now())),
        armed: None,
        state: LinkState::Cold,
        ping: 0,
    };
    driver.run().await
}

/// The conversation as the store knows it, however long that takes. None where it is no longer ours.
async fn load<H: Host>(host: &H, fence: Fence, conversation: &ConversationId) -> Option<Open> {
    let mut backoff = Backoff::default();
    loop {
        match host.store().open(fence, conversation).await {
            Ok((open, now)) => {
                host.clock().observe(now);
                return Some(open);
            }
            Err(StoreError::Fenced) => return None,
            Err(error @ StoreError::Unknown(_)) => {
                debug!(%conversation, %error, "the conversation could not be read; trying again");
                tokio::time::sleep(backoff.next(fastrand::f64(), Duration::ZERO)).await;
            }
        }
    }
}

/// Fails everything that is open: its task panicked, and would again.
pub async fn fail_open<H: Host>(host: &H, fence: Fence, conversation: &ConversationId) {
    let Some(open) = load(host, fence, conversation).await else { return };
    let now = host.clock().now();
    let mut record = open.record;
    record.write += 1;
    let problem =
        Problem::new(ProblemKind::Internal, "the bridge failed while the message was open; this is a bug");
    let outcome = Outcome::Failed(problem);
    let changes = open.lane.iter().map(|open| {
        record.seq += 1;
        let body = EntryBody::Ended { message: open.accepted.id, outcome: outcome.clone() };
        Change::Append(Entry { seq: record.seq, at: now, body })
    });
    let changes = changes.collect();
    let write = Write { record, changes };
    let mut backoff = Backoff::default();
    while let Err(StoreError::Unknown(_)) = host.store().write(fence, conversation, &write).await {
        tokio::time::sleep(backoff.next(fastrand::f64(), Duration::ZERO)).await;
    }
    for open in open.lane {
        if let Ok(Some(message)) = host.store().message(conversation, open.accepted.id).await {
            host.tell(message);
        }
    }
}

struct Driver<H> {
    host: Rc<H>,
    bot: Arc<Bot>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
    metrics: Arc<BotMetrics>,
    machine: Machine,
    effects: Vec<Effect>,
    socket: Option<Socket>,
    /// The lock makes grants single flight: a connect and a read of history may both want one.
    grant: Rc<Mutex<Option<Grant>>>,
    connecting: Option<Boxed<Result<Socket, ConnectError>>>,
    writing: Option<Boxed<Result<Timestamp, StoreError>>>,
    reading: Option<Boxed<Option<Open>>>,
    history: Option<Boxed<Result<HistoryPage, HistoryFailure>>>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, until it has gone off; it may be earlier than needed, never later.
    armed: Option<Timestamp>,
    state: LinkState,
    ping: u64,
}

/// What the driver waits for.
enum Event {
    Input(Input),
    Stop,
    Fenced,
}

impl<H: Host> Driver<H> {
    async fn run(mut self) -> Exit {
        self.step(Input::Tick);
        loop {
            match self.settle().await {
                None => {}
                Some(Exit::Rested) if !self.mailbox.is_empty() => {}
                Some(exit) => return self.leave(exit).await,
            }
            self.arm();
            match self.event().await {
                Event::Input(input) => self.step(input),
                Event::Stop => return self.leave(Exit::Stopped).await,
                Event::Fenced => return self.leave(Exit::Fenced).await,
            }
        }
    }

    async fn leave(mut self, exit: Exit) -> Exit {
        if let Some(socket) = self.socket.take() {
            socket.close(1001).await;
        }
        self.metrics.socket(self.state.metric(), None);
        exit
    }

    fn step(&mut self, input: Input) {
        let now = self.host.clock().now();
        self.machine.step(now, input, &mut self.effects);
        let state = self.machine.link_state(now);
        if state != self.state {
            self.metrics.socket(self.state.metric(), state.metric());
            self.state = state;
        }
        let idle = self.machine.open_messages() == 0;
        if idle != self.mailbox.idle_since().is_some() {
            self.host.idle(&self.mailbox, idle.then_some(now));
        }
    }

    /// Performs what is to be done, and what follows from it, until only waiting is left.
    async fn settle(&mut self) -> Option<Exit> {
        let mut exit = None;
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                exit = match effect {
                    Effect::Rest => Some(Exit::Rested),
                    effect => match self.perform(effect).await {
                        Some(Event::Input(input)) => {
                            self.step(input);
                            None
                        }
                        Some(Event::Fenced) => return Some(Exit::Fenced),
                        Some(Event::Stop) | None => exit,
                    },
                };
            }
        }
        exit
    }

    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Write(write) => return self.write(write),
            Effect::ReadLane => {
                let (host, fence, conversation) =
                    (Rc::clone(&self.host), self.fence, self.conversation.clone());
                self.reading = Some(Box::pin(async move { load(&*host, fence, &conversation).await }));
            }
            Effect::Connect(mode) => self.connect(mode),
            Effect::Send(message) => {
                self.metrics.frame_out("message");
                let text = frame::message(&self.bot, &message);
                return self.say(text).await;
            }
            Effect::Ping => return self.ping().await,
            Effect::Close(code) => {
                if let Some(socket) = self.socket.take() {
                    debug!(conversation = %self.conversation, code, "closing the socket");
                    self.metrics.closed(Some(code));
                    Box::pin(socket.close(code)).await;
                }
            }
            Effect::Abandon => {
                info!(bot = %self.bot.name, "the platform fell silent; reconnecting");
                self.metrics.closed(None);
                self.socket = None;
            }
            Effect::ReadHistory(after) => self.read_history(after),
            Effect::Tell { message, head_at } => {
                self.count(&message, head_at);
                self.host.tell(message);
            }
            Effect::Aside(aside) => self.metrics.aside(aside.as_str()),
            Effect::Rest => {}
        }
        None
    }

    /// Starts a write. A store in memory answers at once, and no turn of the loop is spent on it.
    fn write(&mut self, write: Arc<Write>) -> Option<Event> {
        let (host, fence, conversation) = (Rc::clone(&self.host), self.fence, self.conversation.clone());
        let mut writing: Boxed<_> = Box::pin(async move {
            let started = Instant::now();
            let result = host.store().write(fence, &conversation, &write).await;
            let metrics = host.write_metrics();
            metrics.seconds.observe(started.elapsed().as_secs_f64());
            match &result {
                Ok(now) => host.clock().observe(*now),
                Err(StoreError::Fenced) => metrics.fenced.inc(),
                Err(StoreError::Unknown(_)) => metrics.unknown.inc(),
            }
            result
        });
        if let Some(result) = (&mut writing).now_or_never() {
            return Some(written(&result));
        }
        self.writing = Some(writing);
        None
    }

    fn connect(&mut self, mode: ConnectMode) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let user = self.conversation.user.clone();
        self.connecting = Some(Box::pin(async move {
            host.connect_permit(&bot).await;
            let mut grant = grant.lock().await;
            host.connector().connect(&bot, &user, mode, &mut grant, host.clock().now()).await
        }));
    }

    fn read_history(&mut self, after: Option<Box<str>>) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let user = self.conversation.user.clone();
        self.history = Some(Box::pin(async move {
            let mut grant = grant.lock().await;
            let now = host.clock().now();
            let page = host.connector().history(&bot, &user, &mut grant, after.as_deref(), now).await;
            let body = page.map_err(|error| {
                info!(bot = %bot.name, %error, "history could not be read");
                if error.retry() == Retry::Never { HistoryFailure::ForGood } else { HistoryFailure::Now }
            })?;
            history_page(&body).map_err(|error| {
                warn!(bot = %bot.name, %error, "the platform's history is not what it should be");
                HistoryFailure::Now
            })
        }));
    }

    async fn ping(&mut self) -> Option<Event> {
        self.ping += 1;
        self.metrics.frame_out("ping");
        let text = frame::ping(&self.bot, self.ping);
        let failed = self.say(text).await;
        match &mut self.socket {
            Some(socket) if failed.is_none() => {
                let sent = socket.ping().await;
                if sent.is_err() { self.last_words().await } else { None }
            }
            _ => failed,
        }
    }

    async fn say(&mut self, text: String) -> Option<Event> {
        let socket = self.socket.as_mut()?;
        match socket.send(text).await {
            Ok(()) => None,
            Err(error) => {
                debug!(conversation = %self.conversation, %error, "could not send");
                Box::pin(self.last_words()).await
            }
        }
    }

    /// After a failed send: what the platform said before it hung up, its close code above all.
    async fn last_words(&mut self) -> Option<Event> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let until = Instant::now() + PATIENCE;
        while let Some(socket) = &mut self.socket {
            let received = timeout(until.saturating_duration_since(Instant::now()), socket.next()).await;
            match received.map(|received| self.received(received)) {
                Ok(Input::Lost(loss)) => return Some(Event::Input(Input::Lost(loss))),
                Ok(input) => self.step(input),
                Err(_) => {
                    self.socket = None;
                    self.metrics.closed(None);
                }
            }
        }
        Some(Event::Input(Input::Lost(Loss::GONE)))
    }

    /// What came over the socket, as input. A closed socket is let go of.
    fn received(&mut self, received: Received) -> Input {
        match received {
            Received::Frame(bytes) => {
                let frame = translate(&bytes);
                self.metrics.frame_in(frame.kind());
                match &frame {
                    Incoming::Malformed => {
                        warn!(bot = %self.bot.name, bytes = bytes.len(), "a frame that cannot be read");
                    }
                    Incoming::Unknown(_) => debug!(bot = %self.bot.name, "a frame of an unknown type"),
                    _ => {}
                }
                Input::Frame(frame)
            }
            Received::Heard => Input::Heard,
            Received::Closed(closed) => {
                info!(bot = %self.bot.name, code = closed.code, reason = %closed.reason, "the socket closed");
                self.metrics.closed((closed.code != Loss::GONE.code).then_some(closed.code));
                self.socket = None;
                // A close of our own says nothing about the message.
                Input::Lost(if closed.ours { Loss::GONE } else { Loss { code: closed.code } })
            }
        }
    }

    fn connected(&mut self, result: Result<Socket, ConnectError>) -> Input {
        use crate::metrics::{Connect, Phase};
        match result {
            Ok(socket) => {
                debug!(conversation = %self.conversation, "the socket is open");
                self.metrics.connect(Phase::Socket, Connect::Done);
                self.socket = Some(socket);
                Input::Connected
            }
            Err(error) => {
                let retry = error.retry();
                let phase = match error.phase() {
                    "grant" => Phase::Grant,
                    "start" => Phase::Start,
                    _ => Phase::Socket,
                };
                let words = error.words().into();
                let failure = match retry {
                    Retry::Never => {
                        warn!(bot = %self.bot.name, %error, "the platform refuses the bridge");
                        self.metrics.connect(phase, Connect::Rejected);
                        ConnectFailure::Rejected(words)
                    }
                    Retry::Now | Retry::Backoff(_) => {
                        info!(bot = %self.bot.name, %error, "could not connect; trying again");
                        self.metrics.connect(phase, Connect::Unavailable);
                        let retry_after = if let Retry::Backoff(after) = retry { after } else { None };
                        ConnectFailure::Unavailable { words, retry_after }
                    }
                };
                Input::ConnectFailed(failure)
            }
        }
    }

    fn count(&self, message: &Message, head_at: Timestamp) {
        use crate::metrics::Part;
        let progress = &message.progress;
        match &progress.outcome {
            Some(Outcome::Answered(by)) => self.metrics.turn_ended(by.as_str()),
            Some(Outcome::Failed(problem)) => {
                self.metrics.turn_ended(problem.kind.slug());
                warn!(bot = %self.bot.name, message.id = %message.accepted.id, %problem, "a turn failed");
            }
            None => {}
        }
        self.metrics.turn_part(Part::Queue, head_at.since(message.accepted.accepted_at));
        let Some(sent_at) = progress.sent_at else { return };
        self.metrics.turn_part(Part::Connect, sent_at.since(head_at));
        let parts = [
            (Part::Ack, progress.acked_at),
            (Part::FirstReply, progress.first_reply_at),
            (Part::End, progress.ended_at),
        ];
        for (part, at) in parts {
            if let Some(at) = at {
                self.metrics.turn_part(part, at.since(sent_at));
            }
        }
    }

    /// Sets the timer, unless it will go off early enough: then the machine just looks once more.
    fn arm(&mut self) {
        let Some(at) = self.machine.wake_at() else { return };
        if self.armed.is_none_or(|armed| at < armed) {
            self.armed = Some(at);
            let clock = self.host.clock();
            // A timer of the far future is set to a day: it is looked at again then.
            let at = at.min(clock.now() + Duration::from_hours(24));
            self.timer.as_mut().reset(clock.instant(at));
        }
    }

    /// Waits for whatever comes first.
    async fn event(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(mail) = self.mailbox.poll(cx) {
            return Poll::Ready(match mail {
                Mail::Accepted(message) => Event::Input(Input::Accepted(message)),
                Mail::Woken => Event::Input(Input::Woken),
                Mail::Drain => Event::Input(Input::Drain),
                Mail::Stop => Event::Stop,
            });
        }
        if let Some(result) = poll_call(&mut self.writing, cx) {
            return Poll::Ready(written(&result));
        }
        if let Some(open) = poll_call(&mut self.reading, cx) {
            return Poll::Ready(open.map_or(Event::Fenced, |open| Event::Input(Input::Lane(Box::new(open)))));
        }
        if let Some(page) = poll_call(&mut self.history, cx) {
            return Poll::Ready(Event::Input(Input::History(page)));
        }
        if let Some(result) = poll_call(&mut self.connecting, cx) {
            let input = self.connected(result);
            return Poll::Ready(Event::Input(input));
        }
        if self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.armed = None;
            return Poll::Ready(Event::Input(Input::Tick));
        }
        let Some(socket) = &mut self.socket else { return Poll::Pending };
        let received = std::pin::pin!(socket.next()).poll(cx);
        received.map(|received| Event::Input(self.received(received)))
    }
}

/// Polls a call that is under way and lets go of it when it is over.
fn poll_call<T>(call: &mut Option<Boxed<T>>, cx: &mut Context<'_>) -> Option<T> {
    let Poll::Ready(result) = call.as_mut()?.as_mut().poll(cx) else { return None };
    *call = None;
    Some(result)
}

fn written(result: &Result<Timestamp, StoreError>) -> Event {
    match result {
        Ok(_) => Event::Input(Input::Stored),
        Err(StoreError::Unknown(_)) => Event::Input(Input::Unknown),
        Err(StoreError::Fenced) => Event::Fenced,
    }
}

impl Aside {
    /// Its word in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Unsolicited => "unsolicited",
            Self::Duplicate => "duplicate",
        }
    }
}

impl LinkState {
    const fn metric(self) -> Option<crate::metrics::SocketState> {
        use crate::metrics::SocketState as S;
        match self {
            Self::Cold => None,
            Self::Connecting => Some(S::Connecting),
            Self::Ready => Some(S::Ready),
            Self::BackingOff => Some(S::BackingOff),
            Self::Blocked => Some(S::Blocked),
            Self::Draining => Some(S::Draining),
        }
    }
}
