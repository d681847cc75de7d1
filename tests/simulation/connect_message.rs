//! Messages that only connect, so that the bot speaks first (api.md 1, `event`).

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::fixtures::raw_json;
use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, Correlation, JsonObject, MessageContent, MessageEvent,
    MessageProgress, NewMessage, SessionRequest, Timestamp, TurnRules,
};
use rtm_bridge::link::{Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, HistoryRecord, IncomingFrame};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms, outgoing};
use super::support::{accepted, echo, event, piece, plain, sent, snapshot};

pub(super) fn connect_message(session: SessionRequest) -> NewMessage {
    let (event, content) = (Some(MessageEvent::Connect), MessageContent::without_text());
    NewMessage { event, content, session, ..plain() }
}

fn ask(bench: &mut Bench, session: SessionRequest) -> Arc<AcceptedMessage> {
    bench.post_with(|new| *new = connect_message(session))
}

fn signal(bench: &mut Bench, frame: IncomingFrame) {
    bench.give(Input::Frame(frame));
}

fn active(session_continues: bool) -> IncomingFrame {
    IncomingFrame::Active { session_id: None, session_continues }
}

/// The stored conversation of an owner that died after it had connected for a message, this long ago.
fn left(ago: Duration) -> (ConversationSnapshot, Timestamp) {
    let at = Bench::new().now - ago;
    let message = accepted(0, at, connect_message(SessionRequest::New));
    let (connected_at, session_done) = (Some(at), Some(message.id));
    let record = ConversationRecord { write: 3, connected_at, session_done, ..ConversationRecord::default() };
    (snapshot(record, [(&message, sent(at))]), at)
}

/// Lets time pass, with these records of history as the answer to each read.
fn pass_with_history(bench: &mut Bench, span: Duration, records: &[HistoryRecord]) {
    let mut answered = 0;
    for _ in 0..span.as_millis() / 50 {
        while answered < bench.history_reads.len() {
            answered += 1;
            bench.history(records.to_vec());
        }
        bench.pass(ms(50));
    }
}

#[test]
fn greeting_answers_the_connect() {
    let mut bench = Bench::new();
    let message = ask(&mut bench, SessionRequest::New);
    assert_eq!(bench.connects, [ConnectMode::StartNew]);
    bench.give(Input::Connected);
    signal(&mut bench, active(false));
    bench.say("ms-1");
    bench.pass(ms(900));
    bench.say("ms-2");
    bench.pass(ms(999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!((bench.end(), bench.sends.len()), ((2, "quiet"), 0), "no frame is sent");
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.correlation), (Some(message.id), Correlation::Window));
}

#[test]
fn greeting_that_waits_for_input_ends_the_turn() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-1");
    signal(&mut bench, IncomingFrame::WaitingForInput);
    bench.pass(ms(150));
    assert_eq!(bench.end(), (1, "inputWait"));
}

#[test]
fn streamed_greeting_is_one_reply() {
    let mut bench = Bench::connected();
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.respond(piece("ms-1", "Hel", false));
    bench.respond(piece("ms-1", "lo", true));
    bench.pass(ms(1000));
    assert_eq!((bench.end(), &*bench.reply("ms-1").text), ((1, "quiet"), "Hello"));
}

#[test]
fn silence_until_the_deadline_is_an_answer() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.pass(ms(2000));
    bench.give(Input::Connected);
    bench.pass(ms(3000));
    assert_eq!(bench.history_reads.len(), 1, "history confirms it");
    bench.history(Vec::new());
    bench.pass(ms(1999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "silence"));
    let json = serde_json::to_value(bench.completed.last().unwrap()).unwrap();
    assert_eq!(
        (&json["status"], &json["complete"], &json["event"]),
        (&"answered".into(), &true.into(), &"connect".into())
    );
}

#[test]
fn rules_of_the_caller_end_the_turn() {
    let mut bench = Bench::new();
    let ruled = |bench: &mut Bench, expect, deadline| {
        bench.post_with(|new| {
            *new = connect_message(SessionRequest::New);
            new.rules = TurnRules::new(expect, None, deadline).unwrap();
        });
        bench.give(Input::Connected);
    };
    ruled(&mut bench, Some(1), None);
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    bench.say("ms-2");
    assert!(bench.reply("ms-2").late, "the rest of the greeting belongs to it");
    ruled(&mut bench, None, Some(500));
    bench.pass(ms(500));
    assert_eq!(bench.end(), (0, "silence"));
}

#[test]
fn connect_to_a_platform_that_is_away_fails_like_a_message() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.pass(ms(29_999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
}

#[test]
fn new_session_replaces_the_open_connection() {
    let mut bench = Bench::connected();
    ask(&mut bench, SessionRequest::New);
    assert_eq!((bench.closes, bench.connects.last()), (1, Some(&ConnectMode::StartNew)));
    bench.give(Input::Connected);
    // The session before may be told to end.
    signal(&mut bench, IncomingFrame::SessionEnd(event()));
    bench.pass(ms(300));
    bench.say("ms-hello");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn continued_session_on_an_open_link_answers_at_once() {
    let mut bench = Bench::connected();
    let connects = bench.connects.len();
    ask(&mut bench, SessionRequest::Continue);
    assert_eq!((bench.end(), bench.connects.len()), ((0, "silence"), connects));
}

#[test]
fn continued_session_without_a_link_reconnects_and_answers() {
    let mut bench = Bench::with(|bot| bot.idle_ttl = Some(ms(2000)));
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.pass(ms(500));
    bench.say("ms-1");
    bench.pass(ms(2000));
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Cold);
    ask(&mut bench, SessionRequest::Continue);
    assert_eq!((bench.connects.last(), bench.completed.len()), (Some(&ConnectMode::Reconnect), 1));
    bench.give(Input::Connected);
    assert_eq!(bench.end(), (0, "silence"));
}

#[test]
fn continue_without_a_session_waits_for_the_greeting() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::Continue);
    assert_eq!(bench.connects, [ConnectMode::Default]);
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn session_that_the_platform_still_has_answers_at_once() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::Continue);
    bench.give(Input::Connected);
    signal(&mut bench, active(true));
    assert_eq!(bench.end(), (0, "silence"));
}

#[test]
fn expired_session_on_an_open_link_begins_anew() {
    let mut bench = Bench::with(|bot| {
        bot.session_timeout = ms(5000);
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(6000));
    ask(&mut bench, SessionRequest::Continue);
    assert_eq!((bench.closes, bench.connects.last()), (1, Some(&ConnectMode::Default)));
    bench.give(Input::Connected);
    bench.say("ms-hello");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn connect_waits_for_its_place_in_the_lane() {
    let mut bench = Bench::connected();
    let first = bench.post();
    let second = ask(&mut bench, SessionRequest::New);
    let third = bench.post();
    assert_eq!((bench.sends.len(), bench.connects.len()), (1, 1));
    bench.respond(echo("ms-1", &first));
    bench.pass(ms(1000));
    assert_eq!((bench.end(), bench.connects.last()), ((1, "quiet"), Some(&ConnectMode::StartNew)));
    bench.give(Input::Connected);
    bench.say("ms-hello");
    assert_eq!(bench.sends.len(), 1);
    bench.pass(ms(1000));
    assert_eq!(bench.reply("ms-hello").in_reply_to, Some(second.id));
    assert_eq!(bench.sends.last().unwrap().0, third.client_message_id, "it follows on the same link");
}

#[test]
fn connect_does_not_count_for_the_send_rate() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = Duration::ZERO;
    });
    for n in 0..3 {
        ask(&mut bench, SessionRequest::New);
        bench.give(Input::Connected);
        bench.say(&format!("ms-{n}"));
        bench.pass(ms(1000));
        assert_eq!(bench.completed.len(), n + 1);
    }
    bench.post();
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn agent_ends_a_connect_that_keeps_the_session() {
    let mut bench = Bench::connected();
    signal(&mut bench, IncomingFrame::AgentStart(event()));
    ask(&mut bench, SessionRequest::Continue);
    assert_eq!(bench.end(), (0, "agent"));
    bench.post_with(|new| *new = connect_message(SessionRequest::NewKeepAgent));
    bench.give(Input::Connected);
    bench.pass(ms(3000));
    assert_eq!(bench.end(), (0, "agent"), "nothing told that the agent left");
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-hello");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"), "a new session begins with the bot");
}

#[test]
fn greeting_that_hands_over_to_an_agent_ends_the_turn() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-1");
    signal(&mut bench, IncomingFrame::AgentStart(event()));
    bench.pass(ms(150));
    assert_eq!(bench.end(), (1, "agent"));
}

#[test]
fn greeting_after_a_lost_link_is_found_in_history() {
    let mut bench = Bench::with(|bot| bot.history_settle = ms(1000));
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    let connected_at = bench.now;
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect), "it began the session already");
    let greeting = HistoryRecord { created_on: Some(connected_at + ms(10)), ..outgoing("ms-hello") };
    pass_with_history(&mut bench, ms(6000), &[greeting]);
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.reply("ms-hello").correlation, Correlation::History);
}

#[test]
fn greeting_of_a_second_connection_answers_the_connect() {
    let mut bench = Bench::with(|bot| {
        bot.session_timeout = ms(1000);
        bot.welcome = ms(3000);
    });
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.pass(ms(1500));
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default), "the session has timed out");
    bench.say("ms-hello");
    assert_eq!(bench.reply("ms-hello").correlation, Correlation::Window);
}

#[test]
fn silence_on_a_lost_link_without_history_is_no_answer() {
    for (history, end) in [(true, "silence"), (false, "no-reply")] {
        let mut bench = Bench::with(|bot: &mut BotConfig| {
            bot.history = history;
            bot.history_settle = ms(100);
        });
        ask(&mut bench, SessionRequest::New);
        bench.give(Input::Connected);
        bench.lose(1006);
        bench.reconnect();
        pass_with_history(&mut bench, ms(10_000), &[]);
        assert_eq!(bench.end(), (0, end));
    }
}

#[test]
fn unstored_connect_is_made_once_more_by_the_next_owner() {
    let mut bench = Bench::new();
    let message = ask(&mut bench, SessionRequest::New);
    let open = snapshot(ConversationRecord::default(), [(&message, MessageProgress::default())]);
    let mut next = Bench::opened(open, |_| ());
    assert_eq!(next.connects, [ConnectMode::StartNew]);
    next.give(Input::Connected);
    next.say("ms-hello");
    next.pass(ms(1000));
    assert_eq!(next.end(), (1, "quiet"));
}

#[test]
fn new_owner_finds_the_greeting_of_a_stored_connect() {
    let (open, at) = left(ms(20_000));
    let mut bench = Bench::opened(open, |_| ());
    assert_eq!(bench.connects, [ConnectMode::Reconnect], "the session began already");
    bench.give(Input::Connected);
    let greeting = HistoryRecord { created_on: Some(at + ms(300)), ..outgoing("ms-hello") };
    pass_with_history(&mut bench, ms(7000), &[greeting]);
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn new_owner_without_history_does_not_call_it_silence() {
    let mut bench = Bench::opened(left(ms(0)).0, |bot| bot.history = false);
    bench.give(Input::Connected);
    bench.pass(ms(10_000));
    assert_eq!(bench.end(), (0, "no-reply"));
}

#[test]
fn refused_connect_fails_the_message() {
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::ConnectFailed(rtm_bridge::link::ConnectFailure::Rejected("unknown bot".into())));
    assert_eq!(bench.end(), (0, "platform-rejected"));
}

#[test]
fn draining_owner_leaves_an_unbegun_connect_to_the_next() {
    let mut bench = Bench::new();
    let rests = bench.rests;
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Drain);
    assert_eq!((bench.completed.len(), bench.rests, bench.abandons.len()), (0, rests + 1, 1));
    let mut bench = Bench::new();
    ask(&mut bench, SessionRequest::New);
    bench.give(Input::Connected);
    bench.give(Input::Drain);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"), "a begun turn is finished");
}

#[test]
fn session_keeps_the_context_of_its_opener() {
    fn with_data(new: &mut NewMessage) {
        new.content.custom_data = Some(JsonObject::new(raw_json("{\"tier\":\"gold\"}")).unwrap());
    }
    let mut bench = Bench::with(|bot| bot.welcome = Duration::ZERO);
    let opener = bench.post_with(|new| {
        *new = connect_message(SessionRequest::New);
        with_data(new);
    });
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.contexts, [Some(opener.id), Some(opener.id)]);
    assert_eq!(bench.record().context, Some(opener.id));
    let second = bench.post_with(|new| {
        new.session = SessionRequest::New;
        with_data(new);
    });
    assert_eq!(bench.contexts.last(), Some(&Some(second.id)));
    bench.give(Input::Connected);
    bench.say("ms-2");
    bench.pass(ms(1000));
    ask(&mut bench, SessionRequest::New);
    assert_eq!(bench.contexts.last(), Some(&None), "another session has none of it");
}
