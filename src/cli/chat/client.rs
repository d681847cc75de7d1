//! The calls of the bridge's API that `chat` makes.

use std::time::Duration;

use awc::http::{Method, StatusCode, header};
use awc::{ClientRequest, ClientResponse, SendClientRequest};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::domain::{BotName, UserId, lenient_json};
use crate::tcp;
use crate::tls::{self, TlsError};

/// The timeout of an answer's head, and of its body.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of an answer. A Message holds 4 MiB of replies at most.
const ANSWER_MAX: usize = 8 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ApiCallError {
    #[error("no answer: {0}")]
    Transport(Box<str>),
    #[error("HTTP status {0}, with a body that is not from rtm-bridge")]
    NotBridge(u16),
    #[error("{title}: {detail}")]
    Refused { status: u16, title: Box<str>, detail: Box<str> },
}

impl ApiCallError {
    fn transport(error: &impl ToString) -> Self {
        Self::Transport(error.to_string().into())
    }

    /// Whether the same call may succeed later. A proxy answers 502 to 504 while the bridge is away.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Transport(_) | Self::NotBridge(502..=504) | Self::Refused { status: 429 | 503, .. }
        )
    }
}

/// A client of one user's conversation.
pub(super) struct ChatClient {
    http: awc::Client,
    conversation_url: String,
    bot: String,
    key: Option<SecretString>,
}

impl ChatClient {
    /// Creates a client. It follows no redirects, because they would take the key to another host.
    pub(super) fn new(
        url: &Url,
        user: &UserId,
        bot: Option<&BotName>,
        key: Option<SecretString>,
    ) -> Result<Self, TlsError> {
        let connector = awc::Connector::new()
            .connector(tcp::connector(tcp::system_resolver(), Ok, None))
            .rustls_0_23(tls::client(None)?)
            .timeout(TIMEOUT);
        let http = awc::Client::builder().connector(connector).timeout(TIMEOUT).disable_redirects().finish();
        let base = url.as_str().trim_end_matches('/');
        let user = utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC);
        let bot = bot.map(|bot| format!("bot={}", bot.as_str())).unwrap_or_default();
        Ok(Self { http, conversation_url: format!("{base}/conversations/{user}"), bot, key })
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
        let request = self.http.request(method, [&*self.conversation_url, path, &self.bot].concat());
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }
}

async fn answer<T: DeserializeOwned>(sending: SendClientRequest) -> Result<T, ApiCallError> {
    let (status, body) = answer_body(sending).await?;
    serde_json::from_slice(&body).map_err(|_| ApiCallError::NotBridge(status))
}

/// Returns the status and the body of a success.
async fn answer_body(sending: SendClientRequest) -> Result<(u16, Bytes), ApiCallError> {
    let mut response = sending.await.map_err(|error| ApiCallError::transport(&error))?.timeout(TIMEOUT);
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = response.body().limit(ANSWER_MAX).await.map_err(|error| ApiCallError::transport(&error))?;
    Ok((response.status().as_u16(), body))
}

/// Reads the problem (RFC 9457) of a refusal. A body of another form comes from a proxy or another server.
async fn refusal(response: ClientResponse) -> ApiCallError {
    let status = response.status().as_u16();
    let body = response.timeout(TIMEOUT).body().limit(ANSWER_MAX).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let field = |name| problem.get(name).and_then(Value::as_str);
    match (field("title"), field("detail")) {
        (Some(title), Some(detail)) => {
            ApiCallError::Refused { status, title: title.into(), detail: detail.into() }
        }
        _ => ApiCallError::NotBridge(status),
    }
}
