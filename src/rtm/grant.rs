//! The grant: the access token that the platform gives for a JWT (protocol.md 3).
//!
//! No refresh endpoint is documented, so a renewal is another exchange. A grant is renewed shortly before it expires.
//! It is also renewed once if a call reports it as expired, because clocks differ and a platform may forget.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::connect_context::ConnectContext;
use super::connector::{BODY_MAX, EmptyToken, PlatformConnector, endpoint_url, incomplete_response};
use super::error::{ConnectError, ConnectPhase};
use super::outgoing::BotInfo;
use crate::config::BotConfig;
use crate::domain::lenient_json::{members, string};
use crate::domain::{Timestamp, UserId};

/// Longest span before the expiry at which a grant is renewed. The span is a tenth of the grant's life if that is
/// shorter.
const MARGIN_MAX: Duration = Duration::from_mins(1);

/// Access token of one user of one bot. Its Debug output shows no token.
#[derive(Clone)]
pub struct Grant {
    token: SecretString,
    /// End of its use; `None` if the platform named no expiry.
    renew_at: Option<Timestamp>,
    /// The context that the platform got with it.
    context: Rc<ConnectContext>,
}

impl Grant {
    /// Parses the answer of `jwtgrant`. Returns `None` if it has no usable token.
    pub(super) fn read(body: &[u8], now: Timestamp) -> Option<Self> {
        let [authorization] = members(str::from_utf8(body).ok()?, ["authorization"])?;
        let [token, expires] = members(authorization?.get(), ["accessToken", "expiresDate"])?;
        let token = string(token?)?.into_owned();
        // The token goes into a header, so it must fit there.
        let is_usable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        let expires = expires.and_then(string).and_then(|text| Timestamp::parse(text.trim()));
        let renew_at = expires.map(|expires| {
            let margin = (expires.since(now) / 10).min(MARGIN_MAX);
            expires - margin
        });
        is_usable.then(|| Self { token: token.into(), renew_at, context: Rc::default() })
    }

    /// Returns whether the grant may be used at `now`: not in the last 60 s, or the last tenth, of its life.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.renew_at.is_none_or(|renew_at| now < renew_at)
    }

    /// Returns whether the platform got this context with the grant.
    pub(super) fn serves(&self, context: &ConnectContext) -> bool {
        self.context.serves(context)
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

#[derive(Serialize)]
struct GrantRequest<'a> {
    assertion: &'a str,
    #[serde(rename = "botInfo")]
    bot_info: BotInfo<'a>,
    token: EmptyToken,
}

impl PlatformConnector {
    /// Makes a call with the grant in `slot`, or with a new one of this context that stays there. If the call reports an
    /// expired token, this drops the grant and repeats the call once with a new one.
    pub(super) async fn with_grant<T>(
        &self,
        bot: &BotConfig,
        user: &UserId,
        context: &Rc<ConnectContext>,
        slot: &mut Option<Grant>,
        now: Timestamp,
        call: impl AsyncFn(&Grant) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let mut repeated = false;
        loop {
            let grant = match slot.take() {
                Some(grant) if grant.is_usable(now) => slot.insert(grant),
                _ => slot.insert(self.grant(bot, user, context, now).await?),
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

    /// Calls `POST …/oAuth/token/jwtgrant` (protocol.md 3), with a new JWT.
    async fn grant(
        &self,
        bot: &BotConfig,
        user: &UserId,
        context: &Rc<ConnectContext>,
        now: Timestamp,
    ) -> Result<Grant, ConnectError> {
        let assertion = self.assertion(bot, user, &context.details, now).await?;
        let data = context.data(bot);
        let body = GrantRequest {
            assertion: assertion.expose_secret(),
            bot_info: context.bot_info(bot, data.as_deref()),
            token: EmptyToken {},
        };
        let request = self.clients(bot).calls.post(endpoint_url(bot, "/oAuth/token/jwtgrant"));
        let answer = self.call(ConnectPhase::Grant, request, Some(&body), BODY_MAX, now).await?;
        let grant = Grant::read(&answer, now).map(|grant| Grant { context: Rc::clone(context), ..grant });
        grant.ok_or_else(|| incomplete_response(ConnectPhase::Grant, &answer, now))
    }
}
