//! The handle of one open web socket: what anybody may do to it, from any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use actix_ws::{CloseCode, CloseReason, Item, Session as Wire};
use tokio::sync::Notify;

use super::behaviour::Framing;
use super::connection_cut::Knife;
use super::observations::Ending;
use super::step::Cut;

/// One open web socket.
pub(super) struct Socket {
    pub(super) id: u64,
    wire: Wire,
    knife: Arc<Knife>,
    hung: AtomicBool,
    /// Told when the socket hangs.
    pub(super) hang: Notify,
    /// Set where the platform ends it.
    pub(super) ending: OnceLock<Ending>,
}

impl Socket {
    pub(super) fn new(id: u64, wire: Wire, knife: Arc<Knife>) -> Self {
        Self { id, wire, knife, hung: AtomicBool::new(false), hang: Notify::new(), ending: OnceLock::new() }
    }

    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Acquire)
    }

    /// Sends a frame. A socket that is gone or hung swallows it.
    pub(super) async fn send(&self, framing: Framing, frame: &str) {
        if self.is_hung() || self.knife.is_used() {
            return;
        }
        let mut wire = self.wire.clone();
        let _gone = match framing {
            Framing::Text => wire.text(frame.to_owned()).await,
            Framing::Binary => wire.binary(frame.as_bytes().to_vec()).await,
            Framing::Fragments(size) => {
                let pieces: Vec<&[u8]> = frame.as_bytes().chunks(size.max(1)).collect();
                let last = pieces.len().saturating_sub(1);
                if last == 0 {
                    let _gone = wire.text(frame.to_owned()).await;
                    return;
                }
                for (n, piece) in pieces.into_iter().enumerate() {
                    let piece = piece.to_vec().into();
                    let item = match n {
                        0 => Item::FirstText(piece),
                        n if n == last => Item::Last(piece),
                        _ => Item::Continue(piece),
                    };
                    if wire.continuation(item).await.is_err() {
                        return;
                    }
                }
                Ok(())
            }
        };
    }

    pub(super) async fn send_binary(&self, bytes: Vec<u8>) {
        if !self.is_hung() {
            let _gone = self.wire.clone().binary(bytes).await;
        }
    }

    pub(super) async fn pong(&self, payload: &[u8]) {
        let _gone = self.wire.clone().pong(payload).await;
    }

    /// Closes with a code, or with a close frame that has none.
    pub(super) async fn close(&self, code: Option<u16>, reason: &str) {
        let _first = self.ending.set(Ending::ByPlatform(code));
        let reason = code.map(|code| CloseReason {
            code: CloseCode::from(code),
            description: (!reason.is_empty()).then(|| reason.to_owned()),
        });
        let _gone = self.wire.clone().close(reason).await;
    }

    /// Answers the client's close with the same code.
    pub(super) async fn close_in_return(&self, reason: Option<CloseReason>) {
        let _gone = self.wire.clone().close(reason).await;
    }

    pub(super) fn cut(&self, how: Cut) {
        let _first = self.ending.set(Ending::Cut);
        self.knife.cut(how);
    }

    /// Waits until the connection is gone.
    pub(super) async fn gone(&self) {
        self.knife.gone().await;
    }

    /// Stops reading and answering.
    pub(super) fn hang(&self) {
        self.hung.store(true, Ordering::Release);
        self.hang.notify_one();
    }
}
