//! The client of commands that call a running bridge: its address, the caller's key, and the bridge's answers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use awc::http::Method;
use awc::{ClientRequest, ClientResponse, SendClientRequest};
use bytes::Bytes;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::warn_of_open_file;
use crate::config;
use crate::tcp;
use crate::tls::{self, TlsError};

const KEY_VARIABLE: &str = "RTM_BRIDGE_KEY";
/// The timeout of an answer's head, and of its body.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of an answer. A Message holds 4 MiB of replies at most.
const ANSWER_MAX: usize = 8 << 20;

/// The bridge to call.
#[derive(Debug, Args)]
pub(super) struct BridgeArgs {
    /// The address of the bridge, with a path if a proxy adds one.
    #[arg(long, value_parser = bridge_url, default_value = "http://127.0.0.1:8080")]
    pub(super) url: Url,
    /// A file that holds the caller's key. Without it, the key is read from `RTM_BRIDGE_KEY`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Why a client could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiClientError {
    #[error("cannot read the key file {0}; give a readable file with --key-file")]
    KeyFile(String, #[source] io::Error),
    #[error("{0} holds no key; put one line into it, as `rtm-bridge key new` prints it")]
    InvalidKey(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiCallError {
    #[error("no answer: {0}")]
    Transport(Box<str>),
    #[error("HTTP status {0}, with a body that is not from rtm-bridge")]
    NotBridge(u16),
    #[error("{title}: {detail}")]
    Refused { status: u16, title: Box<str>, detail: Box<str> },
}

impl ApiCallError {
    pub(super) fn transport(error: &impl ToString) -> Self {
        Self::Transport(error.to_string().into())
    }

    /// Whether the same call may succeed later. A proxy answers 502 to 504 while the bridge is away.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Transport(_) | Self::NotBridge(502..=504) | Self::Refused { status: 429 | 503, .. }
        )
    }

    /// Returns what to do next, with the steps of the command for a key and a bot that do not fit.
    pub(super) fn next_step(&self, wrong_key: &'static str, wrong_bot: &'static str) -> &'static str {
        match self {
            Self::Transport(_) => {
                "; start a bridge there (`rtm-bridge dev` starts one to try), or give another address with --url"
            }
            Self::NotBridge(_) => "; give the address of the API (server.listen) with --url",
            Self::Refused { status: 401, .. } => {
                "; give the caller's key with --key-file, or in RTM_BRIDGE_KEY"
            }
            Self::Refused { status: 403, .. } => wrong_key,
            Self::Refused { status: 400 | 404, .. } => wrong_bot,
            Self::Refused { .. } => "",
        }
    }
}

fn bridge_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_plain = url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https")
            && is_plain
            && !url.authority().is_empty()
            && !url.authority().contains('@')
    });
    url.ok_or("give a URL such as http://127.0.0.1:8080, without user, query and fragment")
}

/// A client of a bridge.
pub(super) struct ApiClient {
    http: awc::Client,
    base: String,
    key: Option<SecretString>,
}

impl ApiClient {
    /// Creates a client. It follows no redirects, because they would take the key to another host.
    ///
    /// # Errors
    /// [`ApiClientError`].
    pub(super) fn new(bridge: &BridgeArgs) -> Result<Self, ApiClientError> {
        let key = caller_key(bridge.key_file.clone())?;
        let connector = awc::Connector::new()
            .connector(tcp::connector(tcp::system_resolver(), Ok, None))
            .rustls_0_23(tls::client(None)?)
            .timeout(TIMEOUT);
        let http = awc::Client::builder().connector(connector).timeout(TIMEOUT).disable_redirects().finish();
        Ok(Self { http, base: bridge.url.as_str().trim_end_matches('/').to_owned(), key })
    }

    /// Creates a request for this path and query.
    pub(super) fn request(&self, method: Method, target: &str) -> ClientRequest {
        let request = self.http.request(method, [&*self.base, target].concat());
        match &self.key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }
}

/// Returns the JSON of a success.
pub(super) async fn answer<T: DeserializeOwned>(sending: SendClientRequest) -> Result<T, ApiCallError> {
    let (status, body) = answer_body(sending).await?;
    serde_json::from_slice(&body).map_err(|_| ApiCallError::NotBridge(status))
}

/// Returns the status and the body of a success.
pub(super) async fn answer_body(sending: SendClientRequest) -> Result<(u16, Bytes), ApiCallError> {
    let mut response = sending.await.map_err(|error| ApiCallError::transport(&error))?.timeout(TIMEOUT);
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let body = response.body().limit(ANSWER_MAX).await.map_err(|error| ApiCallError::transport(&error))?;
    Ok((response.status().as_u16(), body))
}

/// Reads the problem (RFC 9457) of a refusal. A body of another form comes from a proxy or another server.
pub(super) async fn refusal(response: ClientResponse) -> ApiCallError {
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

/// Returns the caller's key from the file, else from the environment.
fn caller_key(file: Option<PathBuf>) -> Result<Option<SecretString>, ApiClientError> {
    let (origin, bytes) = if let Some(path) = file {
        let origin = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|source| ApiClientError::KeyFile(origin.clone(), source))?;
        warn_of_open_file(&path);
        (origin, bytes)
    } else {
        let variable = config::environment().find(|(name, value)| name == KEY_VARIABLE && !value.is_empty());
        let Some((_, value)) = variable else { return Ok(None) };
        (KEY_VARIABLE.to_owned(), value.into_encoded_bytes())
    };
    let key = SecretString::from(String::from_utf8(bytes).unwrap_or_default().trim());
    let is_key = !key.expose_secret().is_empty() && key.expose_secret().bytes().all(|b| b.is_ascii_graphic());
    if is_key { Ok(Some(key)) } else { Err(ApiClientError::InvalidKey(origin)) }
}
