//! The states of endpoints on Redis, and their backlogs.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::scripts::SCRIPTS;
use crate::domain::{EndpointId, EndpointOutage, EndpointReport, EndpointState, Partition, Timestamp};
use crate::store::StoreError;

const WHAT: CorruptData = CorruptData("the state of an endpoint");

/// The approximate number of queues that one script looks at, so that none blocks others for long.
const TOGETHER: usize = 256;

impl RedisStore {
    pub(in crate::store) async fn endpoint_states(
        &self,
    ) -> Result<BTreeMap<EndpointId, EndpointState>, StoreError> {
        let call = SCRIPTS.endpoints_read.call(&[&self.0.keys.endpoints()]);
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        let mut states = BTreeMap::new();
        let mut offs: BTreeMap<EndpointId, (Option<Timestamp>, Box<str>)> = BTreeMap::new();
        for pair in rest.values()?.pairs() {
            let (field, value) = pair?;
            let field = String::from_utf8(field).map_err(|_| WHAT)?;
            let (name, key) = field.rsplit_once(':').ok_or(WHAT)?;
            let id = EndpointId::parse(name).ok_or(WHAT)?;
            let text = || String::from_utf8(value.clone()).map(Box::from).map_err(|_| WHAT);
            let time = || codec::number(&value).map(Timestamp::from_millis);
            let state: &mut EndpointState = states.entry(id.clone()).or_default();
            match key {
                "s" => state.last_success_at = Some(time()?),
                "f" => state.last_failure_at = Some(time()?),
                "e" => state.last_error = Some(text()?),
                "b" => state.failing_since = Some(time()?),
                "d" => offs.entry(id).or_default().0 = Some(time()?),
                "r" => offs.entry(id).or_default().1 = text()?,
                _ => {}
            }
        }
        for (id, (since, reason)) in offs {
            if let (Some(since), Some(state)) = (since, states.get_mut(&id)) {
                state.off = Some(EndpointOutage { since, reason });
            }
        }
        Ok(states)
    }

    pub(in crate::store) async fn report_endpoint(
        &self,
        id: &EndpointId,
        report: &EndpointReport,
    ) -> Result<(), StoreError> {
        let time = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.as_millis().to_string());
        let (failure, error) =
            report.last_failure.as_ref().map_or((None, ""), |(at, error)| (Some(*at), &**error));
        let call = SCRIPTS
            .endpoint_report
            .call(&[&self.0.keys.endpoints()])
            .arg(id.to_string())
            .arg(time(report.last_success_at))
            .arg(time(report.first_failure_at))
            .arg(time(failure))
            .arg(error);
        self.run(call).await?.expect("OK")?;
        Ok(())
    }

    pub(in crate::store) async fn switch_endpoint_off(
        &self,
        id: &EndpointId,
        reason: &str,
    ) -> Result<bool, StoreError> {
        self.switch_endpoint(id, "off", reason).await
    }

    pub(in crate::store) async fn switch_endpoint_on(&self, id: &EndpointId) -> Result<bool, StoreError> {
        self.switch_endpoint(id, "on", "").await
    }

    async fn switch_endpoint(&self, id: &EndpointId, way: &str, reason: &str) -> Result<bool, StoreError> {
        let call = SCRIPTS
            .endpoint_switch
            .call(&[&self.0.keys.endpoints()])
            .arg(id.to_string())
            .arg(way)
            .arg(reason)
            .durable();
        let (_, mut rest) = self.run(call).await?.expect("OK")?;
        Ok(rest.number()? == 1)
    }

    pub(in crate::store) async fn endpoint_backlogs(&self) -> Result<BTreeMap<EndpointId, u64>, StoreError> {
        let mut sum = BTreeMap::new();
        for backlogs in try_join_all(Partition::all().map(|partition| self.backlogs(partition))).await? {
            for (id, count) in backlogs {
                *sum.entry(id).or_default() += count;
            }
        }
        Ok(sum)
    }

    /// Returns the backlogs of one partition.
    async fn backlogs(&self, partition: Partition) -> Result<BTreeMap<EndpointId, u64>, StoreError> {
        let (mut sum, mut from) = (BTreeMap::new(), 0);
        loop {
            let call = SCRIPTS
                .backlog
                .call(&[&self.0.keys.partition(partition).lease])
                .arg(from)
                .arg(TOGETHER)
                .background();
            let (_, mut rest) = self.run(call).await?.expect("OK")?;
            from = rest.number()?;
            for list in rest.lists() {
                let mut list = list?;
                let (id, count) = (EndpointId::parse(&list.text()?).ok_or(WHAT)?, list.number()?);
                *sum.entry(id).or_default() += count;
            }
            if from == 0 {
                return Ok(sum);
            }
        }
    }
}
