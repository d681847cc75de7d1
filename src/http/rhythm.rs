//! The learned rhythm of a bot as a resource (api.md 7). An operator reads it, or has it forgotten.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::api_error::{self, ApiError, FieldErrors};
use super::auth::{CallerIdentity, RequiredScope};
use super::query_parameters::{decode, without_query};
use super::request_pipeline::{json_response, record, serve};
use super::{ApiContext, RHYTHM};
use crate::config::BotConfig;
use crate::domain::{BotName, Problem, ProblemKind, QuietSource, QuietWait};
use crate::hub::HubError;
use crate::rhythm::{KindReport, RhythmReport};

/// Serves `GET /bots/{bot}/rhythm`.
pub(super) async fn get(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, RHYTHM, &request, read(&context, &request)).await
}

/// Serves `DELETE /bots/{bot}/rhythm`.
pub(super) async fn delete(context: Data<ApiContext>, request: HttpRequest) -> HttpResponse {
    serve(&context, RHYTHM, &request, forget(&context, &request)).await
}

/// The learned rhythm of a bot, as callers see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RhythmView<'a> {
    bot: &'a BotName,
    /// Whether the quiet time of the bot follows its rhythm.
    auto: bool,
    turns: u64,
    early_cuts: u64,
    longest_first_reply_ms: Option<u64>,
    kinds: Vec<ReplyKindView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplyKindView {
    kind: String,
    observations: f64,
    followed: f64,
    quiet: QuietWait,
}

impl<'a> RhythmView<'a> {
    /// Converts a report. A bot with a fixed quiet time has no report.
    pub(super) fn new(bot: &'a BotName, report: Option<&RhythmReport>) -> Self {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            bot,
            auto: report.is_some(),
            turns: report.map_or(0, |report| report.turns),
            early_cuts: report.map_or(0, |report| report.early_cuts),
            longest_first_reply_ms: report.and_then(|report| report.longest_first_reply).map(millis),
            kinds: report
                .map(|report| report.kinds.iter().map(ReplyKindView::of).collect())
                .unwrap_or_default(),
        }
    }
}

impl ReplyKindView {
    fn of(kind: &KindReport) -> Self {
        let by = if kind.learned { QuietSource::Learned } else { QuietSource::Default };
        Self {
            kind: format!("{:016x}", kind.kind.bits()),
            observations: rounded(kind.observations, 10.0),
            followed: rounded(kind.followed, 1000.0),
            quiet: QuietWait { wait: kind.wait, by },
        }
    }
}

/// Rounds a number that is an estimate anyway, to one part of `parts`.
fn rounded(number: f32, parts: f64) -> f64 {
    (f64::from(number) * parts).round() / parts
}

async fn read(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let bot = find(context, &caller, request)?;
    let report = context
        .hub
        .rhythm(&bot.name)
        .await
        .map_err(|error| store_failure(error, "The store did not answer in time. Try again."))?;
    json_response(StatusCode::OK, &RhythmView::new(&bot.name, report.as_ref()))
}

async fn forget(context: &ApiContext, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let caller = context.authorize(request, RequiredScope::Admin)?;
    let bot = find(context, &caller, request)?;
    context.hub.forget_rhythm(&bot.name).await.map_err(|error| {
        store_failure(
            error,
            "The store did not confirm in time that the rhythm is forgotten. Repeat the request.",
        )
    })?;
    tracing::info!(bot = %bot.name, caller = caller.name(), "a rhythm was forgotten");
    Ok(HttpResponse::NoContent().finish())
}

/// Returns the bot of the path, if this caller may use it.
///
/// # Errors
/// `forbidden` outside the caller's configuration, then `not-found` for a bot without configuration.
fn find<'c>(
    context: &'c ApiContext,
    caller: &CallerIdentity,
    request: &HttpRequest,
) -> Result<&'c Arc<BotConfig>, ApiError> {
    let mut errors = FieldErrors::default();
    let name = errors.record("path/bot", decode(request.path().split('/').nth(2).unwrap_or_default()));
    let Some(name) = name else { return Err(errors.into()) };
    caller.check_bot(&name)?;
    caller.check_covers_users()?;
    let bot = context.config.bots.iter().find(|bot| *bot.name.as_str() == *name).ok_or_else(|| {
        ApiError::new(ProblemKind::NotFound, "There is no bot of this name. Check it in the path.")
    })?;
    without_query(request.query_string())?;
    record("bot", &bot.name);
    record("caller", &caller.name());
    Ok(bot)
}

fn store_failure(error: HubError, detail: &'static str) -> ApiError {
    match error {
        HubError::Store(error) if error.is_passing() => {
            Problem::new(ProblemKind::StoreUnavailable, detail).retry_after(api_error::RETRY_SOON).into()
        }
        error => error.into(),
    }
}

/// Returns the view of a rhythm with one kind, for the test of the document.
#[cfg(test)]
pub(super) fn fixture() -> RhythmView<'static> {
    static BOT: std::sync::LazyLock<BotName> = std::sync::LazyLock::new(BotName::sandbox);
    let kind = KindReport {
        kind: crate::domain::Fingerprint::from_bits(1),
        observations: 1.0,
        followed: 1.0,
        wait: Duration::ZERO,
        learned: true,
    };
    let report = RhythmReport { turns: 1, early_cuts: 0, longest_first_reply: None, kinds: vec![kind] };
    RhythmView::new(&BOT, Some(&report))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Fingerprint;

    #[test]
    fn report_is_written_in_numbers_for_people() {
        let kind = |bits, learned, ms| KindReport {
            kind: Fingerprint::from_bits(bits),
            observations: 812.39,
            followed: 0.980_4,
            wait: Duration::from_millis(ms),
            learned,
        };
        let report = RhythmReport {
            turns: 5120,
            early_cuts: 3,
            longest_first_reply: Some(Duration::from_millis(2140)),
            kinds: vec![kind(0xf1, true, 140), kind(u64::MAX, false, 1000)],
        };
        let bot = BotName::sandbox();
        assert_eq!(
            json!(RhythmView::new(&bot, Some(&report))),
            json!({
                "bot": "sandbox", "auto": true, "turns": 5120, "earlyCuts": 3, "longestFirstReplyMs": 2140,
                "kinds": [
                    {"kind": "00000000000000f1", "observations": 812.4, "followed": 0.98,
                     "quiet": {"ms": 140, "by": "learned"}},
                    {"kind": "ffffffffffffffff", "observations": 812.4, "followed": 0.98,
                     "quiet": {"ms": 1000, "by": "default"}},
                ],
            })
        );
        let fixed = json!(RhythmView::new(&bot, None));
        let nothing = json!({
            "bot": "sandbox", "auto": false, "turns": 0, "earlyCuts": 0, "longestFirstReplyMs": null, "kinds": [],
        });
        assert_eq!(fixed, nothing);
    }
}
