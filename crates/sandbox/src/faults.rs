//! What goes wrong with a request, on purpose.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST oAuth/token/jwtgrant`
    Grant,
    /// `POST rtm/start`
    Start,
    /// `GET botmessages/rtm`
    History,
    /// The upgrade to a web socket.
    Upgrade,
}

/// What happens to a request. All but [`Fault::Slow`] take the place of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status with the platform's error envelope.
    Status(u16),
    /// This status, this message and this code in the envelope.
    Error {
        /// HTTP status.
        status: u16,
        /// `errors[0].code`; digits become a number.
        code: String,
        /// `errors[0].msg`.
        msg: String,
    },
    /// 429.
    RateLimited(RetryAfter),
    /// A page of a proxy with this status.
    Html(u16),
    /// This status with this body, as JSON.
    Body(u16, String),
    /// The right answer, this much later.
    Slow(Duration),
    /// `rtm/start`: 200 without `url`. Elsewhere: 200 with `{}`.
    Empty,
    /// The token is refused as expired, in the spelling of
    /// [`Behaviour::expiry`](super::Behaviour::expiry).
    TokenExpired,
    /// No answer, ever.
    Hang,
    /// The connection is closed without an answer.
    Drop,
}

/// What a 429 says about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So many seconds.
    Seconds(u64),
    /// An HTTP date so far from now.
    Date(Duration),
    /// Nothing.
    Missing,
}

struct Planned {
    endpoint: Endpoint,
    /// How many requests it still strikes; `None`: until it is cleared.
    left: Option<usize>,
    fault: Fault,
}

/// The faults that are planned, in order.
#[derive(Default)]
pub(super) struct Faults {
    /// Spares requests the lock while nothing is planned.
    any: AtomicBool,
    planned: Mutex<VecDeque<Planned>>,
}

impl Faults {
    /// Plans a fault for the next `times` requests, or until it is cleared.
    pub(super) fn plan(&self, endpoint: Endpoint, times: Option<usize>, fault: Fault) {
        if times == Some(0) {
            return;
        }
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.push_back(Planned { endpoint, left: times, fault });
        self.any.store(true, Ordering::Release);
    }

    /// Forgets what is planned, there or everywhere.
    pub(super) fn clear(&self, endpoint: Option<Endpoint>) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.retain(|plan| endpoint.is_some_and(|endpoint| plan.endpoint != endpoint));
        self.any.store(!planned.is_empty(), Ordering::Release);
    }

    /// What strikes the request that just came: the oldest plan for its endpoint.
    pub(super) fn strike(&self, endpoint: Endpoint) -> Option<Fault> {
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
    fn a_plan_strikes_as_often_as_it_says_and_in_order() {
        let faults = Faults::default();
        assert_eq!(faults.strike(Endpoint::Grant), None);
        faults.plan(Endpoint::Grant, Some(0), Fault::Hang);
        faults.plan(Endpoint::Grant, Some(2), Fault::Status(500));
        faults.plan(Endpoint::Grant, None, Fault::Drop);
        assert_eq!(faults.strike(Endpoint::Start), None);
        assert_eq!(faults.strike(Endpoint::Grant), Some(Fault::Status(500)));
        assert_eq!(faults.strike(Endpoint::Grant), Some(Fault::Status(500)));
        for _ in 0..3 {
            assert_eq!(faults.strike(Endpoint::Grant), Some(Fault::Drop));
        }
        faults.clear(Some(Endpoint::Start));
        assert_eq!(faults.strike(Endpoint::Grant), Some(Fault::Drop));
        faults.clear(None);
        assert_eq!(faults.strike(Endpoint::Grant), None);
    }
}
