//! A small HTTP/1.1 client: one connection, one request at a time, answers with a Content-Length.
//!
//! It is smaller than any library, so that the measured processes get the CPU.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench_error::BenchError;

/// An answer.
pub(crate) struct HttpAnswer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// A kept-alive connection.
pub(crate) struct HttpConnection {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Whether the server announced that it closes the connection.
    ends: bool,
}

/// The name of the peer in errors.
const WHAT: &str = "the HTTP server";

impl HttpConnection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbox: Vec::with_capacity(4096), ends: false })
    }

    /// Returns whether the server has closed the connection. A caller checks it before reuse.
    pub(crate) fn is_closed(&self) -> bool {
        self.ends
            || !matches!(self.stream.try_read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Writes the request and reads the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<HttpAnswer<'_>, BenchError> {
        self.stream.write_all(request).await?;
        self.inbox.clear();
        let head = loop {
            if let Some(at) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let (status, length, ends) = {
            let text = std::str::from_utf8(self.inbox.get(..head).unwrap_or_default())
                .map_err(|_| BenchError::Unreadable { what: WHAT, detail: "the head is not UTF-8" })?;
            read_head(text)?
        };
        self.ends = ends;
        while self.inbox.len() < head + length {
            self.read().await?;
        }
        Ok(HttpAnswer { status, body: self.inbox.get(head..head + length).unwrap_or_default() })
    }

    async fn read(&mut self) -> Result<(), BenchError> {
        if self.stream.read_buf(&mut self.inbox).await? == 0 {
            return Err(BenchError::Closed { what: WHAT });
        }
        Ok(())
    }
}

/// Returns status, Content-Length, and whether the server closes the connection.
fn read_head(head: &str) -> Result<(u16, usize, bool), BenchError> {
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .ok_or(BenchError::Unreadable { what: WHAT, detail: "no status line" })?;
    let (mut length, mut ends) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            ends = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length.ok_or(BenchError::Unreadable { what: WHAT, detail: "no Content-Length" })?;
    Ok((status, length, ends))
}
