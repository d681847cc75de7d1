//! What replicas tell each other over Redis.

use crate::store::Hint;

/// Reads a payload of a replica's own channel; none where it is not one that this version knows.
pub(super) fn decode(_payload: &[u8]) -> Option<Hint> {
    None
}
