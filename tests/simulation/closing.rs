//! Sessions that callers end (api.md 2, `DELETE`).

use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, ConversationRecord, MessageProgress, SessionRequest, Timestamp};
use rtm_bridge::link::{Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};
use rtm_bridge::store::{ConversationSnapshot, OpenMessage};

use super::bench::{Bench, ms};
use super::support::{accepted, event, plain};

fn close(bench: &mut Bench) -> Arc<AcceptedMessage> {
    bench.post_with(|new| new.session = SessionRequest::Close)
}

fn record(bench: &Bench) -> &ConversationRecord {
    &bench.writes.last().unwrap().record
}

/// What an owner left behind that was about to end the session.
fn left(connected_at: Option<Timestamp>, sent: bool) -> ConversationSnapshot {
    let at = Bench::new().now;
    let record = ConversationRecord { write: 3, connected_at, ..ConversationRecord::default() };
    let mut new = plain();
    new.session = SessionRequest::Close;
    let progress = MessageProgress { sent_at: sent.then_some(at), ..MessageProgress::default() };
    let lane = vec![OpenMessage { accepted: accepted(0, at, new), progress }];
    ConversationSnapshot {
        record,
        lane,
        head_at: Some(at),
        next_position: 1,
        ..ConversationSnapshot::default()
    }
}

#[test]
fn the_session_ends_over_the_open_link_and_is_forgotten() {
    let mut bench = Bench::connected();
    let rests = bench.rests;
    let message = close(&mut bench);
    assert_eq!(bench.sends, [(message.client_message_id, bench.now)]);
    assert_eq!(bench.told.len(), 1);
    bench.ack(&message);
    bench.say("ms-bye");
    assert_eq!(bench.told.len(), 1, "an ack is receipt and no more");
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
fn without_a_word_of_the_platform_it_has_ended_after_2_s() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.pass(ms(1999));
    assert_eq!((bench.told.len(), bench.closes), (1, 0));
    bench.pass(ms(1));
    assert_eq!((bench.end(), bench.closes), ((0, "sessionEnd"), 1));
}

#[test]
fn where_nothing_lives_it_ends_at_once() {
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
fn a_session_without_a_link_is_reconnected_to_and_ended() {
    let at = Bench::new().now;
    let mut bench = Bench::opened(left(Some(at), false), |_| ());
    assert_eq!(bench.connects, [ConnectMode::Reconnect]);
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn a_new_owner_says_it_again_unless_the_session_is_gone() {
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
fn a_link_that_breaks_is_restored_to_say_it_again() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect));
    // History is read for what was missed, and nothing waits for its answer.
    assert_eq!((bench.sends.len(), bench.history_reads.len()), (2, 1));
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn a_link_that_closes_in_good_order_or_after_the_ack_has_done_it() {
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
fn it_takes_its_place_in_the_lane() {
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
fn no_link_is_opened_while_its_end_is_being_stored() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.store_hangs = true;
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    bench.pass(ms(1000));
    assert_eq!((bench.closes, bench.connects.len(), bench.told.len()), (1, 1, 1));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!((bench.end(), bench.connects.len()), ((0, "sessionEnd"), 1));
}

#[test]
fn it_waits_for_a_connect_that_is_under_way() {
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
fn it_fails_where_it_does_not_get_out_in_30_s() {
    let at = Bench::new().now;
    let mut bench = Bench::opened(left(Some(at), false), |bot| bot.deadline = ms(1000));
    bench.pass(ms(29_999));
    assert!(bench.told.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
}

#[test]
fn it_is_no_message_that_the_send_rate_counts() {
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
fn an_agent_does_not_keep_the_session() {
    let mut bench = Bench::connected();
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    let message = close(&mut bench);
    bench.ack(&message);
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    assert!(!record(&bench).agent);
}

#[test]
fn what_the_bot_says_after_the_end_is_read_with_the_next_session() {
    let mut bench = Bench::connected();
    close(&mut bench);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!(bench.end(), (0, "sessionEnd"));
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(bench.history_reads.len(), 1);
    assert_eq!(bench.history_reads[0].0.as_deref(), Some("ms-first"));
}
