//! A TCP proxy that breaks its connections on demand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rtm_bridge::runtime::local_thread;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::free_port;

/// The mode of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Forwards all data.
    Heal,
    /// Resets all connections and accepts none.
    Cut,
    /// Accepts connections and forwards nothing until it heals.
    Hang,
    /// Forwards each piece after this time.
    Delay(Duration),
    /// Forwards requests and drops the answers. A connection that lost an answer is reset when this mode ends, because
    /// answers belong to requests by their order.
    LoseAnswers,
    /// The test is over.
    End,
}

/// A proxy on its own thread, so that it also works while the test is blocked. A drop ends it.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// The mode that the thread has applied.
    done: watch::Receiver<Mode>,
    taken: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy for an address of this machine and waits until it accepts connections.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let (listener, address) = loop {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            if let Ok(listener) = std::net::TcpListener::bind(address) {
                break (listener, address);
            }
        };
        listener.set_nonblocking(true).unwrap();
        let (mode, modes) = watch::channel(Mode::Heal);
        let (doing, done) = watch::channel(Mode::Heal);
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let run = async move || {
            let listener = TcpListener::from_std(listener).unwrap();
            serve(listener, address, upstream, modes, doing, &count).await;
        };
        Self { address, mode, done, taken, thread: Some(local_thread("proxy", run).unwrap()) }
    }

    /// Returns the address of the listener.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of accepted connections.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Resets all connections and refuses new ones.
    pub(crate) async fn cut(&self) {
        self.set(Mode::Cut).await;
    }

    /// Stops all connections, new ones included, without closing them.
    pub(crate) async fn hang(&self) {
        self.set(Mode::Hang).await;
    }

    /// Delays each piece in each direction.
    pub(crate) async fn delay(&self, span: Duration) {
        self.set(Mode::Delay(span)).await;
    }

    /// Forwards requests without their answers: Redis executes them, and the client does not learn of it.
    pub(crate) async fn lose_answers(&self) {
        self.set(Mode::LoseAnswers).await;
    }

    /// Forwards all data again, including delayed data.
    pub(crate) async fn heal(&self) {
        self.set(Mode::Heal).await;
    }

    async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        self.done.clone().wait_for(|done| *done == mode).await.expect("the proxy runs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::End);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut modes: watch::Receiver<Mode>,
    doing: watch::Sender<Mode>,
    taken: &AtomicUsize,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::End => return,
            // A dropped listener refuses connections.
            Mode::Cut => listener = None,
            _ if listener.is_none() => listener = Some(TcpListener::bind(address).await.unwrap()),
            _ => {}
        }
        if mode == Mode::Cut {
            while connections.join_next().await.is_some() {}
        }
        doing.send_replace(mode);
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = modes.changed() => {}
            accepted = accept => {
                let Ok((client, _)) = accepted else { continue };
                taken.fetch_add(1, Ordering::AcqRel);
                connections.spawn_local(connection(client, upstream, modes.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection to its end.
async fn connection(mut client: TcpStream, upstream: SocketAddr, modes: watch::Receiver<Mode>) {
    if let Ok(mut server) = TcpStream::connect(upstream).await {
        for stream in [&client, &server] {
            stream.set_nodelay(true).ok();
        }
        let ended = {
            let (client_reads, client_writes) = client.split();
            let (server_reads, server_writes) = server.split();
            // The first direction that ends also ends the other one, because no peer half-closes.
            tokio::select! {
                ended = pump(client_reads, server_writes, modes.clone(), false) => ended,
                ended = pump(server_reads, client_writes, modes, true) => ended,
            }
        };
        if ended.is_ok() {
            return;
        }
        reset(&server);
    }
    reset(&client);
}

/// Makes the peer see an error when this stream is dropped.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

/// Forwards the data of one direction to its end. Returns an error if the connection is to be reset.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    answers: bool,
) -> io::Result<()> {
    let cut = || io::Error::from(io::ErrorKind::ConnectionReset);
    let mut piece = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut | Mode::End => return Err(cut()),
            Mode::LoseAnswers => {}
            _ if lost => return Err(cut()),
            Mode::Hang => {
                modes.changed().await.map_err(|_| cut())?;
                continue;
            }
            Mode::Heal | Mode::Delay(_) => {}
        }
        let size = tokio::select! {
            biased;
            changed = modes.changed() => {
                changed.map_err(|_| cut())?;
                continue;
            }
            size = from.read(&mut piece) => size?,
        };
        if size == 0 {
            return Ok(());
        }
        if let Mode::Delay(span) = mode {
            tokio::select! {
                () = tokio::time::sleep(span) => {}
                _ = modes.wait_for(|mode| matches!(mode, Mode::Cut | Mode::End)) => return Err(cut()),
            }
        }
        if answers && mode == Mode::LoseAnswers {
            lost = true;
        } else {
            to.write_all(&piece[..size]).await?;
        }
    }
}
