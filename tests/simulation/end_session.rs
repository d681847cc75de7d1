//! Sessions that callers end (api.md 2, `DELETE`).

use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, ConversationRecord, MessageProgress, SessionRequest, Timestamp};
use rtm_bridge::link::{Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms};
use super::support::{accepted, event, plain, snapshot};

fn close(bench: &mut Bench) -> Arc<AcceptedMessage> {
    bench.post_with(|new| new.session = SessionRequest::Close)
}

fn record(bench: &Bench) -> &ConversationRecord {
    &bench.writes.last().unwrap().record
}

/// The stored conversation of an owner that was about to end the session.
fn left(connected_at: Option<Timestamp>, sent: bool) -> ConversationSnapshot {
    let at = Bench::new().now;
    let record = ConversationRecord { write: 3, connected_at, ..ConversationRecord::default() };
    let mut new = plain();
    new.session = SessionRequest::Close;
    let progress = MessageProgress { sent_at: sent.then_some(at), ..MessageProgress::default() };
    snapshot(record, [(&accepted(0, at, new), progress)])
}

#[test]
fn session_end_over_the_open_link_forgets_the_session() {
    let mut bench = Bench::connected();
    let rests = bench.rests;
    let message = close(&mut bench);
    assert_eq!(bench.sends, [(message.client_message_id, bench.now)]);
    assert_eq!(bench.completed.len(), 1);
    bench.ack(&message);
    bench.say("ms-bye");
    assert_eq!(bench.completed.len(), 1, "an ack is receipt and no more");
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    assert_eq!((bench.closes, bench.machine.link_state(bench.now)), (1, LinkState::Cold));
    let record = record(&bench);
    assert_eq!((record.connected_at, &record.session_id, record.last_turn.clone()), (None, &None, None));
    assert!(bench.writes.last().unwrap().warm_until <= Some(bench.now), "no new owner takes up the link");
    assert_eq!(bench.rests, rests + 1);
    bench.post();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default));
}

#[test]
fn session_end_without_an_answer_succeeds_after_2_s() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.pass(ms(1999));
    assert_eq!((bench.completed.len(), bench.closes), (1, 0));
    bench.pass(ms(1));
    assert_eq!((bench.end(), bench.closes), ((0, "sessionEnd"), 1));
}

#[test]
fn session_end_without_a_session_succeeds_at_once() {
    let mut bench = Bench::new();
    close(&mut bench);
    assert_eq!(bench.end(), (0, "sessionEnd"));
    assert!(bench.connects.is_empty());

    let mut bench = Bench::connected();
    bench.idle(16);
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Cold);
    close(&mut bench);
    assert_eq!((bench.end(), bench.connects.len()), ((0, "sessionEnd"), 1), "it had timed out");
}

#[test]
fn session_end_without_a_link_reconnects_first() {
    let at = Bench::new().now;
    let mut bench = Bench::opened(left(Some(at), false), |_| ());
    assert_eq!(bench.connects, [ConnectMode::Reconnect]);
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn new_owner_sends_the_session_end_if_the_session_lives() {
    let at = Bench::new().now;
    let mut bench = Bench::opened(left(Some(at), true), |_| ());
    bench.give(Input::Connected);
    assert_eq!((bench.sends.len(), bench.history_reads.len()), (1, 0));
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    let bench = Bench::opened(left(None, true), |_| ());
    assert_eq!((bench.end(), bench.connects.len()), ((0, "sessionEnd"), 0));
}

#[test]
fn session_end_after_a_loss_is_sent_again() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect));
    // History is read for missed replies, and no message waits for its answer.
    assert_eq!((bench.sends.len(), bench.history_reads.len()), (2, 1));
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn session_end_is_done_by_close_1000_or_a_loss_after_its_ack() {
    for (ack, code) in [(false, 1000), (true, 1006)] {
        let mut bench = Bench::connected();
        let rests = bench.rests;
        let message = close(&mut bench);
        if ack {
            bench.ack(&message);
        }
        bench.lose(code);
        assert_eq!(bench.end(), (0, "sessionEnd"));
        bench.pass(ms(60_000));
        assert_eq!((bench.connects.len(), bench.rests), (1, rests + 1));
    }
}

#[test]
fn session_end_waits_for_its_place_in_the_lane() {
    let mut bench = Bench::connected();
    let first = bench.post();
    close(&mut bench);
    let last = bench.post();
    assert_eq!(bench.sends.len(), 1);
    bench.respond(super::support::echo("ms-1", &first));
    bench.pass(ms(1000));
    assert_eq!((bench.end(), bench.sends.len()), ((1, "quiet"), 2));
    bench.say("ms-late");
    assert_eq!(bench.reply("ms-late").in_reply_to, Some(first.id), "it belongs to no turn of its own");
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default), "the next message begins a session");
    bench.give(Input::Connected);
    assert_eq!(bench.sends.last().unwrap().0, last.client_message_id);
}

#[test]
fn session_end_being_stored_opens_no_link() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.store_hangs = true;
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    bench.pass(ms(1000));
    assert_eq!((bench.closes, bench.connects.len(), bench.completed.len()), (1, 1, 1));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!((bench.end(), bench.connects.len()), ((0, "sessionEnd"), 1));
}

#[test]
fn session_end_waits_for_a_running_connect() {
    let mut bench = Bench::with(|bot| bot.welcome = ms(0));
    bench.post_ruled(None, None, Some(500));
    close(&mut bench);
    bench.pass(ms(500));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn session_end_that_cannot_be_sent_in_30_s_fails() {
    let at = Bench::new().now;
    let mut bench = Bench::opened(left(Some(at), false), |bot| bot.deadline = ms(1000));
    bench.pass(ms(29_999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
}

#[test]
fn session_end_is_not_counted_by_the_send_rate() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = ms(0);
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    close(&mut bench);
    assert_eq!(bench.sends.len(), 2);
}

#[test]
fn session_end_with_an_agent_ends_the_session() {
    let mut bench = Bench::connected();
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    let message = close(&mut bench);
    bench.ack(&message);
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    assert!(!record(&bench).agent);
    let message = bench.post_with(|new| new.session = SessionRequest::NewKeepAgent);
    bench.give(Input::Connected);
    bench.ack(&message);
    // A busy loop would end the test.
    bench.pass(ms(4000));
    assert_eq!(bench.completed.len(), 2, "no doubt is left, and the bot has its time");
}

/// An earlier owner had its ack, and the agent's end may have been missed since. No agent ends this turn.
#[test]
fn new_owner_waits_for_an_acked_session_end_with_an_agent() {
    let at = Bench::new().now;
    let mut open = left(Some(at - ms(20_000)), true);
    open.record.agent = true;
    let acked_at = Some(at - ms(10_000));
    for head in &mut open.lane {
        head.progress = MessageProgress { sent_at: acked_at, acked_at, ..MessageProgress::default() };
    }
    let mut bench = Bench::opened(open, |_| ());
    bench.give(Input::Connected);
    bench.pass(ms(1999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn reply_after_the_session_end_is_read_with_the_next_session() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(bench.history_reads.len(), 1);
    assert_eq!(bench.history_reads[0].0.as_deref(), Some("ms-first"));
}
