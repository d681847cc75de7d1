//! Leases on Redis.

use std::time::Duration;

use super::codec::CorruptData;
use super::scripts::SCRIPTS;
use super::{RedisStore, millis};
use crate::domain::{Partition, Timestamp};
use crate::store::{ClaimMode, ClaimResult, Fence, Incarnation, StoreError};

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
        partition: Partition,
        fence: Fence,
        lease: Duration,
    ) -> Result<Timestamp, StoreError> {
        let call =
            SCRIPTS.renew.call(&[&self.0.keys.partition(partition).lease]).fence(fence).arg(millis(lease));
        Ok(self.run(call).await?.expect("OK")?.0)
    }

    pub(in crate::store) async fn release(
        &self,
        partition: Partition,
        fence: Fence,
    ) -> Result<(), StoreError> {
        let call = SCRIPTS
            .release
            .call(&[&self.0.keys.partition(partition).lease])
            .fence(fence)
            .arg(self.0.keys.fleet_channel());
        self.run(call).await?.expect("OK")?;
        Ok(())
    }
}
