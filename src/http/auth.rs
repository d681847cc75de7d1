//! Authentication and authorisation of callers (api.md 6).
//!
//! The order of refusals is part of the contract. An unknown caller learns nothing but 401. A known caller gets 403 for
//! everything outside its configuration, whether it exists or not. Only then may an answer be 404. So no caller can
//! find out the names of other bots.

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::api_error::ApiError;
use crate::config;
use crate::domain::{BotName, ProblemKind, Sha256, UserId};

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
#[derive(Clone, Copy, Debug)]
pub(super) enum CallerIdentity<'c> {
    /// The configuration has no callers with keys, so every request is allowed. Only a loopback listener may run so.
    Anonymous,
    /// One of `[[callers]]`.
    Known {
        /// Its configuration.
        caller: &'c config::CallerConfig,
        /// Its index in `[[callers]]`.
        index: usize,
    },
}

impl<'c> CallerIdentity<'c> {
    /// Finds the caller of the `Authorization` header's key and checks its scope.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub(super) fn authenticate(
        callers: &'c [config::CallerConfig],
        headers: &HeaderMap,
        scope: RequiredScope,
    ) -> Result<Self, ApiError> {
        if !config::has_keys(callers) {
            return Ok(Self::Anonymous);
        }
        let (index, caller) =
            bearer_key(headers).and_then(|key| find_by_key(callers, key)).ok_or_else(|| {
                unauthorized(
                    "The key is missing or unknown. Send a caller's key as `Authorization: Bearer KEY`.",
                )
            })?;
        let (covered, name) = match scope {
            RequiredScope::Send => (caller.scopes.send, "send"),
            RequiredScope::Read => (caller.scopes.read, "read"),
            RequiredScope::Admin => (caller.scopes.admin, "admin"),
        };
        if covered {
            Ok(Self::Known { caller, index })
        } else {
            Err(forbidden(format!(
                "This key lacks the scope `{name}`. Use another key, or have the scope added."
            )))
        }
    }

    /// Returns the caller's name. Each caller has its own idempotency keys.
    pub(super) fn name(self) -> &'c str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Known { caller, .. } => &caller.name,
        }
    }

    /// Returns the caller's index in the configuration.
    pub(super) const fn index(self) -> Option<usize> {
        match self {
            Self::Anonymous => None,
            Self::Known { index, .. } => Some(index),
        }
    }

    /// Returns the limit of open requests, or `None` without a limit.
    pub(super) fn max_open(self) -> Option<usize> {
        match self {
            Self::Known { caller, .. } if caller.max_open_requests > 0 => {
                usize::try_from(caller.max_open_requests).ok()
            }
            _ => None,
        }
    }

    /// Returns the name that signs the caller's callbacks, or `None` without secrets.
    pub(super) fn signer(self) -> Option<&'c str> {
        match self {
            Self::Known { caller, .. } if !caller.webhook_secrets.is_empty() => Some(&caller.name),
            _ => None,
        }
    }

    /// Returns the bots of the caller's configuration, or `None` if it may use all bots.
    pub(super) fn bots(self) -> Option<&'c [BotName]> {
        match self {
            Self::Anonymous => None,
            Self::Known { caller, .. } => caller.bots.as_deref(),
        }
    }

    /// Returns the prefix that the caller's users must have.
    pub(super) fn user_prefix(self) -> &'c str {
        match self {
            Self::Anonymous => "",
            Self::Known { caller, .. } => &caller.user_prefix,
        }
    }

    /// Refuses a bot outside the caller's configuration, whether the bot exists or not.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_bot(self, bot: &str) -> Result<(), ApiError> {
        match self {
            Self::Known { caller: config::CallerConfig { bots: Some(bots), .. }, .. }
                if !bots.iter().any(|known| known.as_str() == bot) =>
            {
                Err(forbidden(
                    "This key does not cover this bot. Choose another bot with `?bot=NAME`.".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a user without the caller's prefix.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_user(self, user: &UserId) -> Result<(), ApiError> {
        match self {
            Self::Known { caller, .. } if !user.as_str().starts_with(&caller.user_prefix) => Err(forbidden(
                "This key does not cover this user. Use a user with the prefix of this key.".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Returns the index of the caller with this key, regardless of its scopes.
pub(super) fn caller_index(callers: &[config::CallerConfig], headers: &HeaderMap) -> Option<usize> {
    bearer_key(headers).and_then(|key| find_by_key(callers, key)).map(|(index, _)| index)
}

/// Returns the credentials of the only `Authorization: Bearer` header (RFC 6750). The scheme's case is ignored.
pub(super) fn bearer_key(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

/// Finds a caller by its key. The comparison always covers all callers and all bytes, so its duration reveals nothing.
fn find_by_key<'c>(
    callers: &'c [config::CallerConfig],
    key: &[u8],
) -> Option<(usize, &'c config::CallerConfig)> {
    let presented = Sha256::digest(key);
    let mut found = u64::MAX;
    for (index, caller) in (0_u64..).zip(callers) {
        found.conditional_assign(&index, presented.ct_eq(&caller.key_sha256));
    }
    let index = usize::try_from(found).ok()?;
    Some((index, callers.get(index)?))
}

fn unauthorized(detail: &'static str) -> ApiError {
    ApiError::new(ProblemKind::Unauthorized, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn forbidden(detail: String) -> ApiError {
    ApiError::new(ProblemKind::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn header_with_one_bearer_key_is_read() {
        assert_eq!(bearer_key(&headers(&["Bearer abc"])), Some(&b"abc"[..]));
        assert_eq!(bearer_key(&headers(&["bEARER   abc "])), Some(&b"abc"[..]));
        for bad in [&[][..], &[""], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer_key(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn key_finds_its_caller() {
        let caller = |name: &str, key: &str| config::CallerConfig {
            key_sha256: Sha256::digest(key),
            ..config::fixtures::caller(name, config::CallerScopes::default())
        };
        let callers = [caller("a", "one"), caller("b", "two"), caller("c", "three")];
        let name = |key: &str| find_by_key(&callers, key.as_bytes()).map(|(_, caller)| caller.name.as_str());
        assert_eq!(name("one"), Some("a"));
        assert_eq!(name("three"), Some("c"));
        assert_eq!(name("two "), None);
        assert_eq!(name(""), None);
    }
}
