//! The platform's handle of an open web socket, for any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use actix_ws::{CloseCode, CloseReason, Item, Session as WsSession};
use tokio::sync::Notify;

use super::behaviour::FramingStyle;
use super::connection_cut::ConnectionCutter;
use super::observations::SocketEnd;
use super::step::CutMode;

pub(super) struct SocketHandle {
    pub(super) id: u64,
    session: WsSession,
    cutter: Arc<ConnectionCutter>,
    hung: AtomicBool,
    /// Notified when the socket hangs.
    pub(super) hang: Notify,
    /// Reason of the end, if the platform ended it.
    pub(super) ending: OnceLock<SocketEnd>,
}

impl SocketHandle {
    pub(super) fn new(id: u64, session: WsSession, cutter: Arc<ConnectionCutter>) -> Self {
        Self {
            id,
            session,
            cutter,
            hung: AtomicBool::new(false),
            hang: Notify::new(),
            ending: OnceLock::new(),
        }
    }

    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Acquire)
    }

    /// Sends a frame. A gone or hung socket drops it.
    pub(super) async fn send(&self, framing: FramingStyle, frame: &str) {
        if self.is_hung() || self.cutter.is_cut() {
            return;
        }
        let mut session = self.session.clone();
        let _gone = match framing {
            FramingStyle::Text => session.text(frame.to_owned()).await,
            FramingStyle::Binary => session.binary(frame.as_bytes().to_vec()).await,
            FramingStyle::Fragments(size) => {
                let pieces: Vec<&[u8]> = frame.as_bytes().chunks(size.max(1)).collect();
                let last = pieces.len().saturating_sub(1);
                if last == 0 {
                    let _gone = session.text(frame.to_owned()).await;
                    return;
                }
                for (n, piece) in pieces.into_iter().enumerate() {
                    let piece = piece.to_vec().into();
                    let item = match n {
                        0 => Item::FirstText(piece),
                        n if n == last => Item::Last(piece),
                        _ => Item::Continue(piece),
                    };
                    if session.continuation(item).await.is_err() {
                        return;
                    }
                }
                Ok(())
            }
        };
    }

    pub(super) async fn send_binary(&self, bytes: Vec<u8>) {
        if !self.is_hung() {
            let _gone = self.session.clone().binary(bytes).await;
        }
    }

    pub(super) async fn pong(&self, payload: &[u8]) {
        let _gone = self.session.clone().pong(payload).await;
    }

    /// Closes with a code, or with a close frame without one.
    pub(super) async fn close(&self, code: Option<u16>, reason: &str) {
        let _first = self.ending.set(SocketEnd::ByPlatform(code));
        let reason = code.map(|code| CloseReason {
            code: CloseCode::from(code),
            description: (!reason.is_empty()).then(|| reason.to_owned()),
        });
        let _gone = self.session.clone().close(reason).await;
    }

    /// Answers the client's close with the same code.
    pub(super) async fn close_in_return(&self, reason: Option<CloseReason>) {
        let _gone = self.session.clone().close(reason).await;
    }

    pub(super) fn cut(&self, how: CutMode) {
        let _first = self.ending.set(SocketEnd::Cut);
        self.cutter.cut(how);
    }

    pub(super) async fn gone(&self) {
        self.cutter.gone().await;
    }

    /// Stops reading and answering.
    pub(super) fn hang(&self) {
        self.hung.store(true, Ordering::Release);
        self.hang.notify_one();
    }
}
