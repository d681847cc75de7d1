//! State of the platform: users, grants, tickets and sockets. Its maps are sharded, so that users do not wait for
//! each other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::SandboxOptions;
use super::behaviour::Behaviour;
use super::faults::{Endpoint, FaultQueue};
use super::heard_log::HeardLog;
use super::history::HistoryEntry;
use super::id_generator::IdGenerator;
use super::observations::{PlatformTotals, ReceivedFrame, UserObservations};
use super::script_progress::ScriptProgress;
use super::session::ConversationSession;
use super::sharded_map::ShardedMap;
use super::socket_handle::SocketHandle;
use super::step::{CutMode, Step};
use super::uploads::UploadedFiles;
use super::webhook_channel::WebhookCall;

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
    pub(super) script_progress: ScriptProgress,
    pub(super) counts: PlatformCounters,
    /// Notified of each observation.
    pub(super) changed: watch::Sender<()>,
    /// Runtime for pushed steps.
    pub(super) runtime: Handle,
    pub(super) address: OnceLock<std::net::SocketAddr>,
    pub(super) uploads: UploadedFiles,
    pub(super) heard: HeardLog,
    /// Users who logged in to the console, by their tokens.
    pub(super) logins: ShardedMap<String>,
    /// Running webhook calls, by their poll ids.
    pub(super) polls: ShardedMap<WebhookCall>,
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
                Arc::new(UserEntry {
                    id,
                    is_forgotten: AtomicBool::new(false),
                    asked: AtomicU64::new(0),
                    state: Mutex::default(),
                })
            });
            Arc::clone(user)
        })
    }

    /// Returns the URL of this sandbox, without a path. A wildcard address is no host, so the client's own name for it
    /// is taken then.
    pub(super) fn site(&self, host: Option<&str>) -> Arc<str> {
        let Some(address) = self.address.get() else { return Arc::default() };
        match host {
            Some(host) if address.ip().is_unspecified() => format!("http://{host}").into(),
            _ => format!("http://{address}").into(),
        }
    }

    /// Returns the platform's id of a user. The same identity always has the same one.
    pub(super) fn user_id(&self, user: &str) -> String {
        self.ids.uuid_of("u-", user)
    }

    /// Plans the faults that the options have for the start.
    pub(super) fn plan_faults(&self) {
        for (endpoint, times, fault) in &self.options.faults {
            self.faults.plan(*endpoint, *times, fault.clone());
        }
    }

    /// Brings the platform back to its start: no users, tokens, tickets or history, and the first behaviour and
    /// faults. Open sockets are dropped. Returns the number of the newest entry that `/sandbox/heard` had.
    pub(super) fn reset(&self) -> u64 {
        *self.behaviour.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(self.options.behaviour.clone());
        *self.bot.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.faults.clear(None);
        self.plan_faults();
        self.script_progress.reset();
        self.grants.take();
        self.tickets.take();
        self.logins.take();
        self.polls.take();
        self.uploads.clear();
        locked(&self.used_jtis).clear();
        {
            let mut scripted = locked(&self.scripted_for_any);
            scripted.clear();
            self.scripted_for_any_count.store(0, Ordering::Release);
        }
        for user in self.users.take() {
            user.is_forgotten.store(true, Ordering::Release);
            for socket in &locked(&user.state).sockets {
                socket.cut(CutMode::Fin);
            }
        }
        self.heard.clear()
    }

    /// Records what a user's client did, for `/sandbox/heard`. A user from before a reset is no longer heard.
    pub(super) fn hear(&self, user: &UserEntry, kind: &str, fields: impl FnOnce() -> Value) {
        if !user.is_forgotten.load(Ordering::Acquire) && self.heard.push(&user.id, kind, fields) {
            self.changed.send_replace(());
        }
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
    /// Whether a reset removed the user.
    pub(super) is_forgotten: AtomicBool,
    /// Messages that a scripted bot answered.
    pub(super) asked: AtomicU64,
    pub(super) state: Mutex<UserState>,
}

impl UserEntry {
    pub(super) fn bot_id(&self) -> &str {
        self.id.bot.as_deref().unwrap_or_default()
    }
}

/// Context of a user's connection, for the bot (protocol.md 14).
#[derive(Debug, Clone, Default)]
pub(super) struct SimulatedContext {
    pub(super) custom_data: Option<Value>,
    pub(super) meta_tags: Option<Value>,
    pub(super) language: Option<String>,
}

impl SimulatedContext {
    /// Takes the members over that `botInfo` has.
    pub(super) fn update(&mut self, bot_info: &Value) {
        for (kept, name) in [(&mut self.custom_data, "customData"), (&mut self.meta_tags, "metaTags")] {
            if let Some(given) = bot_info.get(name).filter(|given| !given.is_null()) {
                *kept = Some(given.clone());
            }
        }
    }

    /// Returns the context as a text for the bot, if there is any.
    pub(super) fn summary(&self) -> Option<String> {
        let members = [("customData", &self.custom_data), ("metaTags", &self.meta_tags)];
        let told: Vec<String> = members
            .into_iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("Your {name}: {value}")))
            .collect();
        (!told.is_empty()).then(|| told.join("\n"))
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
    /// URL of this sandbox, without a path, as the user's client sees it.
    pub(super) site: Arc<str>,
    /// Context that the last grant and start carried.
    pub(super) context: SimulatedContext,
    /// `timestamp` of the newest response.
    pub(super) last_timestamp: i64,
    /// Times of the messages of the last minute, oldest first.
    pub(super) sent: VecDeque<Timestamp>,
    pub(super) history: VecDeque<HistoryEntry>,
    /// Steps for the next messages.
    pub(super) scripted_messages: VecDeque<Vec<Step>>,
    /// Steps for the next connects, in place of the usual ones.
    pub(super) scripted_connects: VecDeque<Vec<Step>>,
    /// Whether the bot stalls, so that the next message gets no answer either.
    pub(super) stalled: bool,
    /// Whether unsolicited responses are posted too: the user's last call was an asynchronous one of version 2.
    pub(super) takes_pushes: bool,
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
