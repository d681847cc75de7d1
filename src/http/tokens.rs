//! `POST /tokens`: a token by which a browser reads the events of one user for some minutes (api.md 6).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::RequiredScope;
use super::field_validator::FieldValidator;
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, TOKENS, request_body};
use crate::domain::{BotName, ProblemKind, Timestamp, UserId};
use crate::identity::{ReadToken, ReadTokenKey};
use crate::wall_clock;

/// The lifetime of a token that asks for none.
const DEFAULT_TTL: Duration = Duration::from_mins(5);
/// The shortest lifetime.
const MIN_TTL: Duration = Duration::from_secs(1);
const TTL: &str = "must be a time from \"1s\" to \"1h\", or a whole number of seconds from 1 to 3600";

/// The wanted token.
#[derive(Debug, PartialEq, Eq)]
struct TokenRequest {
    user: UserId,
    bot: Option<BotName>,
    ttl: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenAnswer<'a> {
    token: String,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<&'a str>,
    expires_at: String,
}

/// Serves `POST /tokens`.
pub(super) async fn post(context: Data<ApiContext>, request: HttpRequest, payload: Payload) -> HttpResponse {
    serve(&context, TOKENS, &request, issue(&context, &request, payload)).await
}

async fn issue(
    context: &ApiContext,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Read)?;
    let Some(entry) = caller.entry() else {
        let detail = "Without `[[callers]]` each request of this machine is allowed, so no token is needed.";
        return Err(ApiError::new(ProblemKind::NotFound, detail));
    };
    let body = request_body::read(context, &caller, request, payload).await?;
    let mut errors = FieldErrors::default();
    let Some(TokenRequest { user, bot, ttl }) = parse(&body, &mut errors) else { return Err(errors.into()) };
    record("caller", &caller.name());
    caller.check_user(&user)?;
    if let Some(bot) = &bot {
        caller.check_bot(bot.as_str())?;
        if !context.config.bots.iter().any(|known| known.name == *bot) {
            return Err(ApiError::new(ProblemKind::NotFound, "There is no bot of this name. Check `bot`."));
        }
    }
    // A caller by token may have fewer bots than its configuration, which a read token of several bots cannot tell.
    let bot = match (bot, caller.bots()) {
        (None, Some([only])) => Some(only.clone()),
        (None, Some(some)) if entry.config.bots.as_deref() != Some(some) => {
            let mut errors = FieldErrors::default();
            errors.add("/bot", "is required, because this token covers some bots only");
            return Err(errors.into());
        }
        (bot, _) => bot,
    };
    let expires = Timestamp::from_millis((wall_clock::now() + ttl).as_millis() / 1000 * 1000);
    let token = ReadToken { caller: entry.config.name.as_str().into(), user, bot, expires };
    let signed = context.read_token_key().await?.sign(&token).ok_or_else(api_error::internal)?;
    let answer = TokenAnswer {
        token: signed,
        user: token.user.as_str(),
        bot: token.bot.as_ref().map(BotName::as_str),
        expires_at: expires.to_string(),
    };
    json_response(StatusCode::OK, &answer)
}

fn parse(body: &[u8], errors: &mut FieldErrors) -> Option<TokenRequest> {
    FieldValidator::validate(body, errors, |check, body| {
        let [user, bot, ttl] = check.object("", body, ["user", "bot", "ttl"])?;
        let user = check.required("/user", user).and_then(|user| check.string("/user", user));
        let user = user.and_then(|user| check.record("/user", UserId::new(&user).map_err(|e| e.to_string())));
        let named = bot.and_then(|bot| check.string("/bot", bot));
        let bot = named.and_then(|bot| check.record("/bot", BotName::new(&bot).map_err(|e| e.to_string())));
        let ttl = match ttl {
            None => Some(DEFAULT_TTL),
            Some(ttl) => check.record("/ttl", parse_ttl(ttl).ok_or(TTL)),
        };
        Some(TokenRequest { user: user?, bot, ttl: ttl? })
    })
}

fn parse_ttl(value: &RawValue) -> Option<Duration> {
    let seconds = match serde_json::from_str::<serde_json::Value>(value.get()).ok()? {
        serde_json::Value::Number(number) => number.as_u64()?,
        serde_json::Value::String(text) => {
            let (digits, factor) = match text.as_bytes().last()? {
                b's' => (text.strip_suffix('s')?, 1),
                b'm' => (text.strip_suffix('m')?, 60),
                b'h' => (text.strip_suffix('h')?, 3600),
                _ => (text.as_str(), 1),
            };
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(factor)?
        }
        _ => return None,
    };
    let ttl = Duration::from_secs(seconds);
    (MIN_TTL..=ReadTokenKey::TTL_MAX).contains(&ttl).then_some(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<TokenRequest, Vec<String>> {
        let mut errors = FieldErrors::default();
        let parsed = parse(body.as_bytes(), &mut errors);
        parsed.ok_or_else(|| errors.into_vec().into_iter().map(|error| error.pointer.into_owned()).collect())
    }

    #[test]
    fn lifetime_is_read_as_text_or_seconds() {
        let ttl =
            |json: &str| read(&format!(r#"{{"user":"u","ttl":{json}}}"#)).map(|token| token.ttl.as_secs());
        assert_eq!(read(r#"{"user":"u"}"#).unwrap().ttl, DEFAULT_TTL);
        for (json, seconds) in
            [("\"90s\"", 90), ("\"15m\"", 900), ("\"1h\"", 3600), ("60", 60), ("\"60\"", 60)]
        {
            assert_eq!(ttl(json), Ok(seconds), "{json}");
        }
        for json in [
            "0",
            "3601",
            "\"2h\"",
            "\"-1s\"",
            "\"+1s\"",
            "\"\"",
            "\"s\"",
            "1.5",
            "true",
            "\"99999999999999999999h\"",
        ] {
            assert_eq!(ttl(json), Err(vec!["/ttl".to_owned()]), "{json}");
        }
    }

    #[test]
    fn bad_members_are_named() {
        for (body, place) in [
            ("{}", "/user"),
            (r#"{"user":7}"#, "/user"),
            (r#"{"user":""}"#, "/user"),
            (r#"{"user":"u","bot":"b b"}"#, "/bot"),
            (r#"{"user":"u","scope":"read"}"#, "/scope"),
        ] {
            assert_eq!(read(body).unwrap_err(), [place], "{body}");
        }
    }
}
