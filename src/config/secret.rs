//! Secrets, and hashes of them. Nothing here ever quotes what it was given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::parse::{InvalidValue, Parsed, as_text, wrong};
use super::value::Value;

/// SHA-256 in hexadecimal.
pub(super) fn sha256(value: &Value) -> Parsed<[u8; 32]> {
    const WANTED: &str = "should be the 64 hexadecimal digits that `rtm-bridge key new` prints";
    let text = as_text(value, "the one that `rtm-bridge key new` prints")?;
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        // Not quoted: someone may have put the key itself here.
        return wrong(format!("{WANTED}, and is {} characters of something else", text.chars().count()));
    }
    let mut hash = [0; 32];
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidValue(WANTED.to_owned()))?;
    }
    Ok(hash)
}

/// Text that is a secret. What surrounds it in a file is not part of it.
pub(super) fn secret(value: &Value) -> Parsed<SecretString> {
    match value.as_text() {
        Some(text) => secret_text(text),
        None => wrong("should be text"),
    }
}

/// As [`secret`], from text: one trailing line end is not part of it.
pub(super) fn secret_text(text: &str) -> Parsed<SecretString> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() { wrong("is empty") } else { Ok(text.into()) }
}

/// A `whsec_` secret of 24 to 64 bytes, as Standard Webhooks has them.
pub(super) fn webhook_secret(value: &Value) -> Parsed<SecretString> {
    let text = value.as_text().map(str::trim).unwrap_or_default();
    let bytes = text.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    match bytes {
        Some(bytes) if (24..=64).contains(&bytes.len()) => Ok(text.into()),
        _ => wrong("each secret should be whsec_ and then 24 to 64 bytes in base64"),
    }
}

/// As a list of [`webhook_secret`], from text: one a line; empty lines and lines with `#` are skipped.
pub(super) fn webhook_secrets_text(text: &str) -> Parsed<Vec<SecretString>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets: Parsed<Vec<_>> =
        lines.map(|line| webhook_secret(&Value::Untyped(line.to_owned()))).collect();
    match secrets {
        Ok(secrets) if secrets.is_empty() => wrong("holds no secret"),
        secrets => secrets,
    }
}

/// A token as it may stand behind `Bearer`.
pub(super) fn bearer_token(value: &Value) -> Parsed<SecretString> {
    match value.as_text() {
        Some(text) => bearer_token_text(text),
        None => wrong("should be text"),
    }
}

/// As [`bearer_token`], from text.
pub(super) fn bearer_token_text(text: &str) -> Parsed<SecretString> {
    let token = text.trim();
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.into())
    } else {
        wrong("should be visible ASCII characters without spaces, and without `Bearer` before them")
    }
}
