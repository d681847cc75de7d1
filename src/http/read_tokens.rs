//! The read tokens of this replica: `?token=` of event streams, and the keys that sign them.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use actix_http::RequestHead;
use actix_web::http::Method;
use actix_web::http::header;

use super::ApiContext;
use super::api_error::{self, ApiError};
use super::auth::{AuthRefusal, CallerIdentity};
use super::query_parameters::decode;
use crate::identity::{ReadTokenKey, TokenRefusal};
use crate::wall_clock;

/// The keys that are remembered: those of today and of the days beside it.
const KEYS: usize = 3;

/// The keys of some days. The store has them for all replicas.
#[derive(Debug, Default)]
pub(super) struct ReadTokenKeys(Mutex<Vec<ReadTokenKey>>);

impl ReadTokenKeys {
    fn get(&self, day: u64) -> Option<ReadTokenKey> {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.day() == day).cloned()
    }

    fn put(&self, key: &ReadTokenKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|known| known.day() != key.day());
        keys.truncate(KEYS - 1);
        keys.insert(0, key.clone());
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
        // Strangers choose the day, so other days cost no look into the store.
        if ReadTokenKey::day_of(now).abs_diff(day) > 1 {
            return Err(refused(TokenRefusal::UnknownKey));
        }
        let key = match self.read_token_keys.get(day) {
            Some(key) => key,
            None => match self.hub.read_token_secret(day, None).await {
                Ok(Some(secret)) => {
                    let key = ReadTokenKey::new(day, secret);
                    self.read_token_keys.put(&key);
                    key
                }
                Ok(None) => return Err(refused(TokenRefusal::UnknownKey)),
                Err(_) => return Err(refused(TokenRefusal::NoKeys)),
            },
        };
        let token = key.verify(token, now).map_err(refused)?;
        self.live().callers.find_by_read_token(token).ok_or_else(|| refused(TokenRefusal::Issuer))
    }

    /// Returns the key of today, which the first replica that needs it makes.
    ///
    /// # Errors
    /// `store-unavailable`.
    pub(super) async fn read_token_key(&self) -> Result<ReadTokenKey, ApiError> {
        let day = ReadTokenKey::day_of(wall_clock::now());
        if let Some(key) = self.read_token_keys.get(day) {
            return Ok(key);
        }
        let mut fresh = [0; ReadTokenKey::BYTES];
        aws_lc_rs::rand::fill(&mut fresh).map_err(|_| api_error::internal())?;
        let secret = self.hub.read_token_secret(day, Some(fresh)).await?;
        let key = ReadTokenKey::new(day, secret.ok_or_else(api_error::internal)?);
        self.read_token_keys.put(&key);
        Ok(key)
    }
}
