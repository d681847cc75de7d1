//! Those who read events: a connection each, with the stream open, and what is heard on it looked through for the
//! numbers that were said.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::http::Connection;
use crate::load;
use crate::setup;
use crate::turns::{Caller, Callers};

/// Streams that are being opened at the same time.
const OPENING: usize = 64;
/// What has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);
const WHAT: &str = "a stream of events";

/// What was said, and what was heard of it.
pub(crate) struct Heard {
    /// When each number was said.
    said: Vec<Instant>,
    latency: Histogram<u64>,
    failure: Option<Failure>,
}

/// Readers with their streams open; gone when dropped.
pub(crate) struct Readers {
    heard: Rc<RefCell<Heard>>,
    tasks: JoinSet<()>,
}

impl Readers {
    /// Nobody.
    pub(crate) fn new() -> Result<Self, Failure> {
        let heard = Heard { said: Vec::new(), latency: load::histogram()?, failure: None };
        Ok(Self { heard: Rc::new(RefCell::new(heard)), tasks: JoinSet::new() })
    }

    /// One more for each of these users, at these addresses.
    pub(crate) async fn open(
        &mut self,
        group: &str,
        users: impl IntoIterator<Item = (usize, SocketAddr)>,
    ) -> Result<(), Failure> {
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

    /// Those who say numbers, on so many connections to the sandbox.
    pub(crate) async fn speakers(
        &self,
        sandbox: SocketAddr,
        group: &'static str,
        count: usize,
    ) -> Result<Speakers, Failure> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = Connection::open(sandbox).await?;
            all.push(Speaker { connection, sandbox, group, heard: Rc::clone(&self.heard) });
        }
        Ok(Speakers(all))
    }

    /// Waits until everything that was said was heard; how long each took, in microseconds.
    pub(crate) async fn all_heard(&self) -> Result<Histogram<u64>, Failure> {
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
                return Err(Failure::Missed { what: "everything that was said", after: began.elapsed() });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Whether all are still there.
    pub(crate) fn well(&self) -> Result<(), Failure> {
        self.heard.borrow_mut().failure.take().map_or(Ok(()), Err)
    }
}

impl Heard {
    /// The number that is said now.
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

/// Those who let the bot say something unasked.
pub(crate) struct Speakers(Vec<Speaker>);

pub(crate) struct Speaker {
    connection: Connection,
    sandbox: SocketAddr,
    group: &'static str,
    heard: Rc<RefCell<Heard>>,
}

impl Callers for Speakers {
    type Caller = Speaker;
    fn callers(&mut self) -> &mut Vec<Speaker> {
        &mut self.0
    }
}

impl Caller for Speaker {
    async fn turn(&mut self, user: usize) -> Result<(), Failure> {
        let number = self.heard.borrow_mut().say();
        let request = setup::push(self.sandbox, &setup::user(self.group, user), &mark(number));
        let answer = self.connection.exchange(&request).await?;
        if answer.status != 200 || answer.body != setup::PUSHED {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(Failure::Status { what: "the sandbox", status: answer.status, body });
        }
        Ok(())
    }
}

/// How a number is said.
pub(crate) fn mark(number: usize) -> String {
    format!("{}-{number}-", setup::SIGN)
}

/// Opens a stream, up to the end of its head.
async fn open(address: SocketAddr, user: String) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&setup::reading(&user)).await?;
    let mut head = Vec::with_capacity(1024);
    // Byte by byte would be slow, but what follows the head is a comment at most: nobody has said anything.
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(Failure::Closed { what: WHAT });
        }
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let body = String::from_utf8_lossy(&head).into_owned();
        let status = body.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        return Err(Failure::Status { what: WHAT, status, body });
    }
    Ok(stream)
}

/// Reads until the stream ends, which it should not. A number stands in an event more than once, and counts once: those
/// of a conversation rise.
async fn listen(mut stream: TcpStream, heard: &RefCell<Heard>) -> Result<(), Failure> {
    let mut inbox = Vec::with_capacity(4096);
    let mut last = None;
    loop {
        if stream.read_buf(&mut inbox).await? == 0 {
            return Err(Failure::Closed { what: WHAT });
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

/// The numbers in these bytes, and from where on there may be a part of one.
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
