//! `callers.jwt`: the tokens of an identity provider, by which a caller may call instead of a key (RFC 9068, RFC 7519).

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use url::Url;

use super::config_value::ConfigValue;
use super::parse::{InvalidValue, ParseResult, invalid, list, one_of, text};
use super::proxy::SharedProxies;
use super::section::Section;
use super::verification_key::{PUBLIC_KEY_ALGORITHMS, VerificationKey};
use super::{ProxyConfig, address, certificates};

/// The tokens that a caller may show.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerTokenConfig {
    /// The required `iss`.
    pub issuer: Box<str>,
    /// The values of which `aud` must hold one.
    pub audience: Vec<String>,
    /// The keys of the issuer.
    pub keys: TokenKeySource,
    /// The accepted algorithms, all with public keys.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the only user of a token.
    pub user_claim: Option<Box<str>>,
    /// The claim with the scopes of a token.
    pub scopes_claim: Option<Box<str>>,
    /// The claim with the bots of a token.
    pub bots_claim: Option<Box<str>>,
    /// The claim with the name of the client, which gets idempotency keys of its own.
    pub name_claim: Option<Box<str>>,
}

/// The place of an issuer's public keys.
#[derive(Debug, Clone)]
pub enum TokenKeySource {
    /// A key set (RFC 7517) at this address.
    Remote {
        /// Its address.
        url: Url,
        /// Certificate authorities beside the public ones, in PEM.
        ca: Option<Vec<u8>>,
        /// The proxy on the way.
        proxy: Option<Arc<ProxyConfig>>,
    },
    /// A single key.
    PublicKey(VerificationKey),
}

impl CallerTokenConfig {
    /// Returns whether `other` takes every token that this configuration takes, and gives it the same rights at least.
    pub(super) fn is_covered_by(&self, other: &Self) -> bool {
        // A claim limits a token, so a token has more rights without it. Names give no right.
        let claims = [
            (&self.user_claim, &other.user_claim),
            (&self.scopes_claim, &other.scopes_claim),
            (&self.bots_claim, &other.bots_claim),
        ];
        self.issuer == other.issuer
            && self.keys.is_same_place(&other.keys)
            && self.audience.iter().all(|audience| other.audience.contains(audience))
            && self.algorithms.iter().all(|algorithm| other.algorithms.contains(algorithm))
            && claims.into_iter().all(|(own, others)| others.is_none() || own == others)
    }
}

impl TokenKeySource {
    /// Returns whether both give the keys of one issuer. The way to a key set, with its authorities, gives no right.
    fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Remote { url, .. }, Self::Remote { url: other, .. }) => url == other,
            (own, other) => own == other,
        }
    }
}

impl PartialEq for TokenKeySource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Remote { url, ca, .. }, Self::Remote { url: other, ca: other_ca, .. }) => {
                url == other && ca == other_ca
            }
            (Self::PublicKey(key), Self::PublicKey(other)) => key == other,
            _ => false,
        }
    }
}

/// Reads `callers.jwt`. Returns `None` if a required key is missing or invalid.
pub(super) fn token(section: &mut Section<'_>, proxies: &SharedProxies) -> Option<CallerTokenConfig> {
    let issuer = section.required("issuer", "the `iss` of the tokens", |value| text(value).map(Into::into));
    let audience = section.required("audience", "the `aud` of tokens for this bridge", text_or_list);
    let keys = keys(section, proxies);
    let algorithms = section.optional("algorithms", algorithms);
    let path = section.key("algorithms");
    if let (Some(TokenKeySource::PublicKey(key)), Some(given)) = (&keys, &algorithms)
        && let Some(other) = given.iter().find(|algorithm| !key.fits(**algorithm))
    {
        section
            .diagnostics
            .error(&path, format!("holds {other:?}, which the key of public_key_file does not fit"));
    }
    let algorithms =
        algorithms.unwrap_or_else(|| PUBLIC_KEY_ALGORITHMS.iter().map(|(_, one)| *one).collect());
    let mut claim = |key| section.optional(key, |value| text(value).map(Into::into));
    let (user_claim, scopes_claim) = (claim("user_claim"), claim("scopes_claim"));
    let (bots_claim, name_claim) = (claim("bots_claim"), claim("name_claim"));
    Some(CallerTokenConfig {
        issuer: issuer?,
        audience: audience?,
        keys: keys?,
        algorithms,
        user_claim,
        scopes_claim,
        bots_claim,
        name_claim,
    })
}

fn keys(section: &mut Section<'_>, proxies: &SharedProxies) -> Option<TokenKeySource> {
    let url = section.optional("jwks_url", address::receiver);
    let ca = certificates::authorities(section);
    let key_file = section.optional("public_key_file", text);
    let key = key_file.as_ref().and_then(|path| {
        section.file("public_key_file", path, |text| {
            VerificationKey::from_pem(text).map_err(|error| InvalidValue(error.to_string()))
        })
    });
    let path = section.key("jwks_url");
    let [by_url, by_file] =
        ["jwks_url", "public_key_file"].map(|key| section.diagnostics.was_given(&section.key(key)));
    if by_url == by_file {
        let what = if by_url {
            "and `public_key_file` are both given; keep one"
        } else {
            "is missing: the address of the issuer's keys, or `public_key_file`"
        };
        section.diagnostics.error(&path, what);
        return None;
    }
    if let Some(url) = url {
        if url.scheme() == "http" && !address::is_loopback(&url) {
            section.diagnostics.error(&path, "is not encrypted, so others could replace the keys; use https");
        }
        let proxy = proxies.of_scheme(url.scheme()).cloned();
        return Some(TokenKeySource::Remote { url, ca, proxy });
    }
    key.map(TokenKeySource::PublicKey)
}

fn algorithms(value: &ConfigValue) -> ParseResult<Vec<Algorithm>> {
    let parsed = list(|value| {
        if let ConfigValue::Text(text) | ConfigValue::Untyped(text) = value
            && (text.starts_with("HS") || text.eq_ignore_ascii_case("none"))
        {
            return invalid(format!(
                "{text} proves nothing here: give algorithms with public keys, such as RS256"
            ));
        }
        one_of(PUBLIC_KEY_ALGORITHMS)(value)
    })(value)?;
    if parsed.is_empty() {
        invalid("is empty; leave it out to allow all with public keys")
    } else {
        Ok(parsed)
    }
}

fn text_or_list(value: &ConfigValue) -> ParseResult<Vec<String>> {
    let all = match value {
        ConfigValue::List(_) => list(text)(value)?,
        _ => vec![text(value)?],
    };
    if all.is_empty() { invalid("is empty, so no token would be accepted") } else { Ok(all) }
}
