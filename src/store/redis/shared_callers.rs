//! State of callers that all replicas share: secrets of read tokens, and rates.

use std::time::Duration;

use super::RedisStore;
use super::millis;
use super::scripts::SCRIPTS;
use crate::store::StoreError;
use crate::store::read_token_secret::{READ_TOKEN_SECRET_TTL, ReadTokenSecret};
use crate::store::request_rate::{RequestGrant, RequestWish};

impl RedisStore {
    pub(in crate::store) async fn read_token_secret(
        &self,
        day: u64,
        fresh: Option<ReadTokenSecret>,
    ) -> Result<Option<ReadTokenSecret>, StoreError> {
        let call = SCRIPTS
            .read_token_secret
            .call(&[&self.0.keys.read_token_secret(day)])
            .arg(fresh.as_ref().map_or(&[][..], |fresh| &fresh[..]))
            .arg(millis(READ_TOKEN_SECRET_TTL));
        let (_, mut answer) = self.run(call).await?.expect("OK")?;
        if answer.is_empty() {
            return Ok(None);
        }
        Ok(answer.bytes()?.try_into().ok())
    }

    pub(in crate::store) async fn take_requests(
        &self,
        wish: RequestWish<'_>,
    ) -> Result<RequestGrant, StoreError> {
        let call = SCRIPTS
            .take_requests
            .call(&[&self.0.keys.request_rate(wish.caller)])
            .arg(wish.per_minute)
            .arg(wish.wanted)
            .arg(wish.returned);
        let (_, mut answer) = self.run(call).await?.expect("OK")?;
        let mut number = || answer.number().map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let (granted, left, next_in) = (number()?, number()?, number()?);
        Ok(RequestGrant { granted, left, next_in: Duration::from_millis(next_in.into()) })
    }
}
