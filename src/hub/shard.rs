//! One shard: a thread that holds the conversations, sockets and waiters of its partitions.
//!
//! Web sockets of awc stay on the thread that made them, so everything of a conversation lives here: its task,
//! its socket, who waits for it. Other threads reach it through one bounded queue. What it does not know: what
//! a conversation does; that is the link's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus::IntGauge;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{interval, sleep_until, timeout};
use tracing::{error, warn};

use super::budget::ConnectBudget;
use super::partition::Leases;
use super::watch::{Waiter, Watch};
use crate::config::Bot;
use crate::domain::{AcceptedMessage, BotName, ConversationId, Message, MessageId, Partition, Timestamp};
use crate::link::{self, Connector, Exit, Host, Mail, Mailbox, StoreClock};
use crate::metrics::{BotMetrics, Metrics, StoreMetrics};
use crate::store::{Fence, Store};

/// How long closing all sockets may take: a second for the peers, and a bit.
const STOP: Duration = Duration::from_millis(1500);

/// What other threads ask of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// A message was accepted; perhaps someone waits for its end.
    Accepted { message: Arc<AcceptedMessage>, waiter: Option<Waiter> },
    /// Someone waits for the end of a message.
    Watch { conversation: ConversationId, id: MessageId, waiter: Waiter },
    /// Answer when nothing is open any more.
    Drain { done: oneshot::Sender<()> },
    /// Close everything and end.
    Stop,
}

/// What a shard's thread is made with; it crosses threads, the rest is made on the thread.
pub(crate) struct Setup {
    pub(crate) store: Store,
    pub(crate) bots: Vec<Arc<Bot>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bot_metrics: HashMap<BotName, Arc<BotMetrics>>,
    pub(crate) write_metrics: StoreMetrics,
    /// How many commands wait.
    pub(crate) queue: IntGauge,
    pub(crate) budget: Arc<ConnectBudget>,
    pub(crate) leases: Leases,
    /// Conversations it holds at most before idle ones give way.
    pub(crate) room: usize,
    /// How many of them have something open; read by admission.
    pub(crate) busy: Arc<AtomicUsize>,
}

pub(crate) struct Shard {
    setup: Setup,
    clock: StoreClock,
    connector: Connector,
    live: RefCell<HashMap<ConversationId, Rc<Mailbox>>>,
    watch: RefCell<Watch>,
    /// Woken when a conversation leaves or falls idle.
    calm: Notify,
    stopping: Cell<bool>,
}

impl Shard {
    pub(crate) fn new(setup: Setup, connector: Connector, now: Timestamp) -> Rc<Self> {
        Rc::new(Self {
            setup,
            clock: StoreClock::new(now),
            connector,
            live: RefCell::default(),
            watch: RefCell::default(),
            calm: Notify::new(),
            stopping: Cell::new(false),
        })
    }

    /// Lives until [`Command::Stop`], or until nobody can command it any more.
    pub(crate) async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = interval(Duration::from_secs(1));
        let mut keep = interval(self.setup.leases.interval());
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => self.on_command(command),
                },
                _ = keep.tick() => self.keep_leases().await,
                _ = sweep.tick() => {
                    self.setup.queue.set(i64::try_from(commands.len()).unwrap_or(i64::MAX));
                    self.sweep().await;
                }
            }
        }
        // Whoever comes from now on, and whoever still waits in the queue, reads the store.
        drop(commands);
        self.stop().await;
    }

    fn on_command(self: &Rc<Self>, command: Command) {
        match command {
            Command::Accepted { message, waiter } => {
                let conversation = &message.new.conversation;
                if let Some(waiter) = waiter {
                    self.watch.borrow_mut().add(conversation, message.id, waiter);
                }
                let mailbox = self.live.borrow().get(conversation).map(Rc::clone);
                match mailbox {
                    Some(mailbox) => mailbox.post(Mail::Accepted(message)),
                    None => self.start(conversation.clone()),
                }
            }
            Command::Watch { conversation, id, waiter } => {
                self.watch.borrow_mut().add(&conversation, id, waiter);
                spawn(Rc::clone(self).look_up(conversation, id));
            }
            Command::Drain { done } => {
                let shard = Rc::clone(self);
                spawn(async move {
                    while shard.setup.busy.load(Ordering::Relaxed) > 0 {
                        shard.calm.notified().await;
                    }
                    done.send(()).ok();
                });
            }
            Command::Stop => {}
        }
    }

    /// Reads a message that is waited for, in case its end was told before somebody waited.
    async fn look_up(self: Rc<Self>, conversation: ConversationId, id: MessageId) {
        match self.setup.store.message(&conversation, id, None).await {
            Ok(Some(message)) if message.progress.has_ended() => self.watch.borrow_mut().tell(message),
            Ok(None) => self.watch.borrow_mut().forget(id),
            Ok(Some(_)) | Err(_) => {}
        }
    }

    /// Looks for what hints did not tell of.
    async fn sweep(self: &Rc<Self>) {
        let due = self.watch.borrow_mut().sweep();
        for (conversation, id) in due {
            Rc::clone(self).look_up(conversation, id).await;
        }
        for (partition, fence) in self.setup.leases.owned() {
            let Ok(ready) = self.setup.store.ready(partition, fence, false).await else { continue };
            for conversation in ready {
                let mailbox = self.live.borrow().get(&conversation).map(Rc::clone);
                match mailbox {
                    Some(mailbox) => mailbox.post(Mail::Woken),
                    None => self.start(conversation),
                }
            }
        }
    }

    async fn keep_leases(&self) {
        for partition in self.setup.leases.keep(&self.setup.store).await {
            for (conversation, mailbox) in &*self.live.borrow() {
                if Partition::of(conversation) == partition {
                    mailbox.post(Mail::Stop);
                }
            }
        }
    }

    /// Brings a conversation into memory.
    fn start(self: &Rc<Self>, conversation: ConversationId) {
        if self.stopping.get() {
            return;
        }
        let Some(fence) = self.setup.leases.fence(Partition::of(&conversation)) else { return };
        let Some(bot) = self.setup.bots.iter().find(|bot| bot.name == conversation.bot).map(Arc::clone)
        else {
            return;
        };
        if self.live.borrow().len() >= self.setup.room {
            self.evict();
        }
        let mailbox = Rc::new(Mailbox::default());
        self.live.borrow_mut().insert(conversation.clone(), Rc::clone(&mailbox));
        self.setup.metrics.conversations.inc();
        self.setup.busy.fetch_add(1, Ordering::Relaxed);
        spawn(Rc::clone(self).live(bot, conversation, fence, mailbox));
    }

    /// A conversation's life in memory, from its start until it has left.
    async fn live(
        self: Rc<Self>,
        bot: Arc<Bot>,
        conversation: ConversationId,
        fence: Fence,
        mailbox: Rc<Mailbox>,
    ) {
        loop {
            mailbox.forget_drain();
            let life = link::run(
                Rc::clone(&self),
                Arc::clone(&bot),
                conversation.clone(),
                fence,
                Rc::clone(&mailbox),
            );
            match AssertUnwindSafe(life).catch_unwind().await {
                Ok(Exit::Rested) if !mailbox.is_empty() => {}
                Ok(_) => break,
                Err(_) => {
                    self.setup.metrics.panics.inc();
                    error!(bot = %bot.name, "a conversation's task panicked, its open messages fail; this is a bug");
                    let failing = link::fail_open(&*self, &bot, fence, &conversation);
                    let failed = AssertUnwindSafe(failing).catch_unwind().await;
                    if failed.is_err() {
                        // What is open stays in the store; the sweep brings it back in a second.
                        self.setup.metrics.panics.inc();
                    }
                    if failed.is_err() || mailbox.is_empty() {
                        break;
                    }
                }
            }
        }
        // Nothing is awaited between the last look into the mailbox and this: no mail is lost.
        self.live.borrow_mut().remove(&conversation);
        self.idle(&mailbox, Some(self.clock.now()));
        self.setup.metrics.conversations.dec();
        self.calm.notify_waiters();
    }

    /// Lets the conversations go that have been idle longest: as many as are too many, one more, and one in a
    /// hundred. Those that were told before and are not gone yet count among them: they are still the first.
    fn evict(&self) {
        let live = self.live.borrow();
        let mut idle: Vec<_> =
            live.values().filter_map(|mailbox| Some((mailbox.idle_since()?, mailbox))).collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let too_many = live.len().saturating_sub(self.setup.room) + 1 + self.setup.room / 100;
        for (_, mailbox) in idle.into_iter().take(too_many) {
            mailbox.post(Mail::Drain);
        }
    }

    async fn stop(&self) {
        self.stopping.set(true);
        for mailbox in self.live.borrow().values() {
            mailbox.post(Mail::Stop);
        }
        self.watch.borrow_mut().clear();
        let gone = async {
            while !self.live.borrow().is_empty() {
                self.calm.notified().await;
            }
        };
        if timeout(STOP, gone).await.is_err() {
            warn!(
                left = self.live.borrow().len(),
                "conversations did not stop in time; their sockets are cut"
            );
        }
        self.setup.leases.release(&self.setup.store).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a shard's tasks start")]
fn spawn(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}

impl Host for Shard {
    fn store(&self) -> &Store {
        &self.setup.store
    }

    fn clock(&self) -> &StoreClock {
        &self.clock
    }

    fn connector(&self) -> &Connector {
        &self.connector
    }

    async fn connect_permit(&self, bot: &Bot) {
        #[cfg(test)]
        super::tests::perhaps_panic(bot);
        while let Err(at) = self.setup.budget.take(bot, self.clock.now()) {
            sleep_until(self.clock.instant(at)).await;
        }
    }

    fn may_act(&self, partition: Partition) -> bool {
        self.setup.leases.fence(partition).is_some()
    }

    fn forget(&self, id: MessageId) {
        self.watch.borrow_mut().forget(id);
    }

    fn tell(&self, message: Message) {
        self.watch.borrow_mut().tell(message);
    }

    fn idle(&self, mailbox: &Mailbox, since: Option<Timestamp>) {
        match (mailbox.idle_since(), since) {
            (None, Some(_)) => {
                self.setup.busy.fetch_sub(1, Ordering::Relaxed);
                self.calm.notify_waiters();
            }
            (Some(_), None) => {
                self.setup.busy.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        mailbox.set_idle_since(since);
    }

    fn bot_metrics(&self, bot: &Bot) -> Option<Arc<BotMetrics>> {
        self.setup.bot_metrics.get(&bot.name).map(Arc::clone)
    }

    fn write_metrics(&self) -> &StoreMetrics {
        &self.setup.write_metrics
    }
}
