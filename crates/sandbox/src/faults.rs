//! Faults for requests, and the queue of planned ones.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Endpoint of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Endpoint {
    /// `POST oAuth/token/jwtgrant`
    Grant,
    /// `POST rtm/start`
    Start,
    /// `GET botmessages/rtm`
    History,
    /// The upgrade to a web socket.
    Upgrade,
    /// `POST attachment/file/token`, and its other forms.
    FileToken,
    /// `POST attachment/file`, and its other form.
    File,
    /// `POST attachment/file/{token}/chunk`, and its other forms.
    FileChunk,
    /// `PUT attachment/file/{token}`, and its other forms.
    FileCommit,
    /// `GET attachment/v2/stream/{bot}/file/{file}/url`
    FileUrl,
}

/// Fault of a request. All but [`Fault::Slow`] replace the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status with the platform's error envelope.
    Status(u16),
    /// This status, with this message and code in the envelope.
    Error {
        /// HTTP status.
        status: u16,
        /// `errors[0].code`; digits become a number.
        code: String,
        /// `errors[0].msg`.
        msg: String,
    },
    /// Status 429.
    RateLimited(RetryAfter),
    /// A proxy's HTML page with this status.
    Html(u16),
    /// This status with this body, as JSON.
    Body(u16, String),
    /// The right answer after this delay.
    Slow(Duration),
    /// `rtm/start`: 200 without `url`. Elsewhere: 200 with `{}`.
    Empty,
    /// Refusal of the token as expired, as [`Behaviour::expired_token`](super::Behaviour::expired_token) says.
    TokenExpired,
    /// No answer, ever.
    Hang,
    /// A closed connection without an answer.
    Drop,
}

/// Wait that a 429 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many seconds.
    Seconds(u64),
    /// An HTTP date so far from now.
    Date(Duration),
    /// No header.
    Missing,
}

struct PlannedFault {
    endpoint: Endpoint,
    /// Remaining requests; `None` until the fault is cleared.
    left: Option<usize>,
    fault: Fault,
}

/// Planned faults, in order.
#[derive(Default)]
pub(super) struct FaultQueue {
    /// Spares requests the lock while the queue is empty.
    any: AtomicBool,
    planned: Mutex<VecDeque<PlannedFault>>,
}

impl FaultQueue {
    /// Plans a fault for the next `times` requests, or until it is cleared.
    pub(super) fn plan(&self, endpoint: Endpoint, times: Option<usize>, fault: Fault) {
        if times == Some(0) {
            return;
        }
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.push_back(PlannedFault { endpoint, left: times, fault });
        self.any.store(true, Ordering::Release);
    }

    /// Clears the faults of one endpoint, or all.
    pub(super) fn clear(&self, endpoint: Option<Endpoint>) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.retain(|plan| endpoint.is_some_and(|endpoint| plan.endpoint != endpoint));
        self.any.store(!planned.is_empty(), Ordering::Release);
    }

    /// Takes the fault for a request: the oldest one of its endpoint.
    pub(super) fn take(&self, endpoint: Endpoint) -> Option<Fault> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let at = planned.iter().position(|plan| plan.endpoint == endpoint)?;
        let plan = planned.get_mut(at)?;
        let fault = plan.fault.clone();
        if let Some(left) = &mut plan.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                planned.remove(at);
                self.any.store(!planned.is_empty(), Ordering::Release);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_faults_apply_in_order_and_number() {
        let faults = FaultQueue::default();
        assert_eq!(faults.take(Endpoint::Grant), None);
        faults.plan(Endpoint::Grant, Some(0), Fault::Hang);
        faults.plan(Endpoint::Grant, Some(2), Fault::Status(500));
        faults.plan(Endpoint::Grant, None, Fault::Drop);
        assert_eq!(faults.take(Endpoint::Start), None);
        assert_eq!(faults.take(Endpoint::Grant), Some(Fault::Status(500)));
        assert_eq!(faults.take(Endpoint::Grant), Some(Fault::Status(500)));
        for _ in 0..3 {
            assert_eq!(faults.take(Endpoint::Grant), Some(Fault::Drop));
        }
        faults.clear(Some(Endpoint::Start));
        assert_eq!(faults.take(Endpoint::Grant), Some(Fault::Drop));
        faults.clear(None);
        assert_eq!(faults.take(Endpoint::Grant), None);
    }
}
