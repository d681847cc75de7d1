//! What the platform knows: users, grants, tickets, sockets. Sharded, so that users do not wait for each other.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Options;
use super::behaviour::Behaviour;
use super::faults::Faults;
use super::history::Said;
use super::observations::{Heard, Observed, Totals};
use super::session::Session;
use super::simulated_socket::Socket;
use super::step::Step;

/// A bot of a test's own: what it does with each message.
pub(super) type BotFn = dyn Fn(&Who, &Heard) -> Vec<Step> + Send + Sync;

/// A user of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who {
    pub(super) bot: Option<String>,
    pub(super) user: String,
}

impl Who {
    /// The bot's id (`st-…`); `None` is the first bot of the sandbox.
    pub fn bot(&self) -> Option<&str> {
        self.bot.as_deref()
    }

    /// The `sub` of the user's assertion.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl From<&str> for Who {
    /// That user of the sandbox's first bot.
    fn from(user: &str) -> Self {
        Self { bot: None, user: user.to_owned() }
    }
}

impl From<(&str, &str)> for Who {
    /// The bot's id and the user.
    fn from((bot, user): (&str, &str)) -> Self {
        Self { bot: Some(bot.to_owned()), user: user.to_owned() }
    }
}

/// Locks, also after another holder panicked: what is behind is never half written.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A map in 64 parts.
pub(super) struct Shards<V> {
    parts: Vec<Mutex<HashMap<String, V>>>,
    hasher: RandomState,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { parts: (0..64).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl<V> Shards<V> {
    /// Does something with the part that the key is in.
    pub(super) fn with<R>(&self, key: &str, f: impl FnOnce(&mut HashMap<String, V>) -> R) -> R {
        let part = usize::try_from(self.hasher.hash_one(key) % 64).unwrap_or_default();
        match self.parts.get(part) {
            Some(part) => f(&mut locked(part)),
            None => f(&mut HashMap::new()),
        }
    }

    pub(super) fn each(&self, mut f: impl FnMut(&V)) {
        for part in &self.parts {
            locked(part).values().for_each(&mut f);
        }
    }
}

/// Names that look random and follow from the seed.
pub(super) struct Ids {
    seed: u64,
    count: AtomicU64,
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, count: AtomicU64::new(0) }
    }

    /// One step of splitmix64.
    fn bits(&self) -> u64 {
        let n = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(self.seed);
        let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The prefix and a UUID.
    pub(super) fn uuid(&self, prefix: &str) -> String {
        let (a, b) = (self.bits(), self.bits());
        format!(
            "{prefix}{:08x}-{:04x}-5{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    /// Sixteen hexadecimal digits.
    pub(super) fn trace(&self) -> String {
        format!("{:016x}", self.bits())
    }

    /// Twenty-four hexadecimal digits.
    pub(super) fn session(&self) -> String {
        format!("{:016x}{:08x}", self.bits(), self.bits() >> 32)
    }

    /// Long enough not to be guessed by accident.
    pub(super) fn secret(&self) -> String {
        format!("{:016x}{:016x}", self.bits(), self.bits())
    }
}

/// What a grant allows.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) user: Arc<User>,
    pub(super) expires: Timestamp,
    /// The value of [`Platform::grant_epoch`] when it was given.
    pub(super) epoch: u64,
}

/// What a `sid` stands for.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) user: Arc<User>,
    pub(super) made_at: Timestamp,
    /// The platform's half of the secure handshake, where one was asked for.
    pub(super) nonce: Option<String>,
}

/// All of it.
pub(super) struct Platform {
    pub(super) options: Options,
    pub(super) behaviour: RwLock<Arc<Behaviour>>,
    pub(super) faults: Faults,
    pub(super) ids: Ids,
    pub(super) users: Shards<Arc<User>>,
    pub(super) grants: Shards<Grant>,
    /// Grants of an earlier epoch are expired.
    pub(super) grant_epoch: AtomicU64,
    pub(super) tickets: Shards<Ticket>,
    pub(super) used_jtis: Mutex<HashMap<String, Timestamp>>,
    /// What happens on the next messages, whoever says them.
    pub(super) next: Mutex<VecDeque<Vec<Step>>>,
    /// The length of `next`, so that the lock is spared while it is empty.
    pub(super) nexts: AtomicUsize,
    pub(super) bot: RwLock<Option<Arc<BotFn>>>,
    pub(super) counts: Counts,
    /// Told whenever something was observed.
    pub(super) changed: watch::Sender<()>,
    /// Where pushes run.
    pub(super) runtime: Handle,
    pub(super) address: OnceLock<std::net::SocketAddr>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) grants: AtomicU64,
    pub(super) starts: AtomicU64,
    pub(super) upgrades: AtomicU64,
    pub(super) history_reads: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) responses: AtomicU64,
    pub(super) open_sockets: AtomicU64,
    pub(super) socket_ids: AtomicU64,
}

impl Counts {
    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            grants: read(&self.grants),
            starts: read(&self.starts),
            upgrades: read(&self.upgrades),
            history_reads: read(&self.history_reads),
            messages: read(&self.messages),
            responses: read(&self.responses),
            open_sockets: read(&self.open_sockets),
        }
    }
}

impl Platform {
    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&self.behaviour.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The user, made on first sight.
    pub(super) fn user(&self, who: &Who) -> Arc<User> {
        let bot =
            who.bot.as_deref().or_else(|| self.options.bots.first().map(String::as_str)).unwrap_or_default();
        let key = format!("{bot}\n{}", who.user);
        self.users.with(&key, |users| {
            let user = users.entry(key.clone()).or_insert_with(|| {
                let who = Who { bot: Some(bot.to_owned()), user: who.user.clone() };
                Arc::new(User { who, inner: Mutex::default() })
            });
            Arc::clone(user)
        })
    }

    /// Notes an observation, where that is wanted, and wakes who waits for one.
    pub(super) fn observe(&self, user: &User, note: impl FnOnce(&mut Observed)) {
        if self.options.record {
            note(&mut locked(&user.inner).observed);
            self.changed.send_replace(());
        }
    }
}

/// A user of a bot and all that belongs to it.
pub(super) struct User {
    /// With the bot's id.
    pub(super) who: Who,
    pub(super) inner: Mutex<Inner>,
}

impl User {
    pub(super) fn bot_id(&self) -> &str {
        self.who.bot.as_deref().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct Inner {
    /// `botInfo.chatBot` of the last grant.
    pub(super) chat_bot: String,
    pub(super) sockets: Vec<Arc<Socket>>,
    pub(super) session: Option<Session>,
    /// Whether a human agent has the conversation.
    pub(super) agent: bool,
    /// Constant per socket: the newest one's.
    pub(super) trace: String,
    /// When the messages of the last minute came, the oldest first.
    pub(super) sent: VecDeque<Timestamp>,
    pub(super) history: VecDeque<Said>,
    /// What happens on the next messages.
    pub(super) next: VecDeque<Vec<Step>>,
    /// What happens on the next connects instead of the usual.
    pub(super) next_connect: VecDeque<Vec<Step>>,
    pub(super) observed: Observed,
}

impl Inner {
    /// Keeps a message for the history, which forgets the oldest at its cap.
    pub(super) fn remember(&mut self, said: Said, cap: usize) {
        if cap > 0 {
            while self.history.len() >= cap {
                self.history.pop_front();
            }
            self.history.push_back(said);
        }
    }
}
