use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{ServiceFactory as _, map_config};
use actix_web::body::BodyStream;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse};
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};

use super::super::connection_progress::ConnectionTimeouts;
use super::*;
use crate::domain::FairShare;
use crate::http::{AdminContext, ReadinessProbe, configure_admin};
use crate::hub::Hub;
use crate::metrics::{LabelSets, Metrics};
use crate::store::{MemoryLimits, Store};

/// Pieces of the body.
type PieceReceiver = mpsc::Receiver<Bytes>;

async fn listen(request: HttpRequest, receiver: Data<Mutex<Option<PieceReceiver>>>) -> HttpResponse {
    let receiver = receiver.lock().await.take().unwrap();
    let pieces =
        futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let body = BoxBody::new(BodyStream::new(pieces.map(Ok::<_, Infallible>)));
    match DetachableConnection::detachable(&request) {
        Some(connection) => HttpResponse::Ok().force_close().body(connection.detaching_body(body)),
        None => HttpResponse::Ok().body(body),
    }
}

/// Answers with a megabyte.
async fn long() -> HttpResponse {
    HttpResponse::Ok().body(vec![b'x'; 1 << 20])
}

/// Refuses without a look at the body.
async fn refuse() -> HttpResponse {
    HttpResponse::Unauthorized().body("no")
}

/// Answers after the whole body.
async fn take(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().body(format!("{} bytes taken", body.len()))
}

/// Takes the note of a request and its answer, as the pipeline does.
async fn noted(
    request: actix_web::dev::ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let connection = DetachableConnection::of_request(request.request()).unwrap().clone();
    connection.request_begun(request.headers());
    let (request, response) = next.call(request).await?.map_into_boxed_body().into_parts();
    Ok(ServiceResponse::new(request, connection.answer(response)))
}

/// Limits that are over soon.
fn short() -> ConnectionTimeouts {
    ConnectionTimeouts {
        keep_alive: Duration::from_millis(800),
        head: Duration::from_millis(300),
        linger: Duration::from_millis(100),
        stall: Duration::from_millis(600),
        stall_scarce: Duration::from_millis(200),
    }
}

/// A server of one connection.
struct TestServer {
    caller: TcpStream,
    /// The sender of a stream's body.
    sender: mpsc::Sender<Bytes>,
    /// A reference that the server's connection counts.
    counted: Rc<()>,
    /// Completes when the connection has ended.
    ended: actix_web::rt::task::JoinHandle<()>,
}

/// Sends a request under these limits.
async fn served(request: &[u8], limits: Arc<ConnectionLimits>) -> TestServer {
    let (sender, receiver) = mpsc::channel(100);
    let receiver = Data::new(Mutex::new(Some(receiver)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let mut caller = caller.unwrap();
    let counted = Rc::new(());
    let (socket, held) = (accepted.unwrap().0, Rc::clone(&counted));
    let app = App::new()
        .app_data(receiver)
        .wrap(from_fn(noted))
        .route("/", web::get().to(listen))
        .route("/long", web::get().to(long))
        .route("/take", web::post().to(take))
        .route("/no", web::to(refuse));
    let server = HttpService::build()
        .keep_alive(actix_http::KeepAlive::Os)
        .client_disconnect_timeout(Duration::from_secs(1))
        .h1_allow_half_closed(false)
        .on_connect_ext(move |connection: &DetachableConnection, data| {
            data.insert(connection.clone());
            data.insert(Rc::clone(&held));
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let server = Rc::new(server.new_service(()).await.unwrap());
    let place = limits.admit().await.unwrap();
    let ended = actix_web::rt::spawn(async move {
        serve(socket, server, &limits).await.unwrap();
        drop(place);
    });
    caller.write_all(request).await.unwrap();
    TestServer { caller, sender, counted, ended }
}

fn limits(timeouts: ConnectionTimeouts) -> Arc<ConnectionLimits> {
    Arc::new(ConnectionLimits::new(10, FairShare::new(1 << 20, 0), None).with_timeouts(timeouts))
}

/// Sends a request. Returns the caller's socket, the sender of the body, and a reference that the server's connection
/// counts.
async fn called(request: &str) -> (TcpStream, mpsc::Sender<Bytes>, Rc<()>) {
    let server = served(request.as_bytes(), limits(ConnectionTimeouts::default())).await;
    (server.caller, server.sender, server.counted)
}

/// Reads until the server closes. Returns the bytes and the time since `start`.
async fn read_to_end(caller: &mut TcpStream, start: Instant) -> (Vec<u8>, Duration) {
    let mut text = Vec::new();
    timeout(Duration::from_secs(10), caller.read_to_end(&mut text)).await.expect("it stays open").ok();
    (text, start.elapsed())
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

#[test]
fn half_head_behind_a_request_is_cut() {
    run(async {
        let get = "GET /no HTTP/1.1\r\nHost: h\r\n\r\n";
        // With the request, and after its answer.
        for (first, then) in [(format!("{get}GET / HT"), ""), (get.to_owned(), "GET / HT")] {
            let start = Instant::now();
            let TestServer { mut caller, .. } = served(first.as_bytes(), limits(short())).await;
            read(&mut caller, "no").await;
            caller.write_all(then.as_bytes()).await.unwrap();
            let (rest, after) = read_to_end(&mut caller, start).await;
            let refusal = String::from_utf8(rest).unwrap();
            assert!(
                refusal.starts_with("HTTP/1.1 408 ") && refusal.contains("/problems/request-timeout"),
                "{refusal}"
            );
            assert!(after >= short().head && after < short().keep_alive, "{after:?}");
        }
        // An idle connection has more time.
        let start = Instant::now();
        let TestServer { mut caller, .. } = served(get.as_bytes(), limits(short())).await;
        read(&mut caller, "no").await;
        let (_, after) = read_to_end(&mut caller, start).await;
        assert!(after >= short().keep_alive, "{after:?}");
    });
}

#[test]
fn refused_chunked_body_is_cut_in_bytes_and_time() {
    run(async {
        let head = b"POST /no HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
        // The caller sends as long as it can.
        let TestServer { caller, ended, .. } = served(head, limits(short())).await;
        let (mut reader, mut writer) = caller.into_split();
        let mut answer = Vec::new();
        let sent = async {
            let mut sent = 0;
            while writer.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        };
        let (sent, read) =
            timeout(Duration::from_secs(10), async { tokio::join!(sent, reader.read_to_end(&mut answer)) })
                .await
                .expect("it is read for ever");
        drop(read);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("no"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(sent < 16 << 20, "{sent}");
        ended.await.unwrap();

        // The caller stops in the middle, or sends its last chunk late.
        let start = Instant::now();
        let TestServer { mut caller, .. } = served(head, limits(short())).await;
        let (_, after) = read_to_end(&mut caller, start).await;
        assert!(after < short().keep_alive, "{after:?}");
    });
}

#[test]
fn long_body_rests_beside_a_short_request() {
    run(async {
        let start = Instant::now();
        // Other long bodies took 60 ms of this thread.
        ReadPace::count_bursts(60);
        let body = vec![b'x'; 200_000];
        let head = format!("POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        let long = async {
            let TestServer { mut caller, .. } =
                served(head.as_bytes(), limits(ConnectionTimeouts::default())).await;
            caller.write_all(&body).await.unwrap();
            read(&mut caller, "200000 bytes taken").await;
        };
        let mut long = pin!(long);
        let short = async {
            let post = b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
            let TestServer { mut caller, .. } = served(post, limits(ConnectionTimeouts::default())).await;
            read(&mut caller, "2 bytes taken").await;
        };
        tokio::select! {
            biased;
            () = long.as_mut() => panic!("the long body is read at once"),
            () = short => {}
        }
        long.await;
        assert!(start.elapsed() > Duration::from_millis(200), "{:?}", start.elapsed());
    });
}

#[test]
fn whole_chunked_body_keeps_the_connection() {
    run(async {
        let post = b"POST /no HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let TestServer { mut caller, .. } = served(post, limits(short())).await;
        for _ in 0..3 {
            let answer = read(&mut caller, "no").await;
            assert!(!answer.contains("connection: close"), "{answer}");
            caller.write_all(post).await.unwrap();
        }
    });
}

#[test]
fn places_are_held_until_the_answer_is_taken() {
    run(async {
        let share = FairShare::new(10, 0);
        for (path, taken_at_once) in [("/no", true), ("/long", false)] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            socket2::SockRef::from(&listener).set_send_buffer_size(16 << 10).unwrap();
            let address = listener.local_addr().unwrap();
            let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (mut caller, place) = (caller.unwrap(), share.acquire(None, 1).unwrap());
            let place = std::cell::Cell::new(Some(place));
            let hold = move |connection: &DetachableConnection, data: &mut actix_http::Extensions| {
                data.insert(connection.clone());
                connection.with_places(|places| places.body = place.take());
            };
            let app = App::new()
                .wrap(from_fn(noted))
                .route("/long", web::get().to(long))
                .route("/no", web::to(refuse));
            let server =
                HttpService::build().on_connect_ext(hold).h1(map_config(app, |()| AppConfig::default()));
            let server = Rc::new(server.new_service(()).await.unwrap());
            let socket = accepted.unwrap().0;
            let serving = actix_web::rt::spawn(async move {
                serve(socket, server, &limits(ConnectionTimeouts::default())).await.unwrap();
            });
            caller.write_all(request.as_bytes()).await.unwrap();
            let mut first = [0; 1000];
            let read = caller.read(&mut first).await.unwrap();
            if taken_at_once {
                assert_eq!(share.taken(), 0);
            } else {
                assert_eq!(share.taken(), 1, "its answer is on the way");
                let mut rest = vec![0; 1 << 20];
                let body = first[..read].windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                caller.read_exact(&mut rest[read - body..]).await.unwrap();
                while share.taken() > 0 {
                    tokio::task::yield_now().await;
                }
            }
            drop(caller);
            serving.await.unwrap();
        }
    });
}

#[test]
fn caller_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
    run(async {
        let request = b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n";
        let small = |server: &TestServer| {
            socket2::SockRef::from(&server.caller).set_recv_buffer_size(4 << 10).unwrap();
        };
        let server = served(b"", limits(short())).await;
        small(&server);
        let TestServer { mut caller, ended, .. } = server;
        caller.write_all(request).await.unwrap();
        timeout(Duration::from_secs(10), ended).await.expect("it is served for ever").unwrap();

        let server = served(b"", limits(short())).await;
        small(&server);
        let TestServer { mut caller, .. } = server;
        caller.write_all(request).await.unwrap();
        let (mut length, start) = (0, Instant::now());
        let mut piece = vec![0; 64 << 10];
        while length < 1 << 20 {
            let read = caller.read(&mut piece).await.unwrap();
            assert_ne!(read, 0, "it is cut after {length} bytes and {:?}", start.elapsed());
            length += read;
            sleep(Duration::from_millis(20)).await;
        }
        assert!(start.elapsed() > short().stall, "the whole takes longer than one span");
    });
}

#[test]
fn stream_whose_caller_takes_nothing_is_cut() {
    run(async {
        let server = served(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", limits(short())).await;
        let TestServer { caller, sender, ended, .. } = server;
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let full = async { while sender.send(piece.clone()).await.is_ok() {} };
        timeout(Duration::from_secs(10), full).await.expect("it is held for ever");
        ended.await.unwrap();
        drop(caller);
    });
}

#[test]
fn connection_that_waits_longest_gives_its_place() {
    run(async {
        let limits = ConnectionLimits::new(2, FairShare::new(1 << 20, 0), None);
        let limits = Arc::new(limits);
        let get = b"GET /no HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut oldest = served(get, Arc::clone(&limits)).await;
        read(&mut oldest.caller, "no").await;
        let mut second = served(get, Arc::clone(&limits)).await;
        read(&mut second.caller, "no").await;
        let mut third = served(get, Arc::clone(&limits)).await;
        read(&mut third.caller, "no").await;
        assert_eq!(read_to_end(&mut oldest.caller, Instant::now()).await.0, b"");
        // Connections with a request in work keep their places.
        let busy = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for server in [&mut second, &mut third] {
            server.caller.write_all(busy).await.unwrap();
            read(&mut server.caller, "\r\n\r\n").await;
        }
        assert!(limits.admit().await.is_none());
        drop(second);
        while limits.are_full() {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(limits.admit().await.is_some());
    });
}

#[test]
fn connection_of_the_operator_waits_anew_behind_an_answer() {
    run(async {
        let words = LabelSets { frames_in: &[], frames_out: &[], routes: &[] };
        let store = Store::memory(MemoryLimits::new(0, Duration::ZERO));
        let operator = Arc::new(AdminContext {
            metrics: Arc::new(Metrics::new(words).unwrap()),
            readiness: Arc::new(ReadinessProbe::new(
                Hub::closed(store.clone()),
                store,
                &crate::config::Config::dev("http://127.0.0.1".parse().unwrap()),
                Arc::default(),
            )),
            metrics_token: None,
            local_only: false,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut caller, socket) = (caller.unwrap(), accepted.unwrap().0);
        let server = HttpService::build()
            .keep_alive(actix_http::KeepAlive::Os)
            .on_connect_ext(|connection: &DetachableConnection, data| {
                data.insert(connection.clone());
            })
            .h1(map_config(App::new().configure(configure_admin(operator)), |()| AppConfig::default()));
        let server = Rc::new(server.new_service(()).await.unwrap());
        actix_web::rt::spawn(async move { serve(socket, server, &limits(short())).await.unwrap() });
        let start = Instant::now();
        for request in ["GET /livez", "GET /nowhere", "POST /livez"] {
            let request = format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n");
            caller.write_all(request.as_bytes()).await.unwrap();
            let answer = read(&mut caller, "}").await;
            assert!(!answer.contains("connection: close"), "{answer}");
        }
        let (rest, after) = read_to_end(&mut caller, start).await;
        assert_eq!(rest, b"");
        assert!(after >= short().keep_alive, "{after:?}");
    });
}
