//! The way through a proxy: a connection to it, TLS with an `https` proxy, and a tunnel to the target.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_service::Service as _;
use actix_tls::connect::rustls_0_23::TlsConnector;
use actix_tls::connect::{ConnectError, Connection};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};

use super::outgoing_stream::OutgoingStream;
use super::tunnel::{ProxyError, open_tunnel};
use super::{DnsResolver, dial};
use crate::config::ProxyConfig;
use crate::tls::{self, TlsError};

/// A proxy with its settings as the connections of one thread use them.
pub struct ProxyRoute {
    proxy: Arc<ProxyConfig>,
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<SecretString>,
    /// The timeout from the lookup of the proxy to its answer.
    timeout: Duration,
}

impl ProxyRoute {
    /// Prepares the way through a proxy. `timeout` is the one of awc for connecting, so that a silent proxy is reported
    /// as such.
    ///
    /// # Errors
    /// [`TlsError`] for an `https` proxy with invalid authorities.
    pub fn new(proxy: &Arc<ProxyConfig>, timeout: Duration) -> Result<Rc<Self>, TlsError> {
        let tls = if proxy.url.scheme() == "https" { Some(tls::client(proxy.ca.as_deref())?) } else { None };
        let authorization = proxy.credentials.as_ref().map(crate::config::ProxyCredentials::authorization);
        Ok(Rc::new(Self { proxy: Arc::clone(proxy), tls, authorization, timeout }))
    }

    /// Returns whether connections to a host take this way.
    pub fn serves(&self, host: &str, port: u16) -> bool {
        self.proxy.serves(host, port)
    }

    /// Returns the end of the timeout that begins now.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Opens a connection to `target`, a host with a port, until the deadline.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn open(
        &self,
        target: &str,
        resolve: &DnsResolver,
        deadline: Instant,
    ) -> Result<OutgoingStream, ProxyError> {
        timeout_at(deadline, self.open_unlimited(target, resolve)).await.unwrap_or(Err(ProxyError::Timeout))
    }

    async fn open_unlimited(
        &self,
        target: &str,
        resolve: &DnsResolver,
    ) -> Result<OutgoingStream, ProxyError> {
        let stream =
            dial(self.proxy.host(), self.proxy.port(), resolve, Ok).await.map_err(|error| match error {
                ConnectError::Io(error) => ProxyError::Unreachable(error),
                _ => ProxyError::UnknownHost,
            })?;
        let mut stream = match &self.tls {
            None => OutgoingStream::Plain(stream),
            Some(tls) => {
                let connection = Connection::new(self.proxy.host().to_owned(), stream);
                let encrypted = TlsConnector::service(Arc::clone(tls)).call(connection).await;
                OutgoingStream::Encrypted(Box::new(encrypted.map_err(ProxyError::Tls)?.into_parts().0))
            }
        };
        open_tunnel(&mut stream, target, self.authorization.as_ref()).await?;
        Ok(stream)
    }
}
