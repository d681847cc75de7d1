//! The settings of the API that a reload of the configuration replaces while requests go on.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::ApiContext;
use super::caller_table::CallerTable;
use crate::config::Config;
use crate::domain::UrlPattern;
use crate::identity::RemoteKeys;

/// The settings of one configuration.
#[derive(Debug)]
pub(super) struct LiveSettings {
    pub(super) callers: CallerTable,
    /// The patterns of callbacks.
    pub(super) allowed: Vec<UrlPattern>,
    pub(super) max_requests: usize,
    pub(super) max_streams: usize,
}

/// The current settings.
#[derive(Debug)]
pub(super) struct LiveSettingsCell(RwLock<Arc<LiveSettings>>);

impl LiveSettings {
    fn new(config: &Config, callers: CallerTable) -> Self {
        Self {
            callers,
            allowed: config.webhooks.allowed.clone(),
            max_requests: config.server.max_requests,
            max_streams: config.server.max_streams,
        }
    }
}

impl LiveSettingsCell {
    pub(super) fn new(config: &Config) -> Self {
        Self(RwLock::new(Arc::new(LiveSettings::new(config, CallerTable::new(config)))))
    }

    pub(super) fn get(&self) -> Arc<LiveSettings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the last reload of the configuration ended.
#[derive(Debug, Default)]
pub struct ReloadStatus(RwLock<Option<&'static str>>);

impl ReloadStatus {
    /// Sets the reason why the last reload failed, or none.
    pub fn set(&self, failure: Option<&'static str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Returns the reason why the last reload failed.
    pub fn failure(&self) -> Option<&'static str> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiContext {
    /// Returns whether the configuration has callers.
    pub fn has_callers(&self) -> bool {
        !self.live.get().callers.is_empty()
    }

    /// Takes over the callers, the patterns of callbacks and the limits of a new configuration. Open requests go on, but those of
    /// callers that are gone or may do less end. Returns the keys of issuers that must be fetched from now on.
    pub fn reload(&self, config: &Config) -> Vec<Weak<RemoteKeys>> {
        let before = self.live.get();
        let known = before.callers.remote_keys();
        let next = Arc::new(LiveSettings::new(config, before.callers.followed_by(config)));
        next.callers.show(&self.metrics.callers);
        self.memory.set_limit(config.server.memory_limit);
        self.request_share.set_limit(config.server.max_requests);
        self.stream_share.set_limit(config.server.max_streams);
        *self.live.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        before.callers.revoke_all_but(&next.callers);
        let fetched = next.callers.remote_keys();
        fetched.into_iter().filter(|keys| !known.iter().any(|old| Weak::ptr_eq(old, keys))).collect()
    }
}
