//! Fetches a key set over HTTP. The operator named the address, so it may be of a private network.

use std::sync::Arc;
use std::time::Duration;

use awc::http::{StatusCode, header};
use awc::{Client, ClientBuilder};
use tokio::time::timeout;
use url::Url;

use super::key_set::{InvalidKeySet, KeySet};
use crate::config::ProxyConfig;
use crate::tcp::{self, ProxiedConnect, ProxyRoute, TunnelTarget};
use crate::tls::{self, TlsError};

/// The timeout of DNS and TCP, and of TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// The timeout of a whole fetch. A request may wait for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest key set, in bytes.
const KEY_SET_MAX: usize = 256 * 1024;

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeySetFetchError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address gave no answer.
    #[error("jwks_url gave no answer: {0}")]
    Transport(Box<str>),
    /// The address did not answer in time.
    #[error("jwks_url did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// The address answered with another status than 200.
    #[error("jwks_url answered with the status {0}")]
    Status(u16),
    /// The body is longer than a key set can be, or was cut off.
    #[error("the answer of jwks_url is longer than {KEY_SET_MAX} bytes, or was cut off")]
    Body,
    /// The body is no key set.
    #[error("jwks_url: {0}")]
    Invalid(#[from] InvalidKeySet),
}

/// A client for one fetch. Fetches are rare, so no connection is kept.
pub(super) struct KeySetFetcher(Client);

impl KeySetFetcher {
    pub(super) fn new(ca: Option<&[u8]>, proxy: Option<&Arc<ProxyConfig>>) -> Result<Self, TlsError> {
        let route = proxy.map(|proxy| ProxyRoute::new(proxy, CONNECT_TIMEOUT)).transpose()?;
        let proxy = route.map(|route| ProxiedConnect { route, target: TunnelTarget::Host });
        let connector = awc::Connector::new()
            .connector(tcp::connector(tcp::system_resolver(), Ok, proxy))
            .rustls_0_23(tls::client(ca)?)
            .timeout(CONNECT_TIMEOUT)
            .handshake_timeout(CONNECT_TIMEOUT);
        let client = ClientBuilder::new()
            .connector(connector)
            .disable_redirects()
            .disable_timeout()
            .add_default_header((header::USER_AGENT, concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"))))
            .add_default_header((header::ACCEPT, "application/jwk-set+json, application/json"))
            .add_default_header((header::ACCEPT_ENCODING, "identity"))
            .finish();
        Ok(Self(client))
    }

    /// Fetches the key set at this address.
    ///
    /// # Errors
    /// [`KeySetFetchError`].
    pub(super) async fn fetch(&self, url: &Url) -> Result<KeySet, KeySetFetchError> {
        let exchange = async {
            let sent = self.0.get(url.as_str()).force_close().send().await;
            let mut answer = sent.map_err(|error| KeySetFetchError::Transport(error.to_string().into()))?;
            if answer.status() != StatusCode::OK {
                return Err(KeySetFetchError::Status(answer.status().as_u16()));
            }
            let body = answer.body().limit(KEY_SET_MAX).await.map_err(|_| KeySetFetchError::Body)?;
            Ok(KeySet::parse(&body)?)
        };
        timeout(FETCH_TIMEOUT, exchange).await.map_err(|_| KeySetFetchError::Timeout)?
    }
}
