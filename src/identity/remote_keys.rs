//! The keys of an issuer that are fetched: at the start, every ten minutes, and when a token names an unknown one.
//!
//! Keys are kept while the issuer is away, for as long as it is. An unknown key id is in the hands of strangers, so it causes
//! one fetch a minute at most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::key_set::KeySet;
use super::key_set_fetch::{KeySetFetchError, KeySetFetcher};
use crate::config::ProxyConfig;
use crate::metrics::Metrics;

/// The age at which keys are fetched again, so that a key that the issuer withdrew is soon refused.
const REFRESH: Duration = Duration::from_mins(10);
/// The least time between two fetches that strangers can cause.
const PAUSE: Duration = Duration::from_mins(1);
/// The delays after failed fetches: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The longest wait of a request for a fetch.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// The keys at an address.
#[derive(Debug)]
pub struct RemoteKeys {
    /// The caller whose tokens they verify.
    caller: Box<str>,
    url: Url,
    ca: Option<Vec<u8>>,
    proxy: Option<Arc<ProxyConfig>>,
    current: RwLock<Arc<KeySet>>,
    /// The number of fetches that have ended.
    fetched: watch::Sender<u64>,
    schedule: Mutex<FetchSchedule>,
    wanted: Arc<Notify>,
}

#[derive(Debug, Default)]
struct FetchSchedule {
    /// The last time that an unknown key was asked for.
    asked_at: Option<Instant>,
    /// Whether a fetch goes on, or begins at once.
    in_flight: bool,
}

impl RemoteKeys {
    pub(super) fn new(
        caller: &str,
        url: &Url,
        ca: Option<&[u8]>,
        proxy: Option<&Arc<ProxyConfig>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            caller: caller.into(),
            url: url.clone(),
            ca: ca.map(<[u8]>::to_vec),
            proxy: proxy.cloned(),
            current: RwLock::default(),
            fetched: watch::Sender::new(0),
            // The first fetch begins with the bridge.
            schedule: Mutex::new(FetchSchedule { asked_at: None, in_flight: true }),
            wanted: Arc::default(),
        })
    }

    /// Returns the keys of the last fetch that succeeded. The set is empty before it.
    pub(super) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks for newer keys, and waits for them. Returns whether a fetch has ended since, well or not. Returns `false` at
    /// once if the keys were asked for within the last minute, or if the issuer is away.
    pub async fn refetched(&self) -> bool {
        let mut fetched = self.fetched.subscribe();
        fetched.borrow_and_update();
        {
            let mut schedule = self.schedule();
            if !schedule.in_flight {
                let is_recent = schedule.asked_at.is_some_and(|asked| asked.elapsed() < PAUSE);
                // Missing keys are fetched with delays of their own.
                if is_recent || self.current().is_empty() {
                    return false;
                }
                *schedule = FetchSchedule { asked_at: Some(Instant::now()), in_flight: true };
                self.wanted.notify_one();
            }
        }
        matches!(timeout(REQUEST_WAIT, fetched.changed()).await, Ok(Ok(())))
    }

    fn schedule(&self) -> MutexGuard<'_, FetchSchedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the keys again and again, until the last verifier has gone.
    pub async fn run(keys: Weak<Self>, metrics: Arc<Metrics>) {
        let mut failures = 0;
        loop {
            let Some(strong) = keys.upgrade() else { return };
            strong.schedule().in_flight = true;
            match strong.fetch().await {
                Ok(set) => {
                    let known = strong.current().len();
                    if known != set.len() || failures > 0 {
                        tracing::info!(
                            caller = &*strong.caller,
                            keys = set.len(),
                            "the keys of an issuer were fetched"
                        );
                    }
                    failures = 0;
                    *strong.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
                    metrics.callers.key_set_fetched(&strong.caller, true);
                }
                Err(error) => {
                    failures += 1;
                    metrics.callers.key_set_fetched(&strong.caller, false);
                    tracing::warn!(
                        caller = &*strong.caller, %error,
                        "the keys of an issuer could not be fetched; the known ones stay in use"
                    );
                }
            }
            strong.schedule().in_flight = false;
            strong.fetched.send_modify(|count| *count += 1);
            let (wanted, is_empty) = (Arc::clone(&strong.wanted), strong.current().is_empty());
            drop(strong);
            let (first, longest) = RETRY;
            let delay = match failures {
                0 => REFRESH,
                failures => (first * 2_u32.saturating_pow(failures - 1)).min(longest),
            };
            tokio::select! {
                () = sleep(delay) => {}
                () = wanted.notified(), if !is_empty => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, KeySetFetchError> {
        KeySetFetcher::new(self.ca.as_deref(), self.proxy.as_ref())?.fetch(&self.url).await
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        // The task that fetches ends then.
        self.wanted.notify_one();
    }
}
