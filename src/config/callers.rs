//! `[[callers]]`.

use std::sync::Arc;

use secrecy::SecretString;

use super::bots::bot_name;
use super::caller_token;
use super::config_value::ConfigValue;
use super::parse::{self, InvalidValue, ParseResult, list, number, one_of};
use super::proxy::SharedProxies;
use super::secret;
use super::section::Section;
use super::webhooks::webhook_form;
use super::{CallerTokenConfig, KoreClient, PayloadFormat};
use crate::domain::BotName;

/// The scopes of a caller. No scope includes another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerScopes {
    /// POST messages, DELETE conversations.
    pub send: bool,
    /// GET what belongs to conversations.
    pub read: bool,
    /// The deliveries of webhooks.
    pub admin: bool,
}

/// Where a rate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateScope {
    /// On each replica alone.
    #[default]
    Replica,
    /// On all replicas together.
    Fleet,
}

/// One of `[[callers]]`.
#[derive(Debug, Clone)]
pub struct CallerConfig {
    /// The name in debug logs. Idempotency keys of different names are separate.
    pub name: String,
    /// The SHA-256 of the caller's key, or `None` for a caller by token alone.
    pub key_sha256: Option<[u8; 32]>,
    /// The tokens that the caller may show.
    pub jwt: Option<Arc<CallerTokenConfig>>,
    /// The scopes of the key.
    pub scopes: CallerScopes,
    /// The bots that the caller may use. Empty for every bot.
    pub bots: Option<Vec<BotName>>,
    /// The required prefix of its users' identities.
    pub user_prefix: String,
    /// The largest number of requests per minute; 0 for no limit.
    pub rate_per_minute: u32,
    /// Where `rate_per_minute` holds.
    pub rate_scope: RateScope,
    /// The largest number of concurrent requests; 0 for no limit.
    pub max_open_requests: u32,
    /// The largest number of its messages that have not ended; 0 for no limit.
    pub max_open_messages: u32,
    /// The secrets that sign its callbacks, newest first.
    pub webhook_secrets: Vec<SecretString>,
    /// The format of its callbacks.
    pub webhook_form: PayloadFormat,
    /// The client of the webhook channel that the caller is. It has no other credentials then.
    pub kore_client: Option<KoreClient>,
}

const RATE_SCOPES: [(&str, RateScope); 2] = [("replica", RateScope::Replica), ("fleet", RateScope::Fleet)];

/// Reads one of `[[callers]]`. Returns `None` if a required key is missing or invalid.
pub(super) fn caller(section: &mut Section<'_>, proxies: &SharedProxies) -> Option<CallerConfig> {
    let name = section.required("name", "the caller's name in logs", |value| {
        let name = parse::text(value)?;
        BotName::new(&name).map(|name| name.as_str().to_owned()).map_err(|_| {
            InvalidValue("should be 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned())
        })
    });
    let key_sha256 = section.optional("key_sha256", secret::sha256);
    let jwt = section.optional_section("jwt", |section| caller_token::token(section, proxies));
    let path = section.key("key_sha256");
    let [by_key, by_token] =
        ["key_sha256", "jwt"].map(|key| section.diagnostics.was_given(&section.key(key)));
    if !by_key && !by_token {
        let what =
            "is missing: the hash of the caller's key (`rtm-bridge key new` prints both), or a table `jwt`";
        section.diagnostics.error(&path, what);
    }
    let scopes = section.required(
        "scopes",
        "the routes that the caller may use: \"send\", \"read\", \"admin\"",
        scopes,
    );
    let bots = section.optional("bots", list(bot_name));
    let path = section.key("bots");
    if bots.as_ref().is_some_and(Vec::is_empty) {
        section
            .diagnostics
            .error(&path, "is empty, so the caller could use no bot; leave it out to allow every bot");
    }
    let secrets = section.secret(
        "webhook_secrets",
        "webhook_secrets_file",
        list(secret::webhook_secret),
        secret::webhook_secrets_text,
    );
    let form = section.optional("webhook_form", webhook_form);
    if form.is_some() && secrets.as_ref().is_none_or(Vec::is_empty) {
        let path = section.key("webhook_form");
        let what =
            "has no effect without webhook_secrets: callbacks then have the bot's signature and format";
        section.diagnostics.warn(&path, what);
    }
    Some(CallerConfig {
        user_prefix: section.or("user_prefix", String::new(), parse::text),
        rate_per_minute: section.or("rate_per_minute", 0, number(0..=10_000_000)),
        rate_scope: section.or("rate_scope", RateScope::default(), one_of(&RATE_SCOPES)),
        max_open_requests: section.or("max_open_requests", 0, number(0..=1_000_000)),
        max_open_messages: section.or("max_open_messages", 0, number(0..=1_000_000)),
        webhook_secrets: secrets.unwrap_or_default(),
        webhook_form: form.unwrap_or_default(),
        kore_client: None,
        bots,
        name: name?,
        key_sha256,
        jwt: jwt.map(Arc::new),
        scopes: scopes?,
    })
}

fn scopes(value: &ConfigValue) -> ParseResult<CallerScopes> {
    #[derive(Clone, Copy)]
    enum CallerScope {
        Send,
        Read,
        Admin,
    }
    let words = &[("send", CallerScope::Send), ("read", CallerScope::Read), ("admin", CallerScope::Admin)];
    let all = list(|value| one_of(words)(value))(value)?;
    if all.is_empty() {
        return Err(InvalidValue(
            "is empty, so the caller could use no route; choose from send, read and admin".to_owned(),
        ));
    }
    Ok(all.into_iter().fold(CallerScopes::default(), |scopes, scope| match scope {
        CallerScope::Send => CallerScopes { send: true, ..scopes },
        CallerScope::Read => CallerScopes { read: true, ..scopes },
        CallerScope::Admin => CallerScopes { admin: true, ..scopes },
    }))
}

impl CallerConfig {
    /// Returns whether `other` takes all credentials of this caller, and may do all that this caller may do.
    pub fn is_covered_by(&self, other: &Self) -> bool {
        let bots = match (&self.bots, &other.bots) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(others)) => own.iter().all(|bot| others.contains(bot)),
        };
        let scopes = [
            (self.scopes.send, other.scopes.send),
            (self.scopes.read, other.scopes.read),
            (self.scopes.admin, other.scopes.admin),
        ];
        let key = self.key_sha256.is_none() || self.key_sha256 == other.key_sha256;
        let tokens = match (&self.jwt, &other.jwt) {
            (None, _) => true,
            (Some(own), others) => others.as_ref().is_some_and(|others| own.is_covered_by(others)),
        };
        key && tokens
            && self.kore_client == other.kore_client
            && bots
            && scopes.iter().all(|(own, others)| !own || *others)
            && self.user_prefix.starts_with(&other.user_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::client_key::ClientKey;
    use crate::config::{TokenKeySource, fixtures};

    const SCOPES: CallerScopes = CallerScopes { send: true, read: false, admin: false };

    fn by_token(change: impl FnOnce(&mut CallerTokenConfig)) -> CallerConfig {
        let mut jwt = CallerTokenConfig {
            issuer: "https://idp.example".into(),
            audience: vec!["bridge".to_owned()],
            keys: TokenKeySource::Remote {
                url: "https://idp.example/keys".parse().unwrap(),
                ca: None,
                proxy: None,
            },
            algorithms: vec![jsonwebtoken::Algorithm::ES256],
            user_claim: Some("sub".into()),
            scopes_claim: None,
            bots_claim: None,
            name_claim: None,
        };
        change(&mut jwt);
        CallerConfig { key_sha256: None, jwt: Some(Arc::new(jwt)), ..fixtures::caller("portal", SCOPES) }
    }

    #[test]
    fn changed_tokens_that_only_add_rights_cover_the_former() {
        let before = by_token(|_| {});
        let wider: [fn(&mut CallerTokenConfig); 5] = [
            |jwt| jwt.audience.push("gateway".to_owned()),
            |jwt| jwt.algorithms.push(jsonwebtoken::Algorithm::RS256),
            |jwt| jwt.user_claim = None,
            |jwt| jwt.name_claim = Some("azp".into()),
            |jwt| {
                let url = "https://idp.example/keys".parse().unwrap();
                jwt.keys = TokenKeySource::Remote { url, ca: Some(b"PEM".to_vec()), proxy: None };
            },
        ];
        for (index, change) in wider.into_iter().enumerate() {
            assert!(before.is_covered_by(&by_token(change)), "{index}");
        }
        let narrower: [fn(&mut CallerTokenConfig); 7] = [
            |jwt| jwt.audience = vec!["gateway".to_owned()],
            |jwt| jwt.algorithms = vec![jsonwebtoken::Algorithm::RS256],
            |jwt| jwt.user_claim = Some("email".into()),
            |jwt| jwt.scopes_claim = Some("scope".into()),
            |jwt| jwt.bots_claim = Some("bots".into()),
            |jwt| jwt.issuer = "https://other.example".into(),
            |jwt| {
                let url = "https://other.example/keys".parse().unwrap();
                jwt.keys = TokenKeySource::Remote { url, ca: None, proxy: None };
            },
        ];
        for (index, change) in narrower.into_iter().enumerate() {
            assert!(!before.is_covered_by(&by_token(change)), "{index}");
        }
        // A key beside the tokens is one more way in, and each of both may go.
        let both = CallerConfig { key_sha256: Some([1; 32]), ..by_token(|_| {}) };
        assert!(before.is_covered_by(&both) && !both.is_covered_by(&before));
        assert!(!both.is_covered_by(&CallerConfig { jwt: None, ..both.clone() }));
    }

    #[test]
    fn client_with_another_key_covers_none() {
        let client = |bot: &str, id: &str, secret: &str| CallerConfig {
            key_sha256: None,
            kore_client: Some(KoreClient {
                bot: BotName::new(bot).unwrap(),
                id: id.to_owned(),
                key: ClientKey::of_secret(&secret.into(), None).unwrap(),
            }),
            ..fixtures::caller("client", SCOPES)
        };
        let own = client("support", "cs-1", "secret");
        assert!(own.is_covered_by(&client("support", "cs-1", "secret")));
        for other in [
            client("support", "cs-1", "another"),
            client("support", "cs-2", "secret"),
            client("sales", "cs-1", "secret"),
            CallerConfig { kore_client: None, ..own.clone() },
        ] {
            assert!(!own.is_covered_by(&other), "{other:?}");
        }
    }
}
