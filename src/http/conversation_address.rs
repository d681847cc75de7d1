//! What a URL addresses: the conversation of `/conversations/{user}…?bot=NAME`.
//!
//! Pure. The user is taken from the path as it came over the wire and decoded exactly once: routers decode
//! some escapes and keep others, so that `%2F` and `%252F` could no longer be told apart after them.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::api_error::{ApiError, FieldErrors};
use super::auth::CallerIdentity;
use super::query_parameters::{ParameterValues, QueryParameters, decode};
use crate::config::{BotConfig, Config};
use crate::domain::{ConversationId, Message, ProblemKind, UserId};

/// What RFC 3986 lets stand in a path segment without an escape, whoever reads it.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A conversation, and the bot's configuration.
#[derive(Debug)]
pub(super) struct ConversationAddress<'c> {
    pub(super) conversation: ConversationId,
    pub(super) bot: &'c Arc<BotConfig>,
}

impl<'c> ConversationAddress<'c> {
    /// Reads path and query; errors are noted at `path/user`, `query/bot` and `query/NAME`.
    ///
    /// # Errors
    /// `forbidden` for what the caller may not use, then `not-found` for a bot that is not configured.
    pub(super) fn read(
        config: &'c Config,
        caller: CallerIdentity<'_>,
        uri: &Uri,
        errors: &mut FieldErrors,
    ) -> Result<Option<Self>, ApiError> {
        Self::read_with(config, caller, uri, [], errors).map(|(address, [])| address)
    }

    /// The same, with other parameters of the query that may stand beside `bot`.
    ///
    /// # Errors
    /// As [`HostPort::read`].
    pub(super) fn read_with<'q, const N: usize>(
        config: &'c Config,
        caller: CallerIdentity<'_>,
        uri: &'q Uri,
        names: [&'static str; N],
        errors: &mut FieldErrors,
    ) -> Result<(Option<Self>, ParameterValues<'q, N>), ApiError> {
        let query = QueryParameters::read(uri.query().unwrap_or_default(), names, errors);
        let address = Self::choose(config, caller, uri.path(), query.bot, errors)?;
        Ok((address, query.others))
    }

    /// `bot` is `Err` where the query has a mistake.
    fn choose(
        config: &'c Config,
        caller: CallerIdentity<'_>,
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
            errors.add("query/bot", "is required: there is no default bot");
            return Ok(None);
        };
        caller.check_bot(&name)?;
        if let Some(user) = &user {
            caller.check_user(user)?;
        }
        let bot = config.bots.iter().find(|bot| bot.name.as_str() == name).ok_or_else(|| {
            ApiError::new(ProblemKind::NotFound, "There is no bot of this name; see `bot` in the query.")
        })?;
        Ok(user.map(|user| Self { conversation: ConversationId::new(bot.name.clone(), user), bot }))
    }
}

/// Where a message can be read.
pub(super) fn location(message: &Message) -> String {
    let conversation = &message.accepted.new.conversation;
    let user = utf8_percent_encode(conversation.user.as_str(), RESERVED);
    // A bot's name has no character that would need an escape.
    format!("/conversations/{user}/messages/{}?bot={}", message.accepted.id, conversation.bot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in any::<String>()) {
            let encoded = utf8_percent_encode(&text, RESERVED).to_string();
            prop_assert!(encoded.is_ascii() && !encoded.contains(['/', '?', '#']));
            prop_assert_eq!(decode(&encoded).unwrap(), text);
        }
    }
}
