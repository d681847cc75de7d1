//! The states of endpoints, which all replicas share, and their backlogs.

use std::collections::BTreeMap;

use super::{Store, StoreError, dispatch};
use crate::domain::{EndpointId, EndpointReport, EndpointState};

#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named at `Store`")]
impl Store {
    /// Returns the state of each endpoint that has one. Endpoints outside the configuration are among them.
    pub async fn endpoint_states(&self) -> Result<BTreeMap<EndpointId, EndpointState>, StoreError> {
        dispatch!(self.endpoint_states(), Ok)
    }

    /// Adds the attempts of one replica to the state of an endpoint ([`EndpointState::record`]). A repeat is safe.
    pub async fn report_endpoint(&self, id: &EndpointId, report: &EndpointReport) -> Result<(), StoreError> {
        dispatch!(self.report_endpoint(id, report), Ok)
    }

    /// Switches an endpoint off, for this reason. Returns false if it was off already.
    pub async fn switch_endpoint_off(&self, id: &EndpointId, reason: &str) -> Result<bool, StoreError> {
        dispatch!(self.switch_endpoint_off(id, reason), Ok)
    }

    /// Switches an endpoint on. Its failures count anew. Returns false if it was on already.
    pub async fn switch_endpoint_on(&self, id: &EndpointId) -> Result<bool, StoreError> {
        dispatch!(self.switch_endpoint_on(id), Ok)
    }

    /// Returns the number of pending deliveries of each endpoint that has some.
    pub async fn endpoint_backlogs(&self) -> Result<BTreeMap<EndpointId, u64>, StoreError> {
        dispatch!(self.endpoint_backlogs(), Ok)
    }
}
