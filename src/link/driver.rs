//! The thin shell around the machine: performs its effects and feeds back what happened.
//!
//! One local task per conversation, on a shard's thread. All waiting is in one place, [`waiting`]; calls that take time
//! (connect, write, history) are boxed while they run, so that an idle conversation keeps none of their memory. It
//! decides nothing.

mod waiting;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use self::waiting::Event;
use super::host::ConversationHost;
use super::input::{AbandonReason, ConnectFailure, Effect, HistoryFailure, Input, SocketLoss};
use super::machine::Machine;
use super::mailbox::Mailbox;
use super::{calls, tally};
use crate::config::BotConfig;
use crate::domain::{ConversationId, LinkState, Partition, Timestamp};
use crate::metrics::BotMetrics;
use crate::rtm::{
    ConnectMode, Grant, HistoryPage, IncomingFrame, PlatformSocket, SocketEvent, decode_frame, outgoing,
};
use crate::store::{ConversationSnapshot, ConversationWrite, Fence, StoreError, WriteResult};

/// Why a conversation left memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Nothing is open.
    Rested,
    /// It was told to stop; what is open goes over as recorded.
    Stopped,
    /// The partition belongs to another owner.
    Fenced,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// Lives a conversation: loads it, drives it, and returns when it leaves memory.
pub async fn run<H: ConversationHost>(
    host: Rc<H>,
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
) -> ExitReason {
    // On the heap of their own, so that the task of an idle conversation is small.
    let mut driver = match Box::pin(Driver::open(host, bot, conversation, fence, mailbox)).await {
        Ok(driver) => driver,
        Err(exit) => return exit,
    };
    let exit = driver.run().await;
    if let Some(socket) = driver.socket.take() {
        Box::pin(socket.close(1001)).await;
    }
    exit
}

/// How long the last writes may take after [`Input::Stop`]: whatever they tell, the next owner can do without it.
const LAST_WRITES: Duration = Duration::from_secs(1);

struct Driver<H> {
    host: Rc<H>,
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
    metrics: Arc<BotMetrics>,
    machine: Machine,
    effects: Vec<Effect>,
    socket: Option<PlatformSocket>,
    /// The lock makes grants single flight: a connect and a read of history may both want one.
    grant: Rc<Mutex<Option<Grant>>>,
    connecting: Option<Boxed<Result<PlatformSocket, ConnectFailure>>>,
    writing: Option<Boxed<Result<WriteResult, StoreError>>>,
    reading: Option<Boxed<Option<ConversationSnapshot>>>,
    history: Option<Boxed<Result<HistoryPage, HistoryFailure>>>,
    /// Whether a turn waits for history.
    urgent: Rc<Cell<bool>>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to, until it has gone off; it may be earlier than needed, never later.
    armed: Option<Timestamp>,
    state: LinkState,
    /// Whether the machine was told that the lease is sure.
    sure: bool,
    ping: u64,
}

impl<H: ConversationHost> Driver<H> {
    /// The driver of a conversation as the store knows it, or why there is none.
    async fn open(
        host: Rc<H>,
        bot: Arc<BotConfig>,
        conversation: ConversationId,
        fence: Fence,
        mailbox: Rc<Mailbox>,
    ) -> Result<Box<Self>, ExitReason> {
        let metrics = host.bot_metrics(&bot).ok_or(ExitReason::Stopped)?;
        let mut open = tokio::select! {
            open = calls::load(&*host, fence, &conversation) => open.ok_or(ExitReason::Fenced)?,
            () = mailbox.stopped() => return Err(ExitReason::Stopped),
        };
        let now = host.clock().now();
        let observers = std::mem::take(&mut open.observers);
        if !observers.is_empty() {
            host.observed(&conversation, observers);
        }
        let machine = Machine::new(Arc::clone(&bot), conversation.clone(), open, now, fastrand::u64(..));
        mailbox.set_connection(machine.connection(now));
        Ok(Box::new(Self {
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
            urgent: Rc::default(),
            timer: Box::pin(sleep_until(Instant::now())),
            armed: None,
            state: LinkState::Cold,
            sure: true,
            ping: 0,
        }))
    }

    async fn run(&mut self) -> ExitReason {
        self.step(Input::Tick);
        if let Some(exit) = self.drive().await {
            return exit;
        }
        self.step(Input::Stop);
        match timeout(LAST_WRITES, Box::pin(self.drive())).await {
            Ok(Some(ExitReason::Fenced)) => ExitReason::Fenced,
            Ok(_) | Err(_) => ExitReason::Stopped,
        }
    }

    /// Goes on until the conversation leaves memory; none where it is told to stop.
    async fn drive(&mut self) -> Option<ExitReason> {
        loop {
            if let Some(exit) = self.settle().await {
                return Some(exit);
            }
            self.arm();
            match self.event().await {
                Event::Input(Input::Stop) => return None,
                Event::Input(input) => self.step(input),
                Event::Fenced => return Some(ExitReason::Fenced),
            }
        }
    }

    fn step(&mut self, input: Input) {
        let now = self.host.clock().now();
        let sure = self.may_act();
        if sure != self.sure {
            self.sure = sure;
            self.machine.step(now, Input::Lease(sure), &mut self.effects);
        }
        // A connect that is tried again at once fails for another reason, in the same state.
        let failed = matches!(input, Input::ConnectFailed(_));
        self.machine.step(now, input, &mut self.effects);
        self.urgent.set(self.machine.needs_history());
        let state = self.machine.link_state(now);
        if state != self.state || failed {
            self.metrics.socket_changed(self.state.metric(), state.metric());
            self.state = state;
            self.mailbox.set_connection(self.machine.connection(now));
        }
        self.mailbox.set_open(self.machine.open_messages(), self.machine.oldest_message());
        self.mailbox.set_send_at_accept(self.machine.may_send_at_accept(now));
        let idle = self.machine.open_messages() == 0;
        if idle != self.mailbox.idle_since().is_some() {
            self.host.idle(&self.mailbox, idle.then_some(now));
        }
    }

    /// Whether the lease is sure at this moment.
    fn may_act(&self) -> bool {
        self.host.may_act(Partition::of(&self.conversation))
    }

    /// Performs what is to be done, and what follows from it, until only waiting is left.
    async fn settle(&mut self) -> Option<ExitReason> {
        let mut exit = None;
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                exit = match effect {
                    Effect::Rest => Some(ExitReason::Rested),
                    effect => match self.perform(effect).await {
                        Some(Event::Input(input)) => {
                            self.step(input);
                            None
                        }
                        Some(Event::Fenced) => return Some(ExitReason::Fenced),
                        None => exit,
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
                self.reading = Some(Box::pin(async move { calls::load(&*host, fence, &conversation).await }));
            }
            Effect::Connect(mode) => self.connect(mode),
            // Asked again, for what came before may have taken its time.
            Effect::Send(_) if !self.may_act() => return Some(Event::Input(Input::Withheld)),
            Effect::Send(message) => {
                let (kind, text) = calls::frame(&self.bot, &message);
                self.metrics.frame_sent(kind);
                return Box::pin(self.say(text)).await;
            }
            Effect::Ping => return Box::pin(self.ping()).await,
            Effect::Close(code) => {
                if let Some(socket) = self.socket.take() {
                    debug!(bot = %self.bot.name, code, "closing the socket");
                    self.metrics.socket_closed(Some(code));
                    Box::pin(socket.close(code)).await;
                }
            }
            Effect::Abandon(why) => self.abandon(why),
            Effect::ReadHistory(after) => self.read_history(after),
            Effect::Tell { message, head_at } => {
                tally::turn(&self.metrics, &message, head_at);
                self.host.tell(message);
            }
            Effect::Forget(id) => {
                tally::lost(&self.bot.name, id);
                self.host.forget(id);
            }
            Effect::Rebased => tally::rebased(&self.bot.name),
            Effect::Aside(aside) => self.metrics.reply_outside_turn(aside.as_str()),
            Effect::Chunk(chunk) => self.host.chunk(&self.conversation, chunk),
            Effect::Rest => {}
        }
        None
    }

    fn abandon(&mut self, why: AbandonReason) {
        self.connecting = None;
        if self.socket.take().is_none() {
            return;
        }
        tally::abandoned(&self.bot.name, why);
        self.metrics.socket_closed(None);
    }

    /// Starts a write. A store in memory answers at once, and no turn of the loop is spent on it.
    fn write(&mut self, write: Arc<ConversationWrite>) -> Option<Event> {
        let (host, fence, conversation) = (Rc::clone(&self.host), self.fence, self.conversation.clone());
        let mut writing: Boxed<_> =
            Box::pin(async move { calls::write(&*host, fence, &conversation, &write).await });
        if let Some(result) = (&mut writing).now_or_never() {
            return Some(written(&result));
        }
        self.writing = Some(writing);
        None
    }

    fn connect(&mut self, mode: ConnectMode) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let (conversation, mailbox) = (self.conversation.clone(), Rc::clone(&self.mailbox));
        self.connecting = Some(Box::pin(async move {
            calls::connect(&*host, &bot, &conversation, mode, &mailbox, &grant).await
        }));
    }

    fn read_history(&mut self, after: Option<Box<str>>) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let (user, urgent) = (self.conversation.user.clone(), Rc::clone(&self.urgent));
        self.history = Some(Box::pin(async move {
            calls::history(&*host, &bot, &user, after.as_deref(), &grant, &urgent).await
        }));
    }

    async fn ping(&mut self) -> Option<Event> {
        self.ping += 1;
        self.metrics.frame_sent("ping");
        let text = outgoing::ping(&self.bot, self.ping);
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
                debug!(bot = %self.bot.name, %error, "could not send");
                self.last_words().await
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
                    self.metrics.socket_closed(None);
                }
            }
        }
        Some(Event::Input(Input::Lost(SocketLoss::GONE)))
    }

    /// What came over the socket, as input. A closed socket is let go of.
    fn received(&mut self, received: SocketEvent) -> Input {
        match received {
            SocketEvent::Frame(bytes) => {
                let frame = decode_frame(&bytes);
                self.metrics.frame_received(frame.kind());
                match &frame {
                    IncomingFrame::Malformed => {
                        warn!(bot = %self.bot.name, bytes = bytes.len(), "a frame that cannot be read");
                    }
                    IncomingFrame::Unknown(_) => debug!(bot = %self.bot.name, "a frame of an unknown type"),
                    _ => {}
                }
                Input::Frame(frame)
            }
            SocketEvent::KeepAlive => Input::Heard,
            SocketEvent::Closed(closed) => {
                info!(bot = %self.bot.name, code = closed.code, reason = %closed.reason, "the socket closed");
                self.metrics.socket_closed((closed.code != SocketLoss::GONE.code).then_some(closed.code));
                self.socket = None;
                // A close of our own says nothing about the message.
                Input::Lost(if closed.by_us { SocketLoss::GONE } else { SocketLoss { code: closed.code } })
            }
        }
    }
}

impl<H> Drop for Driver<H> {
    fn drop(&mut self) {
        // Here and not where it leaves: a panic leaves too.
        self.metrics.socket_changed(self.state.metric(), None);
    }
}

fn written(result: &Result<WriteResult, StoreError>) -> Event {
    match result {
        Ok(written) => Event::Input(Input::Stored { lost: written.lost }),
        Err(StoreError::OutOfStep) => Event::Input(Input::OutOfStep),
        Err(error) if error.is_passing() => Event::Input(Input::Unknown),
        Err(_) => Event::Fenced,
    }
}
