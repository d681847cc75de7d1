//! The reasons why no response came, as texts for the list of deliveries.
//!
//! The texts name the host and the address of the target, and no other content of the exchange.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{ConnectError, SendRequestError};
use rustls::CertificateError;
use url::Url;

use super::guarded_connect::NotPublicAddress;
use crate::tcp::ProxyError;

/// The reason why there is no response. The text is stored with the delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::webhook) enum SendError {
    /// The address of the host is not allowed.
    #[error(
        "the address {0} is not public; webhooks.allow_private lists the private ranges that are allowed"
    )]
    NotPublic(IpAddr),
    /// The target cannot be posted to.
    #[error("the target is not a valid URL: it needs http or https, a host, and no credentials")]
    Url,
    /// A certificate names no IPv6 address in brackets.
    #[error("the certificate of an IPv6 address cannot be checked; give the receiver a name")]
    NoTlsName,
    /// The resolver found no address.
    #[error("the name {0} does not resolve")]
    UnknownHost(Box<str>),
    /// The connection timed out.
    #[error("no connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    /// The response timed out.
    #[error("no answer within {} s", .0.as_secs_f32())]
    ResponseTimeout(Duration),
    /// The proxy of `webhooks.proxy` opened no connection.
    #[error("{0}")]
    Proxy(Box<str>),
    /// The port is closed.
    #[error("the connection was refused")]
    ConnectionRefused,
    /// The network has no route, or cut the connection during its setup.
    #[error("the connection could not be opened: {0}")]
    Network(io::ErrorKind),
    /// The connection ended before the first byte of a response.
    #[error("the connection was closed without an answer")]
    ConnectionClosed,
    /// The connection ended within the head of a response.
    #[error("the connection was closed in the middle of the answer")]
    IncompleteHead,
    /// No trusted authority signed the certificate.
    #[error("the certificate is not trusted: its authority is unknown; webhooks.ca_file adds authorities")]
    UnknownAuthority,
    /// The certificate belongs to another host.
    #[error("the certificate does not belong to {0}")]
    CertificateName(Box<str>),
    /// The certificate is not yet or no longer valid.
    #[error("the certificate has expired, or is not valid yet")]
    CertificateTime,
    /// The certificate has another fault.
    #[error("the certificate is not valid")]
    Certificate,
    /// The receiver does not speak TLS, or only an unsafe version.
    #[error("the TLS handshake failed")]
    Handshake,
    /// The response is not HTTP.
    #[error("the answer is not HTTP/1.1, or its head is too large")]
    NotHttp,
}

impl SendError {
    /// Returns whether no request was sent for a reason on our side.
    pub(in crate::webhook) const fn is_ours(&self) -> bool {
        matches!(self, Self::NotPublic(_) | Self::Url | Self::NoTlsName)
    }

    /// Translates an error of awc. `timeout` is the one for connecting.
    pub(super) fn of(error: SendRequestError, url: &Url, timeout: Duration) -> Self {
        match error {
            SendRequestError::Url(_) | SendRequestError::Http(_) => Self::Url,
            SendRequestError::Connect(error) => Self::of_connecting(error, url, timeout),
            SendRequestError::Response(ParseError::Io(error)) | SendRequestError::Send(error) => {
                // awc reports an end within a head as an error of kind `Other`.
                if error.kind() == io::ErrorKind::Other {
                    Self::IncompleteHead
                } else {
                    Self::ConnectionClosed
                }
            }
            _ => Self::NotHttp,
        }
    }

    fn of_connecting(error: ConnectError, url: &Url, timeout: Duration) -> Self {
        let host = || url.host_str().unwrap_or_default().into();
        match error {
            ConnectError::Resolver(_) | ConnectError::NoRecords | ConnectError::Unresolved => {
                Self::UnknownHost(host())
            }
            ConnectError::Timeout => Self::ConnectTimeout(timeout),
            ConnectError::Disconnected => Self::ConnectionClosed,
            ConnectError::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::ConnectionRefused,
                io::ErrorKind::TimedOut => Self::ConnectTimeout(timeout),
                // Only the TLS name can be invalid input here.
                io::ErrorKind::InvalidInput => Self::NoTlsName,
                kind => error.into_inner().map_or(Self::Network(kind), |inner| {
                    if let Some(NotPublicAddress(address)) = inner.downcast_ref() {
                        Self::NotPublic(*address)
                    } else if let Some(error) = inner.downcast_ref::<ProxyError>() {
                        Self::Proxy(error.to_string().into())
                    } else if let Some(error) = inner.downcast_ref() {
                        Self::of_tls(error, host)
                    } else {
                        Self::Network(kind)
                    }
                }),
            },
            _ => Self::NotHttp,
        }
    }

    fn of_tls(error: &rustls::Error, host: impl FnOnce() -> Box<str>) -> Self {
        use CertificateError as E;
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Handshake };
        match error {
            E::UnknownIssuer => Self::UnknownAuthority,
            E::NotValidForName | E::NotValidForNameContext { .. } => Self::CertificateName(host()),
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
                Self::CertificateTime
            }
            _ => Self::Certificate,
        }
    }
}
