//! The places and the memory of a request until its caller has taken the answer.

use super::concurrency_limit::ConcurrencyPermit;
use crate::domain::SharePermit;

/// The permits of a request. The connection holds them, so that a caller that does not read its answer keeps its places
/// taken (see [`super::detachable_connection`]).
#[derive(Debug, Default)]
pub(super) struct RequestPlaces {
    /// The place among all open requests.
    pub(super) request: Option<ConcurrencyPermit>,
    /// The places among those of its caller.
    pub(super) caller: CallerPlaces,
    /// The memory of the request's body.
    pub(super) body: Option<SharePermit>,
    /// The memory of the answer.
    pub(super) answer: Option<SharePermit>,
}

/// The places of a request among those of its caller.
#[derive(Debug, Default)]
pub(super) struct CallerPlaces {
    /// The place below `max_open_requests`, if the caller has such a limit.
    pub(super) open: Option<ConcurrencyPermit>,
    /// The caller's share of all requests.
    pub(super) share: Option<SharePermit>,
}
