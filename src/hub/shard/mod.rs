//! One shard: a thread that holds the conversations, sockets and waiters of the partitions dealt to it.
//!
//! Web sockets of awc stay on the thread that made them, so everything of a conversation lives here: its task,
//! its socket, who waits for it. Other threads reach it through one bounded queue, and through the table of
//! leases, which says what the replica owns. Waiters are here also where another replica owns the partition.
//!
//! [`tenure`] comes to own partitions and lets go of them, [`lives`] has conversations come into memory and
//! leave it, [`post`] has the store accept messages, [`reading`] asks the store for what hints did not tell, [`readers`]
//! tells those who read live, [`asking`] finds out how a conversation stands. What it does not know: what a conversation
//! does; that is the link's.

mod asking;
mod hold;
mod host;
mod lives;
mod observers;
mod part;
mod post;
mod readers;
mod reading;
mod relay;
mod tenure;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::IntGauge;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tracing::warn;

pub(crate) use self::asking::Question;
use self::part::Part;
pub(crate) use self::post::Post;
use super::budget::Budget;
use super::lease::Leases;
use super::observer::Publisher;
use super::watch::{Waiter, Watch};
use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, BotName, ConnectionStatus, ConversationId, Message, MessageId, Partition, ReplyChunk,
    Timestamp,
};
use crate::link::{Input, PlatformConnector, StoreClock};
use crate::metrics::{BotMetrics, Metrics, StoreMetrics};
use crate::store::{self, Incarnation, Store};

/// How long stopping may take: a second for the last writes, which a store that is away uses up, a second for the
/// peers, and a bit.
const STOP: Duration = Duration::from_millis(2250);

/// What other threads ask of a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// A message is to be accepted; perhaps someone waits for its end.
    Post(Box<Post>),
    /// A message was accepted by another replica.
    Accepted(Arc<AcceptedMessage>),
    /// Someone waits for the end of a message that may not be in the store yet.
    Watch { conversation: ConversationId, id: MessageId, waiter: Waiter },
    /// The message that someone waits for is in the store.
    Stored(MessageId),
    /// There may be messages that nobody told of.
    Woken(ConversationId),
    /// A message ended at another replica.
    Ended(Message),
    /// A message may have ended at another replica.
    Read { conversation: ConversationId, id: MessageId },
    /// Someone begins to read; `known` is answered when he is told from now on.
    Observe { conversation: ConversationId, teller: Publisher, known: oneshot::Sender<()> },
    /// There may be new entries that another replica appended.
    Appended(ConversationId),
    /// A piece of a reply came at another replica.
    Chunk(ConversationId, Arc<ReplyChunk>),
    /// Someone reads at another replica.
    Observed(ConversationId, Incarnation),
    /// Someone asks how a conversation stands.
    Ask(Question),
    /// Another replica asks the same, under this number.
    Asked { conversation: ConversationId, by: Incarnation, number: u64 },
    /// Another replica answers our question of this number.
    Answered(u64, Box<ConnectionStatus>),
    /// Answer when nothing is open any more.
    Calm { done: oneshot::Sender<()> },
    /// Close everything and end.
    Stop,
    /// End as if the process had been killed.
    #[cfg(test)]
    Cut,
}

/// What a shard's thread is made with; it crosses threads, the rest is made on the thread.
pub(crate) struct Setup {
    pub(crate) index: usize,
    pub(crate) store: Store,
    pub(crate) bots: Vec<Arc<BotConfig>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bot_metrics: HashMap<BotName, Arc<BotMetrics>>,
    pub(crate) write_metrics: StoreMetrics,
    /// How many commands wait.
    pub(crate) queue: IntGauge,
    pub(crate) leases: Arc<Leases>,
    /// Conversations it holds at most before idle ones give way.
    pub(crate) room: usize,
    /// How many of them have something open; read by admission.
    pub(crate) busy: Arc<AtomicUsize>,
    /// Tells whoever attempts deliveries.
    pub(crate) news: store::OutboxEventSender,
}

pub(crate) struct Shard {
    setup: Setup,
    clock: StoreClock,
    connector: PlatformConnector,
    budget: Budget,
    /// Its partitions, by [`Partition::index`] divided by the number of shards.
    parts: Vec<Rc<Part>>,
    /// Conversations in memory.
    count: Cell<usize>,
    watch: RefCell<Watch>,
    /// Woken when a conversation leaves or falls idle.
    calm: Notify,
    /// Held by who brings many conversations into memory at once.
    door: Mutex<()>,
    stopping: Cell<bool>,
    looks: reading::Looks,
    rounds: readers::Rounds,
    questions: asking::Questions,
    relay: Rc<relay::Relay>,
}

impl Shard {
    pub(crate) fn new(setup: Setup, connector: PlatformConnector, now: Timestamp) -> Rc<Self> {
        let parts = Partition::all().filter(|partition| setup.leases.shard(*partition) == setup.index);
        Rc::new(Self {
            parts: parts.map(Part::new).collect(),
            budget: Budget::new(&setup.bots),
            relay: relay::Relay::new(setup.store.clone()),
            setup,
            clock: StoreClock::new(now),
            connector,
            count: Cell::new(0),
            watch: RefCell::default(),
            calm: Notify::new(),
            door: Mutex::default(),
            stopping: Cell::new(false),
            looks: reading::Looks::default(),
            rounds: readers::Rounds::default(),
            questions: asking::Questions::default(),
        })
    }

    /// Lives until [`Command::Stop`], or until nobody can command it any more.
    pub(crate) async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        let mut sweep = interval(Duration::from_secs(1));
        let mut glance = interval((self.setup.leases.ttl() / 12).min(Duration::from_secs(1)));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    #[cfg(test)]
                    Some(Command::Cut) => return,
                    Some(command) => self.on_command(command),
                },
                () = self.setup.leases.changed(self.setup.index) => self.look(),
                _ = glance.tick() => self.look(),
                _ = sweep.tick() => {
                    self.setup.queue.set(i64::try_from(commands.len()).unwrap_or(i64::MAX));
                    self.sweep();
                }
            }
        }
        // Whoever comes from now on, and whoever still waits in the queue, reads the store.
        drop(commands);
        self.stop().await;
    }

    fn on_command(self: &Rc<Self>, command: Command) {
        match command {
            Command::Post(post) => self.post(*post),
            Command::Accepted(message) => self.accepted(message),
            Command::Watch { conversation, id, waiter } => {
                if self.watch.borrow_mut().add(conversation.clone(), id, waiter) {
                    self.read_soon(conversation, id);
                }
            }
            Command::Stored(id) => self.watch.borrow_mut().set_stored(id),
            Command::Woken(conversation) => self.wake(conversation),
            Command::Ended(message) => self.watch.borrow_mut().tell(message),
            Command::Read { conversation, id } => self.read_soon(conversation, id),
            Command::Observe { conversation, teller, known } => self.observe(conversation, teller, known),
            Command::Appended(conversation) => self.look_into(&conversation),
            Command::Chunk(conversation, chunk) => self.tell_piece(&conversation, &chunk),
            Command::Observed(conversation, by) => self.note_observer(conversation, by),
            Command::Ask(question) => self.ask(question),
            Command::Asked { conversation, by, number } => self.answer(&conversation, by, number),
            Command::Answered(number, connection) => self.answered(number, *connection),
            Command::Calm { done } => {
                let shard = Rc::clone(self);
                spawn(async move {
                    while shard.setup.busy.load(Ordering::Relaxed) > 0 {
                        shard.calm.notified().await;
                    }
                    done.send(()).ok();
                });
            }
            Command::Stop => {}
            #[cfg(test)]
            Command::Cut => {}
        }
    }

    /// Where another replica owns the partition, this only says that the message is stored.
    fn accepted(self: &Rc<Self>, message: Arc<AcceptedMessage>) {
        self.watch.borrow_mut().set_stored(message.id);
        let conversation = &message.new.conversation;
        let part = self.part(Partition::of(conversation));
        let Some(part) = part.filter(|part| part.works().is_some()) else { return };
        match part.mailbox(conversation) {
            Some(mailbox) => mailbox.post(Input::Accepted(message)),
            None => self.start(part, conversation.clone()),
        }
    }

    /// The conversation has messages that nobody told of, perhaps.
    fn wake(self: &Rc<Self>, conversation: ConversationId) {
        let part = self.part(Partition::of(&conversation));
        let Some(part) = part.filter(|part| part.works().is_some()) else { return };
        match part.mailbox(&conversation) {
            Some(mailbox) => mailbox.post(Input::Woken),
            None => self.start(part, conversation),
        }
    }

    fn part(&self, partition: Partition) -> Option<&Rc<Part>> {
        let part = self.parts.get(partition.index() / self.setup.leases.shards());
        part.filter(|part| part.partition == partition)
    }

    async fn stop(&self) {
        self.stopping.set(true);
        self.watch.borrow_mut().clear();
        self.dismiss_readers();
        let cut: usize = join_all(self.parts.iter().map(|part| part.stop(STOP))).await.into_iter().sum();
        if cut > 0 {
            warn!(cut, "conversations did not stop in time; their sockets are cut");
        }
        for part in &self.parts {
            if let Some(fence) = part.fence.take() {
                self.setup.leases.calm(part.partition, fence);
            }
        }
        self.count_nothing();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a shard's tasks start")]
fn spawn(task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(task)
}

#[cfg(test)]
mod tests;
