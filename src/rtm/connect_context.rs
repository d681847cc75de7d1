//! The context of a connection: data for the platform and the bot beside the identity of the user.
//!
//! The platform may take it from the grant, from the start or from a frame, and the sources disagree (protocol.md 14).
//! So all three carry it. A cached grant holds the context that it was made with, and another one needs a new grant.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use super::outgoing::BotInfo;
use crate::config::BotConfig;
use crate::domain::{JsonObject, MessageContent, UserDetails};

/// The context of a connection. Its Debug output shows none of the data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectContext {
    /// The bot's data, for each frame too.
    pub custom_data: Option<JsonObject>,
    /// The tags, for each frame too.
    pub meta_tags: Option<JsonObject>,
    /// The details of the user, for the JWT of a grant.
    pub details: UserDetails,
}

impl ConnectContext {
    /// Returns the context of a message, with these details of its user.
    pub fn new(content: Option<&MessageContent>, details: UserDetails) -> Self {
        let custom_data = content.and_then(|content| content.custom_data.clone());
        let meta_tags = content.and_then(|content| content.meta_tags.clone());
        Self { custom_data, meta_tags, details }
    }

    /// Returns whether a grant with this context serves a connect that wants `other`. An identity is merged once.
    pub(super) fn serves(&self, other: &Self) -> bool {
        self.custom_data == other.custom_data
            && self.meta_tags == other.meta_tags
            && self.details.profile == other.details.profile
            && (other.details.merge_with.is_none() || self.details.merge_with == other.details.merge_with)
    }

    /// Returns the data of this context over the bot's defaults.
    pub(super) fn data<'a>(&'a self, bot: &'a BotConfig) -> Option<Cow<'a, RawValue>> {
        custom_data(bot, self.custom_data.as_ref())
    }

    /// Returns the `botInfo` of grant and start, with the result of [`ConnectContext::data`].
    pub(super) fn bot_info<'a>(&'a self, bot: &'a BotConfig, data: Option<&'a RawValue>) -> BotInfo<'a> {
        BotInfo::of(bot).with_context(data, self.meta_tags.as_ref().map(JsonObject::raw))
    }
}

/// Returns custom data with the members of the bot's defaults that it lacks.
pub(super) fn custom_data<'a>(bot: &'a BotConfig, own: Option<&'a JsonObject>) -> Option<Cow<'a, RawValue>> {
    match (own, &bot.custom_data) {
        (Some(own), Some(defaults)) => Some(own.with_defaults(defaults)),
        (Some(one), None) | (None, Some(one)) => Some(Cow::Borrowed(one.raw())),
        (None, None) => None,
    }
}

impl fmt::Debug for ConnectContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectContext").finish_non_exhaustive()
    }
}
