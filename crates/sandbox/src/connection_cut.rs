//! A response body that can be cut, so that a socket can end without a close frame.

use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::step::Cut;

const WHOLE: u8 = 0;
const FIN: u8 = 1;
const RESET: u8 = 2;

/// The knife of one socket.
pub(super) struct Knife {
    state: AtomicU8,
    waker: AtomicWaker,
    /// A second descriptor of the connection, where resets are wanted.
    connection: Mutex<Option<TcpStream>>,
    /// Told when the body is gone, and the connection with it.
    gone: Notify,
}

impl Knife {
    pub(super) fn new(connection: Option<TcpStream>) -> Self {
        Self {
            state: AtomicU8::new(WHOLE),
            waker: AtomicWaker::new(),
            connection: Mutex::new(connection),
            gone: Notify::new(),
        }
    }

    /// Cuts; only the first cut counts.
    pub(super) fn cut(&self, how: Cut) {
        let state = if how == Cut::Fin { FIN } else { RESET };
        let _first = self.state.compare_exchange(WHOLE, state, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Waits until the connection is gone.
    pub(super) async fn gone(&self) {
        self.gone.notified().await;
    }

    pub(super) fn is_used(&self) -> bool {
        self.state.load(Ordering::Acquire) != WHOLE
    }

    /// Sends the FIN now: left alone, the server lingers for a second. Without a second descriptor it does.
    fn shut_down(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
            let _best_effort = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets the kernel answer the coming close with a reset instead of a FIN.
    fn linger_no_longer(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection
            && let Ok(connection) = tokio::net::TcpStream::from_std(connection)
        {
            let _best_effort = connection.set_zero_linger();
        }
    }
}

/// The error that makes the server drop the connection where it stands.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cut this connection on purpose")]
struct CutOnPurpose;

/// The frames to the client, until they are cut.
pub(super) struct Frames {
    inner: BoxBody,
    knife: Arc<Knife>,
    flushed: bool,
}

impl Frames {
    pub(super) fn new(inner: BoxBody, knife: Arc<Knife>) -> Self {
        Self { inner, knife, flushed: false }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // A second descriptor that lives on would keep the connection open.
        self.knife.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.knife.gone.notify_one();
    }
}

impl MessageBody for Frames {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.inner.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.knife.waker.register(cx.waker());
        match self.knife.state.load(Ordering::Acquire) {
            // What was said before still goes out.
            FIN => match Pin::new(&mut self.inner).poll_next(cx) {
                // The server flushes between two polls: what it has goes out before the FIN.
                Poll::Pending if !self.flushed => {
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => {
                    self.knife.shut_down();
                    Poll::Ready(None)
                }
                said @ Poll::Ready(_) => said,
            },
            RESET => {
                self.knife.linger_no_longer();
                Poll::Ready(Some(Err(Box::new(CutOnPurpose))))
            }
            _ => Pin::new(&mut self.inner).poll_next(cx),
        }
    }
}
