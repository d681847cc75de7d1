use std::time::Duration;

use actix_http::HttpService;
use actix_service::{ServiceFactory as _, map_config};
use actix_web::body::BodyStream;
use actix_web::dev::AppConfig;
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse};
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::*;

/// Pieces of the body.
type PieceReceiver = mpsc::Receiver<Bytes>;

async fn listen(request: HttpRequest, receiver: Data<Mutex<Option<PieceReceiver>>>) -> HttpResponse {
    let receiver = receiver.lock().await.take().unwrap();
    let pieces =
        futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let body = BoxBody::new(BodyStream::new(pieces.map(Ok::<_, Infallible>)));
    match DetachableConnection::of_request(&request) {
        Some(connection) => HttpResponse::Ok().force_close().body(connection.detaching_body(body)),
        None => HttpResponse::Ok().body(body),
    }
}

/// Sends a request. Returns the caller's socket, the sender of the body, and a reference that the server's connection
/// counts.
async fn called(request: &str) -> (TcpStream, mpsc::Sender<Bytes>, Rc<()>) {
    let (sender, receiver) = mpsc::channel(100);
    let receiver = Data::new(Mutex::new(Some(receiver)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut caller = caller.unwrap();
    let counted = Rc::new(());
    let (socket, held) = (accepted.unwrap().0, Rc::clone(&counted));
    let app = App::new().app_data(receiver).route("/", web::get().to(listen));
    let server = HttpService::build()
        .h1_allow_half_closed(false)
        .on_connect_ext(move |connection: &DetachableConnection, data| {
            data.insert(connection.clone());
            data.insert(Rc::clone(&held));
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let server = Rc::new(server.new_service(()).await.unwrap());
    actix_web::rt::spawn(async move { serve(socket, server).await.unwrap() });
    caller.write_all(request.as_bytes()).await.unwrap();
    (caller, sender, counted)
}

async fn read(caller: &mut TcpStream, until: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(until.as_bytes()) {
        let read = timeout(Duration::from_secs(10), caller.read_buf(&mut text)).await;
        assert!(read.unwrap().unwrap() > 0, "{:?} ends before {until:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    actix_web::rt::System::new().block_on(test);
}

#[test]
fn detached_stream_leaves_the_server_and_continues() {
    run(async {
        let (mut caller, sender, counted) = called("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        // The head does not wait for the first piece.
        let head = read(&mut caller, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        sender.send("one".into()).await.unwrap();
        assert_eq!(read(&mut caller, "one\r\n").await, "3\r\none\r\n");
        // The server has dropped its connection.
        assert_eq!(Rc::strong_count(&counted), 1);

        // Bytes after the request are no second request.
        caller.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        sender.send("two".into()).await.unwrap();
        assert_eq!(read(&mut caller, "two\r\n").await, "3\r\ntwo\r\n");
        let long = "x".repeat(100_000);
        for piece in ["", &long, "0\r\n"] {
            sender.send(piece.to_owned().into()).await.unwrap();
        }
        drop(sender);
        let rest = read(&mut caller, "0\r\n\r\n0\r\n\r\n").await;
        assert_eq!(rest, format!("186a0\r\n{long}\r\n3\r\n0\r\n\r\n0\r\n\r\n"));
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn leaving_caller_is_noticed_in_a_silent_stream() {
    run(async {
        let (mut caller, sender, _) = called("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        read(&mut caller, "\r\n\r\n").await;
        sender.send("one".into()).await.unwrap();
        read(&mut caller, "one\r\n").await;
        // Only the caller's side is closed.
        caller.shutdown().await.unwrap();
        timeout(Duration::from_secs(10), sender.closed()).await.unwrap();
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn caller_that_does_not_read_gets_no_more() {
    run(async {
        let (mut caller, sender, _) = called("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        read(&mut caller, "\r\n\r\n").await;
        // The body is polled only while the connection takes its bytes.
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let full = async { while sender.send(piece.clone()).await.is_ok() {} };
        assert!(timeout(Duration::from_millis(500), full).await.is_err(), "all of it was taken");
        drop(caller);
        timeout(Duration::from_secs(10), sender.closed()).await.unwrap();
    });
}

#[test]
fn http_1_0_caller_stays_with_the_server() {
    run(async {
        let (mut caller, sender, counted) = called("GET / HTTP/1.0\r\n\r\n").await;
        let head = read(&mut caller, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        assert_eq!(Rc::strong_count(&counted), 3, "the server's, its connection's and ours");
        sender.send("one".into()).await.unwrap();
        drop(sender);
        let mut rest = String::new();
        caller.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("one"), "{rest}");
    });
}

#[test]
fn bytes_behind_the_request_do_not_block_the_stream() {
    run(async {
        let behind = "GET / HTTP/1.1\r\nHost: h\r\n";
        for request in [
            // A second handler would find no body.
            format!("{behind}\r\n{behind}\r\n"),
            format!("{behind}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
            format!("{behind}Content-Length: 5\r\n\r\nhel"),
        ] {
            let (mut caller, sender, counted) = called(&request).await;
            read(&mut caller, "\r\n\r\n").await;
            sender.send("one".into()).await.unwrap();
            assert_eq!(read(&mut caller, "one\r\n").await, "3\r\none\r\n", "{request:?}");
            assert_eq!(Rc::strong_count(&counted), 1);
            caller.write_all(b"lo\r\n0\r\n\r\n").await.unwrap();
            drop(sender);
            assert_eq!(read(&mut caller, "\r\n\r\n").await, "0\r\n\r\n");
            assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
        }
    });
}
