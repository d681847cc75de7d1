//! The sentences of api.md 1, "If the link breaks", one test each.

use std::time::Duration;

use rtm_bridge::domain::{Correlation, ProblemKind, ResendPolicy, TurnOutcome};
use rtm_bridge::link::{Input, LinkState};

use super::bench::{Bench, incoming, ms, outgoing};

#[test]
fn before_the_sending_is_mended_and_the_message_sent() {
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
fn after_the_ack_is_mended_by_history_without_sending_again() {
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
fn is_read_from_the_gap_although_the_new_socket_brought_more() {
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
fn found_in_history_counts_as_acked() {
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
    assert!(bench.told.last().unwrap().progress.acked_at.is_some());
}

#[test]
fn absent_in_history_is_uncertain_after_the_settling_and_two_reads() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.pass(ms(1500));
    bench.history(Vec::new());
    bench.pass(ms(1499));
    assert_eq!(bench.told.len(), 1);
    bench.pass(ms(1));
    bench.history(Vec::new());
    assert_eq!(bench.end(), (0, "uncertain"));
    assert_eq!((bench.history_reads.len(), bench.sends.len()), (3, 1));
}

#[test]
fn sending_again_waits_for_the_send_rate() {
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
fn absent_in_history_is_sent_again_under_the_same_id_where_asked_for() {
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
fn without_readable_history_nothing_is_waited_for() {
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
fn does_not_mix_up_the_answers_to_reads_of_two_losses() {
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
fn with_1008_fails_the_turn_and_blocks_for_a_minute() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.post_ruled(None, None, Some(59_000));
    bench.post_ruled(None, None, Some(100_000));
    bench.lose(1008);
    assert_eq!(bench.told.len(), 3, "the turn and the head that cannot wait");
    for message in &bench.told[1..] {
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
fn with_1008_fails_a_message_that_is_about_to_go_out_too() {
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
fn with_1009_or_1007_fails_the_turn_and_reconnects() {
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
fn with_1000_and_nothing_open_is_left_alone() {
    let mut bench = Bench::connected();
    let connects = bench.connects.len();
    bench.lose(1000);
    bench.pass(ms(100_000));
    assert_eq!(bench.connects.len(), connects);
    bench.post();
    assert_eq!(bench.connects.len(), connects + 1);
}

#[test]
fn with_1005_is_not_fought_over() {
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
fn is_proved_by_a_page_that_comes_after_the_next_loss() {
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
