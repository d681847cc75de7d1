//! The calls of the bridge's API that `chat` makes.

use awc::http::{Method, StatusCode, header};
use awc::{ClientRequest, ClientResponse};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::api_client::{ApiCallError, ApiClient, answer, answer_body, refusal};
use crate::domain::{BotName, UserId, lenient_json};

/// A client of one user's conversation.
pub(super) struct ChatClient {
    api: ApiClient,
    conversation: String,
    bot: String,
}

impl ChatClient {
    pub(super) fn new(api: ApiClient, user: &UserId, bot: Option<&BotName>) -> Self {
        let user = utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC);
        let bot = bot.map(|bot| format!("bot={}", bot.as_str())).unwrap_or_default();
        Self { api, conversation: format!("/conversations/{user}"), bot }
    }

    /// Opens the stream of events behind an event, or at the end of the conversation if the id is empty.
    pub(super) async fn events(&self, last_id: &str) -> Result<ClientResponse, ApiCallError> {
        let request = self
            .request(Method::GET, "/events?after=latest&")
            .insert_header((header::ACCEPT, "text/event-stream"))
            .insert_header(("Last-Event-ID", last_id));
        let response = request.send().await.map_err(|error| ApiCallError::transport(&error))?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if response.status() == StatusCode::OK && is_stream {
            Ok(response)
        } else {
            Err(refusal(response).await)
        }
    }

    /// Returns a message of the user.
    pub(super) async fn message(&self, id: &str) -> Result<Value, ApiCallError> {
        let path = format!("/messages/{}?", utf8_percent_encode(id, NON_ALPHANUMERIC));
        let (status, body) = answer_body(self.request(Method::GET, &path).send()).await?;
        let text = str::from_utf8(&body).ok();
        text.and_then(lenient_json::value).ok_or(ApiCallError::NotBridge(status))
    }

    /// Posts a text, and returns the id of its message without waiting for its end. `shown` is what the user saw in place
    /// of the text.
    pub(super) async fn send(&self, text: &str, shown: Option<&str>) -> Result<String, ApiCallError> {
        let message = match shown {
            Some(shown) => json!({"text": text, "displayText": shown}),
            None => json!({"text": text}),
        };
        self.post(&message).await
    }

    /// Lets the bot speak first, and returns the id of the message.
    pub(super) async fn connect(&self) -> Result<String, ApiCallError> {
        self.post(&json!({"event": "connect"})).await
    }

    async fn post(&self, message: &Value) -> Result<String, ApiCallError> {
        #[derive(Deserialize)]
        struct SentMessage {
            id: String,
        }
        let request = self.request(Method::POST, "/messages?").insert_header(("Prefer", "respond-async"));
        answer(request.send_json(message)).await.map(|message: SentMessage| message.id)
    }

    /// Creates a request for a path that ends where the query goes on.
    fn request(&self, method: Method, path: &str) -> ClientRequest {
        self.api.request(method, &[&*self.conversation, path, &self.bot].concat())
    }
}
