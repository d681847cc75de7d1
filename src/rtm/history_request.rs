//! Reads the platform's history, the only source of messages that were sent while no socket was open (protocol.md
//! 7.10).
//!
//! This file only fetches; [`super::history_page`] decodes.

use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;

use super::connect_context::ConnectContext;
use super::connector::{BODY_MAX, PlatformConnector, bearer_header, endpoint_url};
use super::error::{ConnectError, ConnectPhase};
use super::grant::Grant;
use crate::config::BotConfig;
use crate::domain::{Timestamp, UserId};

/// Messages of one page. The SDKs call it the maximum.
const PAGE_SIZE: u32 = 10;

/// Start of a page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryStart<'a> {
    /// After the message with this id of the platform's (`ms-…`), forward in time. The next page begins at the last
    /// id of this one.
    After(&'a str),
    /// So many messages back from the newest: 0, 10, 20…
    Newest(u32),
}

impl<'a> From<Option<&'a str>> for HistoryStart<'a> {
    /// Starts after that message, or at the newest page without one.
    fn from(after: Option<&'a str>) -> Self {
        after.map_or(Self::Newest(0), Self::After)
    }
}

/// The part of the history that a request asks for, in the platform's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HistoryExcerpt<'a> {
    /// Most messages of the page.
    pub limit: u32,
    /// Messages to leave out, back from the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// Whether the page goes forward in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<bool>,
    /// The platform's id of the message that the page begins at.
    #[serde(rename = "msgId", skip_serializing_if = "Option::is_none")]
    pub message_id: Option<&'a str>,
}

#[derive(Serialize)]
struct HistoryQuery<'a> {
    #[serde(rename = "botId")]
    bot_id: &'a str,
    #[serde(flatten)]
    selection: &'a HistoryExcerpt<'a>,
}

impl PlatformConnector {
    /// Fetches one page of the conversation of `user` and the bot, 10 messages at most, as the platform sends it.
    ///
    /// A new grant has the context. The member `moreAvailable` says whether to ask for another. A page may have `max_message_bytes` of the bot,
    /// and at least 256 KiB.
    ///
    /// # Errors
    /// [`ConnectError`]; its `retry()` says what to do.
    pub async fn fetch_history_page(
        &self,
        bot: &BotConfig,
        user: &UserId,
        context: &Rc<ConnectContext>,
        grant: &mut Option<Grant>,
        page: impl Into<HistoryStart<'_>>,
        now: Timestamp,
    ) -> Result<Bytes, ConnectError> {
        let page = page.into();
        let (offset, forward, message_id) = match page {
            HistoryStart::After(id) => (None, Some(true), Some(id)),
            HistoryStart::Newest(back) => (Some(back), None, None),
        };
        let selection = HistoryExcerpt { limit: PAGE_SIZE, offset, forward, message_id };
        self.fetch_history(bot, user, context, grant, &selection, now).await
    }

    /// Fetches a part of the conversation of `user` and the bot, as the platform sends it. All else is as for
    /// [`Self::fetch_history_page`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn fetch_history(
        &self,
        bot: &BotConfig,
        user: &UserId,
        context: &Rc<ConnectContext>,
        grant: &mut Option<Grant>,
        selection: &HistoryExcerpt<'_>,
        now: Timestamp,
    ) -> Result<Bytes, ConnectError> {
        let query = HistoryQuery { bot_id: &bot.task_bot_id, selection };
        let body_max = bot.max_message_bytes.max(BODY_MAX);
        self.with_grant(bot, user, context, grant, now, async |grant| {
            let request = self
                .clients(bot)
                .calls
                .get(endpoint_url(bot, "/botmessages/rtm"))
                .insert_header(bearer_header(grant));
            let request = request.query(&query).map_err(|_| ConnectError::Rejected {
                phase: ConnectPhase::History,
                public_message: "the message id to read history from does not fit into a URL".into(),
            })?;
            self.call(ConnectPhase::History, request, None::<&()>, body_max, now).await
        })
        .await
    }
}
