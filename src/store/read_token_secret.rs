//! The secret of a day that signs read tokens. All replicas share it.

use std::time::Duration;

use super::{Store, StoreError, dispatch};

/// The lifetime of a secret: its day, and the longest token of it. Clocks may differ by a day at most.
pub const READ_TOKEN_SECRET_TTL: Duration = Duration::from_hours(72);

/// The secret, 32 random bytes.
pub type ReadTokenSecret = [u8; 32];

#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named at `Store`")]
impl Store {
    /// Returns the secret of a day, in days since 1970. Stores `fresh` if there is none. A repeat is safe.
    pub async fn read_token_secret(
        &self,
        day: u64,
        fresh: Option<ReadTokenSecret>,
    ) -> Result<Option<ReadTokenSecret>, StoreError> {
        dispatch!(self.read_token_secret(day, fresh), Ok)
    }
}
