//! The asynchronous form of the webhook channel: each response is a post to the channel's one URL (protocol.md 9.4).
//!
//! The posts of one call follow each other, and the end of the task is the last. No source knows of a retry, so a post that
//! fails is lost, as it would be for a receiver of the real platform. `/sandbox/heard` tells it.

use std::sync::Arc;
use std::time::Duration;

use awc::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use url::Url;

use super::platform_state::{PlatformState, UserEntry, locked};
use super::step_runner::CollectedResponse;
use super::webhook_channel::{ChannelVersion, task_end, v1_text, v2_element};

/// Longest post.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Most responses of a call that wait for the receiver. Further ones are in the history only.
const RESPONSES: usize = 1024;

/// The posts of a call, or of pushed steps.
pub(super) struct WebhookPosts {
    platform: Arc<PlatformState>,
    user: Arc<UserEntry>,
    version: ChannelVersion,
    url: Url,
}

impl WebhookPosts {
    /// Returns the posts of a call, if the channel has a URL for them.
    pub(super) fn of_call(
        platform: &Arc<PlatformState>,
        user: &Arc<UserEntry>,
        version: ChannelVersion,
    ) -> Option<Self> {
        let url = platform.behaviour().webhook_post_url.clone()?;
        locked(&user.state).takes_pushes = version == ChannelVersion::V2;
        Some(Self { platform: Arc::clone(platform), user: Arc::clone(user), version, url })
    }

    /// Returns a collector for unsolicited steps. They reach only users of version 2 in its asynchronous form.
    pub(super) fn of_push(
        platform: &Arc<PlatformState>,
        user: &Arc<UserEntry>,
    ) -> Option<Sender<CollectedResponse>> {
        if !locked(&user.state).takes_pushes {
            return None;
        }
        Some(Self::of_call(platform, user, ChannelVersion::V2)?.start(false))
    }

    /// Starts the posts, and returns the collector of their responses. They end with it.
    pub(super) fn start(self, is_call: bool) -> Sender<CollectedResponse> {
        let (collector, mut responses) = channel(RESPONSES);
        actix_web::rt::spawn(async move {
            let client = Client::builder().timeout(TIMEOUT).disable_redirects().finish();
            while let Some(response) = responses.recv().await {
                self.post(&client, self.response(&response)).await;
            }
            if is_call {
                self.post(&client, self.end()).await;
            }
        });
        collector
    }

    fn response(&self, response: &CollectedResponse) -> Value {
        match self.version {
            ChannelVersion::V1 => json!({
                "to": self.user.id.user(), "from": self.user.bot_id(), "text": v1_text(response),
            }),
            ChannelVersion::V2 => {
                let mut element = v2_element(response);
                if let Some(element) = element.as_object_mut() {
                    element.remove("messageId");
                }
                json!({"data": [element], "_v": "v2"})
            }
        }
    }

    fn end(&self) -> Value {
        let mut end = task_end();
        let others = match self.version {
            ChannelVersion::V1 => json!({"to": self.user.id.user(), "from": self.user.bot_id()}),
            ChannelVersion::V2 => json!({"data": [], "_v": "v2"}),
        };
        end.extend(others.as_object().cloned().unwrap_or_default());
        end.into()
    }

    async fn post(&self, client: &Client, body: Value) {
        let answer = client.post(self.url.as_str()).send_json(&body).await;
        let status = answer.ok().map(|answer| answer.status().as_u16());
        self.platform.hear(&self.user, "webhookPost", || json!({"body": body, "status": status}));
    }
}
