//! The policy for callbacks: their allowed URLs and the secrets that sign them (api.md 4).

use super::api_error::ApiError;
use super::auth::CallerIdentity;
use crate::config::BotConfig;
use crate::domain::{Callback, CallbackUrl, ProblemKind, UrlPattern};

/// Most patterns that a refusal lists.
const MAX_NAMED_PATTERNS: usize = 20;

/// Checks a callback and adds its signer.
///
/// # Errors
/// `callback-refused`, with the allowed patterns.
pub(super) fn check(
    callback: Callback,
    caller: &CallerIdentity,
    bot: &BotConfig,
    allowed: &[UrlPattern],
) -> Result<Callback, ApiError> {
    let url: CallbackUrl = callback.url.parse().map_err(|fault| {
        refused(format!(
            "`callback.url` {fault}. Send a plain URL: without credentials, fragment and backslashes, and \
             without dot segments or escaped slashes in its path."
        ))
    })?;
    if !allowed.iter().any(|pattern| pattern.covers(&url)) {
        return Err(refused(uncovered(allowed)));
    }
    let signer = caller.signer();
    if signer.is_none() && bot.callback_signer().is_none_or(|endpoint| endpoint.secrets.is_empty()) {
        return Err(refused(
            "The bridge has no secret to sign callbacks with. Have one configured for this key \
             (`callers.webhook_secrets_file`) or for the bot (`bots.webhooks`)."
                .to_owned(),
        ));
    }
    Ok(Callback { signer: signer.map(Into::into), ..callback })
}

fn uncovered(allowed: &[UrlPattern]) -> String {
    if allowed.is_empty() {
        return "This bridge allows no callbacks: `webhooks.allowed` is empty. Have the URL allowed, or leave \
                `callback` out and wait for the answer."
            .to_owned();
    }
    let named: Vec<_> = allowed.iter().take(MAX_NAMED_PATTERNS).map(ToString::to_string).collect();
    let more = if allowed.len() > MAX_NAMED_PATTERNS { ", …" } else { "" };
    let named = named.join(", ");
    format!(
        "`webhooks.allowed` does not cover `callback.url`. Use scheme, host, port and leading path segments \
         of one of: {named}{more}"
    )
}

fn refused(detail: String) -> ApiError {
    ApiError::new(ProblemKind::CallbackRefused, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, BotWebhookConfig, CallerScopes, PayloadFormat, fixtures};

    fn caller(signs: bool) -> config::CallerConfig {
        let webhook_secrets = signs.then(|| "whsec_1".into()).into_iter().collect();
        config::CallerConfig { webhook_secrets, ..fixtures::caller("crm", CallerScopes::default()) }
    }

    fn bot(signs: bool) -> BotConfig {
        let webhook = BotWebhookConfig {
            secrets: vec!["whsec_2".into()],
            form: PayloadFormat::KoreV2,
            ..BotWebhookConfig::default()
        };
        BotConfig { webhooks: signs.then_some(webhook).into_iter().collect(), ..fixtures::bot("b") }
    }

    fn try_check(
        url: &str,
        caller: &CallerIdentity,
        bot: &BotConfig,
        allowed: &[&str],
    ) -> Result<Option<Box<str>>, String> {
        let allowed: Vec<UrlPattern> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        let callback = Callback { url: url.into(), signer: Some("forged".into()) };
        let checked = check(callback, caller, bot, &allowed).map_err(|failure| {
            assert_eq!(failure.problem().kind, ProblemKind::CallbackRefused);
            failure.problem().detail.to_string()
        })?;
        assert_eq!(&*checked.url, url, "as it was given");
        Ok(checked.signer)
    }

    #[test]
    fn callback_is_signed_by_caller_else_bot_else_refused() {
        let (crm, mute) = (caller(true), caller(false));
        let known = CallerIdentity::single;
        let (url, allowed) = ("https://h.example/in", &["https://h.example/"][..]);
        let signs = |caller, signing| try_check(url, &caller, &bot(signing), allowed);
        assert_eq!(signs(known(&crm), true), Ok(Some("crm".into())));
        assert_eq!(signs(known(&crm), false), Ok(Some("crm".into())));
        assert_eq!(signs(known(&mute), true), Ok(None));
        assert_eq!(signs(CallerIdentity::Anonymous, true), Ok(None));
        for nobody in [known(&mute), CallerIdentity::Anonymous] {
            assert!(signs(nobody, false).unwrap_err().contains("webhook_secrets_file"));
        }
    }

    #[test]
    fn refusal_lists_the_allowed_patterns() {
        let bot = bot(true);
        let refusal = |url: &str, allowed: &[&str]| {
            try_check(url, &CallerIdentity::Anonymous, &bot, allowed).unwrap_err()
        };
        assert!(refusal("https://h.example/", &[]).contains("`webhooks.allowed` is empty"));
        let both = ["https://*.example/in", "http://localhost:9/"];
        let detail = refusal("https://h.example/out", &both);
        assert!(both.iter().all(|pattern| detail.contains(pattern)), "{detail}");
        let many = ["https://h.example/"; MAX_NAMED_PATTERNS + 1];
        assert!(refusal("https://other.example/", &many).ends_with(", …"));
        for (url, word) in [
            ("https://h.example/in/../out", "dot segment"),
            ("https://u:hush@h.example/in", "credentials"),
            ("https://h.example/in#x", "fragment"),
        ] {
            let detail = refusal(url, &both);
            assert!(detail.contains(word) && !detail.contains("hush"), "{detail}");
        }
    }
}
