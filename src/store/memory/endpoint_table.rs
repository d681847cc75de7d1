//! The states of endpoints. Endpoints are few, so the limit of the store does not count them.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use super::MemoryStore;
use crate::domain::{EndpointId, EndpointOutage, EndpointReport, EndpointState, Partition};

/// The state of each endpoint.
pub(super) type EndpointTable = BTreeMap<EndpointId, EndpointState>;

#[expect(missing_docs, reason = "the operations are documented at `Store`")]
impl MemoryStore {
    pub fn endpoint_states(&self) -> BTreeMap<EndpointId, EndpointState> {
        self.endpoints().clone()
    }

    pub fn report_endpoint(&self, id: &EndpointId, report: &EndpointReport) {
        self.endpoints().entry(id.clone()).or_default().record(report);
    }

    pub fn switch_endpoint_off(&self, id: &EndpointId, reason: &str) -> bool {
        let since = self.now();
        let mut endpoints = self.endpoints();
        let state = endpoints.entry(id.clone()).or_default();
        let changes = state.off.is_none();
        state.off.get_or_insert_with(|| EndpointOutage { since, reason: reason.into() });
        changes
    }

    pub fn switch_endpoint_on(&self, id: &EndpointId) -> bool {
        let mut endpoints = self.endpoints();
        let Some(state) = endpoints.get_mut(id) else { return false };
        state.failing_since = None;
        state.off.take().is_some()
    }

    pub fn endpoint_backlogs(&self) -> BTreeMap<EndpointId, u64> {
        let mut backlogs = BTreeMap::new();
        for partition in Partition::all() {
            for id in self.step(partition).deliveries.pending_endpoints() {
                *backlogs.entry(id).or_default() += 1;
            }
        }
        backlogs
    }

    fn endpoints(&self) -> MutexGuard<'_, EndpointTable> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
