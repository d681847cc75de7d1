//! Leases on Redis.

use std::time::Duration;

use futures_util::future::join_all;

use super::codec::CorruptData;
use super::script_answer::refusal;
use super::scripts::SCRIPTS;
use super::{RedisStore, millis};
use crate::domain::{Partition, Timestamp};
use crate::store::{ClaimMode, ClaimResult, Fence, Incarnation, StoreError};

/// The limit of leases that one call renews, so that no script blocks others for long.
const TOGETHER: usize = 64;

impl RedisStore {
    pub(in crate::store) async fn claim(
        &self,
        partition: Partition,
        incarnation: Incarnation,
        lease: Duration,
        claiming: ClaimMode,
    ) -> Result<ClaimResult, StoreError> {
        let call = SCRIPTS
            .claim
            .call(&[&self.0.keys.partition(partition).lease])
            .arg(incarnation.to_string())
            .arg(millis(lease))
            .arg(u8::from(claiming == ClaimMode::Expired));
        let answer = self.run(call).await?;
        if answer.is("HELD") {
            let (_, mut rest) = answer.expect("HELD")?;
            let by = rest.text()?.parse().map_err(|_| CorruptData("a lease's owner"))?;
            return Ok(ClaimResult::Held { by, until: rest.time()? });
        }
        let (now, mut rest) = answer.expect("YOURS")?;
        Ok(ClaimResult::Yours { fence: Fence { incarnation, epoch: rest.number()? }, now })
    }

    pub(in crate::store) async fn renew(
        &self,
        leases: &[(Partition, Fence)],
        lease: Duration,
    ) -> Vec<Result<Timestamp, StoreError>> {
        // In a cluster each partition may live on another server.
        let together = if self.0.runner.connector().is_cluster() { 1 } else { TOGETHER };
        let renewed = join_all(leases.chunks(together).map(async |leases| {
            let renewed = self.renew_together(leases, lease).await;
            renewed.unwrap_or_else(|error| vec![Err(error); leases.len()])
        }));
        renewed.await.into_iter().flatten().collect()
    }

    /// Renews leases in one call.
    async fn renew_together(
        &self,
        leases: &[(Partition, Fence)],
        lease: Duration,
    ) -> Result<Vec<Result<Timestamp, StoreError>>, StoreError> {
        let keys: Vec<&str> =
            leases.iter().map(|(partition, _)| &*self.0.keys.partition(*partition).lease).collect();
        let mut call = SCRIPTS.renew.call(&keys).arg(millis(lease));
        for (_, fence) in leases {
            call = call.fence(*fence);
        }
        let (now, rest) = self.run(call).await?.expect("OK")?;
        let words: Vec<String> = rest.texts().collect::<Result<_, CorruptData>>()?;
        if words.len() != leases.len() {
            return Err(CorruptData("the answer to renewals").into());
        }
        Ok(words.into_iter().map(|word| refusal(&word).map_or(Ok(now), Err)).collect())
    }

    pub(in crate::store) async fn release(
        &self,
        partition: Partition,
        fence: Fence,
    ) -> Result<(), StoreError> {
        self.0.recent.forget(partition);
        // The next owner does so where this fails.
        while self.rest_idle(partition, fence, Duration::ZERO).await.is_ok_and(|rested| rested > 0) {}
        let call = SCRIPTS
            .release
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(self.0.keys.fleet_channel());
        self.run(call).await?.expect("OK")?;
        Ok(())
    }
}
