//! Sends to strangers: one POST to an address that may be anybody's, and what came back of it.
//!
//! Whoever is at the other end may be slow, endless, or somewhere it must not be. So the whole exchange, look-up
//! included, has one deadline; of an answer little is read; addresses are checked ([`Guard`]) between being looked up
//! and being connected to; redirects are not followed, and proxies of the environment are not used. What awc does
//! otherwise than it should is undone as in `rtm`'s connector.
//!
//! Connections are kept for the next delivery to the same host, for a few seconds: a kept one leads to an address that
//! was checked when it was opened.

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

use self::guarded_connect::DnsResolver;
pub(super) use self::send_error::SendError;
use super::signature::InvalidSecret;
use super::ssrf_guard::SsrfGuard;
use crate::config::WebhooksConfig;
use crate::tls::{self, TlsError};

/// The longest that look-up and TCP may take together, and the longest that TLS may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A connection is not reused after this time without use; below the 5 s at which many servers close.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// How much of an answer is kept, in bytes.
const KEPT: usize = 8 * 1024;
/// How much of an answer is read, in bytes: a connection can be reused only where its answer was read to the end.
const READ: usize = 64 * 1024;

/// Why there is no sender; a mistake of configuration or build, found at start.
#[derive(Debug, thiserror::Error)]
pub enum SenderSetupError {
    /// There is no TLS, or `webhooks.ca_file` holds nothing to trust.
    #[error("webhooks: {0}")]
    Tls(#[source] TlsError),
    /// A secret cannot sign.
    #[error("{whose}: {error}")]
    Secret {
        /// Whose: `bots.support.webhook` or `callers.crm`.
        whose: Box<str>,
        /// Why.
        #[source]
        error: InvalidSecret,
    },
    /// A header's name or value cannot be sent.
    #[error("bots.{bot}.webhook: the header {name} has a name or a value that HTTP has no room for")]
    Header {
        /// Whose.
        bot: Box<str>,
        /// Its name.
        name: Box<str>,
    },
}

/// What a receiver answered.
#[derive(Debug)]
pub(super) struct ReceiverResponse {
    /// The status.
    pub(super) status: u16,
    /// `Retry-After`, unread.
    pub(super) retry_after: Option<Box<str>>,
    /// The first [`KEPT`] bytes of the body; none where it is empty.
    pub(super) body: Option<Box<str>>,
}

/// Sends for one thread. It is `!Send`: made on the thread that uses it, within its `LocalSet`.
pub(super) struct DeliverySender {
    deadline: Duration,
    tls: Arc<rustls::ClientConfig>,
    guard: Rc<SsrfGuard>,
    resolve: DnsResolver,
    clients: Rc<HostClients>,
    /// Ends with the sender.
    _tidying: AbortOnDropHandle<()>,
}

/// One client for each scheme, host and port in use. awc closes a kept connection only when it is about to use it, so
/// connections to a host that nothing is sent to any more end with its client.
type HostClients = RefCell<HashMap<Box<str>, Rc<HostClient>>>;

/// The client of a host, and when it was last used.
struct HostClient {
    client: Client,
    used: Cell<Instant>,
    /// Connections that were opened, ever.
    opened: Rc<Cell<u64>>,
}

impl DeliverySender {
    /// A sender with these limits.
    ///
    /// # Errors
    /// [`SenderSetupError`].
    pub(super) fn new(config: &WebhooksConfig) -> Result<Self, SenderSetupError> {
        Self::resolving(config, guarded_connect::system())
    }

    fn resolving(config: &WebhooksConfig, resolve: DnsResolver) -> Result<Self, SenderSetupError> {
        let tls = tls::client(config.ca.as_deref()).map_err(SenderSetupError::Tls)?;
        let clients = Rc::new(HostClients::default());
        Ok(Self {
            deadline: config.timeout,
            tls,
            guard: Rc::new(SsrfGuard::new(&config.allow_private)),
            resolve,
            _tidying: keep_tidy(&clients),
            clients,
        })
    }

    /// Posts `body` to `url` and reads the answer. An answer's status counts from the moment that its head is complete,
    /// whatever becomes of its body.
    ///
    /// # Errors
    /// [`Failure`] where there is no answer.
    pub(super) async fn post(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<ReceiverResponse, SendError> {
        let deadline = Instant::now() + self.deadline;
        let authority = authority(url).ok_or(SendError::Url)?;
        headers.insert(header::HOST, HeaderValue::try_from(authority).map_err(|_| SendError::Url)?);
        let origin = format!("{}://{authority}", url.scheme());

        let opened = Rc::clone(&self.kept(&origin).opened);
        let before = opened.get();
        let first = self.exchange(&origin, url, headers.clone(), body.clone(), deadline).await;
        // A kept connection that was closed just when it was to be used again says nothing about the receiver.
        let stale = matches!(first, Err(SendError::HungUp)) && opened.get() == before;
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
        let kept = self.kept(origin);
        let mut request = kept.client.post(url.as_str());
        *request.headers_mut() = headers;
        let sent = timeout_at(deadline, request.send_body(body)).await;
        let mut response = sent
            .map_err(|_| SendError::Deadline(self.deadline))?
            .map_err(|error| SendError::of(error, url, self.connect_deadline()))?;
        if !is_delimited(&response) {
            // The connection is back among the kept ones, and what it still brings would be read as the next answer.
            // Nobody may take it: whoever posts from now on makes a client of his own.
            self.clients.borrow_mut().remove(origin);
        }
        let body = read(&mut response, deadline).await;
        kept.used.set(Instant::now());
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(ReceiverResponse {
            status: response.status().as_u16(),
            retry_after: retry_after.map(Into::into),
            body,
        })
    }

    fn connect_deadline(&self) -> Duration {
        CONNECT_DEADLINE.min(self.deadline)
    }

    /// The client of this scheme, host and port.
    fn kept(&self, origin: &str) -> Rc<HostClient> {
        if let Some(kept) = self.clients.borrow().get(origin) {
            kept.used.set(Instant::now());
            return Rc::clone(kept);
        }
        let opened = Rc::new(Cell::new(0));
        let client = self.client(&opened);
        let kept = Rc::new(HostClient { client, used: Cell::new(Instant::now()), opened });
        self.clients.borrow_mut().insert(origin.into(), Rc::clone(&kept));
        kept
    }

    fn client(&self, opened: &Rc<Cell<u64>>) -> Client {
        let phase = self.connect_deadline();
        let connector = awc::Connector::new()
            .connector(guarded_connect::service(
                Rc::clone(&self.guard),
                Rc::clone(&self.resolve),
                Rc::clone(opened),
            ))
            .rustls_0_23(Arc::clone(&self.tls))
            .limit(0)
            .timeout(phase)
            .handshake_timeout(phase)
            .conn_keep_alive(KEEP_ALIVE);
        ClientBuilder::new().connector(connector).disable_redirects().disable_timeout().finish()
    }
}

/// Closes the connections to hosts that nothing was sent to for some seconds, for as long as the task is kept.
fn keep_tidy(clients: &Rc<HostClients>) -> AbortOnDropHandle<()> {
    let clients = Rc::clone(clients);
    #[expect(clippy::disallowed_methods, reason = "the sender owns it: it ends with it")]
    let task = tokio::task::spawn_local(async move {
        loop {
            sleep(KEEP_ALIVE / 2).await;
            let in_use = |kept: &Rc<HostClient>| Rc::strong_count(kept) > 1;
            clients.borrow_mut().retain(|_, kept| in_use(kept) || kept.used.get().elapsed() < KEEP_ALIVE);
        }
    });
    AbortOnDropHandle::new(task)
}

/// Host and port as `Host` has them; none where the URL is none to post to. Credentials in a URL would end up in lists of
/// deliveries.
fn authority(url: &Url) -> Option<&str> {
    let plain =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let authority = url.authority();
    (plain && !authority.is_empty()).then_some(authority)
}

/// Whether what follows an answer's head ends where the head says (RFC 9112, 6.3). Behind an interim one (1xx) the real one
/// comes, and a body without a length ends with its connection; awc expects nothing more of either.
fn is_delimited<S>(answer: &ClientResponse<S>) -> bool {
    let (status, headers) = (answer.status(), answer.headers());
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    !status.is_informational() && (bodiless || length)
}

/// Reads an answer's body until its end, its limit or the deadline, and keeps the beginning as text.
async fn read<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    deadline: Instant,
) -> Option<Box<str>> {
    let (mut kept, mut read) = (Vec::new(), 0);
    // A body that breaks off or never ends is worth no more than what came of it.
    while let Ok(Some(Ok(piece))) = timeout_at(deadline, body.next()).await {
        read += piece.len();
        kept.extend(piece.iter().take(KEPT - kept.len()));
        if read >= READ {
            break;
        }
    }
    (!kept.is_empty()).then(|| text(&kept))
}

/// The text of these bytes, [`KEPT`] bytes of it at most; a character that the end of them cuts is left out.
fn text(bytes: &[u8]) -> Box<str> {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or_default(),
        _ => bytes,
    };
    let mut text = String::from_utf8_lossy(whole).into_owned();
    text.truncate(text.floor_char_boundary(KEPT));
    text.into()
}
