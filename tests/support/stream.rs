//! A caller that reads a stream of events byte by byte.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Caller, Request};

/// An open stream. A drop hangs up.
pub(crate) struct Stream {
    connection: TcpStream,
    /// The lines of the response's head.
    pub(crate) head: Vec<String>,
    /// The received bytes, chunked.
    inbox: Vec<u8>,
    /// The decoded text that is not read yet.
    text: String,
    ended: bool,
    /// The last `id` that was read.
    pub(crate) last_id: Option<String>,
}

/// An event with data.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Caller {
    /// Opens a stream of a conversation's events.
    pub(crate) async fn events(self, target: &str) -> Stream {
        self.events_with(Request::get(target)).await
    }

    /// Opens a stream by a request with headers.
    pub(crate) async fn events_with(self, request: Request) -> Stream {
        self.try_events_with(request).await.unwrap()
    }

    /// Opens a stream at a server that may go away.
    pub(crate) async fn try_events_with(self, request: Request) -> io::Result<Stream> {
        let stream = Stream::open(self, request.header("Accept", "text/event-stream")).await?;
        assert_eq!(stream.head[0], "HTTP/1.1 200 OK");
        Ok(stream)
    }
}

impl Stream {
    async fn open(caller: Caller, request: Request) -> io::Result<Self> {
        let mut connection = TcpStream::connect(caller.0).await?;
        connection.write_all(&request.into_bytes(caller.0)).await?;
        let mut inbox = Vec::new();
        let head = loop {
            if let Some(at) = inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = inbox.split_off(at + 4);
                break String::from_utf8(std::mem::replace(&mut inbox, rest)).unwrap();
            }
            if connection.read_buf(&mut inbox).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = head.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
        Ok(Self { connection, head, inbox, text: String::new(), ended: false, last_id: None })
    }

    /// Decodes the received part of the chunked body.
    fn unpack(&mut self) {
        while let Some(at) = self.inbox.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.inbox[..at]).unwrap(), 16).unwrap();
            let end = at + 2 + size;
            if self.inbox.len() < end + 2 {
                return;
            }
            self.text.push_str(std::str::from_utf8(&self.inbox[at + 2..end]).unwrap());
            self.ended |= size == 0;
            self.inbox.drain(..end + 2);
        }
    }

    /// Returns the next block without its final empty line, or `None` at the end of the stream.
    pub(crate) async fn block(&mut self) -> Option<String> {
        self.try_block().await.unwrap()
    }

    async fn try_block(&mut self) -> io::Result<Option<String>> {
        loop {
            self.unpack();
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(id) = block.lines().find_map(|line| line.strip_prefix("id: ")) {
                    self.last_id = Some(id.to_owned());
                }
                return Ok(Some(block));
            }
            if self.ended {
                assert_eq!(self.text, "", "it ends in the middle of an event");
                return Ok(None);
            }
            if self.connection.read_buf(&mut self.inbox).await? == 0 {
                return Err(io::Error::other("the connection broke off in the middle of a stream"));
            }
        }
    }

    /// Returns the next event with data, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.try_next().await.unwrap()
    }

    /// Returns the next event from a server that may go away.
    pub(crate) async fn try_next(&mut self) -> io::Result<Option<Event>> {
        loop {
            let Some(block) = self.try_block().await? else { return Ok(None) };
            let field = |name: &str| {
                let mut values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let value = values.next();
                assert_eq!(values.next(), None, "{name} stands twice in {block}");
                value
            };
            if let Some(data) = field("data") {
                let data = serde_json::from_str(data).unwrap();
                let kind = field("event").unwrap().to_owned();
                return Ok(Some(Event { id: field("id").map(str::to_owned), kind, data }));
            }
        }
    }

    /// Returns the data of the next event, which must be of this type. Events of the platform may come before it.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            let mut next =
                async || self.next().await.unwrap_or_else(|| panic!("{place}: no {kind}, the stream ended"));
            let mut event = next().await;
            while event.kind == "platform" && kind != "platform" {
                event = next().await;
            }
            assert_eq!(event.kind, kind, "{place}: {event:?}");
            assert_eq!(event.data["type"], kind, "{place}: {event:?}");
            event.data["data"].clone()
        }
    }

    /// Reads past the first comment, to the current end of the stream.
    pub(crate) async fn begun(mut self) -> Self {
        while self.last_id.is_none() {
            self.block().await.unwrap();
        }
        self
    }
}
