//! The changes for the store, one write at a time.
//!
//! Changes during a write go together into the next one, so a busy conversation costs no more round trips than a
//! quiet one. A change counts as done when the store has confirmed it. Acks and records may wait a moment to travel
//! with other changes. The changes that wait for an unavailable store have a bound ([`WriteBuffer::is_full`]), at
//! which their socket is abandoned. During a write the socket is read only until a short next write is full
//! ([`WriteBuffer::is_crowded`]), so a bot that says much waits instead.

mod pending_changes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::pending_changes::PendingChanges;
use crate::domain::{
    AcceptedMessage, Backoff, ConversationRecord, EntryBody, JournalEntry, JournalPosition, MessageId,
    Timestamp, TurnOutcome,
};
use crate::store::{ConversationChange, ConversationWrite};

/// The time for which an ack, or a record that changed alone, waits for other changes. A bot that answers at once
/// does so within it, which saves a round trip (ADR 15). After a crash, history proves the receipt as well.
const COMPANY_WAIT: Duration = Duration::from_millis(20);
/// A due time that has always passed.
const AT_ONCE: Timestamp = Timestamp::from_millis(0);

/// The changes on their way to the store, and the record as it will be after them.
#[derive(Debug)]
pub(crate) struct WriteBuffer {
    /// The record. It is changed freely and written with the next write.
    pub(crate) record: ConversationRecord,
    pending: PendingChanges,
    on_commit: OnCommit,
    warm_until: Option<Timestamp>,
    /// The warm time that the store is known to have.
    stored_warm: Option<Timestamp>,
    /// When the changes and the record are written, if the store does not know all.
    due: Option<Timestamp>,
    confirmed: u64,
    /// Whether the store may have lost confirmed writes. New writes wait until their predecessor is known.
    doubt: bool,
    in_flight: Option<InFlightWrite>,
    backoff: Backoff,
}

/// The effects that wait for a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnCommit {
    /// `sent` is stored, so the message may be sent.
    pub(crate) sent: bool,
    /// The end of the head's turn is stored, so its waiters are told.
    pub(crate) ended: bool,
    /// These messages are stored as lost, so their waiters are told.
    pub(crate) lost: Vec<MessageId>,
}

#[derive(Debug)]
struct InFlightWrite {
    write: Arc<ConversationWrite>,
    on_commit: OnCommit,
    /// When a write with an unknown result is repeated.
    repeat_at: Option<Timestamp>,
    /// Whether the store ever left it without an answer. Its changes then count as waiting ones.
    unanswered: bool,
}

impl WriteBuffer {
    pub(crate) fn new(record: ConversationRecord) -> Self {
        Self {
            confirmed: record.write,
            record,
            pending: PendingChanges::default(),
            on_commit: OnCommit::default(),
            warm_until: None,
            stored_warm: None,
            due: None,
            doubt: false,
            in_flight: None,
            backoff: Backoff::for_store(),
        }
    }

    /// Adds a change. An ack may wait for other changes.
    pub(crate) fn push(&mut self, change: ConversationChange) {
        let due = if let ConversationChange::Acked { at, .. } = change { at + COMPANY_WAIT } else { AT_ONCE };
        self.on_commit.sent |= matches!(change, ConversationChange::Sent { .. });
        self.pending.push(change);
        self.be_due(due);
    }

    /// Returns the position of the next entry.
    pub(crate) const fn next_seq(&self) -> u64 {
        self.record.seq + 1
    }

    /// Returns the position of the last entry.
    pub(crate) const fn place(&self) -> JournalPosition {
        JournalPosition { epoch: self.record.epoch, seq: self.record.seq }
    }

    /// Adds an entry to the journal. Its deliveries, if any, are pushed next.
    pub(crate) fn append(&mut self, at: Timestamp, body: EntryBody) {
        self.record.begin_journal(at);
        self.record.seq += 1;
        self.push(ConversationChange::Append(JournalEntry { seq: self.record.seq, at, body }));
    }

    /// Adds the deliveries of the last entry.
    pub(crate) fn deliver(&mut self, deliveries: Vec<ConversationChange>) {
        for delivery in deliveries {
            self.push(delivery);
        }
    }

    /// Adds the end of the head's turn. During `warm_for` a new owner opens a link without an open message, because
    /// the bot may go on.
    ///
    /// The stored time is a quarter longer, and is not renewed before that is used up. In a lively conversation most
    /// ends therefore need not write it.
    pub(crate) fn end(
        &mut self,
        at: Timestamp,
        message: MessageId,
        outcome: TurnOutcome,
        warm_for: Option<Duration>,
    ) {
        self.append(at, EntryBody::Ended { message, outcome });
        self.on_commit.ended = true;
        if let Some(window) = warm_for
            && self.stored_warm.is_none_or(|stored| stored < at + window)
        {
            self.warm_until = Some(at + window + window / 4);
        }
    }

    pub(crate) fn end_session(&mut self, at: Timestamp, message: MessageId, outcome: TurnOutcome) {
        self.append(at, EntryBody::Closed { message, outcome });
        self.on_commit.ended = true;
    }

    /// Has a new owner open a link until then without an open message. The next write tells it.
    pub(crate) const fn warm(&mut self, until: Timestamp) {
        self.warm_until = Some(until);
    }

    /// Adds the end of a message whose end the store lost.
    pub(crate) fn end_lost(&mut self, at: Timestamp, message: &AcceptedMessage, outcome: TurnOutcome) {
        self.append(at, EntryBody::end_of(message, outcome));
        self.on_commit.lost.push(message.id);
    }

    /// Has the record written without other changes. It may wait for some.
    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.be_due(now + COMPANY_WAIT);
    }

    /// Ends the wait of acks and records for other changes.
    pub(crate) fn flush_now(&mut self) {
        if self.due.is_some() {
            self.due = Some(AT_ONCE);
        }
    }

    fn be_due(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Returns the write to send now, if one is due.
    pub(crate) fn next_write(&mut self, now: Timestamp) -> Option<Arc<ConversationWrite>> {
        if let Some(in_flight) = &mut self.in_flight {
            let due = in_flight.repeat_at.is_some_and(|at| now >= at);
            return due.then(|| {
                in_flight.repeat_at = None;
                Arc::clone(&in_flight.write)
            });
        }
        if self.doubt || self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        self.record.number_write(now);
        let write = Arc::new(ConversationWrite {
            record: self.record.clone(),
            follows: self.confirmed,
            changes: self.pending.take(),
            warm_until: self.warm_until.take(),
        });
        let on_commit = std::mem::take(&mut self.on_commit);
        self.in_flight =
            Some(InFlightWrite { write: Arc::clone(&write), on_commit, repeat_at: None, unanswered: false });
        Some(write)
    }

    /// Notes that the write in flight is stored. Returns the effects that waited for it.
    pub(crate) fn on_stored(&mut self) -> OnCommit {
        self.backoff.reset();
        let Some(in_flight) = self.in_flight.take() else { return OnCommit::default() };
        self.confirmed = in_flight.write.record.write;
        self.stored_warm = in_flight.write.warm_until.or(self.stored_warm);
        in_flight.on_commit
    }

    /// Schedules the repeat of a write whose result is unknown. It keeps its number.
    pub(crate) fn on_unknown(&mut self, now: Timestamp, draw: f64) {
        let wait = self.backoff.next(draw);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.repeat_at = Some(now + wait);
            in_flight.unanswered = true;
        }
    }

    /// Puts the changes of a refused write back. The write did not follow the last one of the store.
    pub(crate) fn on_refused(&mut self) {
        self.backoff.reset();
        let Some(in_flight) = self.in_flight.take() else { return };
        let ConversationWrite { changes, warm_until, .. } = Arc::unwrap_or_clone(in_flight.write);
        self.pending.put_first(changes);
        self.warm_until = self.warm_until.or(warm_until);
        self.on_commit.sent |= in_flight.on_commit.sent;
        self.on_commit.ended |= in_flight.on_commit.ended;
        self.on_commit.lost.extend(in_flight.on_commit.lost);
        self.be_due(AT_ONCE);
    }

    /// Holds new writes until [`WriteBuffer::follow`], because the store may have lost confirmed ones.
    pub(crate) const fn doubt(&mut self) {
        self.doubt = true;
        self.stored_warm = None;
    }

    /// Returns whether the store may have lost confirmed writes.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// Lets the next write follow the last one of the store. Its number stays above all used ones, so a delayed write
    /// cannot be stored after it. `missing` are the changes that the store lost; they come first.
    pub(crate) fn follow(&mut self, store: &ConversationRecord, missing: Vec<ConversationChange>) {
        self.record.write = self.record.write.max(store.write);
        self.confirmed = store.write;
        self.record.seq = self.record.seq.max(store.seq);
        self.on_commit.sent |= missing.iter().any(|change| matches!(change, ConversationChange::Sent { .. }));
        self.pending.put_first(missing);
        if !self.waiting().is_empty() || self.record != *store {
            self.be_due(AT_ONCE);
        }
        self.doubt = false;
    }

    /// Drops the waiting changes of the head's message, because the store lost it. The replies of the bot stay.
    pub(crate) fn forget(&mut self, id: MessageId) {
        self.on_commit.sent = false;
        self.on_commit.ended = false;
        self.pending.forget(id);
    }

    pub(crate) fn waiting(&self) -> &[ConversationChange] {
        self.pending.all()
    }

    /// Returns whether no further frame should be read before a write.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.pending.is_crowded()
    }

    /// Returns whether the waiting changes have reached their bound. Those of an unanswered write count, because a
    /// refusal puts them back.
    pub(crate) fn is_full(&self) -> bool {
        let unanswered = self.in_flight.as_ref().filter(|in_flight| in_flight.unanswered);
        self.pending.is_full_with(unanswered.map_or(&[], |in_flight| &in_flight.write.changes))
    }

    pub(crate) const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(crate) const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Returns whether the store knows everything.
    pub(crate) const fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.due.is_none()
    }

    /// Drops the changes that wait, because the store is to delete the conversation.
    pub(crate) fn discard(&mut self) {
        self.pending = PendingChanges::default();
        self.on_commit = OnCommit::default();
        (self.warm_until, self.due, self.doubt) = (None, None, false);
    }

    /// Returns when a write or its repeat is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        match &self.in_flight {
            Some(in_flight) => in_flight.repeat_at,
            None if self.doubt => None,
            None => self.due,
        }
    }
}
