//! One attempt: what is sent, and what came of it.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use url::Url;

use super::payload;
use super::sender::{DeliverySender, ReceiverResponse, SendError};
use super::target_table::TargetTable;
use crate::domain::{DeliveryAttempt, Timestamp};
use crate::store::ClaimedDelivery;

/// An attempt that was made.
#[derive(Debug)]
pub(super) struct AttemptResult {
    /// For the delivery's list.
    pub(super) attempt: DeliveryAttempt,
    /// What it means.
    pub(super) fate: AttemptOutcome,
}

/// What an attempt means for its delivery and for the target's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// The receiver took it (2xx).
    Delivered,
    /// The receiver wants no more (410).
    Gone,
    /// The receiver answered, and did not take it.
    Refused {
        /// The wait that its `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// Whether the host seems to be in trouble: 5xx and 429.
        ailing: bool,
    },
    /// No answer came: not reached, or not in time.
    Unreached,
    /// It was not made, for reasons that are ours: the address is none it may go to, nothing to sign with.
    Forbidden,
}

/// Makes one attempt, within `webhooks.timeout`, and says what came of it. It may be dropped at any time.
pub(super) async fn attempt(
    sender: &DeliverySender,
    targets: &TargetTable,
    taken: &ClaimedDelivery,
) -> AttemptResult {
    let began = Instant::now();
    let answered = exchange(sender, targets, taken).await;
    let duration = began.elapsed();
    let (fate, status, error, response) = match answered {
        Ok(answer) => {
            let fate = fate(&answer, taken.now + duration);
            let error = complaint(&fate, answer.status);
            (fate, Some(answer.status), error, answer.body)
        }
        Err((fate, error)) => (fate, None, Some(error), None),
    };
    AttemptResult { attempt: DeliveryAttempt { at: taken.now, status, error, duration, response }, fate }
}

async fn exchange(
    sender: &DeliverySender,
    targets: &TargetTable,
    taken: &ClaimedDelivery,
) -> Result<ReceiverResponse, (AttemptOutcome, Box<str>)> {
    let forbidden = |why: &dyn std::error::Error| (AttemptOutcome::Forbidden, why.to_string().into());
    let manner = targets.manner(&taken.delivery).map_err(|why| forbidden(&why))?;
    let url = Url::parse(&taken.delivery.target).map_err(|_| forbidden(&SendError::Url))?;
    let (headers, body) =
        payload::compose(taken, &manner, fastrand::u64(1..)).map_err(|why| forbidden(&why))?;
    sender.post(&url, headers, body).await.map_err(|failure| {
        let fate = if failure.is_ours() { AttemptOutcome::Forbidden } else { AttemptOutcome::Unreached };
        (fate, failure.to_string().into())
    })
}

/// What an answer means.
fn fate(answer: &ReceiverResponse, now: Timestamp) -> AttemptOutcome {
    match answer.status {
        200..=299 => AttemptOutcome::Delivered,
        410 => AttemptOutcome::Gone,
        status => AttemptOutcome::Refused {
            retry_after: answer.retry_after.as_deref().and_then(|value| retry_after(value, now)),
            ailing: status == 429 || status >= 500,
        },
    }
}

/// What is wrong with an answer, in words.
fn complaint(fate: &AttemptOutcome, status: u16) -> Option<Box<str>> {
    match (fate, status) {
        (AttemptOutcome::Delivered, _) => None,
        (AttemptOutcome::Gone, _) => Some("it answered 410: it wants no more".into()),
        (_, 300..=399) => Some(format!("it answered {status}; redirects are not followed").into()),
        _ => Some(format!("it answered {status}").into()),
    }
}

/// The wait that `Retry-After` asks for: seconds or an HTTP date (RFC 9110, 10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return match value {
            "" => None,
            // More seconds than can be counted are as many as can be.
            digits => Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX))),
        };
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let until = Timestamp::from_millis(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    Some(until.since(now))
}

#[cfg(test)]
mod tests;
