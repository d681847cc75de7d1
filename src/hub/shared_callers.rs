//! State of callers that all replicas share through the store: secrets of read tokens, and rates.

use super::{Hub, HubError};
use crate::config::CallerConfig;
use crate::store::{ReadTokenSecret, RequestGrant, RequestWish};

impl Hub {
    /// Takes over the limits of callers of a changed configuration. Open messages stay.
    pub fn reload_callers(&self, callers: &[CallerConfig]) {
        self.shares.reload(callers);
    }

    /// Returns the secret of a day that signs read tokens. Stores `fresh` if there is none.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub async fn read_token_secret(
        &self,
        day: u64,
        fresh: Option<ReadTokenSecret>,
    ) -> Result<Option<ReadTokenSecret>, HubError> {
        Ok(self.store.read_token_secret(day, fresh).await?)
    }

    /// Takes requests out of the bucket that a caller has on all replicas.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub async fn take_requests(&self, wish: RequestWish<'_>) -> Result<RequestGrant, HubError> {
        Ok(self.store.take_requests(wish).await?)
    }
}
