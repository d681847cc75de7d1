//! A proxy that opens tunnels by CONNECT. The unit tests of the crate include this file too.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The rules of a [`ConnectProxy`]. By default each request gets a tunnel to its target.
#[derive(Clone, Default)]
pub(crate) struct ProxyRules {
    /// The end of all tunnels, whatever the target is.
    pub(crate) upstream: Option<SocketAddr>,
    /// The `Proxy-Authorization` that each request needs.
    pub(crate) authorization: Option<&'static str>,
    /// Whether targets that are addresses get a 403.
    pub(crate) names_only: bool,
    /// The answer to each request, before the connection closes.
    pub(crate) answer: Option<String>,
    /// TLS between client and proxy.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// A proxy on loopback. Its tunnels close when it is dropped.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    heads: Rc<RefCell<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// Starts a proxy on the runtime of the test.
    pub(crate) async fn start(rules: ProxyRules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Rc::new(RefCell::default());
        let mut tasks = JoinSet::new();
        tasks.spawn_local(accept(listener, Rc::new(rules), Rc::clone(&heads)));
        Self { address, heads, _tasks: tasks }
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the heads of all requests.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.borrow().clone()
    }

    /// Returns the targets of all requests.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

async fn accept(listener: TcpListener, rules: Rc<ProxyRules>, heads: Rc<RefCell<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (rules, heads) = (Rc::clone(&rules), Rc::clone(&heads));
        connections.spawn_local(async move {
            match &rules.tls {
                None => serve(stream, &rules, &heads).await,
                Some(tls) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(tls));
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &rules, &heads).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    rules: &ProxyRules,
    heads: &RefCell<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    heads.borrow_mut().push(head.clone());
    let target = head.split(' ').nth(1).unwrap();
    let header = |value: &str| head.contains(&format!("\r\nProxy-Authorization: {value}\r\n"));
    let answer = if let Some(answer) = &rules.answer {
        answer
    } else if !head.starts_with("CONNECT ") {
        "HTTP/1.1 405 Method Not Allowed\r\n\r\n"
    } else if rules.authorization.is_some_and(|value| !header(value)) {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"test\"\r\n\r\n"
    } else if rules.names_only && target.parse::<SocketAddr>().is_ok() {
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    } else {
        let upstream = match rules.upstream {
            Some(upstream) => TcpStream::connect(upstream).await,
            None => TcpStream::connect(target).await,
        };
        match upstream {
            Ok(mut server) => {
                if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
                    client.flush().await.ok();
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
                return;
            }
            Err(_) => "HTTP/1.1 503 Service Unavailable\r\n\r\n",
        }
    };
    client.write_all(answer.as_bytes()).await.ok();
    client.shutdown().await.ok();
}
