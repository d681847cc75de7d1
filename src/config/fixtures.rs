//! Values that tests of several layers share.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests give valid values")]

use super::{BotConfig, CallerConfig, CallerScopes, NoProxyList, PayloadFormat, ProxyConfig, RateScope};
use crate::domain::{BotName, Sha256};

/// Returns a bot with every default.
pub fn bot(name: &str) -> BotConfig {
    BotConfig::new(BotName::new(name).unwrap(), "https://platform.example".parse().unwrap())
}

/// Returns a caller without limits. Its key is its name.
pub fn caller(name: &str, scopes: CallerScopes) -> CallerConfig {
    CallerConfig {
        name: name.to_owned(),
        key_sha256: Some(Sha256::digest(name)),
        jwt: None,
        rate_scope: RateScope::default(),
        scopes,
        bots: None,
        user_prefix: String::new(),
        rate_per_minute: 0,
        max_open_requests: 0,
        max_open_messages: 0,
        webhook_secrets: Vec::new(),
        webhook_form: PayloadFormat::Standard,
        kore_client: None,
    }
}

/// Returns a proxy at this URL, without credentials and exceptions.
pub fn proxy(url: &str) -> ProxyConfig {
    ProxyConfig {
        url: url.parse().unwrap(),
        credentials: None,
        ca: None,
        no_proxy: NoProxyList::default(),
        loopback_direct: false,
        origin: "proxy.url".into(),
    }
}
