//! Our message in a history without its number: its text, its time and its ack tell (api.md 1).

use rtm_bridge::domain::{Correlation, ResendPolicy, TurnRules};
use rtm_bridge::rtm::HistoryRecord;

use super::bench::{Bench, ms, outgoing, unnumbered};

const TEXT: &str = "Where is my order?";

/// A turn whose link is lost after the sending, and open again. The message is resent if nothing proves its receipt.
fn broken() -> Bench {
    let mut bench = Bench::connected();
    bench.pass(ms(10_000));
    bench.post_with(|new| {
        new.resend = ResendPolicy::Auto;
        new.rules = TurnRules::new(None, None, Some(60_000)).unwrap();
    });
    bench.lose(1006);
    bench.reconnect();
    bench
}

fn reply(bench: &Bench, id: &str) -> HistoryRecord {
    HistoryRecord { created_on: Some(bench.now), ..outgoing(id) }
}

/// Answers the reads until the turn ends, always with this page.
fn settle(bench: &mut Bench, page: &[HistoryRecord]) {
    for _ in 0..4 {
        bench.history(page.to_vec());
        bench.pass(ms(3000));
    }
}

#[test]
fn own_message_is_found_by_text_and_time() {
    let mut bench = broken();
    let page = [unnumbered(" Where is  my order? ", bench.now), reply(&bench, "ms-1")];
    settle(&mut bench, &page);
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.sends.len(), 1, "the record proves the receipt");
    let message = bench.completed.last().unwrap().accepted.id;
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.correlation), (Some(message), Correlation::History));
}

#[test]
fn older_message_with_the_same_text_proves_nothing() {
    let mut bench = broken();
    let page = [unnumbered(TEXT, bench.now - ms(30_000))];
    settle(&mut bench, &page);
    assert_eq!(bench.sends.len(), 2, "it was said before the previous turn ended");
}

#[test]
fn message_before_a_known_reply_proves_nothing() {
    let mut bench = Bench::connected();
    bench.lose(1006);
    bench.reconnect();
    bench.post_ruled(Some(1), None, None);
    let page = [unnumbered(TEXT, bench.now), reply(&bench, "ms-1")];
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    bench.post_with(|new| {
        new.resend = ResendPolicy::Auto;
        new.rules = TurnRules::new(None, None, Some(60_000)).unwrap();
    });
    bench.lose(1006);
    bench.reconnect();
    settle(&mut bench, &page);
    assert_eq!(bench.sends.len(), 3, "the bot had answered that record before the sending");
}

#[test]
fn another_text_proves_nothing_without_an_ack() {
    let mut bench = broken();
    let page = [unnumbered("Something else", bench.now)];
    settle(&mut bench, &page);
    assert_eq!(bench.sends.len(), 2);
}

#[test]
fn only_record_in_question_is_the_acknowledged_message() {
    for (others, matched) in [(0, true), (1, false)] {
        let mut bench = Bench::connected();
        let message = bench.post_until(Some(20_000));
        bench.ack(&message);
        bench.lose(1006);
        bench.reconnect();
        let mut page = vec![unnumbered("(a translated text)", bench.now); 1 + others];
        page.push(HistoryRecord { created_on: None, ..outgoing("ms-1") });
        settle(&mut bench, &page);
        bench.pass(ms(20_000));
        let joined = bench.completed.last().unwrap().progress.replies.len();
        assert_eq!(joined, usize::from(matched), "{others} others");
    }
}

#[test]
fn answer_without_any_record_of_the_user_is_told() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    bench.reconnect();
    let page = [reply(&bench, "ms-1")];
    settle(&mut bench, &page);
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn probe_of_a_stuck_turn_finds_an_unnumbered_message() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(10_000));
    let page = vec![unnumbered(TEXT, bench.now - ms(10_000)), reply(&bench, "ms-1")];
    bench.history(page);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn record_of_the_message_before_with_the_same_text_proves_nothing() {
    let mut bench = Bench::connected();
    bench.pass(ms(10_000));
    let first = bench.now;
    bench.post_with(|new| new.rules = TurnRules::new(Some(1), None, None).unwrap());
    bench.say("ms-1");
    bench.pass(ms(500));
    bench.post_with(|new| {
        new.resend = ResendPolicy::Auto;
        new.rules = TurnRules::new(None, None, Some(60_000)).unwrap();
    });
    bench.lose(1006);
    bench.reconnect();
    // History shows the reply before its message, as the page's order may be of another clock.
    settle(&mut bench, &[unnumbered(TEXT, first)]);
    assert_eq!(bench.sends.len(), 3, "only the first of the two shows");
}
