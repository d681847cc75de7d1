//! The rhythms of bots on Redis.

use bytes::Bytes;

use super::RedisStore;
use super::millis;
use super::scripts::SCRIPTS;
use crate::domain::BotName;
use crate::store::rhythm::RHYTHM_TTL;
use crate::store::{StoreError, StoreRefusal, StoredRhythm};

impl RedisStore {
    pub(in crate::store) async fn rhythm(&self, bot: &BotName) -> Result<Option<StoredRhythm>, StoreError> {
        let (_, mut answer) =
            self.run(SCRIPTS.rhythm_read.call(&[&self.0.keys.rhythm(bot)])).await?.expect("OK")?;
        if answer.is_empty() {
            return Ok(None);
        }
        let (version, state) = (answer.number()?, Bytes::from(answer.bytes()?));
        Ok(Some(StoredRhythm { version, state }))
    }

    pub(in crate::store) async fn put_rhythm(
        &self,
        bot: &BotName,
        expected: Option<u64>,
        state: &[u8],
    ) -> Result<bool, StoreError> {
        if self.0.health.is_full() {
            return Err(StoreError::Unavailable(StoreRefusal::OutOfMemory));
        }
        let call = SCRIPTS
            .rhythm_write
            .call(&[&self.0.keys.rhythm(bot)])
            .arg(expected.map(|version| version.to_string()).unwrap_or_default())
            .arg(state)
            .arg(millis(RHYTHM_TTL));
        let (_, mut answer) = self.run(call).await?.expect("OK")?;
        Ok(answer.number()? == 1)
    }

    pub(in crate::store) async fn forget_rhythm(&self, bot: &BotName) -> Result<(), StoreError> {
        self.run(SCRIPTS.rhythm_forget.call(&[&self.0.keys.rhythm(bot)])).await?.expect("OK")?;
        Ok(())
    }
}
