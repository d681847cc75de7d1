//! The grant: the access token that a JWT is exchanged for (protocol.md 3), and when it is renewed.
//!
//! Refreshing means another exchange; no refresh endpoint is documented. A grant is renewed shortly before it
//! expires, and once when a call says that it has expired: clocks differ, and a platform may forget.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::connector::{BODY_MAX, BotInfo, NoToken, PlatformConnector, call, endpoint, lacking};
use super::error::{ConnectError, ConnectPhase};
use crate::config::BotConfig;
use crate::domain::{Timestamp, UserId};

/// The longest time before its expiry at which a grant is renewed; of a short-lived one it is a tenth.
const MARGIN_MAX: Duration = Duration::from_mins(1);

/// An access token of one user of one bot. Its Debug shows no token.
#[derive(Clone)]
pub struct Grant {
    token: SecretString,
    /// From when on it is not used any more; none where the platform named no expiry.
    renew_at: Option<Timestamp>,
}

impl Grant {
    /// Reads the answer of `jwtgrant`; `None` where it has no usable token.
    fn read(body: &[u8], now: Timestamp) -> Option<Self> {
        let Granted { authorization } = serde_json::from_slice(body).ok()?;
        let Authorization { token, expires } = authorization;
        // It goes into a header; what does not fit there is no token.
        let usable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        let renew_at = expires.as_deref().and_then(Timestamp::parse).map(|expires| {
            let margin = (expires.since(now) / 10).min(MARGIN_MAX);
            expires - margin
        });
        usable.then(|| Self { token: token.into(), renew_at })
    }

    /// Whether it may be used at `now`: not within 60 s, or a tenth of its life, of its expiry.
    pub fn usable(&self, now: Timestamp) -> bool {
        self.renew_at.is_none_or(|renew_at| now < renew_at)
    }

    pub(super) const fn token(&self) -> &SecretString {
        &self.token
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Granted {
    authorization: Authorization,
}

#[derive(Deserialize)]
struct Authorization {
    #[serde(rename = "accessToken")]
    token: String,
    #[serde(default, rename = "expiresDate")]
    expires: Option<String>,
}

#[derive(Serialize)]
struct GrantBody<'a> {
    assertion: &'a str,
    #[serde(rename = "botInfo")]
    bot_info: BotInfo<'a>,
    token: NoToken,
}

impl PlatformConnector {
    /// Makes a call with the grant in `slot`, or with a new one, left there. Where the call says that the token
    /// has expired, the grant is dropped and the call repeated once with a new one.
    pub(super) async fn with_grant<T>(
        &self,
        bot: &BotConfig,
        user: &UserId,
        slot: &mut Option<Grant>,
        now: Timestamp,
        call: impl AsyncFn(&Grant) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let mut repeated = false;
        loop {
            let grant = match slot.take() {
                Some(grant) if grant.usable(now) => slot.insert(grant),
                _ => slot.insert(self.grant(bot, user, now).await?),
            };
            match call(grant).await {
                Err(error @ ConnectError::TokenExpired { .. }) => {
                    *slot = None;
                    if repeated {
                        return Err(error);
                    }
                    repeated = true;
                }
                result => return result,
            }
        }
    }

    /// `POST …/oAuth/token/jwtgrant` (protocol.md 3), with a JWT of its own.
    async fn grant(&self, bot: &BotConfig, user: &UserId, now: Timestamp) -> Result<Grant, ConnectError> {
        let assertion = self.signer(bot)?.mint(user, now)?;
        let body =
            GrantBody { assertion: assertion.expose_secret(), bot_info: BotInfo::of(bot), token: NoToken {} };
        let request = self.clients(bot).calls.post(endpoint(bot, "/oAuth/token/jwtgrant"));
        let answer = call(ConnectPhase::Grant, request, Some(&body), BODY_MAX, now).await?;
        Grant::read(&answer, now).ok_or_else(|| lacking(ConnectPhase::Grant, &answer, now))
    }
}
