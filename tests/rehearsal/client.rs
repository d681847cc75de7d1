//! A client that keeps its connection, as the pools of HTTP libraries do, and repeats no request itself.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Answer, Request};

/// A client and its connection.
pub(super) struct Client {
    to: SocketAddr,
    kept: Option<TcpStream>,
}

impl Client {
    pub(super) const fn new(to: SocketAddr) -> Self {
        Self { to, kept: None }
    }

    /// Sends a request on the kept connection, or on a new one if the peer has closed it.
    ///
    /// # Errors
    /// No answer came. The kind is `NotConnected` if the peer closed the kept connection while the request was on its way.
    pub(super) async fn send(&mut self, request: Request) -> io::Result<Answer> {
        let (mut stream, reused) = if let Some(stream) = self.kept.take().filter(is_open) {
            (stream, true)
        } else {
            let stream = TcpStream::connect(self.to).await?;
            stream.set_nodelay(true)?;
            (stream, false)
        };
        let written = stream.write_all(&request.into_bytes(self.to)).await;
        if reused && (written.is_err() || stream.peek(&mut [0]).await.unwrap_or_default() == 0) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        written?;
        let answer = Answer::read(&mut stream, false).await?;
        if answer.header("connection") != Some("close") {
            self.kept = Some(stream);
        }
        Ok(answer)
    }
}

/// Returns whether the connection shows no close by the peer.
fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
