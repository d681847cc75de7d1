//! The order of the reads over one link.

use crate::domain::GapReason;

/// Which read is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadStage {
    First,
    /// The read in the middle of `history_settle`, for a waiting turn.
    Middle,
    /// The last regular read, at the end of `history_settle`.
    Last,
    /// The retry with this number.
    Retry(u8),
    /// No read follows. The reason tells what stays missing.
    Ended(Option<GapReason>),
}

impl ReadStage {
    /// Returns the number of the retry, or 0.
    pub(super) const fn retries(self) -> u8 {
        if let Self::Retry(retries) = self { retries } else { 0 }
    }
}
