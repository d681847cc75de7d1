//! Takes over a changed configuration without a restart.
//!
//! A change is noticed by SIGHUP, or by a look at the files every two seconds. The look follows links, so the swap of a link by
//! Kubernetes is a change. A configuration with a mistake changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;
use tracing::{error, info, warn};

use crate::config::{
    BotConfig, Config, ConfigDigests, ConfigSources, FileMark, LoadedConfig, WebhooksConfig,
};
use crate::http::{ApiContext, ReloadStatus, ServerTls, ServerTlsError, TlsSettings};
use crate::hub::Hub;
use crate::identity::RemoteKeys;
use crate::metrics::Metrics;
use crate::telemetry;
use crate::webhook::{ReceiverReload, SenderSetupError};

/// The time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The keys that a running bridge takes over. Those of a list have `*` for the name.
const LIVE_KEYS: [&str; 10] = [
    "callers.*",
    "bots.*.kore_webhook.clients.*",
    "bots.*.webhooks.*",
    "webhooks.allowed",
    "webhooks.ca_file",
    "log.filter",
    "server.max_requests",
    "server.max_streams",
    "server.memory_limit",
    "server.tls.*",
];

/// A way to read the configuration again.
pub type ConfigReader = Box<dyn Fn() -> LoadedConfig>;

/// The watch over a configuration.
pub(super) struct ConfigReload {
    read: ConfigReader,
    /// The values that are in force, as far as they can be.
    digests: ConfigDigests,
    files: BTreeMap<PathBuf, Option<FileMark>>,
}

/// The parts of a bridge that take over a changed configuration.
#[derive(Debug, Clone)]
pub(super) struct ReloadTargets {
    pub(super) context: Arc<ApiContext>,
    pub(super) bots: Vec<Arc<BotConfig>>,
    /// The configuration of the start. Most of its keys need a restart.
    pub(super) webhooks: WebhooksConfig,
    pub(super) hub: Hub,
    pub(super) receivers: ReceiverReload,
    pub(super) metrics: Arc<Metrics>,
    pub(super) status: Arc<ReloadStatus>,
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// Failure to take over a configuration without a mistake.
#[derive(Debug, thiserror::Error)]
enum TakeOverError {
    #[error(transparent)]
    Sender(#[from] SenderSetupError),
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
}

impl ReloadTargets {
    /// Gives each part its new settings. All of them are checked before the first part takes its own.
    fn apply(&self, config: &Arc<Config>) -> Result<(), TakeOverError> {
        let certificate = config.server.tls.as_ref().map(TlsSettings::new).transpose()?;
        self.receivers.check(config)?;
        match (&self.tls, certificate) {
            (Some(tls), Some(certificate)) => tls.replace(certificate),
            (None, None) => {}
            _ => warn!("the listener begins or ends TLS (server.tls) with a restart only"),
        }
        for bot in &self.bots {
            if let Some(changed) = config.bots.iter().find(|changed| changed.name == bot.name) {
                bot.replace_endpoints(&changed.webhooks);
            }
        }
        // The bots themselves stay until a restart.
        let webhooks = WebhooksConfig {
            allowed: config.webhooks.allowed.clone(),
            ca: config.webhooks.ca.clone(),
            ..self.webhooks.clone()
        };
        let config = &Arc::new(Config { bots: self.bots.clone(), webhooks, ..Config::clone(config) });
        self.receivers.replace(Arc::clone(config));
        self.hub.reload_callers(&config.callers);
        for keys in self.context.reload(config) {
            super::spawn(RemoteKeys::run(keys, Arc::clone(&self.metrics)));
        }
        self.metrics.limits.set_request_memory(config.server.memory_limit);
        telemetry::change_filter(&config.log);
        Ok(())
    }

    fn succeeded(&self) {
        self.status.set(None);
        self.metrics.callers.config_reloaded(true);
    }

    fn failed(&self, why: &'static str) {
        self.status.set(Some(why));
        self.metrics.callers.config_reloaded(false);
    }
}

impl ConfigReload {
    /// Begins to watch. `sources` are those of the configuration that the bridge has started with.
    pub(super) fn new(read: ConfigReader, sources: &ConfigSources) -> Self {
        let mut reload = Self { read, digests: sources.digests.clone(), files: BTreeMap::new() };
        reload.mark(sources);
        reload
    }

    /// Takes over changes until the future is dropped.
    pub(super) async fn run(mut self, targets: ReloadTargets) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            error!("SIGHUP cannot be received; a change of the files is noticed all the same");
            return;
        };
        let mut look = interval(LOOK_INTERVAL);
        loop {
            if !self.is_wanted(&mut hangup, &mut look).await {
                continue;
            }
            let loaded = (self.read)();
            self.mark(&loaded.sources);
            self.take_over(loaded, &targets);
        }
    }

    async fn is_wanted(&self, hangup: &mut Signal, look: &mut tokio::time::Interval) -> bool {
        tokio::select! {
            _ = hangup.recv() => {
                info!("SIGHUP: the configuration is read again");
                true
            }
            _ = look.tick() => self.files.iter().any(|(path, mark)| FileMark::of(path) != *mark),
        }
    }

    fn mark(&mut self, sources: &ConfigSources) {
        self.files.clone_from(&sources.files);
    }

    fn take_over(&mut self, loaded: LoadedConfig, targets: &ReloadTargets) {
        let (config, warnings) = match loaded.result {
            Ok(loaded) => loaded,
            Err(errors) => {
                error!("the changed configuration has mistakes, so nothing of it is used:\n{errors}");
                targets.failed("the changed configuration has mistakes; the log lists them");
                return;
            }
        };
        let changed = self.digests.changed(&loaded.sources.digests);
        if changed.is_empty() {
            info!("the configuration has not changed");
            targets.succeeded();
            return;
        }
        if !config.has_callers() && targets.context.has_callers() {
            error!(
                "the changed configuration has no callers, so each request would be allowed; nothing of it is used"
            );
            targets.failed("a running bridge cannot lose its last caller; restart it without callers");
            return;
        }
        for warning in &warnings {
            warn!(key = warning.key, "configuration: {warning}");
        }
        if let Err(why) = targets.apply(&Arc::new(config)) {
            error!("the changed configuration cannot be used: {why}");
            targets.failed("the changed configuration cannot be used; the log says why");
            return;
        }
        let (live, restart): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| is_live(key));
        if !live.is_empty() {
            info!(keys = live.join(", "), "the configuration was taken over");
        }
        if !restart.is_empty() {
            warn!(keys = restart.join(", "), "these changed keys need a restart of the bridge");
        }
        self.digests = loaded.sources.digests;
        targets.succeeded();
    }
}

/// Returns whether a running bridge takes over this key.
fn is_live(key: &str) -> bool {
    let matches = |pattern: &str| {
        let (mut key, mut pattern) = (key.split('.'), pattern.split('.').peekable());
        while let Some(part) = pattern.next() {
            match key.next() {
                Some(found) if part == "*" || part == found => {}
                _ => return false,
            }
            if part == "*" && pattern.peek().is_none() {
                return true;
            }
        }
        key.next().is_none_or(|rest| rest.parse::<usize>().is_ok())
    };
    LIVE_KEYS.into_iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::is_live;

    #[test]
    fn keys_that_need_no_restart_are_known() {
        for live in [
            "callers.crm.rate_per_minute",
            "callers.crm.scopes.1",
            "callers.crm.jwt.jwks_url",
            "bots.support.kore_webhook.clients.2.secret_file",
            "bots.support.webhooks.main.secrets_file",
            "webhooks.allowed.2",
            "log.filter",
            "server.max_requests",
        ] {
            assert!(is_live(live), "{live}");
        }
        for restart in [
            "bots.support.platform",
            "store.url",
            "server.listen",
            "log.format",
            "webhooks.proxy",
            "callers",
            "server",
        ] {
            assert!(!is_live(restart), "{restart}");
        }
    }
}
