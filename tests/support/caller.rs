//! A caller that speaks HTTP/1.1 over one connection per request and can send invalid requests.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A sender of requests to an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) SocketAddr);

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, target: impl Into<String>) -> Self {
        Self { method: method.to_owned(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// Creates the request for a message of a user.
    pub(crate) fn message(user: &str, body: &Value) -> Self {
        Self::new("POST", format!("/conversations/{user}/messages")).json(body)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn prefer(self, value: &str) -> Self {
        self.header("Prefer", value)
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body(body.to_string()).header("Content-Type", "application/json")
    }

    /// Returns the bytes on the wire.
    pub(crate) fn into_bytes(self, host: SocketAddr) -> Vec<u8> {
        let Self { method, target, headers, body } = self;
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        for (name, value) in &headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Caller {
    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(self, request: Request) -> Answer {
        self.try_send(request).await.unwrap()
    }

    /// Sends a request to a server that may go away before its answer.
    pub(crate) async fn try_send(self, request: Request) -> io::Result<Answer> {
        // The output of a failed test shows the request without an answer.
        println!("-> {request}");
        let mut stream = TcpStream::connect(self.0).await?;
        let (method, target) = (request.method.clone(), request.target.clone());
        let bytes = request.into_bytes(self.0);
        let (mut reader, mut writer) = stream.split();
        // The server does not read the rest of a body that it refuses, so the write may fail too.
        let (_written, answer) =
            tokio::join!(writer.write_all(&bytes), Answer::read(&mut reader, method == "HEAD"));
        let answer = answer?;
        println!("<- {} {target}", answer.status);
        Ok(answer)
    }

    pub(crate) async fn get(self, target: impl Into<String>) -> Answer {
        self.send(Request::get(target)).await
    }
}

impl Answer {
    /// Reads one answer to its end, from a connection without further answers.
    ///
    /// # Errors
    /// The connection ends early.
    pub(crate) async fn read(reader: &mut (impl AsyncRead + Unpin), no_body: bool) -> io::Result<Self> {
        let more = |size| if size == 0 { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(()) };
        let mut inbox = Vec::new();
        let head = loop {
            if let Some(at) = inbox.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            more(reader.read_buf(&mut inbox).await?)?;
        };
        let text = String::from_utf8(inbox[..head].to_vec()).unwrap();
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: inbox.split_off(head) };
        let length =
            if no_body { 0 } else { answer.header("content-length").map_or(0, |l| l.parse().unwrap()) };
        while answer.body.len() < length {
            more(reader.read_buf(&mut answer.body).await?)?;
        }
        Ok(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Returns the Message of an answer with this status.
    #[track_caller]
    pub(crate) fn message(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self}");
        self.json()
    }

    /// Returns the Problem of an answer with this status and slug, and checks the common form of failures.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{self}");
        assert_eq!(problem["status"], status, "{self}");
        for field in ["title", "detail", "instance"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {self}");
        }
        let trace = problem["traceId"].as_str().unwrap();
        assert!(trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit()), "{self}");
        assert_eq!(problem.get("errors").is_some(), status == 400, "{self}");
        problem
    }

    /// Returns the whole seconds of `Retry-After`.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> u64 {
        self.header("retry-after").unwrap_or_else(|| panic!("no Retry-After: {self}")).parse().unwrap()
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}
