//! The read tokens of this replica: `?token=` of event streams, and the keys that sign them.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_http::RequestHead;
use actix_web::http::Method;
use actix_web::http::header;
use tokio::time::Instant;

use super::ApiContext;
use super::api_error::{self, ApiError};
use super::auth::{AuthRefusal, CallerIdentity};
use super::query_parameters::decode;
use crate::identity::{ReadTokenKey, TokenRefusal};
use crate::wall_clock;

/// The keys that are remembered: those of today and of the days beside it.
const KEYS: usize = 3;

/// The age at which a key is read again: the store may have lost it, and another replica have made a new one.
const REREAD: Duration = Duration::from_mins(1);
/// The time for which a key that the store does not have is not asked for again, because strangers name its day.
const ABSENT: Duration = Duration::from_secs(1);

/// The keys of some days. The store has them for all replicas.
#[derive(Debug, Default)]
pub(super) struct ReadTokenKeys(Mutex<Vec<KnownKey>>);

/// A key, or its absence, with the time at which the store was asked.
#[derive(Debug, Clone)]
struct KnownKey {
    day: u64,
    key: Option<ReadTokenKey>,
    asked_at: Instant,
}

impl KnownKey {
    /// Returns whether the store need not be asked again.
    fn is_fresh(&self) -> bool {
        self.asked_at.elapsed() < if self.key.is_some() { REREAD } else { ABSENT }
    }
}

impl ReadTokenKeys {
    fn get(&self, day: u64) -> Option<KnownKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|known| known.day == day).cloned()
    }

    fn put(&self, day: u64, key: Option<ReadTokenKey>) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|known| known.day != day);
        keys.truncate(KEYS - 1);
        keys.insert(0, KnownKey { day, key, asked_at: Instant::now() });
    }
}

/// Returns the token in the query of a request for events. Browsers cannot send a header with an event source.
pub(super) fn of_request(head: &RequestHead) -> Option<Cow<'_, str>> {
    let mut path = head.uri.path().split('/').skip(1);
    let is_events = path.next() == Some("conversations")
        && path.next().is_some()
        && path.next() == Some("events")
        && path.next().is_none();
    if !is_events || head.method != Method::GET || head.headers().contains_key(header::AUTHORIZATION) {
        return None;
    }
    let mut tokens = head.uri.query()?.split('&').filter_map(|pair| pair.strip_prefix("token="));
    let (Some(token), None) = (tokens.next(), tokens.next()) else { return None };
    decode(token).ok().filter(|token| !token.is_empty())
}

impl ApiContext {
    /// Finds the caller of a read token.
    pub(super) async fn identify_reader(&self, token: &str) -> Result<CallerIdentity, AuthRefusal> {
        let token = token.as_bytes();
        let refused = |refusal| AuthRefusal::Token(refusal, None);
        let now = wall_clock::now();
        let day = ReadTokenKey::day_of_token(token).ok_or_else(|| refused(TokenRefusal::Malformed))?;
        // Strangers choose the day, so days that no valid token can have cost no look into the store.
        if !ReadTokenKey::days_at(now).contains(&day) {
            return Err(refused(TokenRefusal::UnknownKey));
        }
        let key = match self.read_token_keys.get(day) {
            Some(known) if known.is_fresh() => known.key,
            known => {
                let before = known.and_then(|known| known.key);
                let secret = self.hub.read_token_secret(day, None).await;
                let secret = secret.map_err(|_| AuthRefusal::StoreAway)?;
                let key = secret.map(|secret| ReadTokenKey::new(day, secret)).or(before);
                self.read_token_keys.put(day, key.clone());
                key
            }
        };
        let key = key.ok_or_else(|| refused(TokenRefusal::UnknownKey))?;
        let token = key.verify(token, now).map_err(refused)?;
        self.live().callers.find_by_read_token(token).ok_or_else(|| refused(TokenRefusal::Issuer))
    }

    /// Returns the key of today, which the first replica that needs it makes.
    ///
    /// # Errors
    /// `store-unavailable`.
    pub(super) async fn read_token_key(&self) -> Result<ReadTokenKey, ApiError> {
        let day = ReadTokenKey::day_of(wall_clock::now());
        let before = match self.read_token_keys.get(day) {
            Some(KnownKey { key: Some(key), asked_at, .. }) if asked_at.elapsed() < REREAD => return Ok(key),
            known => known.and_then(|known| known.key),
        };
        let mut random = [0; ReadTokenKey::BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| api_error::internal())?;
        // A store that lost the key gets it back.
        let fresh = before.as_ref().map_or(random, ReadTokenKey::secret);
        let secret = self.hub.read_token_secret(day, Some(fresh)).await?;
        let key = ReadTokenKey::new(day, secret.ok_or_else(api_error::internal)?);
        self.read_token_keys.put(day, Some(key.clone()));
        Ok(key)
    }
}
