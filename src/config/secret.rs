//! Parsers of secrets and of their hashes. Their errors never quote the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::config_value::ConfigValue;
use super::parse::{InvalidValue, ParseResult, as_text, invalid};

/// Parses a SHA-256 in hexadecimal.
pub(super) fn sha256(value: &ConfigValue) -> ParseResult<[u8; 32]> {
    const WANTED: &str = "should be the 64 hexadecimal digits that `rtm-bridge key new` prints";
    let text = as_text(value, "the one that `rtm-bridge key new` prints")?;
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        // The value may be the key itself, so the error does not quote it.
        return invalid(format!("{WANTED}, and is {} characters of something else", text.chars().count()));
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidValue(WANTED.to_owned()))?;
    }
    Ok(hash)
}

/// Parses a secret.
pub(super) fn secret(value: &ConfigValue) -> ParseResult<SecretString> {
    match value.as_text() {
        Some(text) => secret_text(text),
        None => invalid("should be text"),
    }
}

/// Parses the secret of a file without its trailing line end.
pub(super) fn secret_text(text: &str) -> ParseResult<SecretString> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() { invalid("is empty") } else { Ok(text.into()) }
}

/// Parses a `whsec_` secret of 24 to 64 bytes, or a `whsk_` private key of ed25519, the forms of Standard Webhooks.
pub(super) fn webhook_secret(value: &ConfigValue) -> ParseResult<SecretString> {
    let text = value.as_text().map(str::trim).unwrap_or_default();
    let bytes = |prefix| Some(STANDARD.decode(text.strip_prefix(prefix)?).ok()?.len());
    match (bytes("whsec_"), bytes("whsk_")) {
        (Some(24..=64), _) | (_, Some(32 | 64)) => Ok(text.into()),
        _ => invalid(
            "each secret should be whsec_ and then 24 to 64 bytes in base64, or whsk_ and a private key of ed25519",
        ),
    }
}

/// Parses one [`webhook_secret`] per line. Empty lines and lines with `#` are skipped.
pub(super) fn webhook_secrets_text(text: &str) -> ParseResult<Vec<SecretString>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: ParseResult<Vec<_>> =
        lines.map(|line| webhook_secret(&ConfigValue::Untyped(line.to_owned()))).collect();
    match secrets {
        Ok(secrets) if secrets.is_empty() => invalid("holds no secret"),
        secrets => secrets,
    }
}

/// Parses a bearer token.
pub(super) fn bearer_token(value: &ConfigValue) -> ParseResult<SecretString> {
    match value.as_text() {
        Some(text) => bearer_token_text(text),
        None => invalid("should be text"),
    }
}

/// Parses the bearer token of a file.
pub(super) fn bearer_token_text(text: &str) -> ParseResult<SecretString> {
    let token = text.trim();
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.into())
    } else {
        invalid("should be visible ASCII characters without spaces, and without `Bearer` before them")
    }
}
