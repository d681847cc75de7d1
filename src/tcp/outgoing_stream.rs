//! The connection that awc's clients get: plain TCP, or TCP within TLS to an `https` proxy.
//!
//! TLS with the target itself is awc's, above this stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_rt::net::{ActixStream, Ready};
use actix_tls::connect::rustls_0_23::reexports::AsyncTlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// An open connection to a target, or to a proxy that forwards to it.
#[derive(Debug)]
pub enum OutgoingStream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TCP within TLS to the proxy.
    Encrypted(Box<AsyncTlsStream<TcpStream>>),
}

impl OutgoingStream {
    /// Returns the TCP connection below.
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Encrypted(stream) => stream.get_ref().0,
        }
    }
}

/// Calls a method of the stream within.
macro_rules! forward {
    ($stream:expr, $method:ident, $cx:expr $(, $argument:expr)*) => {
        match $stream.get_mut() {
            OutgoingStream::Plain(stream) => Pin::new(stream).$method($cx $(, $argument)*),
            OutgoingStream::Encrypted(stream) => Pin::new(stream.as_mut()).$method($cx $(, $argument)*),
        }
    };
}

impl AsyncRead for OutgoingStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for OutgoingStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write_vectored, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Encrypted(stream) => stream.is_write_vectored(),
        }
    }
}

impl ActixStream for OutgoingStream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.tcp(), cx)
    }
}
