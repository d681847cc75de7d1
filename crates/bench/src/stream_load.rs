//! Readers of events, each with an open stream on its own connection. They search the received bytes for the numbers
//! that the bot said.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::bench_error::BenchError;
use crate::http::HttpConnection;
use crate::load;
use crate::setup;
use crate::turns::{TurnCaller, TurnCallers};

/// The number of streams that open at the same time.
const OPENING: usize = 64;
/// The timeout of an event.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);
const WHAT: &str = "a stream of events";

/// The numbers that the bot said, and their arrivals.
pub(crate) struct StreamLog {
    /// The time at which the bot said each number.
    said: Vec<Instant>,
    latency: Histogram<u64>,
    failure: Option<BenchError>,
}

/// Readers with open streams. A drop closes them.
pub(crate) struct StreamReaders {
    heard: Rc<RefCell<StreamLog>>,
    tasks: JoinSet<()>,
}

impl StreamReaders {
    /// Creates an empty set.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let heard = StreamLog { said: Vec::new(), latency: load::histogram()?, failure: None };
        Ok(Self { heard: Rc::new(RefCell::new(heard)), tasks: JoinSet::new() })
    }

    /// Adds a reader for each of these users, at these addresses.
    pub(crate) async fn open(
        &mut self,
        group: &str,
        users: impl IntoIterator<Item = (usize, SocketAddr)>,
    ) -> Result<(), BenchError> {
        let opening = users.into_iter().map(|(user, address)| open(address, setup::user(group, user)));
        let streams: Vec<_> = stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
        for stream in streams {
            let heard = Rc::clone(&self.heard);
            self.tasks.spawn_local(async move {
                let Err(failure) = listen(stream, &heard).await else { return };
                heard.borrow_mut().failure = Some(failure);
            });
        }
        Ok(())
    }

    /// Connects so many speakers to the sandbox.
    pub(crate) async fn speakers(
        &self,
        sandbox: SocketAddr,
        group: &'static str,
        count: usize,
    ) -> Result<StreamSpeakers, BenchError> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = HttpConnection::open(sandbox).await?;
            all.push(StreamSpeaker { connection, sandbox, group, heard: Rc::clone(&self.heard) });
        }
        Ok(StreamSpeakers(all))
    }

    /// Waits until all numbers have arrived and returns their latencies in microseconds.
    pub(crate) async fn all_heard(&self) -> Result<Histogram<u64>, BenchError> {
        let began = Instant::now();
        loop {
            self.well()?;
            {
                let heard = self.heard.borrow();
                if heard.latency.len() == heard.said.len() as u64 {
                    return Ok(heard.latency.clone());
                }
            }
            if began.elapsed() > PATIENCE {
                return Err(BenchError::Missed { what: "everything that was said", after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Checks that all streams are open.
    pub(crate) fn well(&self) -> Result<(), BenchError> {
        self.heard.borrow_mut().failure.take().map_or(Ok(()), Err)
    }
}

impl StreamLog {
    /// Records a number that the bot says now.
    fn say(&mut self) -> usize {
        self.said.push(Instant::now());
        self.said.len() - 1
    }

    fn hear(&mut self, number: usize) {
        if let Some(said) = self.said.get(number) {
            let micros = u64::try_from(said.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.latency.saturating_record(micros);
        }
    }
}

/// Connections that make the bot speak unasked.
pub(crate) struct StreamSpeakers(Vec<StreamSpeaker>);

pub(crate) struct StreamSpeaker {
    connection: HttpConnection,
    sandbox: SocketAddr,
    group: &'static str,
    heard: Rc<RefCell<StreamLog>>,
}

impl TurnCallers for StreamSpeakers {
    type TurnCaller = StreamSpeaker;
    fn callers(&mut self) -> &mut Vec<StreamSpeaker> {
        &mut self.0
    }
}

impl TurnCaller for StreamSpeaker {
    async fn turn(&mut self, user: usize) -> Result<(), BenchError> {
        let number = self.heard.borrow_mut().say();
        let request = setup::push(self.sandbox, &setup::user(self.group, user), &mark(number));
        let answer = self.connection.exchange(&request).await?;
        if answer.status != 200 || answer.body != setup::PUSHED {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(BenchError::Status { what: "the sandbox", status: answer.status, body });
        }
        Ok(())
    }
}

/// Returns the text of a number.
pub(crate) fn mark(number: usize) -> String {
    format!("{}-{number}-", setup::SIGN)
}

/// Opens a stream and reads its head.
async fn open(address: SocketAddr, user: String) -> Result<TcpStream, BenchError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&setup::reading(&user)).await?;
    let mut head = Vec::with_capacity(1024);
    // A read byte by byte would be slow. Only a comment can follow the head, because the bot has not spoken yet.
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(BenchError::Closed { what: WHAT });
        }
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let body = String::from_utf8_lossy(&head).into_owned();
        let status = body.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        return Err(BenchError::Status { what: WHAT, status, body });
    }
    Ok(stream)
}

/// Reads a stream, which should not end. A number occurs several times in its event and counts once: the numbers of a
/// conversation rise.
async fn listen(mut stream: TcpStream, heard: &RefCell<StreamLog>) -> Result<(), BenchError> {
    let mut inbox = Vec::with_capacity(4096);
    let mut last = None;
    loop {
        if stream.read_buf(&mut inbox).await? == 0 {
            return Err(BenchError::Closed { what: WHAT });
        }
        let rest = numbers(&inbox, |number| {
            if last.is_none_or(|last| last < number) {
                last = Some(number);
                heard.borrow_mut().hear(number);
            }
        });
        inbox.drain(..rest);
    }
}

/// Calls `found` for the numbers in these bytes and returns the start of a possibly incomplete rest.
pub(crate) fn numbers(bytes: &[u8], mut found: impl FnMut(usize)) -> usize {
    let sign = setup::SIGN.as_bytes();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        let Some(next) = rest.windows(sign.len()).position(|window| window == sign) else {
            return bytes.len().saturating_sub(sign.len() - 1).max(at);
        };
        let number = rest.get(next + sign.len()..).unwrap_or_default();
        let Some(end) = number.iter().skip(1).position(|byte| !byte.is_ascii_digit()) else {
            return at + next;
        };
        if let (Some(b'-'), Some(digits)) = (number.first(), number.get(1..=end))
            && let Some(number) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())
        {
            found(number);
        }
        at += next + sign.len();
    }
    bytes.len()
}
