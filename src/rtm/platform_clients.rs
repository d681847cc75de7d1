//! The awc clients of a bot's platform.
//!
//! This file changes five defaults of awc, which do not fit thousands of sockets:
//!
//! - awc caps all connections at 100, sockets included.
//! - It offers HTTP/2, over which no socket opens.
//! - It follows redirects.
//! - It never sets `TCP_NODELAY`.
//! - It tries the next address of a name only after the one before has failed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use awc::http::header;
use awc::{Client, ClientBuilder};

use super::connector::{TCP_TIMEOUT, TLS_TIMEOUT};
use crate::config::BotConfig;
use crate::tcp::{self, DnsResolver, ProxiedConnect, ProxyRoute, TunnelTarget};
use crate::tls::{self, TlsError};

/// Longest idle time after which a connection for calls is reused. Many servers close idle connections at 5 s.
const IDLE_CONNECTION_TTL: Duration = Duration::from_secs(4);

/// Most calls that one thread makes at the same time. Further calls queue, within their timeout. Without this limit a
/// thousand sockets that reconnect at once open a thousand connections for calls too.
const CONCURRENT_CALLS_MAX: usize = 64;

/// Clients that trust the same certificate authorities.
pub(super) struct PlatformClients {
    pub(super) calls: Client,
    /// Uploads take long. Connections of their own leave those of the calls to messages.
    pub(super) uploads: Client,
    pub(super) sockets: Client,
}

impl PlatformClients {
    /// Creates the clients for one bot, with its authorities and its proxy.
    pub(super) fn new(bot: &BotConfig, resolve: &DnsResolver) -> Result<Rc<Self>, TlsError> {
        let route = bot.proxy.as_ref().map(|proxy| ProxyRoute::new(proxy, TCP_TIMEOUT)).transpose()?;
        let proxy = route.map(|route| ProxiedConnect { route, target: TunnelTarget::Host });
        Ok(Self::with(&tls::client(bot.ca.as_deref())?, resolve, proxy.as_ref()))
    }

    pub(super) fn with(
        tls: &Arc<rustls::ClientConfig>,
        resolve: &DnsResolver,
        proxy: Option<&ProxiedConnect>,
    ) -> Rc<Self> {
        Rc::new(Self {
            calls: client(tls, resolve, proxy, CONCURRENT_CALLS_MAX, "application/json"),
            uploads: client(tls, resolve, proxy, 0, "application/json"),
            sockets: client(tls, resolve, proxy, 0, "*/*"),
        })
    }
}

/// Builds an awc client with the settings of this file. A `limit` of 0 means no limit. Sockets and uploads have no limit
/// here, because the hub limits the conversations, and HTTP the uploads. `accept` is the header that firewalls expect of each
/// request.
fn client(
    tls: &Arc<rustls::ClientConfig>,
    resolve: &DnsResolver,
    proxy: Option<&ProxiedConnect>,
    limit: usize,
    accept: &'static str,
) -> Client {
    let connector = awc::Connector::new()
        .connector(tcp::connector(Rc::clone(resolve), Ok, proxy.cloned()))
        .rustls_0_23(Arc::clone(tls))
        .limit(limit)
        .timeout(TCP_TIMEOUT)
        .handshake_timeout(TLS_TIMEOUT)
        .conn_keep_alive(IDLE_CONNECTION_TTL);
    ClientBuilder::new()
        .connector(connector)
        .disable_redirects()
        .disable_timeout()
        .add_default_header((header::USER_AGENT, concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"))))
        .add_default_header((header::ACCEPT, accept))
        // No body is decompressed here.
        .add_default_header((header::ACCEPT_ENCODING, "identity"))
        .finish()
}
