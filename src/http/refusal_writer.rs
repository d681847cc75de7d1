//! A connection that turns the HTTP server's own refusals into problems.
//!
//! The server answers a malformed, oversized or late head by itself, before any handler, with an empty body and without a
//! hook. Such a refusal is always the end of what the server writes, and no handler answers these statuses with an empty
//! body. So it can be told by its bytes, and replaced.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::MessageBody as _;
use actix_web::http::header::HeaderMap;
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::api_error::{self, ApiError, FieldErrors};
use super::trace_context::TraceContext;
use crate::domain::ProblemKind;
use crate::metrics::Metrics;

/// The bytes of the server behind the version, with the kind of their replacement.
const REFUSALS: [(&[u8], ProblemKind); 4] = [
    (b" 400 Bad Request\r\ncontent-length: 0\r\n", ProblemKind::InvalidRequest),
    (b" 408 Request Timeout\r\ncontent-length: 0\r\n", ProblemKind::RequestTimeout),
    (b" 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n", ProblemKind::HeadTooLarge),
    (b" 500 Internal Server Error\r\ncontent-length: 0\r\n", ProblemKind::Internal),
];

const VERSIONS: [&[u8]; 2] = [b"HTTP/1.1", b"HTTP/1.0"];

/// More bytes than a refusal of the server has.
const MAX_REFUSAL_BYTES: usize = 512;

/// A connection of the server.
pub(super) struct RefusalWriter<C> {
    pub(super) connection: C,
    metrics: Arc<Metrics>,
    /// The rest of a refusal that the socket has not taken yet.
    rest: BytesMut,
}

impl<C> RefusalWriter<C> {
    pub(super) fn new(connection: C, metrics: Arc<Metrics>) -> Self {
        Self { connection, metrics, rest: BytesMut::new() }
    }
}

impl<C: AsyncWrite + Unpin> RefusalWriter<C> {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut self.connection).poll_write(cx, &self.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.rest.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Finds a refusal of the server at the end of what it writes.
fn find_refusal(written: &[u8]) -> Option<(usize, ProblemKind)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let last = written.len().saturating_sub(MAX_REFUSAL_BYTES);
    let tail = written.get(last..)?;
    let at = tail.windows(VERSIONS[0].len()).rposition(|window| VERSIONS.contains(&window))?;
    let behind = tail.get(at + VERSIONS[0].len()..)?;
    let (_, kind) = REFUSALS.iter().find(|(start, _)| behind.starts_with(start))?;
    Some((last + at, *kind))
}

/// Returns the problem of a refusal.
fn problem(kind: ProblemKind) -> ApiError {
    match kind {
        ProblemKind::RequestTimeout => ApiError::new(
            kind,
            "The head of the request did not arrive in time. Send it at once, over a new connection.",
        ),
        ProblemKind::HeadTooLarge => {
            ApiError::new(kind, "The head of the request is over 128 KiB or has over 96 headers. Send less.")
        }
        ProblemKind::Internal => api_error::internal(),
        _ => {
            let mut errors = FieldErrors::default();
            errors.add("head", "must be HTTP/1.1; this one, or the framing of its body, is malformed");
            errors.into()
        }
    }
}

/// Returns a head of the server with the problem as its body.
fn with_problem(head: &[u8], kind: ProblemKind) -> Vec<u8> {
    let trace = TraceContext::from_headers(&HeaderMap::new());
    let response = problem(kind).response("/", trace);
    // The body is in memory, so it is complete.
    let body = response.into_body().try_into_bytes().unwrap_or_default();
    tracing::debug!(trace_id = %trace, "error.type" = kind.slug(), "a malformed request is refused");
    let mut whole = Vec::with_capacity(head.len() + 160 + body.len());
    let mut lines = head.split_inclusive(|&byte| byte == b'\n').filter(|line| line.len() > 2);
    whole.extend_from_slice(lines.next().unwrap_or_default());
    // Its own lines about body and connection are replaced: the server closes the connection.
    for line in
        lines.filter(|line| !line.starts_with(b"content-length:") && !line.starts_with(b"connection:"))
    {
        whole.extend_from_slice(line);
    }
    let own = format!(
        "content-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    whole.extend_from_slice(own.as_bytes());
    whole.extend_from_slice(&body);
    whole
}

/// Returns the refusal of a head that is late behind an answer. The server itself watches the first head only.
pub(super) fn late_head() -> Vec<u8> {
    with_problem(b"HTTP/1.1 408 Request Timeout\r\n", ProblemKind::RequestTimeout)
}

impl<C: AsyncRead + Unpin> AsyncRead for RefusalWriter<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, to)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for RefusalWriter<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.rest.is_empty() {
            ready!(self.poll_rest(cx))?;
        }
        let Some((at, kind)) = find_refusal(bytes) else {
            return Pin::new(&mut self.connection).poll_write(cx, bytes);
        };
        let (before, head) = bytes.split_at(at);
        self.rest.extend_from_slice(before);
        self.rest.extend_from_slice(&with_problem(head, kind));
        self.metrics.malformed_request(kind.status());
        // The flush writes what the socket does not take now.
        if let Poll::Ready(Err(error)) = self.poll_rest(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::ROUTES;
    use crate::metrics::LabelSets;

    const EARLIER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    fn refusal(status: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\ndate: today\r\n\r\n").into_bytes()
    }

    #[test]
    fn only_refusals_of_the_server_are_found() {
        let found = |bytes: &[u8]| find_refusal(bytes).map(|(at, kind)| (at, kind.status()));
        assert_eq!(found(&refusal("400 Bad Request")), Some((0, 400)));
        assert_eq!(found(&[EARLIER, &refusal("408 Request Timeout")].concat()), Some((EARLIER.len(), 408)));
        let old = refusal("431 Request Header Fields Too Large");
        assert_eq!(found(&[b"HTTP/1.0", &old[8..]].concat()), Some((0, 431)));
        for other in [
            EARLIER,
            b"",
            b"\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 210\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            &refusal("400 Bad Request")[..30],
            &[refusal("400 Bad Request").as_slice(), b"x"].concat(),
        ] {
            assert_eq!(found(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[tokio::test]
    async fn slow_socket_gets_the_whole_problem() {
        let metrics = LabelSets { frames_in: &[], frames_out: &[], routes: ROUTES };
        let metrics = Arc::new(Metrics::new(metrics).unwrap());
        // The pipe holds a few bytes at a time.
        let (ours, mut theirs) = tokio::io::duplex(7);
        let mut writer = RefusalWriter::new(ours, Arc::clone(&metrics));
        let write = async {
            writer.write_all(&[EARLIER, &refusal("400 Bad Request")].concat()).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(theirs.read_to_string(&mut text), write);
        read.unwrap();
        let rest = text.strip_prefix(std::str::from_utf8(EARLIER).unwrap()).unwrap();
        let (head, body) = rest.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ndate: today\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["type"], "/problems/invalid-request");
        assert_eq!(problem["errors"][0]["pointer"], "head");
        let counted = r#"rtm_bridge_malformed_requests_total{code="400"} 1"#;
        assert!(metrics.text().unwrap().contains(counted));
    }
}
