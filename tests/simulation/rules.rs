//! The sentences of api.md 1, "When a turn begins and ends", one test each.

use std::time::Duration;

use rtm_bridge::domain::fixtures::raw_json;
use rtm_bridge::domain::{ConversationRecord, Correlation, Fingerprint, MessageProgress, SessionRequest};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{BotResponse, ConnectMode, IncomingFrame};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms};
use super::support::{accepted, event, piece, plain, reply, snapshot};

fn sign(incoming: IncomingFrame) -> Input {
    Input::Frame(incoming)
}

#[test]
fn expected_replies_end_the_turn_at_once() {
    let mut bench = Bench::connected();
    bench.post_ruled(Some(2), None, None);
    bench.say("ms-1");
    assert_eq!(bench.completed.len(), 1);
    bench.say("ms-2");
    assert_eq!(bench.end(), (2, "replyCount"));
}

#[test]
fn end_signal_settles_for_150_ms_and_takes_later_frames() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.give(sign(IncomingFrame::WaitingForInput));
    bench.pass(ms(149));
    bench.say("ms-2");
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (2, "inputWait"));
}

#[test]
fn input_wait_without_a_reply_does_not_end_the_turn() {
    let mut bench = Bench::connected();
    bench.post();
    bench.give(sign(IncomingFrame::WaitingForInput));
    bench.pass(ms(5000));
    assert_eq!(bench.completed.len(), 1);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn session_end_and_agent_end_a_turn_without_replies() {
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
fn quiet_time_counts_from_the_last_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.pass(ms(5000));
    bench.say("ms-1");
    bench.pass(ms(999));
    bench.say("ms-2");
    bench.pass(ms(999));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (2, "quiet"));
    assert_eq!(bench.quiet(), Some((1000, "configured")));
}

#[test]
fn expected_replies_keep_only_an_explicit_quiet_time() {
    let mut bench = Bench::connected();
    bench.post_ruled(Some(2), None, None);
    bench.say("ms-1");
    bench.pass(ms(29_999));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (1, "deadline"));
    bench.post_ruled(Some(2), Some(200), None);
    bench.say("ms-2");
    bench.pass(ms(200));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.quiet(), Some((200, "caller")));
}

#[test]
fn announced_reply_stretches_quiet_to_15_s() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(BotResponse { more_follows: true, ..reply("ms-1", "one moment") });
    bench.pass(ms(14_999));
    assert_eq!(bench.completed.len(), 1);
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
    assert_eq!(bench.quiet(), Some((1000, "configured")), "the announcement is fulfilled");
}

#[test]
fn announcement_without_a_text_is_no_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.respond(BotResponse { more_follows: true, ..reply("ms-2", "") });
    bench.pass(ms(14_999));
    assert_eq!(bench.completed.len(), 1);
    bench.say("ms-3");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
}

#[test]
fn unfinished_stream_stretches_quiet_to_15_s_and_is_cut() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.respond(piece("ms-1", "left", false));
    bench.pass(ms(14_999));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.quiet(), Some((15_000, "default")));
    assert_eq!(&*bench.reply("ms-1").text, "It left");
}

#[test]
fn streamed_reply_counts_as_one_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.respond(piece("ms-1", "left.", true));
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(&*bench.reply("ms-1").text, "It left.");
}

#[test]
fn stream_begun_before_the_sending_is_outside_the_turn() {
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
fn longer_quiet_time_of_the_caller_is_not_stretched() {
    let mut bench = Bench::connected();
    bench.post_ruled(None, Some(20_000), None);
    bench.respond(BotResponse { more_follows: true, ..reply("ms-1", "one moment") });
    bench.pass(ms(19_999));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!((bench.end(), bench.quiet()), ((1, "quiet"), Some((20_000, "caller"))));
}

#[test]
fn deadline_ends_a_turn_with_replies_and_fails_one_without() {
    let mut bench = Bench::connected();
    bench.post_ruled(None, Some(60_000), Some(2000));
    bench.say("ms-1");
    bench.pass(ms(2000));
    assert_eq!(bench.end(), (1, "deadline"));
    let json = serde_json::to_value(bench.completed.last().unwrap()).unwrap();
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
fn head_that_cannot_be_sent_in_time_fails() {
    let mut bench = Bench::new();
    bench.post_ruled(None, None, Some(5000));
    bench.pass(ms(4999));
    assert!(bench.completed.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "platform-unavailable"));
}

#[test]
fn wait_for_the_send_rate_does_not_count() {
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
    assert_eq!(bench.completed.len(), 1);
}

#[test]
fn new_owner_does_not_count_the_wait_for_the_send_rate() {
    let now = Bench::new().now;
    let mut record = ConversationRecord::default();
    record.sends.record(1, now - ms(20_000));
    let head_at = now - ms(19_000);
    let message = accepted(0, head_at, plain());
    let open = snapshot(record, [(&message, MessageProgress::default())]);
    let mut bench = Bench::opened(open, |bot| {
        bot.user_rate_per_minute = 1;
        bot.deadline = ms(5000);
        bot.welcome = Duration::ZERO;
    });
    bench.give(Input::Connected);
    bench.pass(ms(39_999));
    assert!(bench.completed.is_empty() && bench.sends.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn turn_with_100_replies_or_4_mib_ends_at_its_limit() {
    let mut bench = Bench::connected();
    bench.post();
    for i in 0..99 {
        bench.say(&format!("ms-{i}"));
    }
    assert_eq!(bench.completed.len(), 1);
    bench.say("ms-99");
    assert_eq!(bench.end(), (100, "limit"));
    bench.post();
    let event = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    for i in 0..4 {
        let event = raw_json(&event);
        bench.respond(BotResponse { event, ..reply(&format!("big-{i}"), "big") });
    }
    assert_eq!(bench.end(), (4, "limit"));
}

#[test]
fn welcome_holds_the_first_message_until_its_end() {
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
fn welcome_holds_the_first_message_for_3_s_at_most() {
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
fn message_without_an_expected_welcome_is_not_held() {
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
fn reply_after_the_end_is_late_within_the_window_only() {
    let mut bench = Bench::connected();
    let first = bench.completed.last().unwrap().accepted.id;
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
fn reply_above_the_limits_of_a_message_is_unsolicited() {
    let mut bench = Bench::connected();
    for number in 0..101 {
        bench.say(&format!("ms-{number}"));
    }
    assert!(bench.reply("ms-99").late);
    let above = bench.reply("ms-100");
    assert_eq!((above.late, above.in_reply_to, above.correlation), (false, None, Correlation::Unsolicited));

    // The next message has limits of its own. Its ninth reply passes 4 MiB.
    bench.post();
    bench.say("ms-answer");
    bench.give(sign(IncomingFrame::WaitingForInput));
    bench.pass(ms(150));
    for number in 0..9 {
        bench.respond(reply(&format!("long-{number}"), &"m".repeat(500_000)));
    }
    assert!(bench.reply("long-8").late);
    bench.say("ms-above");
    assert!(!bench.reply("ms-above").late);

    // The next owner knows the sum.
    let record = bench.record();
    assert!(record.last_turn.is_some_and(|mut last| !last.late.take(1)));
}

#[test]
fn greeting_is_not_a_late_reply_of_the_last_turn() {
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
fn greeting_during_an_open_turn_proves_nothing() {
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
fn repeated_reply_to_a_new_owner_is_journaled_once() {
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
fn many_repeated_replies_are_journaled_once() {
    let ids: Vec<String> = (0..900).map(|n| format!("ms-{n}")).collect();
    let mut bench = Bench::connected();
    for id in &ids {
        bench.say(id);
    }
    let told = bench.replies.len();
    for id in &ids {
        bench.say(id);
    }
    assert_eq!(bench.replies.len(), told, "to the same owner");
    let journaled = ids.iter().map(|id| Fingerprint::of(id)).collect();
    let open = ConversationSnapshot { record: bench.record(), journaled, ..ConversationSnapshot::default() };
    let mut next = Bench::opened(open, |_| ());
    next.post();
    next.give(Input::Connected);
    for id in ids.iter().map(String::as_str).chain(["ms-first"]) {
        next.say(id);
    }
    let told: Vec<_> = next.replies.iter().filter_map(|reply| reply.message_id.as_deref()).collect();
    assert_eq!(told, ["ms-first"], "only the journal forgot it");
}

#[test]
fn repeated_reply_is_journaled_once() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn message_is_sent_and_completed_only_after_its_write() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    bench.pass(ms(1000));
    assert!(bench.sends.is_empty());
    bench.give(Input::WriteUnknown);
    bench.pass(ms(1000));
    assert!(bench.sends.is_empty());
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.sends.len(), 1);
    bench.give(sign(IncomingFrame::SessionEnd(event())));
    bench.pass(ms(150));
    bench.give(Input::Stored { lost: false });
    bench.pass(ms(0));
    assert_eq!(bench.completed.len(), 1);
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.end(), (0, "sessionEnd"));
}

#[test]
fn reply_during_an_unsent_message_is_not_its_own() {
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
fn turns_run_one_at_a_time_in_lane_order() {
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
