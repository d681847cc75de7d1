//! Authentication and authorisation of callers (api.md 6).
//!
//! The order of refusals is part of the contract. An unknown caller learns nothing but 401. A known caller gets 403 for
//! everything outside its configuration, whether it exists or not. Only then may an answer be 404. So no caller can
//! find out the names of other bots.

use std::fmt;
use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap};
use tokio_util::sync::CancellationToken;

use super::api_error::{ApiError, RETRY_SOON};
use super::caller_table::{CallerEntry, CallerTable};
use crate::config::{CallerConfig, CallerScopes};
use crate::domain::{BotName, Problem, ProblemKind, Timestamp, UserId};
use crate::identity::{ReadToken, RemoteKeys, TokenRefusal, TokenRights};

/// The scope that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredScope {
    /// POST of messages and signals, DELETE of conversations.
    Send,
    /// GET of everything below a conversation.
    Read,
    /// Deliveries, lists of conversations, erasures, and rhythms.
    Admin,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub(super) enum CallerIdentity {
    /// The configuration has no callers, so every request is allowed. Only a loopback listener may run so.
    Anonymous,
    /// One of `[[callers]]`.
    Known(Arc<KnownCaller>),
}

/// A caller with the rights of its credentials.
#[derive(Debug)]
pub(super) struct KnownCaller {
    entry: Arc<CallerEntry>,
    rights: CallerRights,
}

/// The rights that the credentials of a request give.
#[derive(Clone, Debug)]
pub(super) struct CallerRights {
    /// The name in logs. Each name has its own idempotency keys.
    pub(super) name: Box<str>,
    /// The scopes.
    pub(super) scopes: CallerScopes,
    /// The bots, or `None` for every bot.
    pub(super) bots: Option<Vec<BotName>>,
    /// The only user, or `None` for each user with the caller's prefix.
    pub(super) user: Option<UserId>,
    /// The kind of credentials, for refusals.
    pub(super) credential: Credential,
    /// The end of a read token.
    pub(super) expires: Option<Timestamp>,
}

/// The kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// A caller's key.
    Key,
    /// A token of the caller's identity provider.
    Token,
    /// A token of ours, for the events of one user.
    ReadToken,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Token | Self::ReadToken => "token",
        })
    }
}

impl CallerRights {
    /// Returns the rights of a caller's key.
    pub(super) fn of_key(config: &CallerConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            scopes: config.scopes,
            bots: config.bots.clone(),
            user: None,
            credential: Credential::Key,
            expires: None,
        }
    }

    /// Returns the rights of a token: those that both the configuration and the token give.
    pub(super) fn of_token(config: &CallerConfig, token: TokenRights) -> Self {
        let TokenRights { user, scopes, bots, name } = token;
        let own = config.scopes;
        let scopes = scopes.map_or(own, |given| CallerScopes {
            send: own.send && given.send,
            read: own.read && given.read,
            admin: own.admin && given.admin,
        });
        let bots = match (&config.bots, bots) {
            (None, bots) => bots,
            (Some(own), None) => Some(own.clone()),
            (Some(own), Some(mut given)) => {
                given.retain(|bot| own.contains(bot));
                Some(given)
            }
        };
        Self {
            // A slash is no part of a configured name, so no client can take the name of another caller.
            name: name
                .map_or_else(|| config.name.as_str().into(), |name| format!("{}/{name}", config.name).into()),
            scopes,
            bots,
            user,
            credential: Credential::Token,
            expires: None,
        }
    }

    /// Returns the rights of a read token of this caller.
    pub(super) fn of_read_token(config: &CallerConfig, token: ReadToken) -> Self {
        let bots = token.bot.map_or_else(
            || config.bots.clone(),
            |bot| {
                Some(if config.bots.as_ref().is_none_or(|own| own.contains(&bot)) {
                    vec![bot]
                } else {
                    vec![]
                })
            },
        );
        Self {
            name: config.name.as_str().into(),
            scopes: CallerScopes { read: config.scopes.read, ..CallerScopes::default() },
            bots,
            user: Some(token.user),
            credential: Credential::ReadToken,
            expires: Some(token.expires),
        }
    }
}

impl CallerIdentity {
    /// Creates the identity of a caller with these rights.
    pub(super) fn new(entry: Arc<CallerEntry>, rights: CallerRights) -> Self {
        Self::Known(Arc::new(KnownCaller { entry, rights }))
    }

    /// Finds the caller of the key or token in the `Authorization` header, at this time of the wall clock.
    ///
    /// # Errors
    /// [`AuthRefusal`]. A key goes first, because it may have the form of a token.
    pub(super) fn identify(
        callers: &CallerTable,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Self, AuthRefusal> {
        if callers.is_empty() {
            return Ok(Self::Anonymous);
        }
        let credentials = bearer_credentials(headers).ok_or(AuthRefusal::NoCredentials)?;
        match callers.find_by_key(credentials) {
            Some(caller) => Ok(caller.clone()),
            None => callers.find_by_token(credentials, now).unwrap_or(Err(AuthRefusal::UnknownKey)),
        }
    }

    /// Checks that the caller has a scope.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_scope(&self, scope: RequiredScope) -> Result<(), ApiError> {
        let Some(rights) = self.rights() else { return Ok(()) };
        let (covered, name) = match scope {
            RequiredScope::Send => (rights.scopes.send, "send"),
            RequiredScope::Read => (rights.scopes.read, "read"),
            RequiredScope::Admin => (rights.scopes.admin, "admin"),
        };
        if covered {
            return Ok(());
        }
        let credential = rights.credential;
        let refusal = forbidden(format!(
            "This {credential} lacks the scope `{name}`. Use another {credential}, or have the scope added."
        ));
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{name}\"");
        Err(refusal.with_challenge(&challenge))
    }

    fn rights(&self) -> Option<&CallerRights> {
        match self {
            Self::Anonymous => None,
            Self::Known(known) => Some(&known.rights),
        }
    }

    /// Returns the caller with its counters, or `None` without callers.
    pub(super) fn entry(&self) -> Option<&Arc<CallerEntry>> {
        match self {
            Self::Anonymous => None,
            Self::Known(known) => Some(&known.entry),
        }
    }

    /// Returns the caller's name. Each caller has its own idempotency keys.
    pub(super) fn name(&self) -> &str {
        self.rights().map_or("anonymous", |rights| &rights.name)
    }

    /// Returns the caller's place in shares, or `None` if it shares with no other.
    pub(super) fn holder(&self) -> Option<usize> {
        self.entry()?.holder()
    }

    /// Returns the token that is cancelled when a reload takes the caller away, or its rights.
    pub(super) fn revoked(&self) -> CancellationToken {
        self.entry().map(|entry| entry.revoked.clone()).unwrap_or_default()
    }

    /// Returns the end of a read token.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.rights()?.expires
    }

    /// Returns whether a browser of another origin may read the answer, because its token allows no more than that.
    pub(super) fn is_browser(&self) -> bool {
        self.rights().is_some_and(|rights| rights.credential == Credential::ReadToken)
    }

    /// Returns the limit of open requests, or `None` without a limit.
    pub(super) fn max_open(&self) -> Option<usize> {
        let limit = self.entry()?.config.max_open_requests;
        usize::try_from(limit).ok().filter(|limit| *limit > 0)
    }

    /// Returns the name that signs the caller's callbacks, or `None` without secrets.
    pub(super) fn signer(&self) -> Option<&str> {
        let config = &self.entry()?.config;
        (!config.webhook_secrets.is_empty()).then_some(&*config.name)
    }

    /// Returns the bots that the caller may use, or `None` if it may use all bots.
    pub(super) fn bots(&self) -> Option<&[BotName]> {
        self.rights()?.bots.as_deref()
    }

    /// Returns the prefix that the caller's users must have.
    pub(super) fn user_prefix(&self) -> &str {
        self.entry().map_or("", |entry| &entry.config.user_prefix)
    }

    /// Refuses a bot outside the caller's rights, whether the bot exists or not.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_bot(&self, bot: &str) -> Result<(), ApiError> {
        match self.rights() {
            Some(CallerRights { bots: Some(bots), credential, .. })
                if !bots.iter().any(|known| known.as_str() == bot) =>
            {
                Err(forbidden(format!(
                    "This {credential} does not cover this bot. Choose another bot with `?bot=NAME`."
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a user without the caller's prefix, and any other user than the only one.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_user(&self, user: &UserId) -> Result<(), ApiError> {
        let Some(rights) = self.rights() else { return Ok(()) };
        if rights.user.as_ref().is_some_and(|only| only != user) {
            return Err(forbidden(
                "This token is for another user. The path must name the user of the token.".to_owned(),
            ));
        }
        if user.as_str().starts_with(self.user_prefix()) {
            return Ok(());
        }
        let credential = rights.credential;
        Err(forbidden(format!(
            "This {credential} does not cover this user. Use a user with the prefix of this {credential}."
        )))
    }

    /// Refuses an identity to merge into the user, if the caller may not talk for it. The merge would hand its
    /// conversation over.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_merge(&self, identity: &UserId) -> Result<(), ApiError> {
        let Some(rights) = self.rights() else { return Ok(()) };
        if rights.user.is_some() {
            return Err(forbidden(
                "This token is for one user, so it cannot merge another identity. Leave that out, or use a key."
                    .to_owned(),
            ));
        }
        if identity.as_str().starts_with(self.user_prefix()) {
            return Ok(());
        }
        let credential = rights.credential;
        Err(forbidden(format!(
            "This {credential} does not cover the identity to merge. Use one with the prefix of this {credential}."
        )))
    }

    /// Refuses a caller whose credentials are for one user, for a route about several users.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_covers_users(&self) -> Result<(), ApiError> {
        match self.rights() {
            Some(CallerRights { user: Some(_), .. }) => Err(forbidden(
                "This token is for one user, and this route is about all users. Use a key, or a token without a user."
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Why a request has no caller.
#[derive(Clone, Debug)]
pub(super) enum AuthRefusal {
    /// It has no key and no token.
    NoCredentials,
    /// Its key is unknown.
    UnknownKey,
    /// The store, which knows the key of its read token, did not answer.
    StoreAway,
    /// Its token is refused. Newer keys of the issuer may verify it, if there are some to fetch.
    Token(TokenRefusal, Option<Arc<RemoteKeys>>),
}

impl AuthRefusal {
    /// Returns whether a caller was found that the token is meant for.
    pub(super) const fn is_of_a_caller(&self) -> bool {
        matches!(self, Self::Token(why, _) if !matches!(why, TokenRefusal::Issuer | TokenRefusal::Audience))
    }

    /// Returns the keys that may verify the token once they are fetched again.
    pub(super) fn fetchable_keys(&self) -> Option<&Arc<RemoteKeys>> {
        match self {
            Self::Token(TokenRefusal::UnknownKey | TokenRefusal::NoKeys, keys) => keys.as_ref(),
            _ => None,
        }
    }
}

impl From<AuthRefusal> for ApiError {
    fn from(refusal: AuthRefusal) -> Self {
        let unauthorized = |detail: String, challenge: &str| {
            Self::new(ProblemKind::Unauthorized, detail).with_challenge(challenge)
        };
        match refusal {
            AuthRefusal::NoCredentials => unauthorized(
                "The key is missing. Send a caller's key or token as `Authorization: Bearer KEY`.".to_owned(),
                "Bearer",
            ),
            AuthRefusal::UnknownKey => unauthorized(
                "The key is unknown. Send a caller's key or token as `Authorization: Bearer KEY`.".to_owned(),
                "Bearer error=\"invalid_token\"",
            ),
            AuthRefusal::StoreAway => {
                let detail = "The store has the key of this token and did not answer. Retry later.";
                Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(RETRY_SOON).into()
            }
            AuthRefusal::Token(TokenRefusal::NoKeys, _) => {
                let detail = "The keys of the token's issuer could not be fetched yet. Nothing was accepted; retry later.";
                Problem::new(ProblemKind::IssuerUnavailable, detail).retry_after(RETRY_SOON).into()
            }
            AuthRefusal::Token(refusal, _) => unauthorized(
                format!("The token is refused: {refusal}. Get a new one from its issuer, for this bridge."),
                &format!(
                    "Bearer error=\"invalid_token\", error_description=\"{}\"",
                    refusal.to_string().replace(['"', '\\'], "'")
                ),
            ),
        }
    }
}

/// Returns the credentials of the only `Authorization: Bearer` header (RFC 6750). The scheme's case is ignored.
pub(super) fn bearer_credentials(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

fn forbidden(detail: String) -> ApiError {
    ApiError::new(ProblemKind::Forbidden, detail)
}

#[cfg(test)]
impl CallerIdentity {
    /// Returns the identity of the key of a single caller.
    pub(super) fn single(config: &CallerConfig) -> Self {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let table = CallerTable::new(&crate::config::Config {
            callers: vec![config.clone()],
            ..crate::config::Config::dev(url)
        });
        let entry = table.entries().next().unwrap();
        Self::new(Arc::clone(entry), CallerRights::of_key(config))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::config::{Config, fixtures};
    use crate::domain::Sha256;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn header_with_one_bearer_key_is_read() {
        assert_eq!(bearer_credentials(&headers(&["Bearer abc"])), Some(&b"abc"[..]));
        assert_eq!(bearer_credentials(&headers(&["bEARER   abc "])), Some(&b"abc"[..]));
        for bad in [&[][..], &[""], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer_credentials(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn key_finds_its_caller() {
        let caller = |name: &str, key: &str| CallerConfig {
            key_sha256: Some(Sha256::digest(key)),
            ..fixtures::caller(name, CallerScopes::default())
        };
        let tokens_only = CallerConfig { key_sha256: None, ..caller("d", "") };
        let callers = vec![caller("a", "one"), caller("b", "two"), tokens_only, caller("c", "three")];
        let url = "http://127.0.0.1:1".parse().unwrap();
        let callers = CallerTable::new(&Config { callers, ..Config::dev(url) });
        let name = |key: &str| callers.find_by_key(key.as_bytes()).map(CallerIdentity::name);
        assert_eq!(name("one"), Some("a"));
        assert_eq!(name("three"), Some("c"));
        assert_eq!(name("two "), None);
        assert_eq!(name(""), None);
    }
}
