//! The receiver of webhooks: as cheap as it can be, on a thread of its own, so that what it costs is known apart.
//!
//! It takes whatever comes with 204, and looks only for the number that a delivery tells. It checks no signature.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use crate::failure::Failure;
use crate::{child, load, reader};

const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const LENGTH: &[u8] = b"content-length: ";

/// What was said, and what was delivered of it.
pub(crate) struct Book {
    next: usize,
    /// When the numbers were said that have not been delivered.
    open: HashMap<usize, Instant>,
    /// Of each number that was delivered, from its being said to its body being there, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// When the last one came.
    pub(crate) last: Option<Instant>,
    /// Deliveries of everything else.
    pub(crate) others: usize,
    /// Has room for so many more numbers to be on their way.
    pub(crate) window: Arc<Semaphore>,
}

impl Book {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            next: 0,
            open: HashMap::new(),
            latency: load::histogram()?,
            last: None,
            others: 0,
            window: Arc::new(Semaphore::new(0)),
        })
    }

    /// The number that is said now. It is waited for where somebody is to receive it.
    pub(crate) fn say(&mut self, to_somebody: bool) -> usize {
        let number = self.next;
        self.next += 1;
        if to_somebody {
            self.open.insert(number, Instant::now());
        }
        number
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// A delivery is there. What comes a second time has been counted.
    fn take(&mut self, body: &[u8], now: Instant) {
        let mut numbered = false;
        reader::numbers(body, |number| {
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

/// A receiver on many addresses; it ends when dropped.
pub(crate) struct Receiver {
    /// Where everything is taken.
    pub(crate) targets: Vec<SocketAddr>,
    /// Where connections are taken, and nothing is ever answered.
    pub(crate) silent: SocketAddr,
    /// Where nobody is.
    pub(crate) absent: SocketAddr,
    book: Arc<Mutex<Book>>,
    stat: String,
    _running: oneshot::Sender<()>,
}

impl Receiver {
    pub(crate) async fn start(targets: usize) -> Result<Self, Failure> {
        let book = Arc::new(Mutex::new(Book::new()?));
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
                        // Ends when the other side is dropped.
                        let _ = local.block_on(&runtime, end);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            }
        })?;
        let (mut targets, stat) = started.await.map_err(|_| Failure::Closed { what: "the receiver" })??;
        let silent = targets.pop().ok_or(Failure::Proc("no receiver"))?;
        let absent = child::free_address()?;
        Ok(Self { targets, silent, absent, book, stat, _running: running })
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }

    /// What it shares with those who say numbers.
    pub(crate) fn shared(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.book)
    }

    /// CPU time of its thread.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        child::cpu(&self.stat)
    }
}

pub(crate) fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // Nothing panics with it; and if it did, the figures are checked by their number.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens on so many addresses, and on one more where nothing is answered.
async fn listen(targets: usize, book: &Arc<Mutex<Book>>) -> std::io::Result<Vec<SocketAddr>> {
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

/// Takes one request after the other, until the other side closes.
async fn receive(mut stream: TcpStream, book: Arc<Mutex<Book>>) -> std::io::Result<()> {
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

/// Where the body of the request begins and ends, once all of it is there.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let body = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = bytes.get(..body)?;
    let at =
        head.windows(LENGTH.len()).position(|window| window.eq_ignore_ascii_case(LENGTH))? + LENGTH.len();
    let digits = head.get(at..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    let end = body + std::str::from_utf8(digits).ok()?.parse::<usize>().ok()?;
    (bytes.len() >= end).then_some((body, end))
}
