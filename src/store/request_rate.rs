//! The requests of a caller that all replicas count together: a token bucket, from which a replica takes several at once.

use std::time::Duration;

use super::{Store, StoreError, dispatch};

/// The part of a bucket that a replica got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestGrant {
    /// The requests that the replica may let pass. They are no longer in the bucket.
    pub granted: u32,
    /// The requests that are left in the bucket.
    pub left: u32,
    /// The time until the bucket holds another request, if it has none.
    pub next_in: Duration,
}

/// A wish of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestWish<'a> {
    /// The name of the caller.
    pub caller: &'a str,
    /// The size of the bucket, which refills within a minute.
    pub per_minute: u32,
    /// The requests that the replica wants.
    pub wanted: u32,
    /// The requests that it got before and gives back.
    pub returned: u32,
}

#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named at `Store`")]
impl Store {
    /// Takes requests out of the bucket of a caller, as far as it has them. A call whose answer is lost may have taken them.
    pub async fn take_requests(&self, wish: RequestWish<'_>) -> Result<RequestGrant, StoreError> {
        dispatch!(self.take_requests(wish), Ok)
    }
}
