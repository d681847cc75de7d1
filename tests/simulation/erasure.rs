//! Erasures of conversations (api.md 2, `POST …/erase`).

use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, ConversationRecord, MessageProgress, SessionRequest, Timestamp};
use rtm_bridge::link::{ConnectFailure, Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};

use super::bench::{Bench, ms};
use super::support::{accepted, event, plain, snapshot};

fn erase(bench: &mut Bench) -> Arc<AcceptedMessage> {
    bench.post_with(|new| new.session = SessionRequest::Erase)
}

#[test]
fn erasure_goes_before_the_open_turn_and_writes_nothing() {
    let mut bench = Bench::connected();
    let open = bench.post();
    bench.ack(&open);
    bench.post();
    let (completed, writes) = (bench.completed.len(), bench.writes.len());
    let request = erase(&mut bench);
    assert_eq!(bench.sends.last(), Some(&(request.client_message_id, bench.now)), "the session is ended");
    // The bot still answers, and another message comes.
    bench.say("ms-answer");
    bench.post();
    bench.pass(ms(1000));
    assert_eq!((bench.erasures, bench.closes), (0, 0));
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!((bench.erasures, bench.closes), (1, 1));
    bench.pass(ms(60_000));
    bench.post();
    assert_eq!((bench.erasures, bench.connects.len(), bench.machine.wake_at()), (1, 1, None));
    assert_eq!(
        (bench.completed.len(), bench.writes.len()),
        (completed, writes),
        "the store tells the waiters"
    );
}

#[test]
fn erasure_without_an_answer_deletes_after_2_s() {
    let mut bench = Bench::connected();
    erase(&mut bench);
    bench.pass(ms(1999));
    assert_eq!(bench.erasures, 0);
    bench.pass(ms(1));
    assert_eq!((bench.erasures, bench.closes), (1, 1));
}

#[test]
fn erasure_without_a_session_deletes_at_once() {
    let mut bench = Bench::new();
    erase(&mut bench);
    assert_eq!((bench.erasures, bench.connects.len(), bench.writes.len()), (1, 0, 0));
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Cold);
}

#[test]
fn erasure_connects_to_a_session_that_lives() {
    let record = ConversationRecord {
        connected_at: Some(Bench::new().now),
        write: 3,
        ..ConversationRecord::default()
    };
    let mut bench = Bench::opened(snapshot(record, []), |_| ());
    let request = erase(&mut bench);
    assert_eq!((&*bench.connects, bench.erasures), (&[ConnectMode::Reconnect][..], 0));
    bench.give(Input::Connected);
    assert_eq!(bench.sends, [(request.client_message_id, bench.now)]);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.erasures, 1);
}

#[test]
fn erasure_does_not_wait_for_the_platform_for_long() {
    let record = ConversationRecord {
        connected_at: Some(Bench::new().now),
        write: 3,
        ..ConversationRecord::default()
    };
    let away = ConnectFailure::Unavailable { words: "away".into(), retry_after: None };
    let mut bench = Bench::opened(snapshot(record.clone(), []), |_| ());
    erase(&mut bench);
    for _ in 0..200 {
        bench.give(Input::ConnectFailed(away.clone()));
        bench.pass(ms(49));
    }
    assert_eq!(bench.erasures, 0);
    bench.pass(ms(200));
    assert_eq!(bench.erasures, 1, "ten seconds are over");
    // A refusal cannot pass.
    let mut bench = Bench::opened(snapshot(record, []), |_| ());
    erase(&mut bench);
    bench.give(Input::ConnectFailed(ConnectFailure::Rejected("no".into())));
    assert_eq!(bench.erasures, 1);
}

#[test]
fn erasure_waits_for_the_write_in_flight() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    erase(&mut bench);
    bench.pass(ms(5000));
    assert_eq!((bench.erasures, bench.sends.len()), (0, 0));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.sends.len(), 1, "the session is ended, and the message is not sent");
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.erasures, 1);
}

#[test]
fn stopped_erasure_is_left_to_the_next_owner() {
    let mut bench = Bench::connected();
    let writes = bench.writes.len();
    erase(&mut bench);
    let rests = bench.rests;
    bench.give(Input::Stop);
    assert_eq!((bench.rests, bench.writes.len(), bench.erasures), (rests + 1, writes, 0));
}

#[test]
fn next_owner_erases_behind_a_sent_message() {
    let at: Timestamp = Bench::new().now;
    let request = SessionRequest::Erase;
    let mut new = plain();
    new.session = request;
    let sent = MessageProgress { sent_at: Some(at), ..MessageProgress::default() };
    let lane = [(&accepted(0, at, plain()), sent), (&accepted(1, at, new), MessageProgress::default())];
    let record = ConversationRecord { write: 3, ..ConversationRecord::default() };
    let mut bench = Bench::opened(snapshot(record, lane), |_| ());
    assert_eq!((bench.erasures, bench.writes.len(), bench.completed.len()), (1, 0, 0));
    bench.say("ms-late");
    assert_eq!(bench.writes.len(), 0);
}
