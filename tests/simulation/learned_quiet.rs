//! Turns whose quiet time is learned (docs/turns.md).

use rtm_bridge::config::QuietRule;
use rtm_bridge::domain::{EntryBody, TurnRules};
use rtm_bridge::link::Input;
use rtm_bridge::rhythm::NextReply;
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::ConversationChange;

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{event, reply};

/// A conversation of a bot whose quiet time is learned, with an open socket.
fn learning() -> Bench {
    let mut bench = Bench::connected_with(|bot| bot.quiet = QuietRule::Auto);
    bench.pass(ms(20_000));
    bench
}

fn answer(bench: &mut Bench, id: &str) {
    bench.respond(reply(id, "Here you are."));
}

/// A turn of one reply. Returns the quiet time that ended it, and its source.
fn single_answer(bench: &mut Bench, id: &str) -> Option<(u64, &'static str)> {
    let message = bench.post();
    bench.ack(&message);
    answer(bench, id);
    bench.pass(ms(1000));
    bench.quiet()
}

/// A bot whose single answers are learned.
fn learned() -> Bench {
    let mut bench = learning();
    for number in 0..60 {
        single_answer(&mut bench, &format!("ms-{number}"));
    }
    bench
}

#[test]
fn turn_of_a_known_bot_ends_early() {
    let mut bench = learning();
    assert_eq!(single_answer(&mut bench, "ms-a"), Some((1000, "default")));
    let mut bench = learned();
    assert_eq!(single_answer(&mut bench, "ms-b"), Some((100, "learned")));
    assert_eq!(bench.learned.len(), 61, "the last one is seen when the next message goes out");
    assert!(bench.learned.iter().all(|turn| !turn.early_cut));
}

#[test]
fn early_cut_is_learned_and_its_reply_stays_late() {
    let mut bench = learned();
    let message = bench.post();
    bench.ack(&message);
    answer(&mut bench, "ms-b");
    bench.pass(ms(300));
    assert_eq!(bench.quiet(), Some((100, "learned")));
    answer(&mut bench, "ms-c");
    let late = bench.reply("ms-c");
    assert!(late.late, "{late:?}");
    let turn = bench.learned.last().unwrap();
    assert!(turn.early_cut);
    assert_eq!(turn.replies.last().unwrap().1, NextReply::After(ms(300)));
    let message = bench.post();
    bench.ack(&message);
    answer(&mut bench, "ms-d");
    bench.pass(ms(999));
    assert_eq!(bench.completed.len(), 62, "it is still given the time");
    bench.pass(ms(4001));
    assert_eq!(bench.completed.len(), 63);
}

#[test]
fn rules_of_the_caller_go_before_what_was_learned() {
    let mut bench = learned();
    let message = bench.post_with(|new| new.rules = TurnRules::new(None, Some(700), None).unwrap());
    bench.ack(&message);
    answer(&mut bench, "ms-b");
    bench.pass(ms(699));
    assert_eq!(bench.completed.len(), 61, "with the one that connected");
    bench.pass(ms(1));
    assert_eq!(bench.quiet(), Some((700, "caller")));
    let message = bench.post_with(|new| new.rules = TurnRules::new(Some(2), None, None).unwrap());
    bench.ack(&message);
    answer(&mut bench, "ms-c");
    bench.pass(ms(20_000));
    answer(&mut bench, "ms-d");
    assert_eq!(bench.end(), (2, "replyCount"));
}

#[test]
fn turns_that_end_otherwise_show_nothing() {
    // A deadline, an agent, a loss, and a reply of history.
    let mut bench = learning();
    let message = bench.post_with(|new| new.rules = TurnRules::new(Some(3), None, Some(5000)).unwrap());
    bench.ack(&message);
    answer(&mut bench, "ms-a");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "deadline"));
    let message = bench.post();
    bench.ack(&message);
    answer(&mut bench, "ms-b");
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    bench.pass(ms(200));
    assert_eq!(bench.end(), (1, "agent"));
    bench.give(Input::Frame(IncomingFrame::AgentEnd(event())));
    let message = bench.post();
    bench.ack(&message);
    answer(&mut bench, "ms-c");
    bench.lose(1006);
    bench.reconnect();
    for _ in 0..3 {
        bench.history(vec![incoming(&message), outgoing("ms-c"), outgoing("ms-d")]);
        bench.pass(ms(1500));
    }
    assert_eq!(bench.end(), (2, "quiet"));
    bench.post();
    assert_eq!(bench.learned.len(), 1, "the turn that connected");
}

#[test]
fn turn_that_lost_its_link_waits_as_for_an_unknown_bot() {
    let mut bench = learned();
    let message = bench.post();
    bench.ack(&message);
    answer(&mut bench, "ms-b");
    bench.lose(1006);
    bench.reconnect();
    for _ in 0..3 {
        bench.history(vec![incoming(&message), outgoing("ms-b")]);
        bench.pass(ms(1500));
    }
    assert_eq!(bench.quiet(), Some((1000, "default")));
}

#[test]
fn loss_of_the_link_settles_the_turn_before() {
    let mut bench = learning();
    single_answer(&mut bench, "ms-a");
    bench.pass(ms(2000));
    assert_eq!(bench.learned.len(), 1, "the turn that connected");
    bench.lose(1006);
    assert_eq!(bench.learned.len(), 2);
    assert_eq!(bench.learned[1].replies[0].1, NextReply::NoneFor(ms(3000)));
}

#[test]
fn silent_turn_of_a_known_bot_looks_into_history_early() {
    let mut bench = learned();
    bench.history_reads.clear();
    let message = bench.post();
    bench.ack(&message);
    // It never took more than a moment, and `stuck_after` is 10 s.
    bench.pass(ms(1100));
    assert_eq!(bench.history_reads.len(), 1);
    let stuck = bench.writes.iter().flat_map(|write| &write.changes).filter_map(|change| match change {
        ConversationChange::Append(entry) => match entry.body {
            EntryBody::Stuck { message, waited } => Some((message, waited)),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(stuck.collect::<Vec<_>>(), [(message.id, ms(1000))]);
    answer(&mut bench, "ms-b");
    bench.pass(ms(100));
    assert_eq!(bench.end(), (1, "quiet"));
}
