//! Who calls, and what they may do (api.md 6).
//!
//! The order of refusals is part of the contract: who is not known learns nothing but 401; who is known learns
//! 403 for whatever its configuration does not cover, whether that exists or not; only after that may a thing
//! be called missing. So the names of other bots cannot be found out by trying.

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::api_error::ApiError;
use crate::config;
use crate::domain::{BotName, ProblemKind, Sha256, UserId};

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredScope {
    /// POST messages, DELETE conversations.
    Send,
    /// GET what belongs to conversations.
    Read,
    /// Deliveries.
    Admin,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallerIdentity<'c> {
    /// Nobody is configured, so that anybody may do anything; the configuration allows this on loopback only.
    Anonymous,
    /// One of `[[callers]]`.
    Known {
        /// What it may do.
        caller: &'c config::CallerConfig,
        /// Its place among them.
        index: usize,
    },
}

impl<'c> CallerIdentity<'c> {
    /// The caller whose key stands in the `Authorization` header, if it may do this.
    ///
    /// # Errors
    /// `unauthorized`, `forbidden`.
    pub(super) fn authenticate(
        callers: &'c [config::CallerConfig],
        headers: &HeaderMap,
        scope: RequiredScope,
    ) -> Result<Self, ApiError> {
        if callers.is_empty() {
            return Ok(Self::Anonymous);
        }
        let (index, caller) =
            bearer_key(headers).and_then(|key| find_by_key(callers, key)).ok_or_else(|| {
                unauthorized(
                    "Send a caller's key as `Authorization: Bearer KEY`; this one is absent or unknown.",
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
            Err(forbidden(format!("This key lacks the scope `{name}`.")))
        }
    }

    /// Its name; keys for idempotency are kept apart by it.
    pub(super) fn name(self) -> &'c str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Known { caller, .. } => &caller.name,
        }
    }

    /// Its place among those who are configured.
    pub(super) const fn index(self) -> Option<usize> {
        match self {
            Self::Anonymous => None,
            Self::Known { index, .. } => Some(index),
        }
    }

    /// The most requests it may have open; none where there is no limit.
    pub(super) fn max_open(self) -> Option<usize> {
        match self {
            Self::Known { caller, .. } if caller.max_open_requests > 0 => {
                usize::try_from(caller.max_open_requests).ok()
            }
            _ => None,
        }
    }

    /// The name that its callbacks are signed under; none where it has no secrets.
    pub(super) fn signer(self) -> Option<&'c str> {
        match self {
            Self::Known { caller, .. } if !caller.webhook_secrets.is_empty() => Some(&caller.name),
            _ => None,
        }
    }

    /// The bots that its configuration lists; none where it may use all.
    pub(super) fn bots(self) -> Option<&'c [BotName]> {
        match self {
            Self::Anonymous => None,
            Self::Known { caller, .. } => caller.bots.as_deref(),
        }
    }

    /// What its users begin with.
    pub(super) fn user_prefix(self) -> &'c str {
        match self {
            Self::Anonymous => "",
            Self::Known { caller, .. } => &caller.user_prefix,
        }
    }

    /// Refuses a bot that its configuration does not list, known or not.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_bot(self, bot: &str) -> Result<(), ApiError> {
        match self {
            Self::Known { caller: config::CallerConfig { bots: Some(bots), .. }, .. }
                if !bots.iter().any(|known| known.as_str() == bot) =>
            {
                Err(forbidden(
                    "This key does not cover this bot; choose another with `?bot=NAME`.".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a user outside its prefix.
    ///
    /// # Errors
    /// `forbidden`.
    pub(super) fn check_user(self, user: &UserId) -> Result<(), ApiError> {
        match self {
            Self::Known { caller, .. } if !user.as_str().starts_with(&caller.user_prefix) => {
                Err(forbidden("This key does not cover this user: its users begin otherwise.".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// The place of the caller whose key this is, whatever it may do.
pub(super) fn caller_index(callers: &[config::CallerConfig], headers: &HeaderMap) -> Option<usize> {
    bearer_key(headers).and_then(|key| find_by_key(callers, key)).map(|(index, _)| index)
}

/// The credentials of the one `Authorization: Bearer` header (RFC 6750; the scheme in any case).
fn bearer_key(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

/// Compares with every caller, to the last byte: how long it takes says nothing about any key.
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
    fn reads_one_bearer_key() {
        assert_eq!(bearer_key(&headers(&["Bearer abc"])), Some(&b"abc"[..]));
        assert_eq!(bearer_key(&headers(&["bEARER   abc "])), Some(&b"abc"[..]));
        for bad in [&[][..], &[""], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer_key(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn finds_the_caller_whose_key_it_is() {
        let caller = |name: &str, key: &str| config::CallerConfig {
            name: name.to_owned(),
            key_sha256: Sha256::digest(key),
            scopes: config::CallerScopes::default(),
            bots: None,
            user_prefix: String::new(),
            rate_per_minute: 0,
            max_open_requests: 0,
            webhook_secrets: Vec::new(),
            webhook_form: config::PayloadFormat::Standard,
        };
        let callers = [caller("a", "one"), caller("b", "two"), caller("c", "three")];
        let name = |key: &str| find_by_key(&callers, key.as_bytes()).map(|(_, caller)| caller.name.as_str());
        assert_eq!(name("one"), Some("a"));
        assert_eq!(name("three"), Some("c"));
        assert_eq!(name("two "), None);
        assert_eq!(name(""), None);
    }
}
