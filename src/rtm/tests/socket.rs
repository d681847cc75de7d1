use std::rc::Rc;
use std::time::Duration;

use actix_http::ws::{CloseReason, Codec, Frame, Item, Message};
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;
use tokio_util::codec::Framed;

use super::{bot, run_paused};
use crate::rtm::socket::{PlatformSocket, SocketClose, SocketError, SocketEvent};
use crate::runtime::fixtures::run;

/// Returns our socket and the raw other end of it, which takes `pipe` unread bytes.
fn raw(pipe: usize) -> (PlatformSocket, DuplexStream) {
    let (by_us, theirs) = tokio::io::duplex(pipe);
    let bot = bot("https://bots.example");
    (PlatformSocket::new(Box::new(by_us), &[], &bot, Rc::default()), theirs)
}

/// Returns our socket and a platform that speaks frames.
fn pair() -> (PlatformSocket, Framed<DuplexStream, Codec>) {
    let (by_us, theirs) = raw(8 << 20);
    (by_us, Framed::new(theirs, Codec::new().max_size(8 << 20)))
}

async fn frame(socket: &mut PlatformSocket) -> Bytes {
    match socket.next().await {
        SocketEvent::Frame(bytes) => bytes,
        other => panic!("no frame but {other:?}"),
    }
}

async fn closed(socket: &mut PlatformSocket) -> SocketClose {
    match socket.next().await {
        SocketEvent::Closed(closed) => closed,
        other => panic!("not closed but {other:?}"),
    }
}

#[test]
fn text_and_binary_messages_are_received() {
    run(async {
        let (mut socket, mut platform) = pair();
        platform.send(Message::Text("{\"a\":\"ü\"}".into())).await.unwrap();
        platform.send(Message::Binary(Bytes::from_static(b"\xff\xfe"))).await.unwrap();
        platform.send(Message::Text("".into())).await.unwrap();
        assert_eq!(frame(&mut socket).await, "{\"a\":\"ü\"}");
        assert_eq!(frame(&mut socket).await, b"\xff\xfe"[..]);
        assert_eq!(frame(&mut socket).await, "");
        socket.send("hello").await.unwrap();
        assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Text("hello".into()));
    });
}

#[test]
fn text_of_invalid_utf8_is_handed_on() {
    run(async {
        let (mut socket, mut platform) = raw(1024);
        platform.write_all(b"\x81\x02\xff\xff").await.unwrap();
        assert_eq!(frame(&mut socket).await, b"\xff\xff"[..]);
    });
}

#[test]
fn frame_above_64_kib_is_received() {
    run(async {
        let (mut socket, mut platform) = pair();
        let long = "x".repeat(1 << 20);
        platform.send(Message::Text(long.as_str().into())).await.unwrap();
        assert_eq!(frame(&mut socket).await, long);
        assert_eq!(socket.buffered_capacity(), 0);
    });
}

#[test]
fn frame_above_the_cap_ends_the_socket_early() {
    run(async {
        let (mut socket, mut platform) = raw(1024);
        // A head that announces 2 MiB, and one byte of them.
        platform.write_all(b"\x81\x7f\x00\x00\x00\x00\x00\x20\x00\x00x").await.unwrap();
        let end = closed(&mut socket).await;
        assert_eq!((end.code, end.by_us), (1009, true));
        assert_eq!(closed(&mut socket).await, end, "it stays closed");
        assert_eq!(socket.buffered_capacity(), 0);
        let mut platform = Framed::new(platform, Codec::new());
        let Some(Ok(Frame::Close(Some(CloseReason { code, .. })))) = platform.next().await else { panic!() };
        assert_eq!(u16::from(code), 1009);
        assert!(matches!(socket.send("late").await, Err(SocketError::Closed(_))));
    });
}

#[test]
fn fragments_with_pings_between_them_are_joined() {
    run(async {
        let (mut socket, mut platform) = pair();
        for message in [
            Message::Continuation(Item::FirstText("one ".into())),
            Message::Ping("still here".into()),
            Message::Continuation(Item::Continue("two ".into())),
            Message::Continuation(Item::Last("three".into())),
            Message::Text("next".into()),
        ] {
            platform.send(message).await.unwrap();
        }
        assert!(matches!(socket.next().await, SocketEvent::KeepAlive));
        assert_eq!(frame(&mut socket).await, "one two three");
        assert_eq!(frame(&mut socket).await, "next");
        assert_eq!(socket.buffered_capacity(), 0);
        assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Pong("still here".into()));
    });
}

#[test]
fn fragments_above_the_cap_end_the_socket() {
    run(async {
        let (mut socket, mut platform) = pair();
        let part = Bytes::from(vec![b'x'; 1 << 20]);
        platform.send(Message::Continuation(Item::FirstText(part.clone()))).await.unwrap();
        for _ in 0..4 {
            platform.send(Message::Continuation(Item::Continue(part.clone()))).await.unwrap();
        }
        let end = closed(&mut socket).await;
        assert_eq!((end.code, end.by_us), (1009, true));
        assert_eq!(socket.buffered_capacity(), 0);
    });
}

#[test]
fn ping_is_answered_with_its_payload() {
    run(async {
        let (mut socket, mut platform) = pair();
        platform.send(Message::Ping("payload".into())).await.unwrap();
        assert!(matches!(socket.next().await, SocketEvent::KeepAlive));
        assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Pong("payload".into()));
        assert_eq!(socket.buffered_capacity(), 0);
    });
}

#[test]
fn pings_of_a_peer_that_never_reads_use_little_memory() {
    run(async {
        let (mut socket, mut platform) = raw(64);
        let flood = async {
            for _ in 0..1000 {
                platform.write_all(b"\x89\x04ping").await.unwrap();
            }
        };
        let heard = async {
            for _ in 0..1000 {
                assert!(matches!(socket.next().await, SocketEvent::KeepAlive));
            }
        };
        tokio::join!(flood, heard);
        assert!(socket.buffered_capacity() <= 4096, "{}", socket.buffered_capacity());
    });
}

#[test]
fn pong_to_our_ping_is_a_keep_alive() {
    run(async {
        let (mut socket, mut platform) = pair();
        socket.ping().await.unwrap();
        assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Ping(Bytes::new()));
        platform.send(Message::Pong(Bytes::new())).await.unwrap();
        assert!(matches!(socket.next().await, SocketEvent::KeepAlive));
    });
}

#[test]
fn invalid_bytes_end_the_socket() {
    run(async {
        for garbage in [&b"\xf1\x03xxx"[..], b"\x81\x81mask", b"\x80\x01x", b"\x89\x7e\x00\x80"] {
            let (mut socket, mut platform) = raw(1024);
            platform.write_all(garbage).await.unwrap();
            platform.write_all(&[b'x'; 200]).await.unwrap();
            let end = closed(&mut socket).await;
            assert_eq!((end.code, end.by_us), (1006, false), "{garbage:?}");
            assert_eq!(closed(&mut socket).await, end);
        }
    });
}

#[test]
fn close_code_is_the_one_a_client_sees() {
    run(async {
        for (sent, code, reason) in [
            (&b"\x88\x00"[..], 1005, ""),
            (b"\x88\x02\x03\xe8", 1000, ""),
            (b"\x88\x09\x03\xf0blocked", 1008, "blocked"),
            (b"\x88\x02\x03\xf1", 1009, ""),
            (b"\x88\x02\x03\xf3", 1011, ""),
            // 1006 must not be sent (RFC 6455, 7.4.1), so the peer breaks the protocol.
            (b"\x88\x02\x03\xee", 1006, "Bad opcode"),
        ] {
            let (mut socket, mut platform) = raw(1024);
            platform.write_all(sent).await.unwrap();
            let end = closed(&mut socket).await;
            assert_eq!((end.code, &*end.reason, end.by_us), (code, reason, false));
            drop(socket);
            let mut answer = Vec::new();
            platform.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer.first(), Some(&0x88), "the close is answered");
        }
        let (mut socket, platform) = raw(1024);
        drop(platform);
        assert_eq!(closed(&mut socket).await.code, 1006);
    });
}

#[test]
fn close_reason_is_readable_after_a_failed_send() {
    run(async {
        let (mut socket, mut platform) = raw(1024);
        platform.write_all(b"\x88\x02\x03\xf0").await.unwrap();
        drop(platform);
        assert!(matches!(socket.send("hello").await, Err(SocketError::Broken(_))));
        assert!(matches!(socket.ping().await, Err(SocketError::Broken(_))));
        assert_eq!(closed(&mut socket).await.code, 1008);
    });
}

#[test]
fn close_sends_a_close_frame_and_hangs_up() {
    run(async {
        let (socket, mut platform) = pair();
        let platform_side = async {
            let Some(Ok(Frame::Close(Some(reason)))) = platform.next().await else { panic!() };
            assert_eq!(u16::from(reason.code), 1000);
            // A frame on its way does not hide the answer.
            platform.send(Message::Text("late".into())).await.unwrap();
            platform.send(Message::Close(None)).await.unwrap();
            assert!(platform.next().await.is_none(), "and then it hangs up");
        };
        tokio::join!(socket.close(1000), platform_side);
    });
}

#[test]
fn close_without_answer_takes_one_second() {
    run_paused(async {
        let (socket, _platform) = pair();
        let began = Instant::now();
        socket.close(1001).await;
        assert_eq!(began.elapsed().as_secs(), 1);
        // A peer that takes no data delays it no longer.
        let (mut socket, _platform) = raw(8);
        assert!(socket.send("0123456789").now_or_never().is_none());
        let began = Instant::now();
        socket.close(1001).await;
        assert_eq!(began.elapsed().as_secs(), 1);
    });
}

#[test]
fn send_on_a_half_open_connection_times_out() {
    run_paused(async {
        let (mut socket, _platform) = raw(8);
        let began = Instant::now();
        assert!(matches!(socket.send("more than eight bytes").await, Err(SocketError::Timeout)));
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(closed(&mut socket).await.code, 1006);
        assert_eq!(socket.buffered_capacity(), 0);
    });
}

#[test]
fn cancelled_next_loses_no_bytes() {
    run(async {
        let (mut socket, mut platform) = raw(1024);
        let bytes = b"\x01\x04one \x89\x02hi\x80\x05three\x81\x7e\x00\x03end";
        let mut received = Vec::new();
        for byte in bytes {
            platform.write_all(&[*byte]).await.unwrap();
            // Drops the future after one poll, as a `select!` does.
            while let Some(next) = socket.next().now_or_never() {
                received.push(next);
            }
        }
        assert!(
            matches!(&received[..], [SocketEvent::KeepAlive, SocketEvent::Frame(a), SocketEvent::Frame(b)]
                if a == "one three" && b == "end"),
            "{received:?}"
        );
    });
}

#[test]
fn cancelled_send_goes_out_whole() {
    run(async {
        let (mut socket, platform) = raw(8);
        assert!(socket.send("first, cut off").now_or_never().is_none());
        assert!(socket.send("second").now_or_never().is_none());
        let mut platform = Framed::new(platform, Codec::new());
        let reading = async {
            assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Text("first, cut off".into()));
            assert_eq!(platform.next().await.unwrap().unwrap(), Frame::Text("second".into()));
        };
        tokio::select! {
            other = socket.next() => panic!("{other:?}"),
            () = reading => {}
        }
        assert_eq!(socket.buffered_capacity(), 0);
    });
}

#[test]
fn idle_socket_holds_no_buffers() {
    run(async {
        let (mut socket, mut platform) = pair();
        assert_eq!(socket.buffered_capacity(), 0, "after the handshake");
        for size in [10, 1000, 100_000] {
            platform.send(Message::Text("y".repeat(size).into())).await.unwrap();
            socket.send("x".repeat(size)).await.unwrap();
            assert_eq!(frame(&mut socket).await.len(), size);
            assert!(matches!(platform.next().await, Some(Ok(Frame::Text(_)))));
            assert!(socket.next().now_or_never().is_none());
            assert_eq!(socket.buffered_capacity(), 0);
        }
        assert!(size_of::<PlatformSocket>() <= 320, "{}", size_of::<PlatformSocket>());
    });
}

proptest! {
    #[test]
    fn messages_survive_any_segmentation(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
        cuts in prop::collection::vec(1usize..400, 1..40),
    ) {
        run(async {
            let (mut socket, mut platform) = raw(1 << 16);
            let mut bytes = bytes::BytesMut::new();
            for message in &messages {
                tokio_util::codec::Encoder::encode(
                    &mut Codec::new(), Message::Binary(Bytes::copy_from_slice(message)), &mut bytes,
                ).unwrap();
            }
            let mut received = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !bytes.is_empty() {
                let cut = *cuts.next().unwrap();
                platform.write_all(&bytes.split_to(cut.min(bytes.len()))).await.unwrap();
                while let Some(SocketEvent::Frame(message)) = socket.next().now_or_never() {
                    received.push(message.to_vec());
                }
            }
            assert_eq!(received, messages);
            assert_eq!(socket.buffered_capacity(), 0);
        });
    }

    #[test]
    fn random_bytes_neither_panic_nor_hang(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        run(async {
            let (mut socket, mut platform) = raw(1 << 16);
            platform.write_all(&bytes).await.unwrap();
            drop(platform);
            let all = async { while !matches!(socket.next().await, SocketEvent::Closed(_)) {} };
            tokio::time::timeout(Duration::from_secs(5), all).await.unwrap();
            assert_eq!(socket.buffered_capacity(), 0);
        });
    }
}
