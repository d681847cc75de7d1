//! State of the platform: users, grants, tickets and sockets. Its maps are sharded, so that users do not wait for
//! each other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::SandboxOptions;
use super::behaviour::Behaviour;
use super::faults::{Endpoint, FaultQueue};
use super::history::HistoryEntry;
use super::id_generator::IdGenerator;
use super::observations::{PlatformTotals, ReceivedFrame, UserObservations};
use super::session::ConversationSession;
use super::sharded_map::ShardedMap;
use super::socket_handle::SocketHandle;
use super::step::Step;
use super::uploads::UploadedFiles;

/// Bot of a test: returns the steps for each message.
pub(super) type BotFn = dyn Fn(&BotUser, &ReceivedFrame) -> Vec<Step> + Send + Sync;

/// Name of a user of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BotUser {
    pub(super) bot: Option<String>,
    pub(super) user: String,
}

impl BotUser {
    /// Returns the bot's id (`st-…`); `None` is the first bot of the sandbox.
    pub fn bot(&self) -> Option<&str> {
        self.bot.as_deref()
    }

    /// Returns the `sub` of the user's assertion.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl From<&str> for BotUser {
    /// Names a user of the sandbox's first bot.
    fn from(user: &str) -> Self {
        Self { bot: None, user: user.to_owned() }
    }
}

impl From<(&str, &str)> for BotUser {
    /// Names the bot by its id, and the user.
    fn from((bot, user): (&str, &str)) -> Self {
        Self { bot: Some(bot.to_owned()), user: user.to_owned() }
    }
}

/// Locks a mutex even after another holder panicked. No holder leaves half-written data.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A grant for one user.
#[derive(Clone)]
pub(super) struct SimulatedGrant {
    pub(super) user: Arc<UserEntry>,
    pub(super) expires: Timestamp,
    /// Value of [`PlatformState::grant_epoch`] at the grant.
    pub(super) epoch: u64,
}

/// A ticket, found by its `sid`.
#[derive(Clone)]
pub(super) struct SimulatedTicket {
    pub(super) user: Arc<UserEntry>,
    pub(super) made_at: Timestamp,
    /// The platform's half of the secure handshake, if the client asked for one.
    pub(super) nonce: Option<String>,
}

/// State of a sandbox that all its threads share.
pub(super) struct PlatformState {
    pub(super) options: SandboxOptions,
    pub(super) behaviour: RwLock<Arc<Behaviour>>,
    pub(super) faults: FaultQueue,
    pub(super) ids: IdGenerator,
    pub(super) users: ShardedMap<Arc<UserEntry>>,
    pub(super) grants: ShardedMap<SimulatedGrant>,
    /// Grants of an earlier epoch are expired.
    pub(super) grant_epoch: AtomicU64,
    pub(super) tickets: ShardedMap<SimulatedTicket>,
    pub(super) used_jtis: Mutex<HashMap<String, Timestamp>>,
    /// Steps for the next messages of any user.
    pub(super) scripted_for_any: Mutex<VecDeque<Vec<Step>>>,
    /// Length of `scripted_for_any`. It spares messages the lock while the queue is empty.
    pub(super) scripted_for_any_count: AtomicUsize,
    pub(super) bot: RwLock<Option<Arc<BotFn>>>,
    pub(super) counts: PlatformCounters,
    /// Notified of each observation.
    pub(super) changed: watch::Sender<()>,
    /// Runtime for pushed steps.
    pub(super) runtime: Handle,
    pub(super) address: OnceLock<std::net::SocketAddr>,
    pub(super) uploads: UploadedFiles,
}

#[derive(Default)]
pub(super) struct PlatformCounters {
    pub(super) grants: AtomicU64,
    pub(super) starts: AtomicU64,
    pub(super) upgrades: AtomicU64,
    pub(super) history_reads: AtomicU64,
    pub(super) file_calls: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) responses: AtomicU64,
    pub(super) open_sockets: AtomicU64,
    pub(super) socket_ids: AtomicU64,
}

impl PlatformCounters {
    pub(super) fn totals(&self) -> PlatformTotals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PlatformTotals {
            grants: read(&self.grants),
            starts: read(&self.starts),
            upgrades: read(&self.upgrades),
            history_reads: read(&self.history_reads),
            file_calls: read(&self.file_calls),
            messages: read(&self.messages),
            responses: read(&self.responses),
            open_sockets: read(&self.open_sockets),
        }
    }
}

impl PlatformState {
    pub(super) fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&self.behaviour.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request to an endpoint.
    pub(super) fn count(&self, endpoint: Endpoint) {
        let counter = match endpoint {
            Endpoint::Grant => &self.counts.grants,
            Endpoint::Start => &self.counts.starts,
            Endpoint::History => &self.counts.history_reads,
            Endpoint::Upgrade => &self.counts.upgrades,
            Endpoint::FileToken
            | Endpoint::File
            | Endpoint::FileChunk
            | Endpoint::FileCommit
            | Endpoint::FileUrl => &self.counts.file_calls,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.changed.send_replace(());
    }

    /// Returns the user, and creates it if needed.
    pub(super) fn user(&self, who: &BotUser) -> Arc<UserEntry> {
        let bot =
            who.bot.as_deref().or_else(|| self.options.bots.first().map(String::as_str)).unwrap_or_default();
        let key = format!("{bot}\n{}", who.user);
        self.users.with(&key, |users| {
            let user = users.entry(key.clone()).or_insert_with(|| {
                let id = BotUser { bot: Some(bot.to_owned()), user: who.user.clone() };
                Arc::new(UserEntry { id, state: Mutex::default() })
            });
            Arc::clone(user)
        })
    }

    /// Adds an observation if the sandbox keeps them, and wakes the waiting tests.
    pub(super) fn observe(&self, user: &UserEntry, note: impl FnOnce(&mut UserObservations)) {
        if self.options.observe {
            note(&mut locked(&user.state).observed);
            self.changed.send_replace(());
        }
    }
}

/// A user of a bot, and its state.
pub(super) struct UserEntry {
    /// Name of the user, always with the bot's id.
    pub(super) id: BotUser,
    pub(super) state: Mutex<UserState>,
}

impl UserEntry {
    pub(super) fn bot_id(&self) -> &str {
        self.id.bot.as_deref().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct UserState {
    /// `botInfo.chatBot` of the last grant.
    pub(super) chat_bot: String,
    pub(super) sockets: Vec<Arc<SocketHandle>>,
    pub(super) session: Option<ConversationSession>,
    /// Whether a human agent has the conversation.
    pub(super) agent: bool,
    /// Trace id of the newest socket.
    pub(super) trace: String,
    /// Times of the messages of the last minute, oldest first.
    pub(super) sent: VecDeque<Timestamp>,
    pub(super) history: VecDeque<HistoryEntry>,
    /// Steps for the next messages.
    pub(super) scripted_messages: VecDeque<Vec<Step>>,
    /// Steps for the next connects, in place of the usual ones.
    pub(super) scripted_connects: VecDeque<Vec<Step>>,
    /// Whether the bot stalls, so that the next message gets no answer either.
    pub(super) stalled: bool,
    /// The newest responses, for new sockets of a platform that repeats them.
    pub(super) repeatable: VecDeque<String>,
    pub(super) observed: UserObservations,
}

impl UserState {
    /// Adds a message to the history, which drops its oldest message at `cap`.
    pub(super) fn remember(&mut self, said: HistoryEntry, cap: usize) {
        if cap > 0 {
            while self.history.len() >= cap {
                self.history.pop_front();
            }
            self.history.push_back(said);
        }
    }
}
