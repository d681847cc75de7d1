//! The progress of a connection, with its limits of time and bytes.
//!
//! Actix limits the time of the first head only. It reads a chunked body without a reader to its end, however long that
//! is. This module therefore follows the bytes of each request: its head, its body, the answer, and the bytes behind. It
//! decides, and [`super::detachable_connection`] reads, writes and closes.
//!
//! An empty line ends a head. A body ends by its length, or by the empty line behind its last chunk. A request that came together with the one before it has an unknown begin. Its connection then counts as one
//! that has sent the next head in part.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use tokio::time::Instant;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    /// Silence between two requests. It exceeds that of load balancers, so that they close first.
    pub(super) keep_alive: Duration,
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// From an answer whose request has an unread body to the close.
    pub(super) linger: Duration,
    /// The span in which a peer must take bytes.
    pub(super) stall: Duration,
    /// The same while memory or connections are scarce.
    pub(super) stall_scarce: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(75),
            head: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            stall: Duration::from_mins(2),
            stall_scarce: Duration::from_secs(30),
        }
    }
}

/// Most bytes of a request before its answer, with the marks of its chunks.
const REQUEST_BYTES: usize = 8 << 20;
/// Most bytes behind an answer until the next request: an unread body, or a head. Actix takes heads up to 128 KiB.
const UNREAD_BYTES: usize = 1 << 20;

/// The length of a request's body (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// The body has this length, which may be zero.
    Exact(u64),
    /// The body ends with its last chunk.
    Chunked,
}

impl BodyLength {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::UPGRADE) {
            return Self::Chunked;
        }
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self::Exact(length.unwrap_or(0))
    }
}

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// It waits for a request, and has sent nothing of it.
    Idle,
    /// It has sent a part of a head.
    Head,
    /// A handler works on its request.
    Request,
    /// Its answer is on its way.
    Answer,
    /// It has an answer, and its request has an unread body.
    Unread,
}

/// The reason for which the bridge closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutReason {
    /// No request came.
    Idle,
    /// A head was not complete in time.
    SlowHead,
    /// The body of an answered request is unread.
    Unread,
    /// The peer takes no bytes.
    Stalled,
    /// Another connection needs its place.
    Evicted,
}

/// The decision about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionVerdict {
    /// It may go on for any time.
    Open,
    /// It may go on until then.
    Until(Instant),
    /// It must close.
    Close(CutReason),
}

/// The progress of a connection.
#[derive(Debug)]
pub(super) struct ConnectionProgress {
    timeouts: ConnectionTimeouts,
    phase: ConnectionPhase,
    since: Instant,
    /// Bytes since the begin of the current head.
    received: u64,
    head: HeadScanner,
    /// The last bytes.
    tail: [u8; 3],
    /// The length of the current request's body.
    body: BodyLength,
    /// Whether the begin of the current head is known.
    begin_known: bool,
    /// Bytes that may be read in this phase.
    allowance: usize,
    /// Since when the peer takes no bytes although there are some.
    stalled_since: Option<Instant>,
}

impl ConnectionProgress {
    pub(super) fn new(timeouts: ConnectionTimeouts, now: Instant) -> Self {
        Self {
            timeouts,
            phase: ConnectionPhase::Idle,
            since: now,
            received: 0,
            head: HeadScanner::default(),
            tail: [0; 3],
            body: BodyLength::Exact(0),
            begin_known: true,
            allowance: UNREAD_BYTES,
            stalled_since: None,
        }
    }

    /// Returns whether more bytes may be read now.
    pub(super) const fn may_read(&self) -> bool {
        self.allowance > 0
    }

    /// Takes note of bytes from the peer.
    pub(super) fn received(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) {
        if bytes.is_empty() {
            return;
        }
        if self.phase == ConnectionPhase::Idle {
            self.phase = ConnectionPhase::Head;
            self.since = now();
        }
        self.head.scan(bytes, self.received);
        self.received += bytes.len() as u64;
        let [_, second, third] = self.tail;
        self.tail = match *bytes {
            [] => self.tail,
            [last] => [second, third, last],
            [one, last] => [third, one, last],
            [.., two, one, last] => [two, one, last],
        };
        self.allowance = self.allowance.saturating_sub(bytes.len());
    }

    /// Takes note of a request with a body of this length.
    pub(super) fn request_begun(&mut self, body: BodyLength) {
        self.phase = ConnectionPhase::Request;
        self.body = body;
        self.allowance = REQUEST_BYTES;
    }

    /// Allows a longer body for the request in work, with as many bytes for the marks of its chunks.
    pub(super) fn allow_body(&mut self, bytes: usize) {
        self.allowance = self.allowance.max(bytes.saturating_mul(2).saturating_add(REQUEST_BYTES));
    }

    /// Takes note of an answer. Returns whether the request has a body that did not arrive to its end.
    pub(super) fn answer_begun(&mut self) -> bool {
        self.phase = ConnectionPhase::Answer;
        self.allowance = self.allowance.min(UNREAD_BYTES);
        !self.has_whole_request()
    }

    /// Takes note that the peer has the whole answer, as far as the system can tell.
    pub(super) fn answer_taken(&mut self, now: Instant) {
        let (whole, more) = (self.has_whole_request(), self.has_more());
        self.since = now;
        if whole {
            self.allowance = UNREAD_BYTES;
        }
        self.phase = match (whole, more) {
            (false, _) => ConnectionPhase::Unread,
            (true, true) => ConnectionPhase::Head,
            (true, false) => ConnectionPhase::Idle,
        };
        self.begin_known = whole && !more;
        self.received = 0;
        self.head = HeadScanner::default();
    }

    /// Takes note that the peer has taken bytes, or that it has taken none of those that there are.
    pub(super) fn written(&mut self, some: bool, now: impl FnOnce() -> Instant) {
        if some {
            self.stalled_since = None;
        } else if self.stalled_since.is_none() {
            self.stalled_since = Some(now());
        }
    }

    /// Returns whether the connection may give its place to another.
    pub(super) const fn is_evictable(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Idle | ConnectionPhase::Head | ConnectionPhase::Unread)
    }

    /// Decides at this time. `scarce` says whether memory or connections are.
    pub(super) fn verdict(&self, now: Instant, scarce: bool) -> ConnectionVerdict {
        let due = match self.phase {
            ConnectionPhase::Idle => Some((self.timeouts.keep_alive, CutReason::Idle)),
            ConnectionPhase::Head => Some((self.timeouts.head, CutReason::SlowHead)),
            ConnectionPhase::Unread => Some((self.timeouts.linger, CutReason::Unread)),
            ConnectionPhase::Request | ConnectionPhase::Answer => None,
        };
        let due = due.map(|(span, reason)| (self.since + span, reason));
        if due.is_some() && !self.may_read() {
            return ConnectionVerdict::Close(CutReason::Unread);
        }
        let patience = if scarce { self.timeouts.stall_scarce } else { self.timeouts.stall };
        let stalled = self.stalled_since.map(|since| (since + patience, CutReason::Stalled));
        if let Some((_, reason)) = [due, stalled].into_iter().flatten().find(|(at, _)| now >= *at) {
            return ConnectionVerdict::Close(reason);
        }
        // The begin of scarcity is not told, so a stalled connection looks for it from time to time.
        let look = stalled.map(|(at, _)| at.min(now + self.timeouts.stall_scarce / 4));
        let next = due.map(|(at, _)| at).into_iter().chain(look).min();
        next.map_or(ConnectionVerdict::Open, ConnectionVerdict::Until)
    }

    /// Returns whether the current request arrived to its end. One with an unknown begin counts as whole.
    fn has_whole_request(&self) -> bool {
        let Some(end) = self.end_of_head() else { return true };
        match self.body {
            BodyLength::Exact(length) => self.received >= end.saturating_add(length),
            BodyLength::Chunked => self.received > end && self.ends_with_empty_line(),
        }
    }

    /// Returns whether bytes of the next request arrived, or may have arrived.
    fn has_more(&self) -> bool {
        let Some(end) = self.end_of_head() else { return true };
        match self.body {
            BodyLength::Exact(length) => self.received > end.saturating_add(length),
            BodyLength::Chunked => !self.ends_with_empty_line(),
        }
    }

    fn end_of_head(&self) -> Option<u64> {
        self.head.end.filter(|_| self.begin_known)
    }

    const fn ends_with_empty_line(&self) -> bool {
        matches!(self.tail, [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n'])
    }
}

/// Finds the end of a head in its bytes, which may come in any pieces.
#[derive(Debug, Default)]
struct HeadScanner {
    /// The place behind the empty line.
    end: Option<u64>,
    /// Whether a line has text. Empty lines before the first are skipped (RFC 9112, 2.2).
    begun: bool,
    /// Whether the current line has text.
    in_line: bool,
}

impl HeadScanner {
    /// Takes bytes that follow `received` others.
    fn scan(&mut self, bytes: &[u8], received: u64) {
        let mut rest = bytes;
        while self.end.is_none() && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = behind;
            self.in_line |= line.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
            self.begun |= self.in_line;
            if end.is_some() && !std::mem::take(&mut self.in_line) && self.begun {
                self.end = Some(received + (bytes.len() - rest.len()) as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests;
