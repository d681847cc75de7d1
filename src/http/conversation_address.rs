//! The conversation that a URL addresses: `/conversations/{user}…?bot=NAME`.
//!
//! Pure. The user is decoded once, from the path as it came over the wire. Routers decode some escapes and keep others,
//! so `%2F` and `%252F` would look the same after them.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::api_error::{ApiError, FieldErrors};
use super::auth::CallerIdentity;
use super::query_parameters::{ParameterValues, QueryParameters, decode};
use crate::config::{BotConfig, Config};
use crate::domain::{ConversationId, Message, ProblemKind, UserId};

/// Characters that need an escape in a path segment: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A conversation, and the configuration of its bot.
#[derive(Debug)]
pub(super) struct ConversationAddress<'c> {
    pub(super) conversation: ConversationId,
    pub(super) bot: &'c Arc<BotConfig>,
}

impl<'c> ConversationAddress<'c> {
    /// Reads path and query. Errors are added at `path/user`, `query/bot` and `query/NAME`.
    ///
    /// # Errors
    /// `forbidden` outside the caller's configuration, then `not-found` for a bot without configuration.
    pub(super) fn read(
        config: &'c Config,
        caller: &CallerIdentity,
        uri: &Uri,
        errors: &mut FieldErrors,
    ) -> Result<Option<Self>, ApiError> {
        Self::read_with(config, caller, uri, [], errors).map(|(address, [])| address)
    }

    /// Reads path and query like [`Self::read`], with more parameters beside `bot`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_with<'q, const N: usize>(
        config: &'c Config,
        caller: &CallerIdentity,
        uri: &'q Uri,
        names: [&'static str; N],
        errors: &mut FieldErrors,
    ) -> Result<(Option<Self>, ParameterValues<'q, N>), ApiError> {
        let query = QueryParameters::read(uri.query().unwrap_or_default(), names, errors);
        let address = Self::choose(config, caller, uri.path(), query.bot, errors)?;
        Ok((address, query.others))
    }

    /// Chooses the bot and checks the caller's rights. `bot` is `Err` if the query has an error.
    fn choose(
        config: &'c Config,
        caller: &CallerIdentity,
        path: &str,
        bot: Result<Option<Cow<'_, str>>, ()>,
        errors: &mut FieldErrors,
    ) -> Result<Option<Self>, ApiError> {
        let user = path.split('/').nth(2).unwrap_or_default();
        let user = errors.record("path/user", decode(user));
        let user = user.and_then(|user| errors.record("path/user", UserId::new(&user)));
        let default = || match (&config.default_bot, config.bots.as_slice()) {
            (Some(name), _) => Some(Cow::from(name.as_str())),
            (None, [only]) => Some(Cow::from(only.name.as_str())),
            (None, _) => None,
        };
        let Ok(named) = bot else { return Ok(None) };
        let Some(name) = named.or_else(default) else {
            errors.add("query/bot", "is required, because there is no default bot");
            return Ok(None);
        };
        caller.check_bot(&name)?;
        if let Some(user) = &user {
            caller.check_user(user)?;
        }
        let bot = config.bots.iter().find(|bot| bot.name.as_str() == name).ok_or_else(|| {
            ApiError::new(ProblemKind::NotFound, "There is no bot of this name. Check `bot` in the query.")
        })?;
        Ok(user.map(|user| Self { conversation: ConversationId::new(bot.name.clone(), user), bot }))
    }
}

/// Returns the URL of a message.
pub(super) fn location(message: &Message) -> String {
    let conversation = &message.accepted.new.conversation;
    let user = utf8_percent_encode(conversation.user().as_str(), RESERVED);
    // Bot names have no character that needs an escape.
    format!("/conversations/{user}/messages/{}?bot={}", message.accepted.id, conversation.bot())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encoded_user_decodes_to_itself(text in any::<String>()) {
            let encoded = utf8_percent_encode(&text, RESERVED).to_string();
            prop_assert!(encoded.is_ascii() && !encoded.contains(['/', '?', '#']));
            prop_assert_eq!(decode(&encoded).unwrap(), text);
        }
    }
}
