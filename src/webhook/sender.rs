//! Sends one POST to an untrusted address and reads the response.
//!
//! A receiver may be slow, send an endless response, or be an internal host. So these limits hold:
//!
//! - The whole exchange, DNS lookup included, has one timeout.
//! - Only the beginning of a response is read. Its body has half a second after its head.
//! - [`SsrfGuard`] checks each address after its lookup and before the connection.
//! - Redirects are not followed. Only the proxy of `webhooks.proxy` is used, and it is given checked addresses.
//!
//! Faults of awc are worked around as in the connector of `rtm`. Connections are kept for some seconds for the next
//! delivery to the same host. The address of a kept connection was checked when it was opened.

mod guarded_connect;
mod send_error;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
pub(super) use awc::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use awc::{Client, ClientBuilder, ClientResponse};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

pub(super) use self::send_error::SendError;
use super::signature::InvalidSecret;
use super::ssrf_guard::SsrfGuard;
use crate::config::WebhooksConfig;
use crate::domain::parse_retry_after;
use crate::tcp::{self, DnsResolver, ProxiedConnect, ProxyRoute, TunnelTarget};
use crate::tls::{self, TlsError};
use crate::wall_clock;

/// The timeout of DNS and TCP together, and the timeout of TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which the body of a response may follow its head.
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest idle time of a connection. Many servers close at 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// The most bytes of a response that are stored.
const STORED_BYTES: usize = 8 * 1024;
/// The most bytes of a response that are read. A connection can be reused only after its whole response was read.
const READ_BYTES: usize = 64 * 1024;

/// The reason why the sender did not start: a fault of configuration or build.
#[derive(Debug, thiserror::Error)]
pub enum SenderSetupError {
    /// TLS is not available, or `webhooks.ca_file` has no authority.
    #[error("webhooks: {0}")]
    Tls(#[source] TlsError),
    /// A secret cannot sign.
    #[error("{owner}: {error}")]
    Secret {
        /// The owner of the secret: `bots.support.webhooks.main` or `callers.crm`.
        owner: Box<str>,
        /// The reason.
        #[source]
        error: InvalidSecret,
    },
    /// The name or value of a header is not allowed.
    #[error("{owner}: the name or the value of the header {name} is not allowed in HTTP")]
    Header {
        /// The endpoint with this header, such as `bots.support.webhooks.main`.
        owner: Box<str>,
        /// The name of the header.
        name: Box<str>,
    },
}

/// The response of a receiver.
#[derive(Debug)]
pub(super) struct ReceiverResponse {
    pub(super) status: u16,
    /// The wait that its `Retry-After` asks for.
    pub(super) retry_after: Option<Duration>,
    /// The first [`STORED_BYTES`] of the body; `None` if it is empty.
    pub(super) body: Option<Box<str>>,
}

/// The sender of one thread. It is `!Send` and must be created on its thread.
pub(super) struct DeliverySender {
    timeout: Duration,
    tls: Arc<rustls::ClientConfig>,
    guard: Rc<SsrfGuard>,
    resolve: DnsResolver,
    proxy: Option<ProxiedConnect>,
    clients: Rc<HostClients>,
    /// The task that drops idle clients; it ends with the sender.
    _eviction: AbortOnDropHandle<()>,
}

/// One client for each scheme, host and port in use. awc closes an idle connection only at the next request to the host.
/// So the sender closes connections to unused hosts by dropping their client.
type HostClients = RefCell<HashMap<Box<str>, Rc<HostClient>>>;

/// The client of one host.
struct HostClient {
    client: Client,
    used: Cell<Instant>,
    /// The number of connections opened since the start.
    opened: Rc<Cell<u64>>,
}

impl DeliverySender {
    /// Creates a sender with the configured limits.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub(super) fn new(config: &WebhooksConfig) -> Result<Self, SenderSetupError> {
        Self::resolving(config, tcp::system_resolver())
    }

    fn resolving(config: &WebhooksConfig, resolve: DnsResolver) -> Result<Self, SenderSetupError> {
        let tls = tls::client(config.ca.as_deref()).map_err(SenderSetupError::Tls)?;
        let connect_timeout = CONNECT_TIMEOUT.min(config.timeout);
        let route = config.proxy.as_ref().map(|proxy| ProxyRoute::new(proxy, connect_timeout)).transpose();
        let route = route.map_err(SenderSetupError::Tls)?;
        let clients = Rc::new(HostClients::default());
        Ok(Self {
            proxy: route.map(|route| ProxiedConnect { route, target: TunnelTarget::AdmittedAddress }),
            timeout: config.timeout,
            tls,
            guard: Rc::new(SsrfGuard::new(&config.allow_private)),
            resolve,
            _eviction: evict_idle(&clients),
            clients,
        })
    }

    /// Posts `body` to `url` and returns the response. The status counts as soon as the head is complete, even if the
    /// body fails.
    ///
    /// # Errors
    /// [`SendError`] if there is no response.
    pub(super) async fn post(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<ReceiverResponse, SendError> {
        let deadline = Instant::now() + self.timeout;
        let authority = authority(url).ok_or(SendError::Url)?;
        headers.insert(header::HOST, HeaderValue::try_from(authority).map_err(|_| SendError::Url)?);
        let origin = format!("{}://{authority}", url.scheme());

        let opened = Rc::clone(&self.client_of(&origin).opened);
        let before = opened.get();
        let first = self.exchange(&origin, url, headers.clone(), body.clone(), deadline).await;
        // A reused connection may have been closed just before the request. That is no fault of the receiver.
        let stale = matches!(first, Err(SendError::ConnectionClosed)) && opened.get() == before;
        if !stale {
            return first;
        }
        self.clients.borrow_mut().remove(&*origin);
        self.exchange(&origin, url, headers, body, deadline).await
    }

    async fn exchange(
        &self,
        origin: &str,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<ReceiverResponse, SendError> {
        let host = self.client_of(origin);
        let mut request = host.client.post(url.as_str());
        *request.headers_mut() = headers;
        let sent = timeout_at(deadline, request.send_body(body)).await;
        let mut response = sent
            .map_err(|_| SendError::ResponseTimeout(self.timeout))?
            .map_err(|error| SendError::of(error, url, self.connect_timeout()))?;
        if !is_delimited(&response) {
            // awc would reuse the connection and read further bytes as the next response. The next request therefore
            // gets a new client.
            self.clients.borrow_mut().remove(origin);
        }
        // The status decides, so a body that drips in must not hold up the next delivery.
        let body = read(&mut response, deadline.min(Instant::now() + BODY_TIMEOUT)).await;
        host.used.set(Instant::now());
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (retry_after, date) = (text(header::RETRY_AFTER), text(header::DATE));
        Ok(ReceiverResponse {
            status: response.status().as_u16(),
            retry_after: retry_after.and_then(|value| parse_retry_after(value, date, wall_clock::now())),
            body,
        })
    }

    fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT.min(self.timeout)
    }

    /// Returns the client of this scheme, host and port.
    fn client_of(&self, origin: &str) -> Rc<HostClient> {
        if let Some(host) = self.clients.borrow().get(origin) {
            host.used.set(Instant::now());
            return Rc::clone(host);
        }
        let opened = Rc::new(Cell::new(0));
        let client = self.client(&opened);
        let host = Rc::new(HostClient { client, used: Cell::new(Instant::now()), opened });
        self.clients.borrow_mut().insert(origin.into(), Rc::clone(&host));
        host
    }

    fn client(&self, opened: &Rc<Cell<u64>>) -> Client {
        let timeout = self.connect_timeout();
        let connector = awc::Connector::new()
            .connector(guarded_connect::service(
                Rc::clone(&self.guard),
                Rc::clone(&self.resolve),
                Rc::clone(opened),
                self.proxy.clone(),
            ))
            .rustls_0_23(Arc::clone(&self.tls))
            .limit(0)
            .timeout(timeout)
            .handshake_timeout(timeout)
            .conn_keep_alive(KEEP_ALIVE);
        ClientBuilder::new().connector(connector).disable_redirects().disable_timeout().finish()
    }
}

/// Starts the task that drops clients without a request for [`KEEP_ALIVE`].
fn evict_idle(clients: &Rc<HostClients>) -> AbortOnDropHandle<()> {
    let clients = Rc::clone(clients);
    #[expect(clippy::disallowed_methods, reason = "the task ends with the sender that owns it")]
    let task = tokio::task::spawn_local(async move {
        loop {
            sleep(KEEP_ALIVE / 2).await;
            let in_use = |host: &Rc<HostClient>| Rc::strong_count(host) > 1;
            clients.borrow_mut().retain(|_, host| in_use(host) || host.used.get().elapsed() < KEEP_ALIVE);
        }
    });
    AbortOnDropHandle::new(task)
}

/// Returns host and port as for the header `Host`; `None` if the URL is not allowed. Credentials are refused because
/// lists of deliveries show the URL.
fn authority(url: &Url) -> Option<&str> {
    let plain =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let authority = url.authority();
    (plain && !authority.is_empty()).then_some(authority)
}

/// Returns whether the head tells where the response ends (RFC 9112, 6.3). The final response follows an interim one
/// (1xx), and a body without a length ends with its connection. awc reads neither.
fn is_delimited<S>(answer: &ClientResponse<S>) -> bool {
    let (status, headers) = (answer.status(), answer.headers());
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    !status.is_informational() && (bodiless || length)
}

/// Reads a body until its end, its limit or the deadline, and returns the beginning as text.
async fn read<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    deadline: Instant,
) -> Option<Box<str>> {
    let (mut stored, mut read) = (Vec::new(), 0);
    // A body that fails or does not end counts as far as it came.
    while let Ok(Some(Ok(piece))) = timeout_at(deadline, body.next()).await {
        read += piece.len();
        stored.extend(piece.iter().take(STORED_BYTES - stored.len()));
        if read >= READ_BYTES {
            break;
        }
    }
    (!stored.is_empty()).then(|| text(&stored))
}

/// Returns the bytes as text of [`STORED_BYTES`] at most, without a character that the end cuts.
fn text(bytes: &[u8]) -> Box<str> {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or_default(),
        _ => bytes,
    };
    let mut text = String::from_utf8_lossy(whole).into_owned();
    text.truncate(text.floor_char_boundary(STORED_BYTES));
    text.into()
}
