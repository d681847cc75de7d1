//! A TCP forwarder before Redis that holds back what the server says: one round trip takes so much longer.
//!
//! Only the server's side is delayed. A way through Redis is always there and back, or there and on to a
//! subscriber, so that half of the delay on each side would add up to the same.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Pieces under way on one connection. More than that many wait in the server's socket.
const UNDER_WAY: usize = 4096;

/// A running forwarder; its threads end with their connections, and the last one with the process.
pub(crate) struct Forwarder {
    pub(crate) address: SocketAddr,
    micros: Arc<AtomicU64>,
}

impl Forwarder {
    /// Threads, not tasks: they sleep exactly, and are not late because the load is busy.
    pub(crate) fn start(server: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let micros = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&micros);
        spawn("forwarder", move || {
            for client in listener.incoming() {
                // Whoever connected learns of a failure by the end of the connection.
                let _ = client.and_then(|client| forward(client, server, &delay));
            }
        })?;
        Ok(Self { address, micros })
    }

    /// From now on, for what the server says next.
    pub(crate) fn delay(&self, delay: Duration) {
        self.micros.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn forward(client: TcpStream, server: SocketAddr, micros: &Arc<AtomicU64>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asks, mut asked) = (client.try_clone()?, server.try_clone()?);
    spawn("forwarder-in", move || {
        let _ = std::io::copy(&mut asks, &mut asked);
        let _ = asked.shutdown(Shutdown::Both);
    })?;
    let (held, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let (mut says, mut hears) = (server, client);
    spawn("forwarder-out", move || {
        for (at, piece) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if hears.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = hears.shutdown(Shutdown::Both);
    })?;
    let micros = Arc::clone(micros);
    spawn("forwarder-held", move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = says.read(&mut buffer) {
            let at = Instant::now() + Duration::from_micros(micros.load(Ordering::Relaxed));
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            if held.send((at, piece)).is_err() {
                break;
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
