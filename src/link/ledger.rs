//! What the store must be told, one write at a time.
//!
//! Changes that come while a write is in flight go into the next one together, so a busy conversation costs no
//! more round trips than a quiet one. Nothing counts as done before the store has confirmed it.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use crate::domain::{Entry, EntryBody, Record, Timestamp};
use crate::store::{Change, Write};

/// The store is ours and near, callers wait for its answer, and a lease is short: repeats do not wait long.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Changes on their way to the store, and the record as it will be after them.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The record; changed freely, written with the next write.
    pub(crate) record: Record,
    changes: Vec<Change>,
    confirms: Confirms,
    /// Whether the record alone is worth a write.
    touched: bool,
    in_flight: Option<InFlight>,
    backoff: Backoff,
}

/// What the head's turn waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Confirms {
    /// `sent` is stored: the message may go out.
    pub(crate) sent: bool,
    /// The end is stored: it may be told.
    pub(crate) ended: bool,
}

#[derive(Debug)]
struct InFlight {
    write: Arc<Write>,
    confirms: Confirms,
    /// Set after an unknown result: when to repeat it.
    repeat_at: Option<Timestamp>,
}

impl Ledger {
    pub(crate) fn new(record: Record) -> Self {
        Self {
            record,
            changes: Vec::new(),
            confirms: Confirms::default(),
            touched: false,
            in_flight: None,
            backoff: Backoff::capped(MAX_WAIT),
        }
    }

    /// Adds a change.
    pub(crate) fn push(&mut self, change: Change) {
        if matches!(change, Change::Sent { .. }) {
            self.confirms.sent = true;
        }
        self.changes.push(change);
    }

    /// The place that the next entry will have.
    pub(crate) const fn next_seq(&self) -> u64 {
        self.record.seq + 1
    }

    /// Adds an entry to the journal.
    pub(crate) fn append(&mut self, at: Timestamp, body: EntryBody) {
        self.record.seq += 1;
        if matches!(body, EntryBody::Ended { .. }) {
            self.confirms.ended = true;
        }
        self.changes.push(Change::Append(Entry { seq: self.record.seq, at, body }));
    }

    /// The record must be written although nothing else changed.
    pub(crate) const fn touch(&mut self) {
        self.touched = true;
    }

    /// The write to send off now, if one is due.
    pub(crate) fn flush(&mut self, now: Timestamp) -> Option<Arc<Write>> {
        if let Some(in_flight) = &mut self.in_flight {
            let due = in_flight.repeat_at.is_some_and(|at| now >= at);
            return due.then(|| {
                in_flight.repeat_at = None;
                Arc::clone(&in_flight.write)
            });
        }
        if self.changes.is_empty() && !self.touched {
            return None;
        }
        self.touched = false;
        self.record.write += 1;
        let changes = std::mem::take(&mut self.changes);
        let write = Arc::new(Write { record: self.record.clone(), changes, warm_until: None });
        let confirms = std::mem::take(&mut self.confirms);
        self.in_flight = Some(InFlight { write: Arc::clone(&write), confirms, repeat_at: None });
        Some(write)
    }

    /// The write in flight is carried out.
    pub(crate) fn on_stored(&mut self) -> Confirms {
        self.backoff.reset();
        self.in_flight.take().map(|in_flight| in_flight.confirms).unwrap_or_default()
    }

    /// Nobody knows whether the write in flight is carried out: it will be repeated under its number.
    pub(crate) fn on_unknown(&mut self, now: Timestamp, draw: f64) {
        let wait = self.backoff.next(draw, Duration::ZERO);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.repeat_at = Some(now + wait);
        }
    }

    /// Whether the store knows everything.
    pub(crate) const fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.changes.is_empty() && !self.touched
    }

    /// When a repeat is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.in_flight.as_ref().and_then(|in_flight| in_flight.repeat_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageId;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn acked() -> Change {
        Change::Acked { message: MessageId::new(at(1), 1), at: at(1) }
    }

    #[test]
    fn one_write_at_a_time_and_the_rest_together() {
        let mut ledger = Ledger::new(Record::default());
        assert!(ledger.flush(at(0)).is_none());
        ledger.push(Change::Sent { message: MessageId::new(at(1), 1), at: at(1) });
        let first = ledger.flush(at(0)).unwrap();
        assert_eq!((first.record.write, first.changes.len()), (1, 1));
        ledger.push(acked());
        ledger.push(acked());
        assert!(ledger.flush(at(0)).is_none(), "one is in flight");
        assert_eq!(ledger.on_stored(), Confirms { sent: true, ended: false });
        let second = ledger.flush(at(0)).unwrap();
        assert_eq!((second.record.write, second.changes.len()), (2, 2));
        assert_eq!(ledger.on_stored(), Confirms::default());
        assert!(ledger.is_settled());
    }

    #[test]
    fn an_unknown_write_is_repeated_under_its_number() {
        let mut ledger = Ledger::new(Record::default());
        ledger.push(acked());
        let first = ledger.flush(at(0)).unwrap();
        ledger.on_unknown(at(100), 1.0);
        ledger.push(acked());
        assert!(ledger.flush(at(100)).is_none());
        assert_eq!(ledger.wake_at(), Some(at(350)));
        let again = ledger.flush(at(350)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(ledger.flush(at(350)).is_none());
    }

    #[test]
    fn a_repeat_never_waits_longer_than_a_lease() {
        let mut ledger = Ledger::new(Record::default());
        ledger.push(acked());
        ledger.flush(at(0)).unwrap();
        for _ in 0..20 {
            ledger.on_unknown(at(0), 1.0);
        }
        assert_eq!(ledger.wake_at(), Some(at(2000)));
    }
}
