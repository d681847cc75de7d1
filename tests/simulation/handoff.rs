//! The handoff of a conversation between owners, and the writes that it costs.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{ConversationRecord, MessageId, MessageProgress, ResendPolicy, Timestamp};
use rtm_bridge::link::{AbandonReason, Input};
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{accepted, event, last_turn, plain, sent, snapshot};

/// The stored conversation of an earlier owner: one open message that became the head this long ago.
fn left(ago: Duration, progress: impl FnOnce(Timestamp) -> MessageProgress) -> ConversationSnapshot {
    let head_at = Bench::new().now - ago;
    let record =
        ConversationRecord { write: 3, connected_at: Some(head_at), ..ConversationRecord::default() };
    snapshot(record, [(&accepted(0, head_at, plain()), progress(head_at))])
}

fn head_since(bench: &Bench) -> Option<Timestamp> {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    changes
        .filter_map(|change| if let ConversationChange::HeadSince { at } = change { Some(*at) } else { None })
        .next_back()
}

#[test]
fn ack_travels_with_a_reply_that_comes_at_once() {
    let mut bench = Bench::connected();
    let writes = bench.writes.len();
    let message = bench.post_with(|new| {
        new.rules = rtm_bridge::domain::TurnRules::new(Some(1), None, None).unwrap();
    });
    bench.ack(&message);
    bench.pass(ms(19));
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    assert_eq!(bench.writes.len(), writes + 2, "sent; then ack, reply and end together");
    assert!(bench.completed.last().unwrap().progress.acked_at.is_some());
}

#[test]
fn ack_without_other_changes_is_written_after_20_ms() {
    let mut bench = Bench::connected();
    let message = bench.post();
    let writes = bench.writes.len();
    bench.ack(&message);
    bench.pass(ms(19));
    assert_eq!(bench.writes.len(), writes);
    bench.pass(ms(1));
    assert_eq!(bench.writes.len(), writes + 1);
}

#[test]
fn write_of_a_turn_end_tells_how_long_the_link_is_kept() {
    let mut bench = Bench::connected();
    bench.pass(ms(60_000));
    for (reply, pause, told) in [("ms-1", 0, true), ("ms-2", 14_000, false), ("ms-3", 0, true)] {
        bench.pass(ms(pause));
        bench.post();
        bench.say(reply);
        assert_eq!(bench.writes.last().unwrap().warm_until, None);
        bench.pass(ms(1000));
        let until = told.then(|| bench.now + ms(75_000));
        assert_eq!(bench.writes.last().unwrap().warm_until, until, "the stored time has to cover a minute");
    }
}

#[test]
fn end_of_an_unsent_message_keeps_no_link_warm() {
    let mut bench = Bench::new();
    bench.post_ruled(None, None, Some(500));
    bench.pass(ms(500));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
    assert_eq!(bench.writes.last().unwrap().warm_until, None);
}

#[test]
fn drain_restarts_the_deadline_of_a_waiting_head() {
    let mut bench = Bench::connected();
    bench.post();
    let waits = bench.post();
    bench.give(Input::Drain);
    bench.say("ms-1");
    assert_eq!(head_since(&bench), None, "not while the turn runs");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert!(bench.machine.is_open(waits.id));
    assert_eq!(head_since(&bench), Some(bench.now));
    assert_eq!((bench.rests, bench.sends.len()), (2, 1));
}

#[test]
fn drain_without_queued_messages_changes_no_head() {
    let mut bench = Bench::connected();
    let writes = bench.writes.len();
    bench.give(Input::Drain);
    assert_eq!((bench.writes.len(), bench.rests), (writes, 2));
}

#[test]
fn stop_writes_only_the_waiting_ack() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.store_hangs = true;
    let (writes, rests) = (bench.writes.len(), bench.rests);
    bench.give(Input::Stop);
    assert_eq!((bench.writes.len(), bench.rests), (writes + 1, rests));
    bench.say("ms-1");
    bench.lose(1006);
    bench.pass(ms(60_000));
    assert_eq!((bench.writes.len(), bench.rests, bench.connects.len()), (writes + 1, rests, 1));
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.rests, rests + 1);
}

#[test]
fn stop_with_an_end_in_flight_still_completes_it() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.pass(ms(1000));
    let (told, rests) = (bench.completed.len(), bench.rests);
    bench.give(Input::Stop);
    assert_eq!((bench.completed.len(), bench.rests), (told, rests));
    bench.give(Input::Stored { lost: false });
    assert_eq!((bench.completed.len(), bench.rests), (told + 1, rests + 1));
}

#[test]
fn stop_at_rest_rests_at_once_and_drops_a_refused_write() {
    let mut bench = Bench::connected();
    let rests = bench.rests;
    bench.give(Input::Stop);
    assert_eq!(bench.rests, rests + 1);
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.say("ms-1");
    bench.give(Input::Stop);
    bench.give(Input::OutOfStep);
    assert_eq!((bench.rests, bench.lane_reads), (rests + 1, 0));
}

#[test]
fn new_owner_ends_an_overdue_turn_by_its_record() {
    let minute = ms(60_000);
    let bench = Bench::opened(left(minute, sent), |_| ());
    assert_eq!(bench.end(), (0, "uncertain"));
    let acked = |at| MessageProgress { acked_at: Some(at), ..sent(at) };
    let bench = Bench::opened(left(minute, acked), |_| ());
    assert_eq!(bench.end(), (0, "no-reply"));
    let answering = |at| MessageProgress { first_reply_at: Some(at), ..sent(at) };
    let bench = Bench::opened(left(minute, answering), |_| ());
    assert_eq!(bench.end(), (0, "deadline"));
    let bench = Bench::opened(left(minute, |_| MessageProgress::default()), |_| ());
    assert_eq!(bench.end(), (0, "platform-unavailable"));
    assert!(bench.sends.is_empty());
}

#[test]
fn new_owner_of_a_proved_message_backfills_without_sending() {
    let mut open = left(ms(1000), |at| MessageProgress { acked_at: Some(at), ..sent(at) });
    let message = Arc::clone(&open.lane[0].accepted);
    open.record.last_platform_message = Some("ms-0".into());
    let mut bench = Bench::opened(open, |_| ());
    assert_eq!(bench.connects, [rtm_bridge::rtm::ConnectMode::Reconnect]);
    bench.give(Input::Connected);
    assert_eq!(bench.history_reads[0].0.as_deref(), Some("ms-0"));
    for _ in 0..3 {
        bench.history(vec![incoming(&message), outgoing("ms-1")]);
        bench.pass(ms(1500));
    }
    bench.pass(ms(1000));
    assert_eq!((bench.end(), bench.sends.len()), ((1, "quiet"), 0));
}

#[test]
fn new_owner_of_an_unproved_message_resends_by_its_policy() {
    for (resend, sends) in [(ResendPolicy::Auto, 1), (ResendPolicy::Never, 0)] {
        let mut open = left(ms(1000), sent);
        let mut new = plain();
        new.resend = resend;
        open.lane[0].accepted = accepted(0, open.head_at.unwrap(), new);
        let mut bench = Bench::opened(open, |_| ());
        bench.give(Input::Connected);
        bench.history_fails();
        assert_eq!((bench.sends.len(), bench.completed.len()), (sends, 1 - sends));
    }
}

#[test]
fn new_owner_connects_only_within_the_late_window() {
    let ended = |ago: u64| {
        let message = MessageId::new(Timestamp::from_millis(1), 1);
        let last_turn = Some(last_turn(message, Bench::new().now - ms(ago)));
        ConversationSnapshot {
            record: ConversationRecord { write: 3, last_turn, ..ConversationRecord::default() },
            ..ConversationSnapshot::default()
        }
    };
    let bench = Bench::opened(ended(59_999), |_| ());
    assert_eq!((bench.connects.len(), bench.rests), (1, 0));
    let bench = Bench::opened(ended(60_000), |_| ());
    assert_eq!((bench.connects.len(), bench.rests), (0, 1));
}

#[test]
fn waiting_changes_during_an_outage_are_bounded() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(20));
    bench.store_hangs = true;
    bench.say("ms-1");
    for _ in 0..999 {
        bench.give(Input::Frame(IncomingFrame::Platform(event())));
    }
    assert!(bench.abandons.is_empty());
    bench.say("ms-2");
    assert_eq!(bench.abandons, [AbandonReason::Backlog]);
    let connects = bench.connects.len();
    bench.give(Input::WriteUnknown);
    bench.pass(ms(10_000));
    assert_eq!(bench.connects.len(), connects, "what another socket would bring finds no room either");
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.writes.last().unwrap().changes.len(), 1000);
    bench.give(Input::Connected);
    assert_eq!(bench.history_reads.len(), 1, "what was missed is looked for");
    assert_eq!(bench.replies.iter().filter(|reply| reply.message_id.as_deref() == Some("ms-2")).count(), 1);
}

#[test]
fn unanswered_write_counts_among_the_waiting_changes() {
    let mut bench = Bench::connected();
    let flood = |bench: &mut Bench, frames| {
        for _ in 0..frames {
            bench.give(Input::Frame(IncomingFrame::Platform(event())));
        }
    };
    bench.store_hangs = true;
    flood(&mut bench, 601);
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.writes.last().unwrap().changes.len(), 600);
    flood(&mut bench, 399);
    assert!(bench.abandons.is_empty());
    bench.give(Input::WriteUnknown);
    flood(&mut bench, 1);
    assert_eq!(bench.abandons, [AbandonReason::Backlog], "a refusal puts the write back");
    bench.give(Input::OutOfStep);
    bench.give(Input::Lane(Box::default()));
    assert_eq!(bench.writes.last().unwrap().changes.len(), 1000);
}

#[test]
fn marked_message_that_was_not_sent_is_sent_by_the_next_owner() {
    let mut bench = Bench::connected();
    let message = bench.post_held();
    bench.give(Input::Stop);
    let marks: Vec<_> = bench.writes.iter().skip(1).flat_map(|write| &write.changes).collect();
    assert!(matches!(marks.last(), Some(ConversationChange::HeadSince { .. })), "{marks:?}");
    assert!(!bench.sends.iter().any(|(id, _)| *id == message.client_message_id));
}

#[test]
fn message_sent_at_accept_during_a_stop_is_left_to_the_next_owner() {
    let mut bench = Bench::connected();
    bench.rests = 0;
    bench.give(Input::SendAtAcceptPending);
    bench.give(Input::Stop);
    assert_eq!(bench.rests, 0, "the answer to the accept is awaited");
    let message = accepted(1, bench.now, plain());
    bench.give(Input::SentAtAccept(message));
    let last = bench.writes.last().unwrap();
    assert!(matches!(*last.changes, [ConversationChange::HeadSince { .. }]), "{last:?}");
    assert_eq!((bench.sends.len(), bench.rests), (0, 1));
}
