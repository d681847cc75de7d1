//! The sentences of api.md 1, "When a turn begins and ends", one test each.

use std::time::Duration;

use rtm_bridge::domain::{ConversationRecord, Correlation, MessageProgress, SessionRequest};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{BotResponse, ConnectMode, IncomingFrame};
use rtm_bridge::store::{ConversationSnapshot, OpenMessage};

use super::bench::{Bench, ms};
use super::support::{accepted, event, piece, plain, reply};

fn sign(incoming: IncomingFrame) -> Input {
    Input::Frame(incoming)
}

#[test]
fn expected_replies_end_the_turn_at_once() {
    let mut bench = Bench::connected();
    bench.post_ruled(Some(2), None, None);
    bench.say("ms-1");
    assert_eq!(bench.told.len(), 1);
    bench.say("ms-2");
    assert_eq!(bench.end(), (2, "replyCount"));
}

#[test]
fn a_sign_of_the_end_settles_for_150_ms_and_later_frames_still_count() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.give(sign(IncomingFrame::WaitingForInput));
    bench.pass(ms(149));
    bench.say("ms-2");
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (2, "inputWait"));
}

#[test]
fn an_input_wait_without_a_reply_goes_on() {
    let mut bench = Bench::connected();
    bench.post();
    bench.give(sign(IncomingFrame::WaitingForInput));
    bench.pass(ms(5000));
    assert_eq!(bench.told.len(), 1);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn the_sessions_end_and_an_agent_end_a_turn_without_replies() {
    for (frame, how) in
        [(IncomingFrame::SessionEnd(event()), "sessionEnd"), (IncomingFrame::AgentStart(event()), "agent")]
    {
        let mut bench = Bench::connected();
        bench.post();
        bench.give(sign(frame));
        bench.pass(ms(150));
        assert_eq!(bench.end(), (0, how));
    }
}

#[test]
fn quiet_counts_from_the_last_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.pass(ms(5000));
    bench.say("ms-1");
    bench.pass(ms(999));
    bench.say("ms-2");
    bench.pass(ms(999));
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (2, "quiet"));
}

#[test]
fn expected_replies_leave_quiet_only_where_it_was_given() {
    let mut bench = Bench::connected();
    bench.post_ruled(Some(2), None, None);
    bench.say("ms-1");
    bench.pass(ms(29_999));
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (1, "deadline"));
    bench.post_ruled(Some(2), Some(200), None);
    bench.say("ms-2");
    bench.pass(ms(200));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn an_announced_reply_stretches_quiet_to_15_s() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(BotResponse { more_follows: true, ..reply("ms-1", "one moment") });
    bench.pass(ms(14_999));
    assert_eq!(bench.told.len(), 1);
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
}

#[test]
fn an_unfinished_stream_stretches_quiet_to_15_s_and_is_cut_then() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.respond(piece("ms-1", "left", false));
    bench.pass(ms(14_999));
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(&*bench.reply("ms-1").text, "It left");
}

#[test]
fn a_streamed_reply_is_one_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.respond(piece("ms-1", "left.", true));
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(&*bench.reply("ms-1").text, "It left.");
}

#[test]
fn a_stream_that_began_before_the_sending_is_not_of_the_turn() {
    let mut bench = Bench::connected();
    bench.idle(2);
    bench.respond(piece("ms-1", "Any", false));
    bench.post();
    bench.say("ms-2");
    bench.respond(piece("ms-1", "body?", true));
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.reply("ms-1").correlation, Correlation::Unsolicited);
}

#[test]
fn the_deadline_cuts_a_turn_with_replies_and_fails_one_without() {
    let mut bench = Bench::connected();
    bench.post_ruled(None, Some(60_000), Some(2000));
    bench.say("ms-1");
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (1, "deadline"));
    let json = serde_json::to_value(bench.told.last().unwrap()).unwrap();
    assert_eq!(json["complete"], false);
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-reply"));
    bench.post();
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-ack"));
}

#[test]
fn a_head_that_cannot_be_sent_in_time_fails() {
    let mut bench = Bench::new();
    bench.post_ruled(None, None, Some(5000));
    bench.pass(ms(4999));
    assert!(bench.told.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
}

#[test]
fn waiting_for_the_send_rate_does_not_count() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = Duration::ZERO;
    });
    bench.post_ruled(Some(1), None, Some(1000));
    bench.post_ruled(Some(1), None, Some(1000));
    bench.give(Input::Connected);
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    bench.pass(ms(59_999));
    assert_eq!(bench.sends.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.sends.len(), 2);
    assert_eq!(bench.told.len(), 1);
}

#[test]
fn a_new_owner_does_not_count_the_wait_for_the_send_rate_either() {
    let now = Bench::new().now;
    let mut record = ConversationRecord::default();
    record.sends.record(1, now - ms(20_000));
    let head_at = now - ms(19_000);
    let message = accepted(0, head_at, plain());
    let lane = vec![OpenMessage { accepted: message, progress: MessageProgress::default() }];
    let open = ConversationSnapshot {
        record,
        lane,
        head_at: Some(head_at),
        next_position: 1,
        ..ConversationSnapshot::default()
    };
    let mut bench = Bench::opened(open, |bot| {
        bot.user_rate_per_minute = 1;
        bot.deadline = ms(5000);
        bot.welcome = Duration::ZERO;
    });
    bench.give(Input::Connected);
    bench.pass(ms(39_999));
    assert!(bench.told.is_empty() && bench.sends.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn a_hundred_replies_or_four_mebibytes_are_the_limit() {
    let mut bench = Bench::connected();
    bench.post();
    for i in 0..99 {
        bench.say(&format!("ms-{i}"));
    }
    assert_eq!(bench.told.len(), 1);
    bench.say("ms-99");
    assert_eq!(bench.end(), (100, "limit"));
    bench.post();
    let event = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    for i in 0..4 {
        let event = serde_json::value::RawValue::from_string(event.clone()).unwrap();
        bench.respond(BotResponse { event, ..reply(&format!("big-{i}"), "big") });
    }
    assert_eq!(bench.end(), (4, "limit"));
}

#[test]
fn a_welcome_holds_the_first_message_until_it_is_over() {
    let mut bench = Bench::new();
    bench.post();
    assert_eq!(bench.connects, [ConnectMode::Default]);
    bench.give(Input::Connected);
    bench.pass(ms(400));
    bench.say("ms-welcome");
    bench.pass(ms(499));
    assert!(bench.sends.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.sends.len(), 1);
    assert_eq!(bench.reply("ms-welcome").correlation, Correlation::Unsolicited);
}

#[test]
fn a_welcome_holds_for_three_seconds_at_most() {
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Connected);
    for i in 0..15 {
        bench.pass(ms(200));
        bench.say(&format!("ms-{i}"));
    }
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn without_a_welcome_or_with_a_living_session_nothing_is_held() {
    let mut bench = Bench::with(|bot| bot.welcome = Duration::ZERO);
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(bench.sends.len(), 1);
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Connected);
    bench.give(sign(IncomingFrame::Active { session_id: None, session_continues: false }));
    assert!(bench.sends.is_empty());
    bench.give(sign(IncomingFrame::Active { session_id: None, session_continues: true }));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn a_reply_after_the_end_is_late_within_the_window_and_unsolicited_after_it() {
    let mut bench = Bench::connected();
    let first = bench.told.last().unwrap().accepted.id;
    bench.pass(ms(59_999));
    bench.say("ms-1");
    bench.pass(ms(1));
    bench.say("ms-2");
    let late = bench.reply("ms-1");
    assert_eq!((late.late, late.in_reply_to, late.correlation), (true, Some(first), Correlation::Window));
    let other = bench.reply("ms-2");
    assert_eq!((other.late, other.in_reply_to, other.correlation), (false, None, Correlation::Unsolicited));
}

#[test]
fn a_greeting_is_no_late_reply_of_the_turn_before() {
    let mut bench = Bench::new();
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.pass(ms(500));
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    bench.post_with(|new| new.session = SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-welcome");
    let greeting = bench.reply("ms-welcome");
    assert_eq!((greeting.late, greeting.correlation), (false, Correlation::Unsolicited));
}

#[test]
fn a_greeting_proves_and_answers_nothing_of_a_turn_that_is_open() {
    let mut bench = Bench::with(|bot| bot.session_timeout = ms(2000));
    bench.post_ruled(None, None, Some(8000));
    bench.give(Input::Connected);
    bench.pass(ms(2600));
    assert_eq!(bench.sends.len(), 1);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default));
    bench.say("ms-welcome");
    bench.give(sign(IncomingFrame::WaitingForInput));
    assert_eq!(bench.reply("ms-welcome").correlation, Correlation::Unsolicited);
    bench.pass(ms(8000));
    assert_eq!(bench.end(), (0, "uncertain"));
}

#[test]
fn a_reply_that_is_repeated_to_a_new_owner_is_taken_once() {
    let mut bench = Bench::connected();
    bench.post_ruled(Some(3), None, None);
    for id in ["ms-1", "ms-2", "ms-3"] {
        bench.say(id);
    }
    let record = bench.writes.last().unwrap().record.clone();
    let open = ConversationSnapshot { record, ..ConversationSnapshot::default() };
    let mut bench = Bench::opened(open, |_| ());
    bench.give(Input::Connected);
    for id in ["ms-first", "ms-1", "ms-2", "ms-3"] {
        bench.say(id);
    }
    assert!(bench.replies.is_empty(), "{:?}", bench.replies);
}

#[test]
fn a_repeated_reply_is_taken_once() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn nothing_is_sent_before_the_store_knows_and_nothing_told() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    bench.pass(ms(1000));
    assert!(bench.sends.is_empty());
    bench.give(Input::Unknown);
    bench.pass(ms(1000));
    assert!(bench.sends.is_empty());
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.sends.len(), 1);
    bench.give(sign(IncomingFrame::SessionEnd(event())));
    bench.pass(ms(150));
    bench.give(Input::Stored { lost: false });
    bench.pass(ms(0));
    assert_eq!(bench.told.len(), 1);
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn a_reply_to_a_message_that_never_went_out_is_not_its_own() {
    let mut bench = Bench::connected();
    bench.idle(2);
    bench.store_hangs = true;
    bench.post_ruled(None, None, Some(500));
    bench.pass(ms(500));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.end(), (0, "platform-unavailable"));
    bench.say("ms-1");
    assert_eq!(bench.reply("ms-1").correlation, Correlation::Unsolicited);
}

#[test]
fn one_turn_at_a_time_in_the_order_of_the_lane() {
    let mut bench = Bench::connected();
    let first = bench.post();
    let second = bench.post();
    bench.pass(ms(2000));
    assert_eq!(bench.sends.len(), 1);
    bench.say("ms-1");
    bench.pass(ms(1000));
    let ids: Vec<u64> = bench.sends.iter().map(|send| send.0).collect();
    assert_eq!(ids, [first.client_message_id, second.client_message_id]);
}
