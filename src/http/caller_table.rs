//! The callers of this replica, with the counters of each.
//!
//! A table never changes. A reload of the configuration makes a new one, which takes over the counters of the callers that
//! stay.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use serde_json::{Map, Value};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use tokio_util::sync::CancellationToken;

use super::auth::{AuthRefusal, CallerIdentity, CallerRights};
use super::rate_limit::CallerRateLimit;
use crate::config::{CallerConfig, Config, RateScope};
use crate::domain::{BotName, CALLER_PLACES, Sha256, Timestamp};
use crate::identity::{ReadToken, RemoteKeys, TokenRefusal, TokenVerifier, parties_of};
use crate::metrics::CallerMetrics;

/// The callers of one configuration.
#[derive(Debug)]
pub(super) struct CallerTable {
    entries: Vec<KeyedCaller>,
}

/// A caller and the identity of its key.
#[derive(Debug)]
struct KeyedCaller {
    entry: Arc<CallerEntry>,
    identity: CallerIdentity,
}

/// A caller with its counters on this replica.
#[derive(Debug)]
pub(super) struct CallerEntry {
    /// Its configuration.
    pub(super) config: CallerConfig,
    /// Its place in the shares of callers, also if no other caller shares the bridge.
    place: usize,
    /// Whether other callers share the bridge.
    is_shared: bool,
    /// Its name for the shares of the hub, or `None` if the hub has no share of it.
    pub(super) sharing_name: Option<Arc<str>>,
    /// Its open requests and streams.
    pub(super) open: Arc<AtomicUsize>,
    /// Its remaining requests, or `None` without a limit.
    pub(super) rate: Option<Arc<CallerRateLimit>>,
    /// The verifier of its tokens.
    pub(super) tokens: Option<Arc<TokenVerifier>>,
    /// Cancelled when a reload takes the caller away, or its rights.
    pub(super) revoked: CancellationToken,
}

impl CallerEntry {
    /// Returns the caller's place in the shares of callers. A single caller shares with no other, and has none.
    pub(super) fn holder(&self) -> Option<usize> {
        self.is_shared.then_some(self.place)
    }
}

impl CallerTable {
    /// Creates the table of these callers, with full rates and no open requests.
    pub(super) fn new(config: &Config) -> Self {
        Self { entries: Vec::new() }.followed_by(config)
    }

    /// Creates the table that follows this one. Callers that stay keep their counters.
    pub(super) fn followed_by(&self, config: &Config) -> Self {
        let callers = &config.callers;
        let mut known: HashMap<Box<str>, Arc<CallerEntry>> =
            self.entries().map(|entry| (entry.config.name.as_str().into(), Arc::clone(entry))).collect();
        let taken: Vec<_> = known.values().map(|entry| entry.place).collect();
        let mut free = (0..CALLER_PLACES).filter(|place| !taken.contains(place));
        let mut sharing = crate::hub::sharing_callers(callers).into_iter();
        let entries = callers.iter().enumerate().map(|(index, config)| {
            // The entry before, or another one of the same client: all keys of a client have its limits together.
            let old = known.get(config.name.as_str());
            let rate = old.and_then(|old| old.rate.clone()).filter(|rate| rate.is_of(config));
            let entry = Arc::new(CallerEntry {
                // Beyond the last place two callers share one.
                place: old.map(|old| old.place).or_else(|| free.next()).unwrap_or(index % CALLER_PLACES),
                is_shared: callers.len() > 1,
                sharing_name: sharing.next(),
                open: old.map(|old| Arc::clone(&old.open)).unwrap_or_default(),
                rate: rate.or_else(|| CallerRateLimit::new(config).map(Arc::new)),
                tokens: match (&config.jwt, old.and_then(|old| old.tokens.as_ref())) {
                    (Some(jwt), Some(tokens)) if tokens.config() == &**jwt => Some(Arc::clone(tokens)),
                    (jwt, before) => jwt
                        .as_ref()
                        .map(|jwt| Arc::new(TokenVerifier::new(jwt, &config.name, before.map(Arc::as_ref)))),
                },
                revoked: self
                    .entries()
                    .find(|old| old.config.name == config.name && old.config.is_covered_by(config))
                    .map(|old| old.revoked.clone())
                    .unwrap_or_default(),
                config: config.clone(),
            });
            known.insert(config.name.as_str().into(), Arc::clone(&entry));
            let identity = CallerIdentity::new(Arc::clone(&entry), CallerRights::of_key(config));
            KeyedCaller { entry, identity }
        });
        Self { entries: entries.collect() }
    }

    /// Returns whether the configuration has no callers but clients of the webhook channel, which use no other route.
    pub(super) fn is_empty(&self) -> bool {
        self.entries().all(|entry| entry.config.kore_client.is_some())
    }

    /// Finds a client of the webhook channel of a bot by its token, and returns the claims of the token too.
    pub(super) fn find_client(
        &self,
        bot: &BotName,
        id: &str,
        token: &str,
    ) -> Option<(&CallerIdentity, Map<String, Value>)> {
        self.entries.iter().find_map(|caller| {
            let client = caller.entry.config.kore_client.as_ref();
            let client = client.filter(|client| client.bot == *bot && client.id == id)?;
            Some((&caller.identity, client.key.verify(token)?))
        })
    }

    /// Returns the entries, in the order of the configuration.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<CallerEntry>> {
        self.entries.iter().map(|caller| &caller.entry)
    }

    /// Ends the open requests of the callers that the next table no longer has, or that may do less.
    pub(super) fn revoke_all_but(&self, next: &Self) {
        for entry in self.entries() {
            // An entry that follows another one without a loss of rights shares its token.
            let stays = next.entries().any(|other| {
                other.config.name == entry.config.name && entry.config.is_covered_by(&other.config)
            });
            if !stays {
                entry.revoked.cancel();
            }
        }
    }

    /// Shows the series of all callers.
    pub(super) fn show(&self, metrics: &CallerMetrics) {
        for entry in self.entries() {
            let has_keys = entry.tokens.as_ref().is_some_and(|tokens| tokens.remote_keys().is_some());
            let is_shared = entry.config.rate_scope == RateScope::Fleet && entry.rate.is_some();
            metrics.show(&entry.config.name, has_keys, is_shared);
        }
    }

    /// Returns the keys of issuers, which [`RemoteKeys::run`] fetches.
    pub(super) fn remote_keys(&self) -> Vec<Weak<RemoteKeys>> {
        let tokens = self.entries().filter_map(|entry| entry.tokens.as_ref());
        tokens.filter_map(|tokens| tokens.remote_keys().map(Arc::downgrade)).collect()
    }

    /// Finds a caller by its key. The comparison always covers all callers and all bytes, so its duration reveals nothing.
    pub(super) fn find_by_key(&self, key: &[u8]) -> Option<&CallerIdentity> {
        let presented = Sha256::digest(key);
        let mut found = u64::MAX;
        for (index, caller) in (0_u64..).zip(&self.entries) {
            if let Some(expected) = &caller.entry.config.key_sha256 {
                found.conditional_assign(&index, presented.ct_eq(expected));
            }
        }
        Some(&self.entries.get(usize::try_from(found).ok()?)?.identity)
    }

    /// Finds the caller of a token, and verifies the token. Returns `None` if the text is no token, or no caller has tokens.
    pub(super) fn find_by_token(
        &self,
        token: &[u8],
        now: Timestamp,
    ) -> Option<Result<CallerIdentity, AuthRefusal>> {
        if self.entries().all(|entry| entry.tokens.is_none()) {
            return None;
        }
        let parties = parties_of(token)?;
        let mut refusal = AuthRefusal::Token(TokenRefusal::Issuer, None);
        for entry in self.entries() {
            let Some(tokens) = entry.tokens.as_ref().filter(|tokens| tokens.is_of_issuer(&parties)) else {
                continue;
            };
            // Callers of one issuer differ by their audience, and each fetches keys of its own.
            if !tokens.is_for_audience(&parties) {
                if !refusal.is_of_a_caller() {
                    refusal = AuthRefusal::Token(TokenRefusal::Audience, None);
                }
                continue;
            }
            match tokens.verify(token, now) {
                Ok(rights) => {
                    let rights = CallerRights::of_token(&entry.config, rights);
                    return Some(Ok(CallerIdentity::new(Arc::clone(entry), rights)));
                }
                Err(why) => refusal = AuthRefusal::Token(why, tokens.remote_keys().cloned()),
            }
        }
        Some(Err(refusal))
    }

    /// Returns the identity of a read token, if its caller is still one and may read.
    pub(super) fn find_by_read_token(&self, token: ReadToken) -> Option<CallerIdentity> {
        let entry = self.entries().find(|entry| *entry.config.name == *token.caller)?;
        let rights = CallerRights::of_read_token(&entry.config, token);
        rights.scopes.read.then(|| CallerIdentity::new(Arc::clone(entry), rights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KoreWebhookConfig;

    /// Returns a configuration whose bot has a client of the webhook channel with these secrets.
    fn with_secrets(secrets: &[&str]) -> Config {
        let mut config = Config::dev("http://127.0.0.1:1".parse().unwrap());
        let mut bot = (*config.bots[0]).clone();
        let clients = secrets.iter().flat_map(|secret| {
            bot.client_secret = (*secret).into();
            KoreWebhookConfig::of_app(&bot).unwrap().clients
        });
        let clients = clients.map(|client| CallerConfig { rate_per_minute: 5, ..client }).collect::<Vec<_>>();
        bot.kore_webhook.as_mut().unwrap().clients = clients;
        config.bots = vec![Arc::new(bot)];
        config.add_kore_clients();
        config
    }

    #[test]
    fn secrets_of_a_client_share_its_limits() {
        let table = CallerTable::new(&with_secrets(&["new", "old"]));
        let [new, old] = &table.entries().collect::<Vec<_>>()[..] else { panic!("two secrets") };
        assert!(Arc::ptr_eq(&new.open, &old.open) && new.place == old.place);
        assert!(Arc::ptr_eq(new.rate.as_ref().unwrap(), old.rate.as_ref().unwrap()));
    }

    #[test]
    fn removed_secret_ends_its_own_requests_only() {
        for (both, old) in [(["new", "old"], 1), (["old", "new"], 0)] {
            let before = CallerTable::new(&with_secrets(&both));
            let after = before.followed_by(&with_secrets(&["new"]));
            before.revoke_all_but(&after);
            let revoked: Vec<_> = before.entries().map(|entry| entry.revoked.is_cancelled()).collect();
            assert_eq!((revoked[old], revoked[1 - old]), (true, false));
            // Requests of the first table end with the last secret too.
            after.revoke_all_but(&after.followed_by(&with_secrets(&["other"])));
            assert!(before.entries().all(|entry| entry.revoked.is_cancelled()));
        }
    }
}
