//! The next steps of an operator, from results of the checks. Pure.
//!
//! The platform's texts are documented for a few cases only (protocol.md 3.3). So a step names the likeliest causes, and
//! the platform's own words stand before it.

use rustls::CertificateError;

use super::certificate::CertificateFacts;
use crate::config::{BotConfig, ProxyConfig};
use crate::rtm::{CallError, ConnectError};
use crate::tcp::ProxyError;

/// The seconds from which a JWT may look expired or early to the platform.
const CLOCK_LIMIT: f64 = 60.0;

/// Returns the step for a proxy that opened no connection.
pub(super) fn for_proxy(proxy: &ProxyConfig) -> String {
    format!(
        "check {} and the rules of the proxy; hosts that need no proxy belong into proxy.no_proxy or NO_PROXY",
        proxy.origin
    )
}

/// Returns the step for a server that cannot be reached directly. `keys` are the places of its proxy.
pub(super) fn needs_proxy(keys: &str) -> String {
    format!("if this network reaches the internet only by a proxy, give that as {keys}")
}

/// Returns the step for an address that takes no connection. `others_do` tells whether others of the name do.
pub(super) fn for_address(others_do: bool, proxy_keys: &str) -> String {
    if others_do {
        "the bridge takes another address after 0.25 s; let firewalls pass this one too, or remove it from the DNS".to_owned()
    } else {
        format!("let firewalls pass connections to it; {}", needs_proxy(proxy_keys))
    }
}

/// Returns the words and the step for a certificate that is not accepted at `now`, a time in RFC 3339 and UTC.
pub(super) fn for_certificate(
    facts: &CertificateFacts,
    error: &rustls::Error,
    now: &str,
    host: &str,
    key: &str,
    ca_key: &str,
) -> (String, String) {
    use CertificateError as E;
    let issuer = facts.issuer();
    let rustls::Error::InvalidCertificate(error) = error else {
        return (error.to_string(), format!("check the server behind {key}"));
    };
    let is_unknown = matches!(error, E::UnknownIssuer);
    match error {
        E::Expired | E::ExpiredContext { .. } => expired(facts, false),
        _ if facts.has_expired(now) => expired(facts, is_unknown),
        E::NotValidYet | E::NotValidYetContext { .. } => (
            format!("the certificate is not valid yet (issued by {issuer})"),
            "check the clock of this machine, and the certificate on the server".to_owned(),
        ),
        E::UnknownIssuer => (
            format!(
                "the certificate is not trusted: it was issued by {issuer}, a private or unknown authority"
            ),
            format!("put the certificate of that authority (PEM) into a file, and name it as {ca_key}"),
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => (
            format!("the certificate (issued by {issuer}) does not belong to {host}"),
            format!("write the host in {key} as the certificate names it"),
        ),
        other => (
            format!("the certificate (issued by {issuer}) is not accepted: {other:?}"),
            format!("give the server a certificate of an authority, and name a private one as {ca_key}"),
        ),
    }
}

fn expired(facts: &CertificateFacts, is_unknown: bool) -> (String, String) {
    let also = if is_unknown { ", and this authority is not trusted either" } else { "" };
    (
        format!("the certificate expired on {} (issued by {}{also})", facts.day(), facts.issuer()),
        "renew the certificate on the server; if that day lies ahead, correct the clock of this machine"
            .to_owned(),
    )
}

/// Returns the step for a connect or a read of history that failed. `clock` is by how many seconds the platform's clock
/// is ahead.
pub(super) fn for_platform(bot: &BotConfig, error: &ConnectError, clock: Option<f64>) -> String {
    let said = error.public_message().to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let bot_key = |key: &str| format!("bots.{}.{key}", bot.name);
    match error {
        ConnectError::Signer(_) => return format!("correct {} and algorithm", bot_key("client_secret")),
        ConnectError::Unreachable { error: CallError::Proxy { cause, .. }, .. } => {
            return for_proxy_cause(cause);
        }
        ConnectError::RateLimited { .. } => {
            return "wait, then try again; the platform limits its calls".to_owned();
        }
        _ => {}
    }
    match error.phase() {
        "assertion" => for_assertion(bot, error),
        "history" => {
            format!("have the platform's owner allow the history API, or set {} = false", bot_key("history"))
        }
        "socket" if matches!(error, ConnectError::Unreachable { .. }) => format!(
            "the platform names a host for sockets that is out of reach; give the reachable one as {}",
            bot_key("socket_base")
        ),
        "socket" => format!("let gateways before the platform pass web sockets (Upgrade); {}", channel(bot)),
        _ if says(&["redirects to"]) && bot.platform.scheme() == "http" => {
            format!("begin {} with https://", bot_key("platform"))
        }
        _ if is_foreign(error, &said) => format!(
            "{} is not the API of the platform: it may be the console, in which bots are built. The API of the cloud is at \
             https://bots.kore.ai or https://platform.kore.ai; an own installation may need another {}",
            bot.platform.host_str().unwrap_or_default(),
            bot_key("api_path")
        ),
        _ if matches!(error, ConnectError::Unavailable { .. } | ConnectError::Unreachable { .. }) => {
            "try again later; if it stays so, ask those who run the platform".to_owned()
        }
        "grant" if clock.is_some_and(|ahead| ahead.abs() >= CLOCK_LIMIT) => {
            "correct the clock of this machine (NTP): a JWT is valid for five minutes".to_owned()
        }
        _ if says(&["channel"]) => channel(bot),
        "grant" if says(&["signature", "secret", "algorithm"]) => secret(bot),
        "grant" if says(&["expired", "not active", "iat", "future"]) => {
            "correct the clock of this machine (NTP): the platform takes the JWT as expired or early"
                .to_owned()
        }
        "grant" if says(&["bot"]) => format!(
            "{} is not the id of a bot on this platform, or not of the app's: copy it from the bot's settings",
            bot_key("task_bot_id")
        ),
        "grant" if says(&["client", "issuer", "app"]) && !says(&["credentials"]) => format!(
            "{} {} is not known there: copy the id from the page of the bot's SDK app",
            bot_key("client_id"),
            bot.client_id
        ),
        "grant" => format!("{}; or client_id or task_bot_id is not of this platform", secret(bot)),
        _ => channel(bot),
    }
}

/// Returns whether the answer is not one of the platform's API.
fn is_foreign(error: &ConnectError, said: &str) -> bool {
    match error {
        ConnectError::Unavailable { .. } => {
            let is_server_error = said.starts_with("the platform answered 5");
            let is_other = ["without a reason", "lacks the needed fields", "redirects to"];
            !is_server_error && is_other.iter().any(|words| said.contains(words))
        }
        ConnectError::TokenExpired { .. } => said.contains("without a reason"),
        ConnectError::Unreachable { error, .. } => matches!(error, CallError::NotHttp | CallError::TooLarge),
        _ => false,
    }
}

/// Returns the step for a service of the bot's owner that gave no JWT.
fn for_assertion(bot: &BotConfig, error: &ConnectError) -> String {
    let key = format!("bots.{}.assertion", bot.name);
    match error {
        ConnectError::Rejected { .. } | ConnectError::TokenExpired { .. } => {
            format!("check {key}_bearer_token_file, and the log of the service")
        }
        ConnectError::Unreachable { .. } => format!("check {key}_url, and whether the service runs"),
        _ => format!(
            "check {key}_url; the service has to answer {{\"jwt\": \"…\"}}, and its log says why it does not"
        ),
    }
}

fn secret(bot: &BotConfig) -> String {
    if bot.assertion_service.is_some() {
        return format!(
            "the service of bots.{}.assertion_url signs with another secret or algorithm than that of the app {}: copy \
             both from the page of the bot's SDK app",
            bot.name, bot.client_id
        );
    }
    format!(
        "bots.{}.client_secret is not the secret of the app {}, or algorithm is not the app's: copy both from the page of \
         the bot's SDK app",
        bot.name, bot.client_id
    )
}

fn channel(bot: &BotConfig) -> String {
    format!(
        "in the console of the platform, enable the channel Web/Mobile Client of the bot {} for the app {}, and publish the \
         bot",
        bot.task_bot_id, bot.client_id
    )
}

fn for_proxy_cause(cause: &ProxyError) -> String {
    match cause {
        ProxyError::CredentialsMissing(_) | ProxyError::CredentialsRefused(_) => {
            "give the user and password of the proxy as proxy.username and proxy.password_file".to_owned()
        }
        ProxyError::Refused(_) => "have the proxy allow CONNECT to the platform's hosts and ports".to_owned(),
        _ => "check proxy.url and the proxy's log".to_owned(),
    }
}

/// Returns the words for a clock that is ahead by so many seconds, or behind.
pub(super) fn clock_words(whose: &str, ahead: f64) -> String {
    let seconds = ahead.abs().round();
    if seconds < 1.0 {
        format!("the clock of {whose} agrees with this machine's")
    } else {
        let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
        format!("the clock of {whose} is {seconds} s {direction} this machine's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixtures::bot;
    use crate::rtm::ConnectPhase;

    fn rejected(phase: ConnectPhase, text: &str) -> ConnectError {
        ConnectError::Rejected { phase, public_message: format!("the platform answered 401: {text}").into() }
    }

    fn unavailable(phase: ConnectPhase, text: &str) -> ConnectError {
        ConnectError::Unavailable { phase, public_message: text.into() }
    }

    #[test]
    fn step_names_the_cause_of_a_refusal() {
        use ConnectPhase::{Assertion, Grant, Start};
        let bot = bot("support");
        for (error, clock, words) in [
            (
                rejected(Grant, "error verifying the jwt: invalid signature"),
                None,
                "client_secret is not the secret",
            ),
            (rejected(Grant, "Invalid SDK credentials"), None, "or client_id or task_bot_id"),
            (rejected(Grant, "error verifying the jwt: unknown client"), None, "client_id"),
            (rejected(Grant, "no bot has this taskBotId"), None, "task_bot_id"),
            (rejected(Grant, "error verifying the jwt: jwt expired"), None, "correct the clock"),
            (rejected(Grant, "invalid signature"), Some(-600.0), "correct the clock"),
            (rejected(Grant, "nope"), Some(2.0), "client_secret"),
            (rejected(Grant, "the channel is not enabled for this app"), None, "Web/Mobile Client"),
            (rejected(Start, "not allowed"), None, "Web/Mobile Client"),
            (unavailable(Grant, "the platform answered 404 without a reason"), None, "console"),
            (unavailable(Grant, "the platform's answer lacks the needed fields"), None, "console"),
            (
                unavailable(
                    Grant,
                    "the platform redirects to login.kore.ai (302); redirects are not followed",
                ),
                None,
                "console",
            ),
            (unavailable(Grant, "the platform answered 503 without a reason"), None, "try again later"),
            (rejected(Assertion, "nope"), None, "assertion_bearer_token_file"),
            (
                unavailable(Assertion, "the assertion service answered 404 without a reason"),
                None,
                "assertion_url",
            ),
            (
                ConnectError::Unreachable { phase: Assertion, error: CallError::Timeout },
                None,
                "whether the service runs",
            ),
        ] {
            let step = for_platform(&bot, &error, clock);
            assert!(step.contains(words), "{words}: {step}");
        }
        let mut plain = bot;
        plain.platform.set_scheme("http").unwrap();
        let redirect = unavailable(Grant, "the platform redirects to x (301); redirects are not followed");
        assert!(for_platform(&plain, &redirect, None).contains("begin bots.support.platform with https://"));
    }

    #[test]
    fn certificate_is_told_by_its_fault() {
        let facts = CertificateFacts {
            issuer: Some("Corp CA".to_owned()),
            expires: Some("2026-01-31T00:00:00".to_owned()),
        };
        let told = |error: CertificateError, now: &str| {
            let error = rustls::Error::InvalidCertificate(error);
            for_certificate(&facts, &error, now, "hooks.example", "bots.a.webhook.url", "webhooks.ca_file")
        };
        for (error, now, words, step) in [
            (
                CertificateError::UnknownIssuer,
                "2026-01-01T00:00:00Z",
                "issued by \"Corp CA\"",
                "webhooks.ca_file",
            ),
            (CertificateError::UnknownIssuer, "2026-03-01T00:00:00Z", "expired on 2026-01-31", "renew"),
            (CertificateError::Expired, "2026-03-01T00:00:00Z", "expired on 2026-01-31", "renew"),
            (CertificateError::NotValidYet, "2025-01-01T00:00:00Z", "not valid yet", "clock"),
            (
                CertificateError::NotValidForName,
                "2026-01-01T00:00:00Z",
                "does not belong to hooks.example",
                "webhook.url",
            ),
        ] {
            let (message, next) = told(error, now);
            assert!(message.contains(words) && next.contains(step), "{words}: {message}. {next}");
        }
    }

    #[test]
    fn clock_words_have_a_direction() {
        assert_eq!(clock_words("Redis", 0.4), "the clock of Redis agrees with this machine's");
        assert_eq!(
            clock_words("the platform", -599.6),
            "the clock of the platform is 600 s behind this machine's"
        );
    }
}
