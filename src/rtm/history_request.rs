//! Reads the platform's history, the only source of what was said while no socket was open (protocol.md 7.10).
//!
//! Fetches; what a page says is read elsewhere.

use bytes::Bytes;
use serde::Serialize;

use super::connector::{BODY_MAX, PlatformConnector, authorization, call, endpoint};
use super::error::{ConnectError, ConnectPhase};
use super::grant::Grant;
use crate::config::BotConfig;
use crate::domain::{Timestamp, UserId};

/// Messages of one page; the SDKs call it the maximum.
const PAGE: u32 = 10;

/// Where a page of history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFrom<'a> {
    /// After the message with this id of the platform's (`ms-…`), going forward in time. The page after it
    /// begins at the last id of this one.
    After(&'a str),
    /// That many messages back from the newest: 0, 10, 20…
    Newest(u32),
}

impl<'a> From<Option<&'a str>> for HistoryFrom<'a> {
    /// After that message, or the newest page where there is none.
    fn from(after: Option<&'a str>) -> Self {
        after.map_or(Self::Newest(0), Self::After)
    }
}

#[derive(Serialize)]
struct Query<'a> {
    #[serde(rename = "botId")]
    bot_id: &'a str,
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<bool>,
    #[serde(rename = "msgId", skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
}

impl PlatformConnector {
    /// One page of what `user` and the bot said to each other, 10 messages at most, as the platform sends it;
    /// `moreAvailable` in it says whether to ask for another. A page is `max_message_bytes` of the bot at most,
    /// 256 KiB at least.
    ///
    /// # Errors
    /// [`ConnectError`]; its `retry()` says what to do.
    pub async fn history(
        &self,
        bot: &BotConfig,
        user: &UserId,
        grant: &mut Option<Grant>,
        page: impl Into<HistoryFrom<'_>>,
        now: Timestamp,
    ) -> Result<Bytes, ConnectError> {
        let page = page.into();
        let (offset, forward, message_id) = match page {
            HistoryFrom::After(id) => (None, Some(true), Some(id)),
            HistoryFrom::Newest(back) => (Some(back), None, None),
        };
        let query = Query { bot_id: &bot.task_bot_id, limit: PAGE, offset, forward, message_id };
        let body_max = bot.max_message_bytes.max(BODY_MAX);
        self.with_grant(bot, user, grant, now, async |grant| {
            let request = self
                .clients(bot)
                .calls
                .get(endpoint(bot, "/botmessages/rtm"))
                .insert_header(authorization(grant));
            let request = request.query(&query).map_err(|_| ConnectError::Rejected {
                phase: ConnectPhase::History,
                words: "the message id to read history from does not fit into a URL".into(),
            })?;
            call(ConnectPhase::History, request, None::<&()>, body_max, now).await
        })
        .await
    }
}
