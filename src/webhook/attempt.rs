//! One attempt: what is sent, and what came of it.

use std::time::Duration;

use super::sender::Sender;
use super::targets::Targets;
use crate::domain::Attempt;
use crate::store::Taken;

/// An attempt that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// For the delivery's list.
    pub(super) attempt: Attempt,
    /// What it means.
    pub(super) fate: Fate,
}

/// What an attempt means for its delivery and for the target's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
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

/// Makes one attempt, within the time-out of the configuration, and says what came of it. It may be dropped at any time.
pub(super) async fn attempt(sender: &Sender, targets: &Targets, taken: &Taken) -> Made {
    let _ = (sender, targets);
    Made {
        attempt: Attempt {
            at: taken.now,
            status: None,
            error: Some("not sent".into()),
            duration: Duration::ZERO,
            response: None,
        },
        fate: Fate::Forbidden,
    }
}
