//! What the store must be told, one write at a time.
//!
//! Changes that come while a write is in flight go into the next one together, so a busy conversation costs no
//! more round trips than a quiet one. Nothing counts as done before the store has confirmed it. What may wait a
//! moment for company does; what piles up while the store is away has a bound, [`Ledger::is_full`], at which the
//! socket that feeds it is given up.

mod pending;

use std::sync::Arc;
use std::time::Duration;

use self::pending::Pending;
use crate::domain::{
    AcceptedMessage, Backoff, ConversationRecord, EntryBody, JournalEntry, JournalPosition, MessageId,
    Timestamp, TurnOutcome,
};
use crate::store::{ConversationChange, ConversationWrite};

/// How long an ack, or a record that changed alone, waits for a change to travel with: a bot that answers at once
/// does so in this time, and the round trip is saved. A crash in between costs nothing but a look, for history
/// proves receipt as well.
const HOLD: Duration = Duration::from_millis(20);
/// Due whatever the time.
const AT_ONCE: Timestamp = Timestamp::from_millis(0);

/// Changes on their way to the store, and the record as it will be after them.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The record; changed freely, written with the next write.
    pub(crate) record: ConversationRecord,
    pending: Pending,
    confirms: Confirms,
    warm_until: Option<Timestamp>,
    /// What the store is known to have for it.
    stored_warm: Option<Timestamp>,
    /// When the changes and the record are to be written; none where nothing has to be.
    due: Option<Timestamp>,
    /// The number of the last write that the store confirmed.
    confirmed: u64,
    /// Whether the store may have lost what it confirmed: new writes wait until it is known what they follow.
    doubt: bool,
    in_flight: Option<InFlight>,
    backoff: Backoff,
}

/// What waits for a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confirms {
    /// `sent` is stored: the message may go out.
    pub(crate) sent: bool,
    /// The end of the head's turn is stored: it may be told.
    pub(crate) ended: bool,
    /// These are stored as lost: whoever waits for one may read that.
    pub(crate) lost: Vec<MessageId>,
}

#[derive(Debug)]
struct InFlight {
    write: Arc<ConversationWrite>,
    confirms: Confirms,
    /// Set after an unknown result: when to repeat it.
    repeat_at: Option<Timestamp>,
}

impl Ledger {
    pub(crate) fn new(record: ConversationRecord) -> Self {
        Self {
            confirmed: record.write,
            record,
            pending: Pending::default(),
            confirms: Confirms::default(),
            warm_until: None,
            stored_warm: None,
            due: None,
            doubt: false,
            in_flight: None,
            backoff: Backoff::for_store(),
        }
    }

    /// Adds a change. An ack may wait for company.
    pub(crate) fn push(&mut self, change: ConversationChange) {
        let due = if let ConversationChange::Acked { at, .. } = change { at + HOLD } else { AT_ONCE };
        self.confirms.sent |= matches!(change, ConversationChange::Sent { .. });
        self.pending.push(change);
        self.be_due(due);
    }

    /// The place that the next entry will have.
    pub(crate) const fn next_seq(&self) -> u64 {
        self.record.seq + 1
    }

    /// The place of the last entry.
    pub(crate) const fn place(&self) -> JournalPosition {
        JournalPosition { epoch: self.record.epoch, seq: self.record.seq }
    }

    /// Adds an entry to the journal. A delivery that tells of it is the next to be pushed.
    pub(crate) fn append(&mut self, at: Timestamp, body: EntryBody) {
        self.record.begin_journal(at);
        self.record.seq += 1;
        self.push(ConversationChange::Append(JournalEntry { seq: self.record.seq, at, body }));
    }

    /// Has the entry that was just added delivered, where somebody is to be told.
    pub(crate) fn deliver(&mut self, delivery: Option<ConversationChange>) {
        if let Some(delivery) = delivery {
            self.push(delivery);
        }
    }

    /// Adds the end of the head's turn. For `warm_for`, where it is given, a new owner is to open a link although
    /// nothing is open: the bot may go on speaking.
    ///
    /// The store is told of a quarter more, and not again before that is used up: in a lively conversation most
    /// ends then need not say it.
    pub(crate) fn end(
        &mut self,
        at: Timestamp,
        message: MessageId,
        outcome: TurnOutcome,
        warm_for: Option<Duration>,
    ) {
        self.append(at, EntryBody::Ended { message, outcome });
        self.confirms.ended = true;
        if let Some(window) = warm_for
            && self.stored_warm.is_none_or(|stored| stored < at + window)
        {
            self.warm_until = Some(at + window + window / 4);
        }
    }

    /// Adds the end of the head, which ends the session.
    pub(crate) fn end_close(&mut self, at: Timestamp, message: MessageId, outcome: TurnOutcome) {
        self.append(at, EntryBody::Closed { message, outcome });
        self.confirms.ended = true;
    }

    /// A new owner is to open a link until then although nothing is open. Told with the next write.
    pub(crate) const fn warm(&mut self, until: Timestamp) {
        self.warm_until = Some(until);
    }

    /// Adds the end of a message of which the store lost how it ended.
    pub(crate) fn end_lost(&mut self, at: Timestamp, message: &AcceptedMessage, outcome: TurnOutcome) {
        self.append(at, EntryBody::end_of(message, outcome));
        self.confirms.lost.push(message.id);
    }

    /// The record must be written although nothing else changed. That may wait for company.
    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.be_due(now + HOLD);
    }

    /// What may wait for company waits no longer.
    pub(crate) fn hurry(&mut self) {
        if self.due.is_some() {
            self.due = Some(AT_ONCE);
        }
    }

    fn be_due(&mut self, at: Timestamp) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The write to send off now, if one is due.
    pub(crate) fn flush(&mut self, now: Timestamp) -> Option<Arc<ConversationWrite>> {
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
        let confirms = std::mem::take(&mut self.confirms);
        self.in_flight = Some(InFlight { write: Arc::clone(&write), confirms, repeat_at: None });
        Some(write)
    }

    /// The write in flight is carried out.
    pub(crate) fn on_stored(&mut self) -> Confirms {
        self.backoff.reset();
        let Some(in_flight) = self.in_flight.take() else { return Confirms::default() };
        self.confirmed = in_flight.write.record.write;
        self.stored_warm = in_flight.write.warm_until.or(self.stored_warm);
        in_flight.confirms
    }

    /// Nobody knows whether the write in flight is carried out: it will be repeated under its number.
    pub(crate) fn on_unknown(&mut self, now: Timestamp, draw: f64) {
        let wait = self.backoff.next(draw);
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.repeat_at = Some(now + wait);
        }
    }

    /// The write in flight was refused, because it does not follow the last one that the store has: its changes
    /// are to be written again.
    pub(crate) fn on_refused(&mut self) {
        self.backoff.reset();
        let Some(in_flight) = self.in_flight.take() else { return };
        let ConversationWrite { changes, warm_until, .. } = Arc::unwrap_or_clone(in_flight.write);
        self.pending.put_first(changes);
        self.warm_until = self.warm_until.or(warm_until);
        self.confirms.sent |= in_flight.confirms.sent;
        self.confirms.ended |= in_flight.confirms.ended;
        self.confirms.lost.extend(in_flight.confirms.lost);
        self.be_due(AT_ONCE);
    }

    /// The store may have lost what it confirmed: nothing new is written before [`Ledger::follow`].
    pub(crate) const fn doubt(&mut self) {
        self.doubt = true;
        self.stored_warm = None;
    }

    /// Whether the store may have lost what it confirmed.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        self.doubt
    }

    /// The next write follows the one that the store has last; its number stays above all that were used, so that
    /// none that is still on its way is taken after it. `missing` is what the store had and lost, and comes before
    /// all that waits.
    pub(crate) fn follow(&mut self, store: &ConversationRecord, missing: Vec<ConversationChange>) {
        self.record.write = self.record.write.max(store.write);
        self.confirmed = store.write;
        self.record.seq = self.record.seq.max(store.seq);
        self.confirms.sent |= missing.iter().any(|change| matches!(change, ConversationChange::Sent { .. }));
        self.pending.put_first(missing);
        if !self.waiting().is_empty() || self.record != *store {
            self.be_due(AT_ONCE);
        }
        self.doubt = false;
    }

    /// Lets go of what waits to be told of the head's message: it is lost. What the bot said stays.
    pub(crate) fn forget(&mut self, id: MessageId) {
        self.confirms.sent = false;
        self.confirms.ended = false;
        self.pending.forget(id);
    }

    /// What waits for its write.
    pub(crate) fn waiting(&self) -> &[ConversationChange] {
        self.pending.all()
    }

    /// Whether so much waits that no more can be taken in.
    pub(crate) const fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// Whether a write is on its way.
    pub(crate) const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The number of the last write that the store confirmed.
    pub(crate) const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Whether the store knows everything.
    pub(crate) const fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.due.is_none()
    }

    /// When a write or a repeat is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        match &self.in_flight {
            Some(in_flight) => in_flight.repeat_at,
            None if self.doubt => None,
            None => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pending::{MAX_CHANGES, MAX_WEIGHT};
    use super::*;
    use crate::domain::{
        BotName, ConversationId, DeliveryId, DeliveryKind, DeliveryOrigin, MessageId, NewDelivery, TraceId,
        UserId,
    };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn acked() -> ConversationChange {
        ConversationChange::Acked { message: MessageId::new(at(1), 1), at: at(1) }
    }

    #[test]
    fn one_write_at_a_time_and_the_rest_together() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        assert!(ledger.flush(at(0)).is_none());
        ledger.push(ConversationChange::Sent { message: MessageId::new(at(1), 1), at: at(1) });
        let first = ledger.flush(at(0)).unwrap();
        assert_eq!((first.record.write, first.follows, first.changes.len()), (1, 0, 1));
        ledger.push(acked());
        ledger.push(acked());
        assert!(ledger.flush(at(0)).is_none(), "one is in flight");
        assert_eq!(ledger.on_stored(), Confirms { sent: true, ..Confirms::default() });
        let second = ledger.flush(at(21)).unwrap();
        assert_eq!((second.record.write, second.follows, second.changes.len()), (21, 1, 2));
        assert_eq!(ledger.on_stored(), Confirms::default());
        assert!(ledger.is_settled());
    }

    #[test]
    fn an_unknown_write_is_repeated_under_its_number() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        ledger.push(acked());
        let first = ledger.flush(at(50)).unwrap();
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
        let mut ledger = Ledger::new(ConversationRecord::default());
        ledger.push(acked());
        ledger.flush(at(50)).unwrap();
        for _ in 0..20 {
            ledger.on_unknown(at(0), 1.0);
        }
        assert_eq!(ledger.wake_at(), Some(at(2000)));
    }

    #[test]
    fn an_ack_waits_for_company_and_nothing_else_does() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        ledger.push(acked());
        assert!(ledger.flush(at(20)).is_none());
        assert_eq!(ledger.wake_at(), Some(at(21)));
        ledger.append(at(5), EntryBody::Platform(raw("{}")));
        assert_eq!(ledger.flush(at(5)).unwrap().changes.len(), 2, "the entry takes it along");
        ledger.on_stored();
        ledger.touch(at(100));
        assert!(ledger.flush(at(119)).is_none() && !ledger.is_settled());
        assert!(ledger.flush(at(120)).unwrap().changes.is_empty());
        ledger.on_stored();
        ledger.push(acked());
        ledger.hurry();
        assert!(ledger.flush(at(1)).is_some());
    }

    #[test]
    fn a_refused_write_is_written_again_behind_what_the_store_lost() {
        let mut ledger =
            Ledger::new(ConversationRecord { write: 7, seq: 3, ..ConversationRecord::default() });
        let id = MessageId::new(at(1), 1);
        ledger.end(
            at(9),
            id,
            TurnOutcome::Answered(crate::domain::EndedBy::Quiet),
            Some(Duration::from_millis(80)),
        );
        let refused = ledger.flush(at(9)).unwrap();
        ledger.push(acked());
        ledger.on_refused();
        ledger.doubt();
        assert!(ledger.flush(at(50)).is_none() && ledger.wake_at().is_none());
        let store = ConversationRecord { write: 5, seq: 2, ..ConversationRecord::default() };
        ledger.follow(&store, vec![ConversationChange::Sent { message: id, at: at(2) }]);
        let again = ledger.flush(at(50)).unwrap();
        assert_eq!((refused.follows, again.follows), (7, 5));
        assert!(again.record.write > refused.record.write);
        assert_eq!((refused.warm_until, again.warm_until), (Some(at(109)), Some(at(109))));
        assert_eq!(again.record.seq, 4);
        assert!(matches!(
            &*again.changes,
            [
                ConversationChange::Sent { .. },
                ConversationChange::Append(JournalEntry { seq: 4, .. }),
                ConversationChange::Acked { .. }
            ]
        ));
        assert_eq!(ledger.on_stored(), Confirms { sent: true, ended: true, lost: Vec::new() });
    }

    #[test]
    fn how_long_the_bot_may_speak_is_told_when_what_was_told_is_used_up() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        let told = |ledger: &mut Ledger, now| {
            let outcome = TurnOutcome::Answered(crate::domain::EndedBy::Quiet);
            ledger.end(at(now), MessageId::new(at(1), 1), outcome, Some(Duration::from_millis(400)));
            ledger.flush(at(now)).unwrap().warm_until
        };
        assert_eq!(told(&mut ledger, 1000), Some(at(1500)));
        ledger.on_unknown(at(1000), 1.0);
        ledger.on_refused();
        assert_eq!(told(&mut ledger, 1050), Some(at(1550)), "nobody knows what the store has");
        ledger.on_stored();
        assert_eq!(told(&mut ledger, 1150), None, "the store has as much");
        ledger.on_stored();
        assert_eq!(told(&mut ledger, 1151), Some(at(1651)));
        ledger.on_stored();
        ledger.doubt();
        ledger.follow(&ConversationRecord::default(), Vec::new());
        assert_eq!(told(&mut ledger, 1152), Some(at(1652)), "the store may have lost it");
    }

    #[test]
    fn what_waits_for_the_store_is_bounded_by_number_and_weight() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        for _ in 1..MAX_CHANGES {
            ledger.append(at(1), EntryBody::Platform(raw("{}")));
        }
        assert!(!ledger.is_full());
        ledger.append(at(1), EntryBody::Platform(raw("{}")));
        assert!(ledger.is_full());
        ledger.flush(at(1)).unwrap();
        assert!(!ledger.is_full());
        ledger.append(at(1), EntryBody::Platform(raw(&format!("\"{}\"", "x".repeat(MAX_WEIGHT)))));
        assert!(ledger.is_full());
    }

    fn delivery(kind: DeliveryKind, message: MessageId, bytes: usize) -> ConversationChange {
        let conversation = ConversationId::new(BotName::sandbox(), UserId::new("alice").unwrap());
        ConversationChange::Deliver(Box::new(NewDelivery {
            id: DeliveryId::of(&conversation, 1, 1, at(1)),
            kind,
            conversation,
            message: Some(message),
            target: "https://receiver.example/".into(),
            origin: DeliveryOrigin::Bot,
            trace: TraceId::default(),
            created_at: at(1),
            data: raw(&format!("\"{}\"", "x".repeat(bytes))),
        }))
    }

    #[test]
    fn what_is_delivered_of_replies_is_weighed_and_of_the_end_it_is_not() {
        let (mut ledger, id) = (Ledger::new(ConversationRecord::default()), MessageId::new(at(1), 1));
        ledger.deliver(Some(delivery(DeliveryKind::MessageAnswered, id, MAX_WEIGHT)));
        assert!(!ledger.is_full(), "a long turn does not cost its socket");
        ledger.deliver(Some(delivery(DeliveryKind::ReplyLate, id, MAX_WEIGHT)));
        assert!(ledger.is_full());
        ledger.flush(at(1)).unwrap();
        assert!(!ledger.is_full());
        ledger.on_refused();
        assert!(ledger.is_full(), "it waits again");
    }

    #[test]
    fn a_lost_messages_end_goes_with_its_delivery_and_what_the_bot_said_stays() {
        let mut ledger = Ledger::new(ConversationRecord::default());
        let [lost, other] = [1, 2].map(|id| MessageId::new(at(1), id));
        for kind in DeliveryKind::ALL {
            ledger.deliver(Some(delivery(kind, lost, 1)));
        }
        ledger.deliver(Some(delivery(DeliveryKind::MessageFailed, other, 1)));
        ledger.forget(lost);
        let kept = ledger.waiting().iter().map(|change| match change {
            ConversationChange::Deliver(delivery) => (delivery.kind, delivery.message),
            _ => panic!("{change:?}"),
        });
        let kept: Vec<_> = kept.collect();
        let replies = [(DeliveryKind::ReplyLate, Some(lost)), (DeliveryKind::ReplyUnsolicited, Some(lost))];
        assert_eq!(kept, [&replies[..], &[(DeliveryKind::MessageFailed, Some(other))]].concat());
    }

    fn raw(json: &str) -> Box<serde_json::value::RawValue> {
        serde_json::value::RawValue::from_string(json.to_owned()).unwrap()
    }
}
