//! Messages that are sent at their accept (ADR 22).

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{AcceptedMessage, ConversationRecord, SessionRequest};
use rtm_bridge::link::{ConnectFailure, Input};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, ms};
use super::connect_message::connect_message;
use super::support::{accepted, plain, sent, snapshot};

/// The next message of the conversation, accepted now.
fn next(bench: &Bench) -> Arc<AcceptedMessage> {
    accepted(1, bench.now, plain())
}

fn sent_at_accept(message: &Arc<AcceptedMessage>) -> ConversationSnapshot {
    snapshot(ConversationRecord::default(), [(message, sent(message.accepted_at))])
}

fn wrote_sent(bench: &Bench) -> bool {
    bench
        .writes
        .iter()
        .skip(1)
        .flat_map(|write| &write.changes)
        .any(|change| matches!(change, ConversationChange::Sent { .. }))
}

#[test]
fn send_at_accept_needs_an_idle_machine_with_a_ready_link() {
    let mut bench = Bench::new();
    assert!(!bench.machine.may_send_at_accept(bench.now), "there is no link");
    bench.post();
    bench.give(Input::Connected);
    assert!(!bench.machine.may_send_at_accept(bench.now), "a message is open");
    let mut bench = Bench::connected();
    assert!(bench.machine.may_send_at_accept(bench.now));
    bench.give(Input::SendAtAcceptPending);
    assert!(!bench.machine.may_send_at_accept(bench.now), "one is pending");
    bench.give(Input::NotSentAtAccept);
    assert!(bench.machine.may_send_at_accept(bench.now));
    bench.give(Input::Lease(false));
    bench.give(Input::Tick);
    assert!(!bench.machine.may_send_at_accept(bench.now), "the lease is not valid");
    bench.give(Input::Lease(true));
    bench.give(Input::Drain);
    assert!(!bench.machine.may_send_at_accept(bench.now), "it drains");
}

#[test]
fn send_at_accept_with_a_full_send_rate_is_refused() {
    let mut bench = Bench::with(|bot| {
        bot.welcome = Duration::ZERO;
        bot.user_rate_per_minute = 1;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    assert!(!bench.machine.may_send_at_accept(bench.now));
    bench.idle(1);
    assert!(bench.machine.may_send_at_accept(bench.now));
    let message = next(&bench);
    bench.give(Input::SendAtAcceptPending);
    bench.give(Input::SentAtAccept(message));
    assert_eq!(bench.sends.len(), 2);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.completed.len(), 2);
    assert!(!bench.machine.may_send_at_accept(bench.now), "it counted");
}

#[test]
fn message_sent_at_accept_goes_out_without_another_write() {
    let mut bench = Bench::connected();
    bench.give(Input::SendAtAcceptPending);
    let message = next(&bench);
    bench.store_hangs = true;
    bench.give(Input::SentAtAccept(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.store_hangs = false;
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.completed.last().unwrap().progress.sent_at, Some(message.accepted_at));
    assert!(!wrote_sent(&bench));
}

#[test]
fn draining_machine_waits_for_a_pending_send_at_accept() {
    let mut bench = Bench::connected();
    bench.rests = 0;
    bench.give(Input::SendAtAcceptPending);
    bench.give(Input::Drain);
    bench.pass(ms(5000));
    assert_eq!((bench.rests, bench.closes), (0, 0));
    let message = next(&bench);
    bench.give(Input::SentAtAccept(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!((bench.end(), bench.rests), ((1, "quiet"), 1));
}

#[test]
fn draining_machine_rests_after_a_dropped_send_at_accept() {
    let mut bench = Bench::connected();
    bench.rests = 0;
    bench.give(Input::SendAtAcceptPending);
    bench.give(Input::Drain);
    bench.give(Input::NotSentAtAccept);
    bench.pass(ms(20));
    assert_eq!((bench.rests, bench.closes), (1, 1));
}

#[test]
fn idle_link_with_a_pending_send_at_accept_stays_open() {
    let mut bench = Bench::connected();
    bench.give(Input::SendAtAcceptPending);
    // This is longer than the idle TTL.
    bench.idle(20);
    assert_eq!(bench.closes, 0);
    bench.give(Input::NotSentAtAccept);
    assert_eq!(bench.closes, 1);
}

#[test]
fn message_sent_at_accept_after_a_loss_goes_over_the_next_link() {
    let mut bench = Bench::connected();
    bench.give(Input::SendAtAcceptPending);
    bench.lose(1006);
    let message = next(&bench);
    bench.give(Input::SentAtAccept(message));
    assert!(bench.sends.is_empty());
    bench.reconnect();
    assert_eq!(bench.sends.len(), 1, "no byte of it went out before");
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn message_sent_at_accept_without_an_answer_is_found_in_the_lane() {
    let mut bench = Bench::connected();
    bench.give(Input::SendAtAcceptPending);
    let message = next(&bench);
    bench.give(Input::NotSentAtAccept);
    bench.give(Input::Woken);
    let mut open = sent_at_accept(&message);
    open.record.write = bench.writes.last().unwrap().record.write;
    bench.give(Input::Lane(Box::new(open)));
    assert_eq!(bench.sends.len(), 1);
    // The answer comes late.
    bench.give(Input::SentAtAccept(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.completed.last().unwrap().progress.sent_at, Some(message.accepted_at));
}

#[test]
fn message_sent_at_accept_behind_an_ending_one_goes_out_without_another_write() {
    for answered in [true, false] {
        let mut bench = Bench::connected();
        bench.give(Input::SendAtAcceptPending);
        bench.give(Input::Woken);
        bench.store_hangs = true;
        bench.post_with(|new| *new = connect_message(SessionRequest::Continue));
        // The store has the end, and its answer is lost.
        bench.give(Input::WriteUnknown);
        let message = accepted(2, bench.now, plain());
        if answered {
            bench.give(Input::SentAtAccept(Arc::clone(&message)));
        } else {
            bench.give(Input::NotSentAtAccept);
            let mut open = sent_at_accept(&message);
            open.record.write = bench.writes.last().unwrap().record.write;
            bench.give(Input::Lane(Box::new(open)));
        }
        assert!(bench.sends.is_empty());
        let writes = bench.writes.len();
        bench.give(Input::Stored { lost: false });
        assert_eq!((bench.end(), bench.sends.len()), ((0, "silence"), 1));
        assert_eq!(bench.writes.len(), writes, "the store has it as sent");
        bench.store_hangs = false;
        bench.say("ms-2");
        bench.pass(ms(5000));
        assert_eq!(bench.end(), (1, "quiet"));
        assert_eq!(bench.completed.last().unwrap().progress.sent_at, Some(message.accepted_at));
    }
}

#[test]
fn message_sent_at_accept_behind_an_ending_one_is_left_to_the_next_owner() {
    for stops_first in [true, false] {
        let mut bench = Bench::connected();
        bench.give(Input::SendAtAcceptPending);
        bench.store_hangs = true;
        bench.post_with(|new| *new = connect_message(SessionRequest::Continue));
        let mut inputs = [Input::Stop, Input::SentAtAccept(accepted(2, bench.now, plain()))];
        if !stops_first {
            inputs.reverse();
        }
        for input in inputs {
            bench.give(input);
        }
        bench.store_hangs = false;
        bench.give(Input::Stored { lost: false });
        let last = bench.writes.last().unwrap();
        assert!(matches!(*last.changes, [ConversationChange::HeadSince { .. }]), "{last:?}");
        assert!(bench.sends.is_empty());
    }
}

#[test]
fn new_owner_of_a_message_sent_at_accept_does_not_send_it() {
    let bench = Bench::new();
    let message = accepted(0, bench.now, plain());
    let mut bench = Bench::opened(sent_at_accept(&message), |bot| bot.history = false);
    bench.give(Input::Connected);
    bench.pass(ms(30_000));
    assert!(bench.sends.is_empty());
    assert_eq!(bench.end(), (0, "uncertain"));
}

#[test]
fn message_sent_at_accept_during_an_outage_is_sent_after_it() {
    let mut bench = Bench::connected();
    let rests = bench.rests;
    // The store hangs while the socket breaks: no answer to the accept, and no permit for the reconnect.
    bench.give(Input::SendAtAcceptPending);
    bench.lose(1006);
    while bench.connects.len() == 1 {
        bench.pass(ms(50));
    }
    bench.give(Input::Lease(false));
    bench.give(Input::ConnectFailed(ConnectFailure::Withheld));
    bench.give(Input::NotSentAtAccept);
    bench.pass(ms(3000));
    assert_eq!(bench.rests, rests, "it must not forget that it sent nothing");
    bench.give(Input::Lease(true));
    bench.give(Input::Woken);
    let message = next(&bench);
    let mut open = sent_at_accept(&message);
    open.record.write = bench.writes.last().unwrap().record.write;
    bench.give(Input::Lane(Box::new(open)));
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
}
