//! A scripted receiver on loopback for the tests of this layer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::sender::DeliverySender;
use crate::config::WebhooksConfig;
use crate::domain::fixtures::{conversation, raw_json};
use crate::domain::{DeliveryId, DeliveryKind, DeliveryOrigin, NewDelivery, Timestamp, TraceId};
use crate::runtime::fixtures::spawn;
use crate::store::ClaimedDelivery;
use crate::tls::fixtures;

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_987);
pub(super) const HAPPENED: Timestamp = Timestamp::from_millis(1_794_999_999_001);
/// The authority that signed the certificate of [`server_tls`].
pub(super) const CA: &[u8] = include_bytes!("../../tests/fixtures/tls/ca.crt");
pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Returns a delivery to this target before its first attempt.
pub(super) fn claimed(target: &str, kind: DeliveryKind, data: &str) -> ClaimedDelivery {
    let conversation = conversation("support", "Zoë / 1");
    let delivery = NewDelivery {
        id: DeliveryId::of(&conversation, 7, 9, HAPPENED),
        kind,
        conversation,
        message: "01JD9ZZZZZZZZZZZZZZZZZZZZZ".parse().ok(),
        target: target.into(),
        origin: DeliveryOrigin::Endpoint("main".into()),
        trace: TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
        created_at: HAPPENED,
        data: raw_json(data),
    };
    ClaimedDelivery { delivery, since: HAPPENED, made: 0, step: 0, token: 1, now: NOW }
}

/// Returns the configuration of a sender that may post to loopback.
pub(super) fn loopback_config() -> WebhooksConfig {
    WebhooksConfig {
        allow_private: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        timeout: Duration::from_secs(5),
        ..WebhooksConfig::default()
    }
}

pub(super) fn sender() -> DeliverySender {
    DeliverySender::new(&loopback_config()).unwrap()
}

/// Returns the server side of TLS for `localhost` and `127.0.0.1`, with a certificate signed by [`CA`].
pub(super) fn server_tls() -> TlsAcceptor {
    TlsAcceptor::from(fixtures::server_tls(
        include_bytes!("../../tests/fixtures/tls/server.crt"),
        include_bytes!("../../tests/fixtures/tls/server.key"),
    ))
}

/// A request that the receiver got.
#[derive(Debug, Clone)]
pub(super) struct SeenRequest {
    /// `POST /hook HTTP/1.1`
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl SeenRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.head.lines().filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let first = found.next();
        assert_eq!(found.next(), None, "{name} is there twice");
        first
    }
}

/// The reaction of the receiver to one request.
pub(super) enum ReceiverAction {
    /// Sends these bytes and waits for the next request.
    Says(String),
    /// Sends these bytes and closes.
    Closes(String),
    /// Sends these bytes, then repeats the piece with a pause after each.
    Repeats(String, String, Duration),
    /// Sends these bytes and then stalls.
    Stalls(String),
}

/// Returns a response with this status and body.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A receiver on loopback. It answers 204 after the end of its script.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    pub(super) connections: Cell<usize>,
    /// The number of connections that the sender closed.
    pub(super) closed: Cell<usize>,
    /// Notified at each closed connection.
    pub(super) on_close: Notify,
    pub(super) seen: RefCell<Vec<SeenRequest>>,
    script: RefCell<VecDeque<ReceiverAction>>,
}

impl Receiver {
    pub(super) async fn start(script: impl IntoIterator<Item = ReceiverAction>) -> Rc<Self> {
        Self::start_with(None, script).await
    }

    pub(super) async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl IntoIterator<Item = ReceiverAction>,
    ) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            connections: Cell::new(0),
            closed: Cell::new(0),
            on_close: Notify::new(),
            seen: RefCell::default(),
            script: RefCell::new(script.into_iter().collect()),
        });
        let accepting = Rc::clone(&receiver);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.set(accepting.connections.get() + 1);
                let (receiver, tls) = (Rc::clone(&accepting), tls.clone());
                spawn(async move {
                    match tls {
                        None => receiver.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                receiver.serve(stream).await;
                            }
                        }
                    }
                    receiver.closed.set(receiver.closed.get() + 1);
                    receiver.on_close.notify_waiters();
                });
            }
        });
        receiver
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(seen) = request(&mut stream).await {
            self.seen.borrow_mut().push(seen);
            let does = self.script.borrow_mut().pop_front();
            let does =
                does.unwrap_or_else(|| ReceiverAction::Says("HTTP/1.1 204 No Content\r\n\r\n".to_owned()));
            let (ReceiverAction::Says(bytes)
            | ReceiverAction::Closes(bytes)
            | ReceiverAction::Repeats(bytes, _, _)
            | ReceiverAction::Stalls(bytes)) = &does;
            if stream.write_all(bytes.as_bytes()).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
            match does {
                ReceiverAction::Says(_) => {}
                ReceiverAction::Closes(_) => {
                    let _ = stream.shutdown().await;
                    return;
                }
                ReceiverAction::Repeats(_, piece, pause) => {
                    while stream.write_all(piece.as_bytes()).await.is_ok() {
                        tokio::time::sleep(pause).await;
                    }
                    return;
                }
                ReceiverAction::Stalls(_) => {
                    let _ = stream.read_u8().await;
                    return;
                }
            }
        }
    }
}

/// Returns the next request of a connection, or `None` at its end.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<SeenRequest> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, head) = head.split_once("\r\n").unwrap();
    let mut seen = SeenRequest { line: line.to_owned(), head: head.to_owned(), body: String::new() };
    let length: usize = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    seen.body = String::from_utf8(bytes[end..].to_vec()).unwrap();
    Some(seen)
}
