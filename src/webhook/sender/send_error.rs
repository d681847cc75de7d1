//! Why no answer came, in sentences that people read in a list of deliveries.
//!
//! They name the host and the address, which the target leads to, and nothing else of what was sent or received.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use actix_http::error::ParseError;
use awc::error::{ConnectError, SendRequestError};
use rustls::CertificateError;
use url::Url;

use super::guarded_connect::NotPublicAddress;

/// Why there is no answer. What it says is kept with the delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::webhook) enum SendError {
    /// The host is, or resolves to, what no delivery may go to.
    #[error("the address {0} is not public; webhooks.allow_private lists those that are fine all the same")]
    NotPublic(IpAddr),
    /// The target cannot be posted to.
    #[error("the target is no URL to post to: http or https, a host, and no credentials in it")]
    Url,
    /// A certificate names no IPv6 address in brackets.
    #[error("https to an IPv6 address cannot be checked; give the receiver a name")]
    NoTlsName,
    /// The resolver knows no address.
    #[error("the name {0} does not resolve")]
    Name(Box<str>),
    /// No connection in time.
    #[error("no connection within {} s", .0.as_secs_f32())]
    ConnectDeadline(Duration),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Deadline(Duration),
    /// Nobody listens.
    #[error("the connection was refused")]
    Refused,
    /// The network knows no way, or something in it cut the connection while it was opened.
    #[error("the connection could not be opened: {0}")]
    Network(io::ErrorKind),
    /// The connection ended before the first byte of an answer.
    #[error("the connection was closed without an answer")]
    HungUp,
    /// The connection ended within the head of an answer.
    #[error("the connection was closed in the middle of the answer")]
    Half,
    /// Nobody that is trusted signed the certificate.
    #[error("the certificate is not trusted: it leads to no known authority; webhooks.ca_file adds more")]
    Authority,
    /// It is another host's certificate.
    #[error("the certificate is not one of {0}")]
    CertificateName(Box<str>),
    /// It is not yet or no longer valid.
    #[error("the certificate has expired, or is not valid yet")]
    CertificateTime,
    /// Something else is wrong with the certificate.
    #[error("the certificate is not valid")]
    Certificate,
    /// The other side does not speak TLS, or none that is safe.
    #[error("the TLS handshake failed")]
    Handshake,
    /// What came is no answer.
    #[error("the answer is not HTTP/1.1, or its head is too large")]
    NotHttp,
}

impl SendError {
    /// Whether nothing was sent, for a reason that is ours.
    pub(in crate::webhook) const fn is_ours(&self) -> bool {
        matches!(self, Self::NotPublic(_) | Self::Url | Self::NoTlsName)
    }

    /// What awc's error means; `deadline` is that of connecting.
    pub(super) fn of(error: SendRequestError, url: &Url, deadline: Duration) -> Self {
        match error {
            SendRequestError::Url(_) | SendRequestError::Http(_) => Self::Url,
            SendRequestError::Connect(error) => Self::of_connecting(error, url, deadline),
            SendRequestError::Response(ParseError::Io(error)) | SendRequestError::Send(error) => {
                // awc's word for an end amid a head is an error of no kind.
                if error.kind() == io::ErrorKind::Other { Self::Half } else { Self::HungUp }
            }
            _ => Self::NotHttp,
        }
    }

    fn of_connecting(error: ConnectError, url: &Url, deadline: Duration) -> Self {
        let host = || url.host_str().unwrap_or_default().into();
        match error {
            ConnectError::Resolver(_) | ConnectError::NoRecords | ConnectError::Unresolved => {
                Self::Name(host())
            }
            ConnectError::Timeout => Self::ConnectDeadline(deadline),
            ConnectError::Disconnected => Self::HungUp,
            ConnectError::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::Refused,
                io::ErrorKind::TimedOut => Self::ConnectDeadline(deadline),
                // The only input that is checked there is the name for TLS.
                io::ErrorKind::InvalidInput => Self::NoTlsName,
                kind => error.into_inner().map_or(Self::Network(kind), |inner| {
                    if let Some(NotPublicAddress(address)) = inner.downcast_ref() {
                        Self::NotPublic(*address)
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
            E::UnknownIssuer => Self::Authority,
            E::NotValidForName | E::NotValidForNameContext { .. } => Self::CertificateName(host()),
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
                Self::CertificateTime
            }
            _ => Self::Certificate,
        }
    }
}
