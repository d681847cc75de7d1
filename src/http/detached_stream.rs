//! The body of a stream whose connection has left the HTTP server, as chunks on its socket.
//!
//! Between two events this is only the socket and the body.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Write as _};
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, MessageBody as _};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

use super::caller_socket::CallerSocket;
use super::connection_limits::ConnectionLimits;
use super::connection_progress::CutReason;
use super::detachable_connection::{WRITE_MAX, reset};

/// The chunk that ends a body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes a body until its end, or until the caller leaves or takes no bytes.
pub(super) async fn write(
    mut socket: CallerSocket,
    mut body: BoxBody,
    limits: &ConnectionLimits,
) -> io::Result<()> {
    loop {
        let next = poll_fn(|cx| {
            if socket.poll_closed(cx).is_ready() {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            poll_chunks(&mut body, cx)
        });
        let (frame, more) = next.await?;
        if let Err(error) = write_frame(&mut socket, &frame, limits).await {
            if error.kind() == ErrorKind::TimedOut {
                limits.count_close(CutReason::Stalled);
                reset(&socket);
            }
            return Err(error);
        }
        if !more {
            return socket.shutdown().await;
        }
    }
}

/// Writes bytes as long as the caller takes some within the span of [`ConnectionTimeouts::stall`].
///
/// [`ConnectionTimeouts::stall`]: super::connection_progress::ConnectionTimeouts::stall
async fn write_frame(socket: &mut CallerSocket, frame: &[u8], limits: &ConnectionLimits) -> io::Result<()> {
    let mut rest = frame;
    let mut since = None;
    // Scarcity is looked for from time to time, because its begin is not told.
    let look = limits.timeouts.stall_scarce / 4;
    loop {
        // Behind the last byte the flush ends when the system has all of them.
        let step = async {
            if rest.is_empty() {
                socket.flush().await.map(|()| None)
            } else {
                socket.write(rest).await.map(Some)
            }
        };
        match timeout(look, step).await {
            Ok(Ok(Some(written))) => {
                rest = rest.get(written..).unwrap_or_default();
                since = None;
                continue;
            }
            Ok(end) => return end.map(drop),
            Err(_) => {}
        }
        let stalled = since.get_or_insert_with(|| Instant::now() - look).elapsed();
        let scarce = limits.are_scarce() && stalled >= limits.timeouts.stall_scarce;
        if scarce || stalled >= limits.timeouts.stall {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Collects the chunks that are ready, up to one write. The flag says whether more may follow.
fn poll_chunks(body: &mut BoxBody, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, bool)>> {
    let mut frame = Vec::new();
    while frame.len() < WRITE_MAX {
        match body.as_pin_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(piece))) => write_chunk(&piece, &mut frame)?,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error.to_string()))),
            Poll::Ready(None) => {
                frame.extend_from_slice(LAST_CHUNK);
                return Poll::Ready(Ok((frame, false)));
            }
            Poll::Pending if frame.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok((frame, true)))
}

/// Writes a chunk. An empty chunk would end the body, so it is skipped.
fn write_chunk(piece: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    if !piece.is_empty() {
        write!(frame, "{:x}\r\n", piece.len())?;
        frame.extend_from_slice(piece);
        frame.extend_from_slice(b"\r\n");
    }
    Ok(())
}
