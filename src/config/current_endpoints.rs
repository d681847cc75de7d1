//! The endpoints of a bot that are in force: those of its configuration, or those of a later reload.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use super::{BotConfig, BotWebhookConfig};
use crate::domain::DeliveryKind;

/// The endpoints of the last reload. All copies of a configuration share them.
#[derive(Clone, Default)]
pub struct ReloadedEndpoints(Arc<RwLock<Option<Arc<[BotWebhookConfig]>>>>);

/// The endpoints that are in force.
pub enum CurrentEndpoints<'a> {
    /// Those of the configuration.
    Configured(&'a [BotWebhookConfig]),
    /// Those of the last reload.
    Reloaded(Arc<[BotWebhookConfig]>),
}

impl Deref for CurrentEndpoints<'_> {
    type Target = [BotWebhookConfig];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Configured(endpoints) => endpoints,
            Self::Reloaded(endpoints) => endpoints,
        }
    }
}

impl fmt::Debug for ReloadedEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadedEndpoints")
    }
}

impl BotConfig {
    /// Returns the endpoints that are in force.
    pub fn endpoints(&self) -> CurrentEndpoints<'_> {
        let reloaded = self.reloaded_endpoints.0.read().unwrap_or_else(PoisonError::into_inner);
        match &*reloaded {
            Some(endpoints) => CurrentEndpoints::Reloaded(Arc::clone(endpoints)),
            None => CurrentEndpoints::Configured(&self.webhooks),
        }
    }

    /// Takes over the endpoints of a changed configuration, also for everything that holds this one.
    pub fn replace_endpoints(&self, endpoints: &[BotWebhookConfig]) {
        let mut reloaded = self.reloaded_endpoints.0.write().unwrap_or_else(PoisonError::into_inner);
        *reloaded = Some(endpoints.into());
    }

    /// Returns whether an endpoint gets events of this kind.
    pub fn delivers(&self, kind: DeliveryKind) -> bool {
        self.endpoints().iter().any(|endpoint| endpoint.takes(kind))
    }

    /// Returns the endpoint whose secrets sign callbacks of callers without secrets: the one without a URL, else the
    /// first.
    pub fn callback_signer(&self) -> Option<BotWebhookConfig> {
        let endpoints = self.endpoints();
        let mut signers = endpoints.iter().filter(|endpoint| !endpoint.secrets.is_empty());
        signers.clone().find(|endpoint| endpoint.url.is_none()).or_else(|| signers.next()).cloned()
    }
}

impl BotWebhookConfig {
    /// Returns whether the endpoint has a URL and gets events of this kind.
    pub fn takes(&self, kind: DeliveryKind) -> bool {
        self.url.is_some() && self.types.contains(&kind)
    }
}
