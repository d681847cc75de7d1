//! A minimal receiver of webhooks on its own thread, so that its cost is known separately.
//!
//! It answers every request with 204, and reads only the number in a delivery. It checks no signature.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use crate::bench_error::BenchError;
use crate::{child_process, load, stream_load};

const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const LENGTH: &[u8] = b"content-length: ";

/// The numbers that the bot said, and their deliveries.
pub(crate) struct DeliveryBook {
    next: usize,
    /// The time of each number without a delivery.
    open: HashMap<usize, Instant>,
    /// The microseconds from each number to the arrival of its body.
    pub(crate) latency: Histogram<u64>,
    /// The time of the last arrival.
    pub(crate) last: Option<Instant>,
    /// The number of other deliveries.
    pub(crate) others: usize,
    /// The permits for further numbers in flight.
    pub(crate) window: Arc<Semaphore>,
}

impl DeliveryBook {
    fn new() -> Result<Self, BenchError> {
        Ok(Self {
            next: 0,
            open: HashMap::new(),
            latency: load::histogram()?,
            last: None,
            others: 0,
            window: Arc::new(Semaphore::new(0)),
        })
    }

    /// Records a number that the bot says now. It waits for a delivery only if it has a receiver.
    pub(crate) fn say(&mut self, to_somebody: bool) -> usize {
        let number = self.next;
        self.next += 1;
        if to_somebody {
            self.open.insert(number, Instant::now());
        }
        number
    }

    /// Returns whether no number is in flight.
    pub(crate) fn is_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// Records an arrived delivery. A duplicate does not count.
    fn take(&mut self, body: &[u8], now: Instant) {
        let mut numbered = false;
        stream_load::numbers(body, |number| {
            numbered = true;
            if let Some(said) = self.open.remove(&number) {
                let micros = u64::try_from((now - said).as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
                self.last = Some(now);
                self.window.add_permits(1);
            }
        });
        self.others += usize::from(!numbered);
    }
}

/// A receiver on many addresses. A drop ends it.
pub(crate) struct CountingReceiver {
    /// The addresses that accept deliveries.
    pub(crate) targets: Vec<SocketAddr>,
    /// An address that accepts connections and never answers.
    pub(crate) silent: SocketAddr,
    /// An address without a listener.
    pub(crate) absent: SocketAddr,
    book: Arc<Mutex<DeliveryBook>>,
    stat: String,
    _running: oneshot::Sender<()>,
}

impl CountingReceiver {
    pub(crate) async fn start(targets: usize) -> Result<Self, BenchError> {
        let book = Arc::new(Mutex::new(DeliveryBook::new()?));
        let (ready, started) = oneshot::channel();
        let (running, end) = oneshot::channel::<()>();
        std::thread::Builder::new().name("receiver".to_owned()).spawn({
            let book = Arc::clone(&book);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
                let opened = runtime.and_then(|runtime| {
                    let local = LocalSet::new();
                    let addresses = local.block_on(&runtime, listen(targets, &book))?;
                    let thread = std::fs::read_link("/proc/thread-self")?;
                    Ok((runtime, local, addresses, format!("/proc/{}/stat", thread.display())))
                });
                match opened {
                    Ok((runtime, local, addresses, stat)) => {
                        let _ = ready.send(Ok((addresses, stat)));
                        // The future ends when the other side is dropped.
                        let _ = local.block_on(&runtime, end);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            }
        })?;
        let (mut targets, stat) =
            started.await.map_err(|_| BenchError::Closed { what: "the receiver" })??;
        let silent = targets.pop().ok_or(BenchError::Proc("no receiver"))?;
        let absent = child_process::free_address()?;
        Ok(Self { targets, silent, absent, book, stat, _running: running })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, DeliveryBook> {
        locked(&self.book)
    }

    /// Returns the record that the load shares.
    pub(crate) fn shared(&self) -> Arc<Mutex<DeliveryBook>> {
        Arc::clone(&self.book)
    }

    /// Returns the CPU time of the receiver's thread.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        child_process::cpu(&self.stat)
    }
}

pub(crate) fn locked(book: &Mutex<DeliveryBook>) -> MutexGuard<'_, DeliveryBook> {
    // No code panics while it holds the lock. A check of the count would reveal wrong figures.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens on so many addresses, and on one more that never answers.
async fn listen(targets: usize, book: &Arc<Mutex<DeliveryBook>>) -> std::io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::with_capacity(targets + 1);
    for target in 0..=targets {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        addresses.push(listener.local_addr()?);
        let book = (target < targets).then(|| Arc::clone(book));
        tokio::task::spawn_local(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                match &book {
                    Some(book) => _ = tokio::task::spawn_local(receive(stream, Arc::clone(book))),
                    None => held.push(stream),
                }
            }
        });
    }
    Ok(addresses)
}

/// Receives requests in sequence until the peer closes the connection.
async fn receive(mut stream: TcpStream, book: Arc<Mutex<DeliveryBook>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Vec::with_capacity(4096);
    while stream.read_buf(&mut inbox).await? > 0 {
        while let Some((body, end)) = request(&inbox) {
            locked(&book).take(inbox.get(body..end).unwrap_or_default(), Instant::now());
            inbox.drain(..end);
            stream.write_all(TAKEN).await?;
        }
    }
    Ok(())
}

/// Returns the range of the request's body once it is complete.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let body = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = bytes.get(..body)?;
    let at =
        head.windows(LENGTH.len()).position(|window| window.eq_ignore_ascii_case(LENGTH))? + LENGTH.len();
    let digits = head.get(at..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    let end = body + std::str::from_utf8(digits).ok()?.parse::<usize>().ok()?;
    (bytes.len() >= end).then_some((body, end))
}
