//! The driver of a conversation: performs the effects of the machine and feeds back their results.
//!
//! Each conversation is one local task on a shard's thread. All waiting is in [`events`]. Calls that take time
//! (connect, write, history) are boxed while they run, so an idle conversation holds no memory for them. The driver
//! decides nothing.

mod context_cache;
mod events;
mod sending;
mod signals;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tracing::{debug, info};

use self::context_cache::ContextCache;
use self::events::DriverEvent;
use super::conversation_host::ConversationHost;
use super::input::{AbandonReason, ConnectFailure, Effect, HistoryFailure, Input, SocketLoss, SocketRequest};
use super::machine::Machine;
use super::mailbox::Mailbox;
use super::{calls, stats};
use crate::config::BotConfig;
use crate::domain::{ConversationId, LinkState, MessageId, Partition, Timestamp};
use crate::metrics::BotMetrics;
use crate::rhythm::{SharedRhythm, TurnObservation};
use crate::rtm::{
    ConnectContext, Grant, HistoryPage, IncomingFrame, PlatformSocket, SocketEvent, decode_frame,
};
use crate::store::{ConversationSnapshot, ConversationWrite, Fence, OpenMessage, StoreError, WriteResult};

/// Why a conversation left memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// No message is open.
    Rested,
    /// It was stopped. The next owner continues from the record.
    Stopped,
    /// Another owner has the partition.
    Fenced,
    /// The store has deleted it.
    Erased,
}

type ConnectOutcome = Result<(PlatformSocket, Rc<ConnectContext>), ConnectFailure>;

type PendingCall<T> = Pin<Box<dyn Future<Output = T>>>;

/// Loads a conversation and drives it until it leaves memory. Returns the reason.
pub async fn run<H: ConversationHost>(
    host: Rc<H>,
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
) -> ExitReason {
    // Boxed, so that the task of an idle conversation is small.
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

/// The time for the last writes after [`Input::Stop`]. The next owner can do without them.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The most frames that are read right before a message is sent. Other conversations wait meanwhile.
const MAX_EARLIER_FRAMES: usize = 64;

struct Driver<H> {
    host: Rc<H>,
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    fence: Fence,
    mailbox: Rc<Mailbox>,
    metrics: Arc<BotMetrics>,
    rhythm: Option<Arc<SharedRhythm>>,
    machine: Machine,
    effects: Vec<Effect>,
    socket: Option<PlatformSocket>,
    /// The lock makes the request of a grant single-flight for connects and reads of history.
    grant: Rc<Mutex<Option<Grant>>>,
    context: ContextCache,
    connecting: Option<PendingCall<ConnectOutcome>>,
    writing: Option<PendingCall<Result<WriteResult, StoreError>>>,
    reading: Option<PendingCall<Option<ConversationSnapshot>>>,
    history: Option<PendingCall<Result<HistoryPage, HistoryFailure>>>,
    erasing: Option<PendingCall<Option<Vec<MessageId>>>>,
    urgent: Rc<Cell<bool>>,
    timer: Pin<Box<Sleep>>,
    /// The time of the timer until it fires. It may be earlier than needed, never later.
    armed: Option<Timestamp>,
    state: LinkState,
    /// The validity of the lease as the machine knows it.
    lease_valid: bool,
    ping: u64,
}

impl<H: ConversationHost> Driver<H> {
    /// Creates the driver of a stored conversation, or returns why it cannot run.
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
        let unsent = take_unsent(&mut open, |id| host.is_unsent(&conversation, id));
        let rhythm = host.rhythm(&bot);
        let mut machine = Machine::new(
            Arc::clone(&bot),
            rhythm.clone(),
            conversation.clone(),
            open,
            now,
            fastrand::u64(..),
        );
        let mut effects = Vec::new();
        for input in unsent {
            machine.step(now, input, &mut effects);
        }
        mailbox.set_connection(machine.connection(now));
        let context = ContextCache::new(host.connector().empty_context());
        Ok(Box::new(Self {
            metrics,
            rhythm,
            host,
            bot,
            conversation,
            fence,
            mailbox,
            machine,
            effects,
            socket: None,
            grant: Rc::default(),
            context,
            connecting: None,
            writing: None,
            reading: None,
            history: None,
            erasing: None,
            urgent: Rc::default(),
            timer: Box::pin(sleep_until(Instant::now())),
            armed: None,
            state: LinkState::Cold,
            lease_valid: true,
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

    /// Runs until the conversation leaves memory. Returns none on [`Input::Stop`].
    async fn drive(&mut self) -> Option<ExitReason> {
        loop {
            if let Some(exit) = self.settle().await {
                return Some(exit);
            }
            match self.event().await {
                DriverEvent::Input(Input::Stop) => return None,
                DriverEvent::Input(input) => self.step(input),
                DriverEvent::Exit(reason) => return Some(reason),
            }
        }
    }

    fn step(&mut self, input: Input) {
        let now = self.host.clock().now();
        let lease_valid = self.may_act();
        if lease_valid != self.lease_valid {
            self.lease_valid = lease_valid;
            self.machine.step(now, Input::Lease(lease_valid), &mut self.effects);
        }
        // A repeated connect fails for another reason in the same state.
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
        self.mailbox.set_caller(self.machine.oldest_caller());
        self.mailbox.set_send_at_accept(self.machine.may_send_at_accept(now));
        let idle = self.machine.open_messages() == 0;
        if idle != self.mailbox.idle_since().is_some() {
            self.host.idle(&self.mailbox, idle.then_some(now));
        }
    }

    fn may_act(&self) -> bool {
        self.host.may_act(Partition::of(&self.conversation))
    }

    /// Performs all effects, and those that follow from them, until only waiting is left.
    async fn settle(&mut self) -> Option<ExitReason> {
        let mut exit = None;
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                exit = match effect {
                    Effect::Rest => Some(ExitReason::Rested),
                    effect => match self.perform(effect).await {
                        Some(DriverEvent::Input(input)) => {
                            self.step(input);
                            None
                        }
                        Some(DriverEvent::Exit(reason)) => return Some(reason),
                        None => exit,
                    },
                };
            }
        }
        exit
    }

    async fn perform(&mut self, effect: Effect) -> Option<DriverEvent> {
        match effect {
            Effect::Write(write) => return self.write(write),
            Effect::ReadLane => {
                let (host, fence, conversation) =
                    (Rc::clone(&self.host), self.fence, self.conversation.clone());
                self.reading = Some(Box::pin(async move { calls::load(&*host, fence, &conversation).await }));
            }
            Effect::Connect(request) => self.connect(&request),
            Effect::Send(message) => return Box::pin(self.send(&message)).await,
            Effect::Signal(signal) => return Box::pin(self.signal(&signal)).await,
            Effect::Acknowledge(marks) => return Box::pin(self.acknowledge(&marks)).await,
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
            Effect::Erase => self.erase(),
            Effect::Complete { message, head_at } => {
                stats::count_turn(&self.metrics, &message, head_at);
                self.host.complete(message);
            }
            Effect::ReportLoss(id) => {
                stats::log_loss(&self.bot.name, id);
                self.host.report_loss(id);
            }
            Effect::Reconciled => stats::log_reconciled(&self.bot.name),
            Effect::Learn(turn) => self.learn(*turn),
            Effect::OutOfTurn(aside) => self.metrics.reply_outside_turn(aside.as_str()),
            Effect::FarOffTime => self.metrics.time_far_off(),
            Effect::Platform(frame) => self.host.platform(&self.conversation, &frame),
            Effect::Chunk(chunk) => self.host.chunk(&self.conversation, chunk),
            Effect::Rest => {}
        }
        None
    }

    fn learn(&self, turn: TurnObservation) {
        if turn.early_cut {
            self.metrics.early_cut();
        }
        if let Some(rhythm) = &self.rhythm {
            rhythm.learn(turn);
        }
    }

    fn abandon(&mut self, why: AbandonReason) {
        self.connecting = None;
        if self.socket.take().is_none() {
            return;
        }
        stats::log_abandoned(&self.bot.name, why);
        self.metrics.socket_closed(None);
    }

    /// Starts a write. The memory store answers at once, without a turn of the loop.
    fn write(&mut self, write: Arc<ConversationWrite>) -> Option<DriverEvent> {
        let (host, fence, conversation) = (Rc::clone(&self.host), self.fence, self.conversation.clone());
        let mut writing: PendingCall<_> =
            Box::pin(async move { calls::write(&*host, fence, &conversation, &write).await });
        if let Some(result) = (&mut writing).now_or_never() {
            return Some(written(&result));
        }
        self.writing = Some(writing);
        None
    }

    fn connect(&mut self, request: &SocketRequest) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let (conversation, mailbox) = (self.conversation.clone(), Rc::clone(&self.mailbox));
        let (mode, context) = (request.mode, self.context.source(request));
        self.connecting = Some(Box::pin(async move {
            calls::connect(&*host, &bot, &conversation, mode, context, &mailbox, &grant).await
        }));
    }

    fn read_history(&mut self, after: Option<Box<str>>) {
        let (host, bot, grant) = (Rc::clone(&self.host), Arc::clone(&self.bot), Rc::clone(&self.grant));
        let (user, urgent) = (self.conversation.user().clone(), Rc::clone(&self.urgent));
        let context = Rc::clone(self.context.current());
        self.history = Some(Box::pin(async move {
            calls::history(&*host, &bot, &user, after.as_deref(), &context, &grant, &urgent).await
        }));
    }

    /// Turns a socket event into an input. A closed socket is dropped.
    fn received(&mut self, received: SocketEvent) -> Input {
        match received {
            SocketEvent::Frame(bytes) => {
                let frame = decode_frame(&bytes);
                self.metrics.frame_received(frame.kind());
                match &frame {
                    IncomingFrame::Malformed => {
                        stats::log_malformed(&self.bot.name, bytes.len());
                    }
                    IncomingFrame::Unknown(_) => {
                        debug!(bot = %self.bot.name, "the platform sent a frame of an unknown type");
                    }
                    _ => {}
                }
                Input::Frame(frame)
            }
            SocketEvent::KeepAlive => Input::PeerAlive,
            SocketEvent::Closed(closed) => {
                info!(bot = %self.bot.name, code = closed.code, reason = %closed.reason, "the socket closed");
                self.metrics.socket_closed((closed.code != SocketLoss::GONE.code).then_some(closed.code));
                self.socket = None;
                // A close by the bridge says nothing about the message.
                Input::Lost(if closed.by_us { SocketLoss::GONE } else { SocketLoss { code: closed.code } })
            }
        }
    }
}

impl<H> Drop for Driver<H> {
    fn drop(&mut self) {
        // A panic leaves by this path too.
        self.metrics.socket_changed(self.state.metric(), None);
    }
}

/// Takes the lane out of a loaded conversation if this owner knows that the head was never sent. The store marked it as
/// sent at its accept. The machine takes the returned inputs instead.
fn take_unsent(open: &mut ConversationSnapshot, is_unsent: impl Fn(MessageId) -> bool) -> Vec<Input> {
    let unsent = |head: &&OpenMessage| head.progress.sent_at.is_some() && is_unsent(head.accepted.id);
    let Some(head) = open.lane.first().filter(unsent).map(|head| Arc::clone(&head.accepted)) else {
        return Vec::new();
    };
    open.next_position = head.position;
    let later = std::mem::take(&mut open.lane).into_iter().skip(1).map(|open| Input::Accepted(open.accepted));
    std::iter::once(Input::SentAtAccept(head)).chain(later).collect()
}

fn written(result: &Result<WriteResult, StoreError>) -> DriverEvent {
    match result {
        Ok(written) => DriverEvent::Input(Input::Stored { lost: written.lost }),
        Err(StoreError::OutOfStep) => DriverEvent::Input(Input::OutOfStep),
        Err(error) if error.is_passing() => DriverEvent::Input(Input::WriteUnknown),
        Err(_) => DriverEvent::Exit(ExitReason::Fenced),
    }
}
