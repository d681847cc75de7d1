//! The keys of a bot that say how assertions about its users are made: claims, `jti`, or a service of its owner.

use serde_json::{Map, Value};

use super::config_value::ConfigValue;
use super::parse::{ParseResult, invalid};
use super::section::Section;
use super::{AssertionServiceConfig, BotConfig, address, json_object, secret};

/// The claims that differ with each assertion. Static ones would give all users the same.
const OURS: [&str; 9] =
    ["iat", "exp", "iss", "sub", "jti", "isAnonymous", "identityToMerge", "kore_sub", "kore_jti"];

/// Parses the claims of every assertion.
pub(super) fn claims(value: &ConfigValue) -> ParseResult<Map<String, Value>> {
    let claims = json_object::object(value)?;
    match OURS.iter().find(|name| claims.contains_key(**name)) {
        Some(name) => invalid(format!("has `{name}`, which the bridge sets itself")),
        None => Ok(claims),
    }
}

/// Reads the service that makes the assertions, if there is one.
pub(super) fn service(section: &mut Section<'_>) -> Option<AssertionServiceConfig> {
    let url = section.optional("assertion_url", address::receiver);
    let bearer_token = section.secret(
        "assertion_bearer_token",
        "assertion_bearer_token_file",
        secret::bearer_token,
        secret::bearer_token_text,
    );
    let keys = ["assertion_bearer_token", "assertion_bearer_token_file"].map(|key| section.key(key));
    if bearer_token.is_some() && !is_given(section, "assertion_url") {
        section.diagnostics.relation_error(&keys, "has no effect without assertion_url");
    }
    let path = section.key("assertion_url");
    if url.as_ref().is_some_and(|url| url.scheme() == "http" && !address::is_loopback(url)) {
        section.diagnostics.warn(&path, "is not encrypted: assertions can be read on the way; use https");
    }
    Some(AssertionServiceConfig { url: url?, bearer_token })
}

/// Returns whether the key has a value, valid or not.
pub(super) fn is_given(section: &Section<'_>, key: &str) -> bool {
    section.diagnostics.was_given(&section.key(key))
}

/// Checks the combinations of these keys.
pub(super) fn check(section: &mut Section<'_>, bot: &BotConfig) {
    if is_given(section, "assertion_url") {
        for key in ["claims", "jti"] {
            if is_given(section, key) {
                let path = section.key(key);
                let what = "has no effect beside assertion_url, whose service makes the whole assertion; remove one of \
                            them";
                section.diagnostics.error(&path, what);
            }
        }
        for key in ["client_secret", "client_secret_file", "algorithm"] {
            if is_given(section, key) {
                let path = section.key(key);
                let what = "has no effect beside assertion_url, whose service signs the assertions";
                section.diagnostics.warn(&path, what);
            }
        }
    } else if bot.jti && bot.secure_rtm {
        let path = section.key("jti");
        let what = "is combined with secure_rtm: each handshake then shows an assertion with another `jti` than the \
                    grant, which no source describes";
        section.diagnostics.warn(&path, what);
    }
}
