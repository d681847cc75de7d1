//! One attempt: the exchange with the receiver, and its result.

use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::payload;
use super::sender::{DeliverySender, ReceiverResponse, SendError};
use super::target_table::{TargetRefusal, TargetTable};
use crate::domain::DeliveryAttempt;
use crate::store::ClaimedDelivery;
use crate::wall_clock;

/// The result of an attempt that was made.
#[derive(Debug)]
pub(super) struct AttemptResult {
    /// The entry in the delivery's list of attempts.
    pub(super) attempt: DeliveryAttempt,
    pub(super) outcome: AttemptOutcome,
}

/// The meaning of an attempt for its delivery and for the target's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// The receiver took the delivery (2xx).
    Delivered,
    /// The receiver wants no more deliveries (410).
    Gone,
    /// The receiver answered and did not take the delivery.
    Refused {
        /// The wait that its `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// Whether the host seems to be in trouble: 5xx and 429.
        host_failing: bool,
    },
    /// No response came in time.
    Unreached,
    /// No request was sent for a reason on our side, such as a private address or a missing secret.
    Forbidden,
    /// No request was sent because `webhooks.allowed` does not cover the callback. The patterns of the
    /// replica that accepted it may be newer.
    NotAllowed,
    /// No request was sent because the stored delivery has no body in the receiver's format. A retry would not help.
    Unreadable,
}

/// Makes one attempt within `webhooks.timeout` and returns its result. The future may be dropped at any time.
pub(super) async fn attempt(
    sender: &DeliverySender,
    targets: &TargetTable,
    claimed: &ClaimedDelivery,
) -> AttemptResult {
    let began = Instant::now();
    let response = exchange(sender, targets, claimed).await;
    let duration = began.elapsed();
    let (outcome, status, error, response) = match response {
        Ok(response) => {
            let outcome = outcome(&response);
            let error = error_text(&outcome, response.status);
            (outcome, Some(response.status), error, response.body)
        }
        Err((outcome, error)) => (outcome, None, Some(error), None),
    };
    AttemptResult { attempt: DeliveryAttempt { at: claimed.now, status, error, duration, response }, outcome }
}

async fn exchange(
    sender: &DeliverySender,
    targets: &TargetTable,
    claimed: &ClaimedDelivery,
) -> Result<ReceiverResponse, (AttemptOutcome, Box<str>)> {
    let forbidden = |why: &dyn std::error::Error| (AttemptOutcome::Forbidden, why.to_string().into());
    let options = targets.options(&claimed.delivery).map_err(|refusal| match refusal {
        TargetRefusal::NotAllowed => (AttemptOutcome::NotAllowed, refusal.to_string().into()),
        _ => forbidden(&refusal),
    })?;
    let url = Url::parse(&claimed.delivery.target).map_err(|_| forbidden(&SendError::Url))?;
    let (headers, body) = payload::compose(claimed, &options, fastrand::u64(1..), wall_clock::now())
        .map_err(|why| (AttemptOutcome::Unreadable, why.to_string().into()))?;
    sender.post(&url, headers, body).await.map_err(|error| {
        let outcome = if error.is_ours() { AttemptOutcome::Forbidden } else { AttemptOutcome::Unreached };
        (outcome, error.to_string().into())
    })
}

fn outcome(response: &ReceiverResponse) -> AttemptOutcome {
    match response.status {
        200..=299 => AttemptOutcome::Delivered,
        410 => AttemptOutcome::Gone,
        status => AttemptOutcome::Refused {
            retry_after: response.retry_after,
            host_failing: status == 429 || status >= 500,
        },
    }
}

/// Returns the error of a response as text for the list of attempts.
fn error_text(outcome: &AttemptOutcome, status: u16) -> Option<Box<str>> {
    match (outcome, status) {
        (AttemptOutcome::Delivered, _) => None,
        (AttemptOutcome::Gone, _) => Some("the receiver answered 410: it wants no more deliveries".into()),
        (_, 300..=399) => Some(format!("the receiver answered {status}; redirects are not followed").into()),
        _ => Some(format!("the receiver answered {status}").into()),
    }
}

#[cfg(test)]
mod tests;
