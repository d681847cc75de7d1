//! A small web socket client over plain TCP, as light as the HTTP client.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench_error::BenchError;

const WHAT: &str = "the web socket";
/// The first byte of a final text frame (RFC 6455 5.2).
const TEXT: u8 = 0x81;
const PONG: u8 = 0x8A;

/// One connection.
pub(crate) struct TextSocket {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

/// A frame in the inbox: its kind and the range of its payload.
struct FrameSpan {
    opcode: u8,
    begin: usize,
    end: usize,
}

impl TextSocket {
    /// Upgrades a new connection on this path.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, inbox: Vec::with_capacity(2048), outbox: Vec::with_capacity(512) };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.stream.write_all(request.as_bytes()).await?;
        let head = loop {
            if let Some(at) = socket.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            socket.read().await?;
        };
        if !socket.inbox.starts_with(b"HTTP/1.1 101 ") {
            return Err(BenchError::Unreadable { what: WHAT, detail: "no 101" });
        }
        socket.inbox.drain(..head);
        Ok(socket)
    }

    /// Sends a text.
    pub(crate) async fn say(&mut self, text: &str) -> Result<(), BenchError> {
        self.send(TEXT, text.as_bytes()).await
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<(), BenchError> {
        const MASKED: u8 = 0x80;
        const LENGTH_IN_TWO_BYTES: u8 = 0x7E;
        self.outbox.clear();
        self.outbox.push(kind);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short), _) if short < LENGTH_IN_TWO_BYTES => self.outbox.push(MASKED | short),
            (_, Ok(medium)) => {
                self.outbox.push(MASKED | LENGTH_IN_TWO_BYTES);
                self.outbox.extend(medium.to_be_bytes());
            }
            _ => return Err(BenchError::Unreadable { what: WHAT, detail: "we never say that much" }),
        }
        // A mask of zeros does not change the payload. The server unmasks it anyway.
        self.outbox.extend([0; 4]);
        self.outbox.extend(payload);
        self.stream.write_all(&self.outbox).await?;
        Ok(())
    }

    /// Reads frames up to the first text with this sign.
    pub(crate) async fn until(&mut self, sign: &[u8]) -> Result<(), BenchError> {
        loop {
            let frame = loop {
                match self.frame() {
                    Some(frame) => break frame,
                    None => self.read().await?,
                }
            };
            let payload = self.inbox.get(frame.begin..frame.end).unwrap_or_default();
            let found = frame.opcode == 1 && payload.windows(sign.len()).any(|window| window == sign);
            let ping = (frame.opcode == 9).then(|| payload.to_vec());
            self.inbox.drain(..frame.end);
            if let Some(payload) = ping {
                self.send(PONG, &payload).await?;
            }
            if frame.opcode == 8 {
                return Err(BenchError::Closed { what: WHAT });
            }
            if found {
                return Ok(());
            }
        }
    }

    /// Returns the first complete frame of the inbox. Servers do not mask.
    fn frame(&self) -> Option<FrameSpan> {
        let [first, second, rest @ ..] = self.inbox.as_slice() else { return None };
        let (begin, length) = match second & 0x7F {
            126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
            short => (2, usize::from(short)),
        };
        let end = begin + length;
        (self.inbox.len() >= end).then_some(FrameSpan { opcode: first & 0x0F, begin, end })
    }

    async fn read(&mut self) -> Result<(), BenchError> {
        if self.stream.read_buf(&mut self.inbox).await? == 0 {
            return Err(BenchError::Closed { what: WHAT });
        }
        Ok(())
    }
}
