//! The sockets of a link: connect modes, idleness, silence, drain and refusals (api.md 1, 7 and 9).

use std::time::Duration;

use rtm_bridge::domain::SessionRequest;
use rtm_bridge::link::{AbandonReason, ConnectFailure, Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};

use super::bench::{Bench, ms};
use super::support::event;

#[test]
fn new_session_is_started_once_over_a_fresh_socket() {
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
fn connect_is_a_reconnect_only_if_a_session_may_live() {
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
fn pong_does_not_keep_a_session_alive() {
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
fn idle_socket_is_closed_and_the_conversation_rests() {
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
fn connect_without_a_waiting_message_is_abandoned() {
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
fn input_to_a_rested_conversation_is_answered_by_rest() {
    let mut bench = Bench::connected();
    bench.give(Input::Drain);
    assert_eq!((bench.closes, bench.rests), (1, 2));
    bench.post();
    assert_eq!((bench.sends.len(), bench.machine.open_messages(), bench.rests), (0, 1, 3));
    bench.give(Input::Woken);
    assert_eq!(bench.rests, 4);
}

#[test]
fn idle_ttl_never_keeps_an_idle_socket_open() {
    let mut bench = Bench::with(|bot| {
        bot.idle_ttl = None;
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    for _ in 0..1000 {
        bench.pass(ms(25_000));
        bench.give(Input::PeerAlive);
    }
    assert_eq!(bench.closes, 0);
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Ready);
}

#[test]
fn silent_peer_is_abandoned_after_two_and_a_half_intervals() {
    let mut bench = Bench::connected();
    bench.pass(ms(62_000));
    assert_eq!((bench.pings, bench.abandons.len()), (2, 0));
    bench.pass(ms(500));
    assert_eq!(bench.abandons, [AbandonReason::Silent]);
    bench.reconnect();
}

#[test]
fn drain_finishes_the_open_turn_only() {
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
fn drain_at_rest_is_answered_by_rest() {
    let mut bench = Bench::new();
    assert_eq!(bench.rests, 1);
    bench.give(Input::Drain);
    assert_eq!(bench.rests, 2);
}

#[test]
fn permanent_refusal_fails_the_lane() {
    let mut bench = Bench::new();
    bench.post();
    bench.post();
    bench.give(Input::ConnectFailed(ConnectFailure::Rejected("unknown bot".into())));
    assert_eq!(bench.completed.len(), 2);
    assert_eq!(bench.end(), (0, "platform-rejected"));
    assert!(format!("{:?}", bench.completed).contains("unknown bot"));
}

#[test]
fn permanent_refusal_is_remembered_for_a_while() {
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
fn outage_is_bridged_by_repeated_connects() {
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
