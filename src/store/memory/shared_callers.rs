//! State of callers that outlives a request: secrets of read tokens, and rates. One process has them alone.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::store::read_token_secret::{READ_TOKEN_SECRET_TTL, ReadTokenSecret};
use crate::store::request_rate::{RequestGrant, RequestWish};

/// The secrets and rates.
#[derive(Debug, Default)]
pub(super) struct SharedCallers {
    secrets: HashMap<u64, (ReadTokenSecret, Timestamp)>,
    /// The requests in the bucket of a caller, and the time of that count.
    buckets: HashMap<Box<str>, (f64, Timestamp)>,
}

impl SharedCallers {
    pub(super) fn read_token_secret(
        &mut self,
        day: u64,
        fresh: Option<ReadTokenSecret>,
        now: Timestamp,
    ) -> Option<ReadTokenSecret> {
        self.secrets.retain(|_, (_, until)| now < *until);
        if let (Some(fresh), false) = (fresh, self.secrets.contains_key(&day)) {
            self.secrets.insert(day, (fresh, now + READ_TOKEN_SECRET_TTL));
        }
        self.secrets.get(&day).map(|(secret, _)| *secret)
    }

    pub(super) fn take_requests(&mut self, wish: RequestWish<'_>, now: Timestamp) -> RequestGrant {
        let size = f64::from(wish.per_minute);
        let stored = self.buckets.get(wish.caller).copied();
        let (tokens, at) = stored.unwrap_or((size, now));
        let tokens = tokens + now.since(at).as_secs_f64() * size / 60.0 + f64::from(wish.returned);
        let tokens = tokens.min(size);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a bucket fits into 32 bits"
        )]
        let whole = |tokens: f64| tokens.floor() as u32;
        let granted = wish.wanted.min(whole(tokens));
        let tokens = tokens - f64::from(granted);
        self.buckets.insert(wish.caller.into(), (tokens, now));
        let left = whole(tokens);
        let next_in =
            if left < 1 { Duration::from_secs_f64((1.0 - tokens) * 60.0 / size) } else { Duration::ZERO };
        RequestGrant { granted, left, next_in }
    }
}
