//! The bridge's HTTP API as a caller uses it: the calls that a conversation takes.

use std::time::Duration;

use awc::error::{PayloadError, SendRequestError};
use awc::http::header::{self, HeaderMap};
use awc::http::{Method, StatusCode};
use awc::{Client, ClientRequest, ClientResponse};
use bytes::Bytes;
use futures_util::stream::{LocalBoxStream, StreamExt as _};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::pause::Pause;
use super::told::{Message, Problem};
use crate::domain::{BotName, UserId};
use crate::tls::{self, TlsError};

/// The longest that the head of an answer may take, and that the rest of it may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// What an answer that is not a stream may be long: a Message holds 4 MiB of replies at most.
const ANSWER_MAX: usize = 8 * 1024 * 1024;
/// How long a message is tried to be brought in.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of a stream.
pub(super) type Body = LocalBoxStream<'static, Result<Bytes, PayloadError>>;

/// Why a call failed.
#[derive(Debug, Error)]
pub(in crate::cli) enum Fault {
    #[error("no connection: {0}")]
    Unreachable(Box<str>),
    #[error("no answer within {DEADLINE:?}")]
    Slow,
    #[error("the connection broke")]
    Broken,
    #[error("HTTP status {0} and nothing that rtm-bridge would say")]
    Strange(u16),
    #[error("{problem}")]
    Refused { status: u16, retry_after: Option<Duration>, problem: Problem },
}

impl Fault {
    /// Whether the same call may do better later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Slow | Self::Broken => true,
            // A proxy whose bridge is away answers for it.
            Self::Strange(status) => matches!(status, 502..=504),
            Self::Refused { status, .. } => matches!(status, 429 | 503),
        }
    }

    /// How long it wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// The conversation of one user, at a bridge.
pub(super) struct Bridge {
    client: Client,
    /// The URL of the conversation.
    conversation: String,
    bot: Option<BotName>,
    key: Option<SecretString>,
}

impl Bridge {
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(
        url: &Url,
        user: &UserId,
        bot: Option<BotName>,
        key: Option<SecretString>,
    ) -> Result<Self, TlsError> {
        let base = url.as_str().trim_end_matches('/');
        let conversation =
            format!("{base}/conversations/{}", utf8_percent_encode(user.as_str(), NON_ALPHANUMERIC));
        Ok(Self { client: client()?, conversation, bot, key })
    }

    /// Where the conversation stands now: events that come later are behind it.
    pub(super) async fn latest(&self) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Page {
            next: String,
        }
        let request = self.request(Method::GET, "/events", &[("after", "latest"), ("limit", "1")]);
        exchange(async { request.send().await }).await.map(|page: Page| page.next)
    }

    /// The events behind that place, as a stream of server-sent events.
    pub(super) async fn events(&self, after: &str) -> Result<Body, Fault> {
        let request = self
            .request(Method::GET, "/events", &[])
            .insert_header((header::ACCEPT, "text/event-stream"))
            .insert_header(("Last-Event-ID", after));
        let mut response = head(async { request.send().await }).await?;
        let status = response.status();
        let is_stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        match (status, is_stream) {
            (StatusCode::OK, true) => Ok(response.boxed_local()),
            (StatusCode::OK, false) => Err(Fault::Strange(200)),
            _ => Err(refusal(&mut response).await),
        }
    }

    /// One of the user's messages.
    pub(super) async fn message(&self, id: &str) -> Result<Message, Fault> {
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        let request = self.request(Method::GET, &format!("/messages/{id}"), &[]);
        exchange(async { request.send().await }).await
    }

    /// Brings a message in, and does not wait for its end. It is tried again where that may help: the key makes sure
    /// that it comes in once.
    pub(super) async fn send(&self, text: &str) -> Result<Message, Fault> {
        let key = format!("{:032x}", fastrand::u128(..));
        let (mut pause, began) = (Pause::default(), Instant::now());
        loop {
            let request = self
                .request(Method::POST, "/messages", &[])
                .insert_header(("Prefer", "respond-async"))
                .insert_header(("Idempotency-Key", key.as_str()));
            match exchange(async { request.send_json(&json!({"text": text})).await }).await {
                Err(fault) if fault.passes() && began.elapsed() < PATIENCE => {
                    sleep(pause.next(fault.retry_after())).await;
                }
                result => return result,
            }
        }
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> ClientRequest {
        let mut url = format!("{}{path}", self.conversation);
        let bot = self.bot.as_ref().map(|bot| ("bot", bot.as_str()));
        for (at, (name, value)) in bot.iter().chain(query).enumerate() {
            let mark = if at == 0 { "?" } else { "&" };
            // Names of bots have no character that means something in a URL.
            url.extend([mark, name, "=", value]);
        }
        let request = self.client.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }
}

/// A client that holds one stream open beside short calls, and trusts the certificate authorities Mozilla trusts.
/// Redirects are not followed: they would take the key elsewhere.
fn client() -> Result<Client, TlsError> {
    let connector = awc::Connector::new().rustls_0_23(tls::client(None)?).timeout(DEADLINE);
    Ok(Client::builder()
        .connector(connector)
        .disable_redirects()
        .disable_timeout()
        .add_default_header((header::USER_AGENT, concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"))))
        .finish())
}

/// The head of an answer.
async fn head<S>(
    sending: impl Future<Output = Result<ClientResponse<S>, SendRequestError>>,
) -> Result<ClientResponse<S>, Fault> {
    match timeout(DEADLINE, sending).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(Fault::Slow),
    }
}

/// A whole answer.
async fn exchange<S, T: DeserializeOwned>(
    sending: impl Future<Output = Result<ClientResponse<S>, SendRequestError>>,
) -> Result<T, Fault>
where
    S: futures_util::Stream<Item = Result<Bytes, PayloadError>>,
{
    let mut response = head(sending).await?;
    if !response.status().is_success() {
        return Err(refusal(&mut response).await);
    }
    let status = response.status().as_u16();
    let body = read(&mut response).await?;
    serde_json::from_slice(&body).map_err(|_| Fault::Strange(status))
}

async fn read<S>(response: &mut ClientResponse<S>) -> Result<Bytes, Fault>
where
    S: futures_util::Stream<Item = Result<Bytes, PayloadError>>,
{
    match timeout(DEADLINE, response.body().limit(ANSWER_MAX)).await {
        Ok(body) => body.map_err(|_| Fault::Broken),
        Err(_) => Err(Fault::Slow),
    }
}

/// Every failure of the bridge is a problem; what is none comes from somebody else.
async fn refusal<S>(response: &mut ClientResponse<S>) -> Fault
where
    S: futures_util::Stream<Item = Result<Bytes, PayloadError>>,
{
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    match read(response).await.ok().and_then(|body| serde_json::from_slice(&body).ok()) {
        Some(problem) if is_problem => Fault::Refused { status, retry_after, problem },
        _ => Fault::Strange(status),
    }
}

/// The bridge gives it in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// In words, without the URL.
fn unreachable(error: &SendRequestError) -> Fault {
    match error {
        SendRequestError::Timeout => Fault::Slow,
        SendRequestError::Connect(error) => Fault::Unreachable(error.to_string().into()),
        SendRequestError::Send(_) | SendRequestError::Response(_) => Fault::Broken,
        error => Fault::Unreachable(error.to_string().into()),
    }
}
