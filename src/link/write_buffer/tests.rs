use super::pending_changes::{CROWDED_CHANGES, CROWDED_WEIGHT, MAX_CHANGES, MAX_WEIGHT};
use super::*;
use crate::domain::fixtures::{new_delivery, raw_json, sandbox_conversation};
use crate::domain::{DeliveryKind, MessageId, NewDelivery};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn acked() -> ConversationChange {
    ConversationChange::Acked { message: MessageId::new(at(1), 1), at: at(1) }
}

#[test]
fn changes_during_a_write_go_together_into_the_next() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    assert!(buffer.next_write(at(0)).is_none());
    buffer.push(ConversationChange::Sent { message: MessageId::new(at(1), 1), at: at(1) });
    let first = buffer.next_write(at(0)).unwrap();
    assert_eq!((first.record.write, first.follows, first.changes.len()), (1, 0, 1));
    buffer.push(acked());
    buffer.push(acked());
    assert!(buffer.next_write(at(0)).is_none(), "one is in flight");
    assert_eq!(buffer.on_stored(), OnCommit { sent: true, ..OnCommit::default() });
    let second = buffer.next_write(at(21)).unwrap();
    assert_eq!((second.record.write, second.follows, second.changes.len()), (21, 1, 2));
    assert_eq!(buffer.on_stored(), OnCommit::default());
    assert!(buffer.is_settled());
}

#[test]
fn unknown_write_is_repeated_under_its_number() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    buffer.push(acked());
    let first = buffer.next_write(at(50)).unwrap();
    buffer.on_unknown(at(100), 1.0);
    buffer.push(acked());
    assert!(buffer.next_write(at(100)).is_none());
    assert_eq!(buffer.wake_at(), Some(at(350)));
    let again = buffer.next_write(at(350)).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(buffer.next_write(at(350)).is_none());
}

#[test]
fn repeat_of_an_unknown_write_waits_2_s_at_most() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    buffer.push(acked());
    buffer.next_write(at(50)).unwrap();
    for _ in 0..20 {
        buffer.on_unknown(at(0), 1.0);
    }
    assert_eq!(buffer.wake_at(), Some(at(2000)));
}

#[test]
fn only_acks_and_records_wait_for_other_changes() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    buffer.push(acked());
    assert!(buffer.next_write(at(20)).is_none());
    assert_eq!(buffer.wake_at(), Some(at(21)));
    buffer.append(at(5), EntryBody::Platform(raw_json("{}")));
    assert_eq!(buffer.next_write(at(5)).unwrap().changes.len(), 2, "the entry takes it along");
    buffer.on_stored();
    buffer.touch(at(100));
    assert!(buffer.next_write(at(119)).is_none() && !buffer.is_settled());
    assert!(buffer.next_write(at(120)).unwrap().changes.is_empty());
    buffer.on_stored();
    buffer.push(acked());
    buffer.flush_now();
    assert!(buffer.next_write(at(1)).is_some());
}

#[test]
fn refused_write_is_rewritten_behind_the_lost_changes() {
    let mut buffer =
        WriteBuffer::new(ConversationRecord { write: 7, seq: 3, ..ConversationRecord::default() });
    let id = MessageId::new(at(1), 1);
    buffer.end(
        at(9),
        id,
        TurnOutcome::Answered(crate::domain::EndedBy::Quiet(None)),
        Some(Duration::from_millis(80)),
    );
    let refused = buffer.next_write(at(9)).unwrap();
    buffer.push(acked());
    buffer.on_refused();
    buffer.doubt();
    assert!(buffer.next_write(at(50)).is_none() && buffer.wake_at().is_none());
    let store = ConversationRecord { write: 5, seq: 2, ..ConversationRecord::default() };
    buffer.follow(&store, vec![ConversationChange::Sent { message: id, at: at(2) }]);
    let again = buffer.next_write(at(50)).unwrap();
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
    assert_eq!(buffer.on_stored(), OnCommit { sent: true, ended: true, lost: Vec::new() });
}

#[test]
fn warm_time_is_written_when_the_stored_one_is_used_up() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    let warm_until = |buffer: &mut WriteBuffer, now| {
        let outcome = TurnOutcome::Answered(crate::domain::EndedBy::Quiet(None));
        buffer.end(at(now), MessageId::new(at(1), 1), outcome, Some(Duration::from_millis(400)));
        buffer.next_write(at(now)).unwrap().warm_until
    };
    assert_eq!(warm_until(&mut buffer, 1000), Some(at(1500)));
    buffer.on_unknown(at(1000), 1.0);
    buffer.on_refused();
    assert_eq!(warm_until(&mut buffer, 1050), Some(at(1550)), "the stored time is unknown");
    buffer.on_stored();
    assert_eq!(warm_until(&mut buffer, 1150), None, "the store has as much");
    buffer.on_stored();
    assert_eq!(warm_until(&mut buffer, 1151), Some(at(1651)));
    buffer.on_stored();
    buffer.doubt();
    buffer.follow(&ConversationRecord::default(), Vec::new());
    assert_eq!(warm_until(&mut buffer, 1152), Some(at(1652)), "the store may have lost it");
}

#[test]
fn waiting_changes_are_bounded_by_number_and_weight() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    for count in 1..MAX_CHANGES {
        buffer.append(at(1), EntryBody::Platform(raw_json("{}")));
        assert_eq!(buffer.is_crowded(), count >= CROWDED_CHANGES);
    }
    assert!(!buffer.is_full());
    buffer.append(at(1), EntryBody::Platform(raw_json("{}")));
    assert!(buffer.is_full());
    buffer.next_write(at(1)).unwrap();
    assert!(!buffer.is_full() && !buffer.is_crowded());
    buffer.append(at(1), EntryBody::Platform(raw_json(&format!("\"{}\"", "x".repeat(CROWDED_WEIGHT)))));
    assert!(!buffer.is_full() && buffer.is_crowded(), "one long reply fills a write");
    buffer.append(at(1), EntryBody::Platform(raw_json(&format!("\"{}\"", "x".repeat(MAX_WEIGHT)))));
    assert!(buffer.is_full());
}

fn delivery(kind: DeliveryKind, message: MessageId, bytes: usize) -> ConversationChange {
    ConversationChange::Deliver(Box::new(NewDelivery {
        kind,
        message: Some(message),
        data: raw_json(&format!("\"{}\"", "x".repeat(bytes))),
        ..new_delivery(&sandbox_conversation("alice"), 1, at(1), "https://receiver.example/")
    }))
}

#[test]
fn deliveries_of_replies_have_weight_and_of_ends_have_none() {
    let (mut buffer, id) = (WriteBuffer::new(ConversationRecord::default()), MessageId::new(at(1), 1));
    buffer.deliver(vec![delivery(DeliveryKind::MessageAnswered, id, MAX_WEIGHT)]);
    assert!(!buffer.is_full(), "a long turn does not cost its socket");
    buffer.deliver(vec![delivery(DeliveryKind::ReplyLate, id, MAX_WEIGHT)]);
    assert!(buffer.is_full());
    buffer.next_write(at(1)).unwrap();
    assert!(!buffer.is_full());
    buffer.on_unknown(at(2), 0.0);
    assert!(buffer.is_full(), "it waits again");
    buffer.on_refused();
    assert!(buffer.is_full());
}

#[test]
fn discarded_message_drops_its_end_but_no_replies() {
    let mut buffer = WriteBuffer::new(ConversationRecord::default());
    let [lost, other] = [1, 2].map(|id| MessageId::new(at(1), id));
    for kind in DeliveryKind::DEFAULT {
        buffer.deliver(vec![delivery(kind, lost, 1)]);
    }
    buffer.deliver(vec![delivery(DeliveryKind::MessageFailed, other, 1)]);
    buffer.forget(lost);
    let kept = buffer.waiting().iter().map(|change| match change {
        ConversationChange::Deliver(delivery) => (delivery.kind, delivery.message),
        _ => panic!("{change:?}"),
    });
    let kept: Vec<_> = kept.collect();
    let replies = [(DeliveryKind::ReplyLate, Some(lost)), (DeliveryKind::ReplyUnsolicited, Some(lost))];
    assert_eq!(kept, [&replies[..], &[(DeliveryKind::MessageFailed, Some(other))]].concat());
}
