//! A TCP forwarder before Redis that delays the server's answers, so that each round trip takes longer.
//!
//! It delays only one direction. A path through Redis goes there and back, or there and on to a subscriber. So half of
//! the delay in each direction would have the same sum.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench_error::BenchError;

/// The number of delayed pieces on one connection. Further data waits in the server's socket.
const UNDER_WAY: usize = 4096;

/// A running forwarder. Its threads end with their connections, the last one with the process.
pub(crate) struct DelayForwarder {
    pub(crate) address: SocketAddr,
    micros: Arc<AtomicU64>,
}

impl DelayForwarder {
    /// Starts threads instead of tasks: their sleep is exact, and a busy load does not delay them.
    pub(crate) fn start(server: SocketAddr) -> Result<Self, BenchError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let micros = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&micros);
        spawn("forwarder", move || {
            for client in listener.incoming() {
                // The client sees a failure as the end of its connection.
                let _ = client.and_then(|client| forward(client, server, &delay));
            }
        })?;
        Ok(Self { address, micros })
    }

    /// Sets the delay of later answers.
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
