//! The sentences of api.md 1, "If the link breaks", one test each.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{AcceptedMessage, Correlation, ProblemKind, ResendPolicy, TurnOutcome};
use rtm_bridge::link::{HistoryFailure, Input, LinkState, SocketLoss};
use rtm_bridge::rtm::{HistoryRecord, IncomingFrame};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{echo, event, piece, reply};

#[test]
fn loss_before_sending_is_backfilled_and_the_message_sent() {
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Connected);
    bench.pass(ms(100));
    bench.lose(1006);
    bench.reconnect();
    bench.pass(ms(500));
    assert_eq!(bench.sends.len(), 1);
    assert!(bench.history_reads.is_empty());
}

#[test]
fn loss_after_the_ack_is_backfilled_without_resending() {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.ack(&message);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.history_reads[0].0.as_deref(), Some("ms-first"));
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    assert_eq!(bench.reply("ms-1").correlation, Correlation::History);
    bench.pass(ms(1500));
    bench.history(vec![incoming(&message), outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(1500));
    bench.history(vec![incoming(&message), outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn history_is_read_from_the_gap_despite_newer_replies() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.say("ms-2");
    bench.pass(ms(1500));
    assert_eq!(bench.history_reads[1].0.as_deref(), Some("ms-first"));
    bench.history(vec![incoming(&message), outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(1500));
    bench.history(vec![incoming(&message), outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
}

#[test]
fn message_found_in_history_counts_as_acked() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.lose(1011);
    bench.reconnect();
    bench.history(vec![incoming(&message)]);
    for _ in 0..2 {
        bench.pass(ms(1500));
        bench.history(vec![incoming(&message)]);
    }
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-reply"));
    assert!(bench.completed.last().unwrap().progress.acked_at.is_some());
}

#[test]
fn message_absent_in_history_twice_is_uncertain() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.pass(ms(1500));
    bench.history(Vec::new());
    bench.pass(ms(1499));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    bench.history(Vec::new());
    assert_eq!(bench.end(), (0, "uncertain"));
    assert_eq!((bench.history_reads.len(), bench.sends.len()), (3, 1));
}

#[test]
fn resend_waits_for_the_send_rate() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = Duration::ZERO;
        bot.deadline = ms(90_000);
        bot.history = false;
    });
    bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.give(Input::Connected);
    let sent = bench.now;
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.sends.len(), 1);
    bench.idle(1);
    assert_eq!(bench.sends.len(), 2);
    assert_eq!(bench.sends[1].1.since(sent), ms(60_000));
}

#[test]
fn message_that_is_acked_before_its_resend_is_not_sent_again() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = Duration::ZERO;
        bot.deadline = ms(90_000);
        bot.history = false;
    });
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.give(Input::Connected);
    bench.lose(1006);
    bench.reconnect();
    // The turn has given up on the first sending, and waits for the send rate.
    bench.ack(&message);
    bench.idle(2);
    assert_eq!((bench.sends.len(), bench.end()), (1, (0, "no-reply")));
}

#[test]
fn message_that_history_shows_before_its_resend_is_not_sent_again() {
    let mut bench = Bench::with(|bot| {
        bot.user_rate_per_minute = 1;
        bot.welcome = Duration::ZERO;
        bot.deadline = ms(90_000);
    });
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.give(Input::Connected);
    bench.lose(1006);
    bench.reconnect();
    for wait in [1500, 1500, 15_000] {
        bench.give(Input::History(Err(HistoryFailure::Temporary)));
        bench.pass(ms(wait));
    }
    // The turn has given up, and waits for the send rate.
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    bench.idle(1);
    assert_eq!((bench.end(), bench.sends.len()), ((1, "quiet"), 1));
}

#[test]
fn repeat_of_a_known_reply_that_names_the_message_proves_its_receipt() {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.lose(1006);
    bench.reconnect();
    // The clock of the platform is wrong, so this seems to be an older reply.
    let created_on = Some(bench.now - ms(300_000));
    bench.history(vec![HistoryRecord { created_on, ..outgoing("ms-1") }]);
    assert_eq!(bench.reply("ms-1").in_reply_to, None);
    bench.respond(echo("ms-1", &message));
    for _ in 0..2 {
        bench.pass(ms(1500));
        bench.history(Vec::new());
    }
    assert_eq!((bench.sends.len(), bench.completed.len()), (1, 1));
}

#[test]
fn message_absent_in_history_is_resent_under_its_id() {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    for _ in 0..2 {
        bench.pass(ms(1500));
        bench.history(Vec::new());
    }
    let ids: Vec<u64> = bench.sends.iter().map(|send| send.0).collect();
    assert_eq!(ids, [message.client_message_id; 2]);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn unproved_message_without_history_is_decided_at_once() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1006);
    bench.reconnect();
    bench.history_fails();
    assert_eq!(bench.end(), (0, "uncertain"));
    let mut bench = Bench::with(|bot| {
        bot.history = false;
        bot.welcome = Duration::ZERO;
    });
    bench.post();
    bench.give(Input::Connected);
    bench.lose(1006);
    assert_eq!(bench.end(), (0, "uncertain"));
    assert!(bench.history_reads.is_empty());
}

#[test]
fn history_answers_of_two_losses_are_not_mixed_up() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1006);
    bench.reconnect();
    bench.lose(1006);
    bench.history(Vec::new());
    bench.pass(ms(0));
    bench.reconnect();
    assert_eq!(bench.history_reads.len(), 2);
    bench.history_fails();
    assert_eq!(bench.end(), (0, "uncertain"));
}

#[test]
fn close_1008_fails_the_turn_and_blocks_for_a_minute() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.post_ruled(None, None, Some(59_000));
    bench.post_ruled(None, None, Some(100_000));
    bench.lose(1008);
    assert_eq!(bench.completed.len(), 3, "the turn and the head that cannot wait");
    for message in &bench.completed[1..] {
        let Some(TurnOutcome::Failed(problem)) = &message.progress.outcome else { panic!() };
        assert_eq!(problem.kind, ProblemKind::BotBlocked);
        assert_eq!(problem.retry_after, Some(ms(60_000)));
    }
    let connects = bench.connects.len();
    bench.pass(ms(59_999));
    assert_eq!(bench.connects.len(), connects);
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Blocked);
    bench.reconnect();
    assert_eq!(bench.sends.len(), 2);
}

#[test]
fn close_1008_fails_a_message_before_its_sending() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    bench.lose(1008);
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.end(), (0, "bot-blocked"));
    assert!(bench.sends.is_empty());
}

#[test]
fn close_1007_or_1009_fails_the_turn_and_reconnects() {
    for (code, how) in [(1009, "payload-too-large"), (1007, "platform-rejected")] {
        let mut bench = Bench::connected();
        bench.post_with(|new| new.resend = ResendPolicy::Auto);
        bench.lose(code);
        assert_eq!(bench.end(), (0, how));
        bench.post();
        bench.reconnect();
        assert_eq!(bench.sends.len(), 2);
    }
}

#[test]
fn close_1000_of_an_idle_link_is_not_reconnected() {
    let mut bench = Bench::connected();
    let connects = bench.connects.len();
    bench.lose(1000);
    bench.pass(ms(100_000));
    assert_eq!(bench.connects.len(), connects);
    bench.post();
    assert_eq!(bench.connects.len(), connects + 1);
}

#[test]
fn close_1005_delays_the_reconnect() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    let connects = bench.connects.len();
    bench.lose(1005);
    bench.pass(ms(1999));
    assert_eq!(bench.connects.len(), connects);
    bench.reconnect();
}

#[test]
fn message_on_a_page_of_the_loss_before_counts_as_acked() {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.lose(1006);
    bench.reconnect();
    bench.lose(1006);
    bench.history(vec![incoming(&message)]);
    bench.reconnect();
    bench.history_fails();
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!((bench.end(), bench.sends.len()), ((1, "quiet"), 1));
}

/// A turn without proof whose link broke and is open again, and over which the bot spoke unasked.
fn pushed(resend: ResendPolicy) -> (Bench, Arc<AcceptedMessage>) {
    let mut bench = Bench::connected();
    let message = bench.post_with(|new| new.resend = resend);
    bench.lose(1006);
    bench.reconnect();
    bench.say("ms-push");
    assert!(bench.replies.iter().all(|reply| reply.message_id.as_deref() != Some("ms-push")));
    (bench, message)
}

#[test]
fn push_over_a_new_link_does_not_answer_an_unproved_message() {
    let (mut bench, message) = pushed(ResendPolicy::Auto);
    for _ in 0..3 {
        bench.history(vec![outgoing("ms-push")]);
        bench.pass(ms(1500));
    }
    assert_eq!(bench.sends.len(), 2, "nothing proves receipt");
    assert_eq!(bench.reply("ms-push").in_reply_to, None);
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    let (mut bench, _) = pushed(ResendPolicy::Never);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    for _ in 0..3 {
        bench.history(vec![outgoing("ms-push")]);
        bench.pass(ms(1500));
    }
    assert_eq!((bench.end(), bench.sends.len()), ((0, "uncertain"), 1));
    assert_eq!(bench.reply("ms-push").in_reply_to, None);
}

#[test]
fn push_before_the_message_in_history_does_not_answer_it() {
    let (mut bench, message) = pushed(ResendPolicy::Auto);
    bench.history(vec![outgoing("ms-push"), incoming(&message), outgoing("ms-1")]);
    bench.pass(ms(1500));
    for _ in 0..2 {
        bench.history(vec![outgoing("ms-push"), incoming(&message), outgoing("ms-1")]);
        bench.pass(ms(1500));
    }
    assert_eq!((bench.end(), bench.sends.len()), ((1, "quiet"), 1));
    assert_eq!(bench.reply("ms-push").in_reply_to, None);
    assert_eq!(bench.reply("ms-1").in_reply_to, Some(message.id));
}

#[test]
fn reply_over_a_new_link_counts_when_receipt_is_proved() {
    let (mut bench, message) = pushed(ResendPolicy::Auto);
    bench.ack(&message);
    bench.say("ms-1");
    for _ in 0..3 {
        bench.history(vec![incoming(&message), outgoing("ms-push"), outgoing("ms-1")]);
        bench.pass(ms(1500));
    }
    assert_eq!((bench.end(), bench.sends.len()), ((2, "quiet"), 1));
    assert_eq!(bench.reply("ms-push").in_reply_to, Some(message.id));
}

#[test]
fn streamed_push_over_a_new_link_does_not_answer() {
    let mut bench = Bench::connected();
    bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.lose(1006);
    bench.reconnect();
    bench.respond(piece("ms-push", "For ", false));
    for _ in 0..3 {
        bench.history(Vec::new());
        bench.pass(ms(1500));
    }
    assert_eq!(bench.sends.len(), 2);
    bench.respond(piece("ms-push", "you.", true));
    bench.pass(ms(3000));
    bench.history(Vec::new());
    assert_eq!((bench.reply("ms-push").in_reply_to, &*bench.reply("ms-push").text), (None, "For you."));
}

#[test]
fn socket_that_breaks_before_the_first_byte_leaves_the_message_unsent() {
    let mut bench = Bench::connected();
    bench.early = Some(Input::Lost(SocketLoss::GONE));
    bench.post();
    assert_eq!((bench.sends.len(), bench.completed.len()), (0, 1));
    bench.reconnect();
    assert_eq!(bench.sends.len(), 1, "and needs no proof");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn frame_before_the_first_byte_answers_no_turn() {
    let mut bench = Bench::connected();
    bench.pass(ms(60_000));
    bench.early = Some(Input::Frame(IncomingFrame::Response(Box::new(reply("ms-push", "push")))));
    bench.post();
    assert_eq!((bench.sends.len(), bench.reply("ms-push").in_reply_to), (1, None));
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-ack"), "it proves nothing");
}
