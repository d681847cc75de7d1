//! A response body that can be cut, so that a socket ends without a close frame.

use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::step::CutMode;

const WHOLE: u8 = 0;
const FIN: u8 = 1;
const RESET: u8 = 2;

/// Handle that cuts one socket's connection.
pub(super) struct ConnectionCutter {
    state: AtomicU8,
    waker: AtomicWaker,
    /// A second descriptor of the connection, for resets.
    connection: Mutex<Option<TcpStream>>,
    /// Notified when the body and its connection are gone.
    gone: Notify,
}

impl ConnectionCutter {
    pub(super) fn new(connection: Option<TcpStream>) -> Self {
        Self {
            state: AtomicU8::new(WHOLE),
            waker: AtomicWaker::new(),
            connection: Mutex::new(connection),
            gone: Notify::new(),
        }
    }

    /// Cuts the connection. Only the first call counts.
    pub(super) fn cut(&self, how: CutMode) {
        let state = if how == CutMode::Fin { FIN } else { RESET };
        let _first = self.state.compare_exchange(WHOLE, state, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    pub(super) async fn gone(&self) {
        self.gone.notified().await;
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state.load(Ordering::Acquire) != WHOLE
    }

    /// Sends the FIN now, if there is a second descriptor. The server itself lingers for a second.
    fn send_fin(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
            let _best_effort = connection.shutdown(Shutdown::Both);
        }
    }

    /// Makes the kernel send a reset instead of a FIN on close.
    fn reset_on_close(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection
            && let Ok(connection) = tokio::net::TcpStream::from_std(connection)
        {
            let _best_effort = connection.set_zero_linger();
        }
    }
}

/// Error that makes the server drop the connection.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cut this connection on purpose")]
struct DeliberateCut;

/// Body with the frames to the client, until the cut.
pub(super) struct CuttableBody {
    inner: BoxBody,
    cutter: Arc<ConnectionCutter>,
    flushed: bool,
}

impl CuttableBody {
    pub(super) fn new(inner: BoxBody, cutter: Arc<ConnectionCutter>) -> Self {
        Self { inner, cutter, flushed: false }
    }
}

impl Drop for CuttableBody {
    fn drop(&mut self) {
        // A second descriptor would keep the connection open.
        self.cutter.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.cutter.gone.notify_one();
    }
}

impl MessageBody for CuttableBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.inner.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.cutter.waker.register(cx.waker());
        match self.cutter.state.load(Ordering::Acquire) {
            // Earlier frames still go out.
            FIN => match Pin::new(&mut self.inner).poll_next(cx) {
                // The server flushes between two polls, so its data goes out before the FIN.
                Poll::Pending if !self.flushed => {
                    self.flushed = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => {
                    self.cutter.send_fin();
                    Poll::Ready(None)
                }
                said @ Poll::Ready(_) => said,
            },
            RESET => {
                self.cutter.reset_on_close();
                Poll::Ready(Some(Err(Box::new(DeliberateCut))))
            }
            _ => Pin::new(&mut self.inner).poll_next(cx),
        }
    }
}
