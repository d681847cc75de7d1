//! Gets assertions from a service of the bot's owner, which keeps the app's secret (protocol.md 2.3).
//!
//! The request is that of the SDKs without the secret. Services of the Web SDK read a form, others JSON. So a request
//! whose body the service refuses is repeated once in the other format, and the service keeps the format that it takes.
//!
//! The answer is `{"jwt": "…"}` there. This reader also takes the other names that such services use, and a bare token,
//! because each customer writes its own service. A JWE of five parts passes as well.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::connector::{PlatformConnector, RESPONSE_TIMEOUT, TCP_TIMEOUT, TLS_TIMEOUT, incomplete_response};
use super::error::{ConnectError, ConnectPhase};
use super::jwt::AUDIENCE;
use crate::config::{AssertionServiceConfig, BotConfig};
use crate::domain::lenient_json::{JsonMember, members, string};
use crate::domain::{Timestamp, UserDetails, UserId};

/// Largest answer, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// Largest assertion, in bytes. A secure handshake carries it in a header.
const ASSERTION_MAX: usize = 16 * 1024;

const PHASE: ConnectPhase = ConnectPhase::Assertion;

/// Format of a request to an assertion service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AssertionFormat {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`, as the Web SDK sends it.
    UrlEncoded,
}

impl AssertionFormat {
    const fn other(self) -> Self {
        match self {
            Self::Json => Self::UrlEncoded,
            Self::UrlEncoded => Self::Json,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AssertionRequest<'a> {
    client_id: &'a str,
    identity: &'a str,
    is_anonymous: bool,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_to_merge: Option<&'a str>,
    #[serde(rename = "fName", skip_serializing_if = "Option::is_none")]
    first_name: Option<&'a str>,
    #[serde(rename = "lName", skip_serializing_if = "Option::is_none")]
    last_name: Option<&'a str>,
}

impl PlatformConnector {
    /// Returns a new assertion about `user`: signed here, or from the bot's assertion service.
    pub(super) async fn assertion(
        &self,
        bot: &BotConfig,
        user: &UserId,
        details: &UserDetails,
        now: Timestamp,
    ) -> Result<SecretString, ConnectError> {
        match &bot.assertion_service {
            Some(service) => self.fetch_assertion(bot, service, user, details, now).await,
            None => Ok(self.signer(bot)?.mint(user, details, now)?),
        }
    }

    async fn fetch_assertion(
        &self,
        bot: &BotConfig,
        service: &AssertionServiceConfig,
        user: &UserId,
        details: &UserDetails,
        now: Timestamp,
    ) -> Result<SecretString, ConnectError> {
        let body = AssertionRequest {
            client_id: &bot.client_id,
            identity: user.as_str(),
            is_anonymous: bot.anonymous,
            aud: AUDIENCE,
            identity_to_merge: details.merge_with.as_ref().map(UserId::as_str),
            first_name: details.profile.first_name.as_deref(),
            last_name: details.profile.last_name.as_deref(),
        };
        let format = self.assertion_formats.borrow().get(&bot.name).copied().unwrap_or(AssertionFormat::Json);
        let public_message = match self.request_assertion(bot, service, &body, format, now).await {
            Err(ConnectError::BodyRefused { public_message }) => public_message,
            result => return result,
        };
        match self.request_assertion(bot, service, &body, format.other(), now).await {
            Ok(assertion) => {
                self.assertion_formats.borrow_mut().insert(bot.name.clone(), format.other());
                Ok(assertion)
            }
            // The first refusal tells more: the service reads that format, or neither.
            Err(ConnectError::BodyRefused { .. } | ConnectError::Rejected { .. }) => {
                Err(ConnectError::Rejected { phase: PHASE, public_message })
            }
            Err(error) => Err(error),
        }
    }

    async fn request_assertion(
        &self,
        bot: &BotConfig,
        service: &AssertionServiceConfig,
        body: &AssertionRequest<'_>,
        format: AssertionFormat,
        now: Timestamp,
    ) -> Result<SecretString, ConnectError> {
        // The next request may follow at once, and small servers close a connection without a word. awc would reuse it.
        let mut request = self.clients(bot).calls.post(service.url.as_str()).force_close();
        if let Some(token) = &service.bearer_token {
            request = request.bearer_auth(token.expose_secret());
        }
        let sending = match format {
            AssertionFormat::Json => request.send_json(body),
            AssertionFormat::UrlEncoded => request.send_form(body),
        };
        let limit = TCP_TIMEOUT + TLS_TIMEOUT + RESPONSE_TIMEOUT;
        let answer = self.answer(PHASE, sending, limit, ANSWER_MAX, now).await?;
        read_assertion(&answer).ok_or_else(|| incomplete_response(PHASE, &answer, now))
    }
}

/// Reads the assertion of an answer. Returns `None` if it has none that the platform could take.
fn read_assertion(answer: &[u8]) -> Option<SecretString> {
    let text = str::from_utf8(answer).ok()?.trim();
    let token = match text.chars().next()? {
        '{' => member_token(text)?,
        '"' => serde_json::from_str(text).ok()?,
        _ => text.to_owned(),
    };
    let is_part = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let parts = token.split('.').count();
    let fits = matches!(parts, 3 | 5) && token.split('.').all(is_part) && token.len() <= ASSERTION_MAX;
    fits.then(|| token.into())
}

fn member_token(text: &str) -> Option<String> {
    let [jwt, token, assertion, data] = members(text, ["jwt", "token", "assertion", "data"])?;
    let named = [jwt, token, assertion, data].into_iter().flatten().find_map(string);
    named.map(std::borrow::Cow::into_owned).or_else(|| nested_token(data))
}

fn nested_token(data: JsonMember<'_>) -> Option<String> {
    let [jwt, token, assertion] = members(data?.get(), ["jwt", "token", "assertion"])?;
    [jwt, token, assertion].into_iter().flatten().find_map(string).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assertion_is_read_in_each_form() {
        for answer in [
            r#"{"jwt":"a.b.c"}"#,
            r#" {"jwt" : "a.b.c", "botInfo": {}} "#,
            r#"{"token":"a.b.c"}"#,
            r#"{"assertion":"a.b.c"}"#,
            r#"{"data":{"jwt":"a.b.c"}}"#,
            r#"{"data":"a.b.c"}"#,
            r#""a.b.c""#,
            "a.b.c\n",
        ] {
            let read = read_assertion(answer.as_bytes());
            assert_eq!(read.unwrap_or_else(|| panic!("{answer}")).expose_secret(), "a.b.c");
        }
        assert_eq!(read_assertion(b"a.b-_.c9..e").unwrap().expose_secret(), "a.b-_.c9..e", "a JWE");
    }

    #[test]
    fn answer_without_an_assertion_is_refused() {
        let long = format!("a.{}.c", "b".repeat(ASSERTION_MAX));
        for answer in [
            "",
            "{}",
            r#"{"jwt":""}"#,
            r#"{"jwt":7}"#,
            "<html>a.b.c</html>",
            "a.b",
            "a b.c.d",
            "a.b.c.d",
            &long,
        ] {
            assert!(read_assertion(answer.as_bytes()).is_none(), "{answer}");
        }
    }
}
