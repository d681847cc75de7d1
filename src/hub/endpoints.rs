//! The endpoints of bots, for the callers' routes: states, backlogs and switches of the store.

use std::collections::BTreeMap;

use super::Hub;
use crate::domain::{EndpointId, EndpointState};
use crate::store::StoreError;

impl Hub {
    /// Returns the states of endpoints; see [`Store::endpoint_states`](crate::store::Store::endpoint_states).
    ///
    /// # Errors
    /// The errors of the store's operation.
    pub async fn endpoint_states(&self) -> Result<BTreeMap<EndpointId, EndpointState>, StoreError> {
        self.store.endpoint_states().await
    }

    /// Returns the number of pending deliveries of each endpoint.
    ///
    /// # Errors
    /// The errors of the store's operation.
    pub async fn endpoint_backlogs(&self) -> Result<BTreeMap<EndpointId, u64>, StoreError> {
        self.store.endpoint_backlogs().await
    }

    /// Switches an endpoint off for a reason, or on without one. Returns whether that changed its state.
    ///
    /// # Errors
    /// The errors of the store's operation.
    pub async fn switch_endpoint(&self, id: &EndpointId, off: Option<&str>) -> Result<bool, StoreError> {
        match off {
            Some(reason) => self.store.switch_endpoint_off(id, reason).await,
            None => self.store.switch_endpoint_on(id).await,
        }
    }
}
