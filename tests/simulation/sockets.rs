//! What a link does with its sockets: connect modes, idleness, silence, drain, refusals (api.md 1, 7 and 9).

use std::time::Duration;

use rtm_bridge::domain::SessionRequest;
use rtm_bridge::link::{AbandonReason, ConnectFailure, Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};

use super::bench::{Bench, ms};
use super::support::event;

#[test]
fn a_new_session_is_started_once_over_a_fresh_socket() {
    for (request, mode) in [
        (SessionRequest::New, ConnectMode::StartNew),
        (SessionRequest::NewKeepAgent, ConnectMode::StartNewResumeAgent),
    ] {
        let mut bench = Bench::connected();
        bench.post_with(|new| new.session = request);
        assert_eq!(bench.closes, 1);
        assert_eq!(bench.connects.last(), Some(&mode));
        bench.give(Input::Connected);
        assert_eq!(bench.sends.len(), 1);
        bench.lose(1006);
        bench.reconnect();
        assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect));
    }
}

#[test]
fn a_connect_is_default_where_no_session_can_live_and_else_a_reconnect() {
    let mut bench = Bench::connected();
    assert_eq!(bench.connects, [ConnectMode::Default]);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect));
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default));
}

#[test]
fn pongs_do_not_keep_a_session_alive() {
    let mut bench = Bench::with(|bot| {
        bot.session_timeout = ms(60_000);
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    for _ in 0..4 {
        bench.pass(ms(20_000));
        bench.give(Input::Frame(IncomingFrame::Pong));
    }
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default));
}

#[test]
fn an_idle_socket_is_closed_and_the_conversation_rests() {
    let mut bench = Bench::with(|bot| {
        bot.idle_ttl = Some(ms(10_000));
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(9999));
    assert_eq!((bench.closes, bench.machine.link_state(bench.now)), (0, LinkState::Ready));
    let rests = bench.rests;
    bench.pass(ms(1));
    assert_eq!((bench.closes, bench.rests), (1, rests + 1));
    assert_eq!(bench.machine.wake_at(), None);
}

#[test]
fn a_connect_that_nobody_waits_for_any_more_is_let_go_of() {
    let mut bench = Bench::new();
    bench.post_ruled(None, None, Some(5000));
    bench.pass(ms(4999));
    assert_eq!((bench.connects.len(), bench.abandons.len(), bench.rests), (1, 0, 1));
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
    assert_eq!((&*bench.abandons, bench.rests), (&[AbandonReason::Unwanted][..], 2));
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Cold);
    bench.post();
    assert_eq!(bench.connects.len(), 2);
}

#[test]
fn mail_that_comes_as_a_drained_conversation_rests_lets_it_rest_again() {
    let mut bench = Bench::connected();
    bench.give(Input::Drain);
    assert_eq!((bench.closes, bench.rests), (1, 2));
    bench.post();
    assert_eq!((bench.sends.len(), bench.machine.open_messages(), bench.rests), (0, 1, 3));
    bench.give(Input::Woken);
    assert_eq!(bench.rests, 4);
}

#[test]
fn never_keeps_an_idle_socket_open() {
    let mut bench = Bench::with(|bot| {
        bot.idle_ttl = None;
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    for _ in 0..1000 {
        bench.pass(ms(25_000));
        bench.give(Input::Heard);
    }
    assert_eq!(bench.closes, 0);
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Ready);
}

#[test]
fn a_silent_peer_is_pinged_and_given_up_after_two_and_a_half_intervals() {
    let mut bench = Bench::connected();
    bench.pass(ms(62_000));
    assert_eq!((bench.pings, bench.abandons.len()), (2, 0));
    bench.pass(ms(500));
    assert_eq!(bench.abandons, [AbandonReason::Silent]);
    bench.reconnect();
}

#[test]
fn a_drain_finishes_the_turn_and_starts_nothing() {
    let mut bench = Bench::connected();
    bench.post();
    bench.post();
    bench.give(Input::Drain);
    assert_eq!(bench.rests, 1, "only the rest before the first message");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!((bench.sends.len(), bench.closes, bench.rests), (1, 1, 2));
    bench.pass(ms(100_000));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn a_drain_at_rest_is_answered() {
    let mut bench = Bench::new();
    assert_eq!(bench.rests, 1);
    bench.give(Input::Drain);
    assert_eq!(bench.rests, 2);
}

#[test]
fn a_refusal_for_good_fails_the_lane() {
    let mut bench = Bench::new();
    bench.post();
    bench.post();
    bench.give(Input::ConnectFailed(ConnectFailure::Rejected("unknown bot".into())));
    assert_eq!(bench.told.len(), 2);
    assert_eq!(bench.end(), (0, "platform-rejected"));
    assert!(format!("{:?}", bench.told).contains("unknown bot"));
}

#[test]
fn a_refusal_for_good_is_remembered_for_a_while() {
    let mut bench = Bench::new();
    let rests = bench.rests;
    bench.post();
    bench.give(Input::ConnectFailed(ConnectFailure::Rejected("unknown bot".into())));
    assert_eq!((bench.connects.len(), bench.rests), (1, rests));
    bench.post();
    assert_eq!((bench.end(), bench.connects.len()), ((0, "platform-rejected"), 1));
    bench.pass(ms(5000));
    assert_eq!(bench.rests, rests + 1);
    bench.post();
    assert_eq!(bench.connects.len(), 2);
}

#[test]
fn an_outage_is_bridged_by_connects_that_follow_each_other() {
    let mut bench = Bench::with(|bot| bot.welcome = Duration::ZERO);
    bench.post();
    for _ in 0..4 {
        let failure = ConnectFailure::Unavailable { words: "503".into(), retry_after: None };
        let before = bench.connects.len();
        bench.give(Input::ConnectFailed(failure));
        bench.pass(ms(4000));
        assert_eq!(bench.connects.len(), before + 1);
    }
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
}
