//! The platform's history for a caller, with its log and its problem.

use bytes::Bytes;
use tracing::info;

use crate::config::BotConfig;
use crate::domain::{Problem, ProblemKind, UserId};
use crate::rtm::{ConnectError, Grant, HistoryExcerpt, PlatformConnector, RetryAdvice};
use crate::wall_clock;

/// Reads a part of the history of a user, as the platform sends it.
///
/// # Errors
/// `platform-rejected`, `platform-unavailable`.
pub async fn read_history(
    connector: &PlatformConnector,
    bot: &BotConfig,
    user: &UserId,
    grant: &mut Option<Grant>,
    selection: &HistoryExcerpt<'_>,
) -> Result<Bytes, Problem> {
    let (context, now) = (connector.empty_context(), wall_clock::now());
    connector.fetch_history(bot, user, &context, grant, selection, now).await.map_err(|error| {
        info!(bot = %bot.name, %error, "the history could not be read");
        problem(&error)
    })
}

fn problem(error: &ConnectError) -> Problem {
    let is_final = matches!(error, ConnectError::TokenExpired { .. }) || error.retry() == RetryAdvice::Never;
    let kind = if is_final { ProblemKind::PlatformRejected } else { ProblemKind::PlatformUnavailable };
    let problem = Problem::new(kind, format!("The history was not read: {}.", error.public_message()));
    match error.retry() {
        RetryAdvice::Backoff(Some(wait)) => problem.retry_after(wait),
        _ => problem,
    }
}
