//! The rules of the backfill: the reads of history, their results, and the gaps that are journaled.

use std::sync::Arc;

use rtm_bridge::domain::{
    ConversationRecord, Correlation, EntryBody, Fingerprint, GapReason, MessageId, Timestamp,
};
use rtm_bridge::link::{HistoryFailure, Input};
use rtm_bridge::rtm::{HistoryPage, HistoryRecord};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::last_turn;

/// Returns the gaps of the journal, and its replies by their ids, in order.
fn journal(bench: &Bench) -> Vec<String> {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    let entries = changes.filter_map(|change| match change {
        ConversationChange::Append(entry) => Some(&entry.body),
        _ => None,
    });
    let told = entries.filter_map(|body| match body {
        EntryBody::Reply(reply) => reply.message_id.as_deref().map(str::to_owned),
        EntryBody::Gap(gap) => Some(gap.as_str().to_owned()),
        _ => None,
    });
    told.collect()
}

fn gaps(bench: &Bench) -> Vec<String> {
    journal(bench).into_iter().filter(|told| GapReason::ALL.iter().any(|gap| gap.as_str() == told)).collect()
}

/// A reply that was said this long after the start of the bench.
fn said(bench: &Bench, id: &str, at: u64) -> HistoryRecord {
    let began = bench.now;
    HistoryRecord { created_on: Some(began + ms(at)), ..outgoing(id) }
}

/// A conversation of an earlier owner, with "ms-0" as its last reply.
fn known() -> ConversationSnapshot {
    let mut record = ConversationRecord {
        seq: 1,
        last_platform_message: Some("ms-0".into()),
        ..ConversationRecord::default()
    };
    record.recent.push(Fingerprint::of("ms-0"), false);
    ConversationSnapshot { record, ..ConversationSnapshot::default() }
}

/// A conversation whose idle link broke and is open again.
fn broken() -> Bench {
    let mut bench = Bench::connected();
    bench.idle(3);
    bench.writes.clear();
    bench
}

fn reads(bench: &Bench) -> Vec<Option<&str>> {
    bench.history_reads.iter().map(|(after, _)| after.as_deref()).collect()
}

#[test]
fn reply_without_a_listener_is_backfilled_after_the_reconnect() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2")]);
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    assert_eq!(journal(&bench), ["ms-1", "ms-2", "ms-3"]);
    let reply = bench.reply("ms-3");
    assert_eq!((reply.correlation, reply.in_reply_to, reply.late), (Correlation::History, None, false));
    bench.pass(ms(200_000));
    assert_eq!(reads(&bench), [Some("ms-first"); 2], "twice and no more");
}

#[test]
fn known_conversation_reads_history_at_its_first_connect() {
    let mut bench = Bench::opened(known(), |_| ());
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(reads(&bench), [Some("ms-0")]);
    bench.history(vec![outgoing("ms-1")]);
    assert_eq!(journal(&bench), ["ms-1"]);
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Connected);
    assert!(bench.history_reads.is_empty(), "nothing is known of this one");
}

#[test]
fn own_close_is_followed_by_a_backfill() {
    let mut bench = Bench::connected();
    bench.idle(16);
    assert_eq!(bench.closes, 1);
    bench.post();
    bench.give(Input::Connected);
    assert_eq!(reads(&bench), [Some("ms-first")]);
}

#[test]
fn history_pages_are_read_in_order() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let first: Vec<_> = (1..=10).map(|n| outgoing(&format!("ms-{n}"))).collect();
    bench.give(Input::History(Ok(HistoryPage { records: first, more: true })));
    bench.history(vec![outgoing("ms-11")]);
    let told: Vec<String> = (1..=11).map(|n| format!("ms-{n}")).collect();
    assert_eq!(journal(&bench), told);
    assert_eq!(reads(&bench), [Some("ms-first"), Some("ms-10")]);
}

#[test]
fn reply_from_socket_and_history_is_journaled_once() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.say("ms-2");
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    bench.say("ms-3");
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-1"), outgoing("ms-2"), outgoing("ms-3")]);
    assert_eq!(journal(&bench), ["ms-2", "ms-1", "ms-3"]);
}

#[test]
fn new_owner_continues_from_the_message_before_the_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.say("ms-2");
    let record = bench.writes.last().unwrap().record.clone();
    assert_eq!(record.last_platform_message.as_deref(), Some("ms-first"));
    let mut next = Bench::opened(ConversationSnapshot { record, ..ConversationSnapshot::default() }, |_| ());
    let message = next.post();
    next.give(Input::Connected);
    next.history(vec![outgoing("ms-1"), outgoing("ms-2"), incoming(&message)]);
    assert_eq!(journal(&next), ["ms-1"]);
    next.pass(ms(3000));
    next.history(vec![outgoing("ms-1"), outgoing("ms-2"), incoming(&message)]);
    next.pass(ms(100));
    let record = &next.writes.last().unwrap().record;
    assert_ne!(record.last_platform_message.as_deref(), Some("ms-first"), "it is closed");
}

#[test]
fn backfilled_reply_after_the_last_end_is_late_by_its_time() {
    let mut bench = Bench::connected();
    let message = bench.completed.last().unwrap().accepted.id;
    bench.lose(1006);
    let (late, later) = (said(&bench, "ms-1", 1000), said(&bench, "ms-2", 61_000));
    bench.pass(ms(70_000));
    bench.give(Input::Connected);
    bench.history(vec![late, later]);
    let reply = bench.reply("ms-1");
    assert_eq!(
        (reply.correlation, reply.in_reply_to, reply.late),
        (Correlation::History, Some(message), true)
    );
    assert_eq!(bench.reply("ms-2").in_reply_to, None);
}

#[test]
fn backfilled_reply_behind_an_ended_message_is_late() {
    let mut bench = Bench::connected();
    let message = bench.post_until(Some(5000));
    bench.ack(&message);
    bench.lose(1006);
    bench.pass(ms(6000));
    assert_eq!(bench.end(), (0, "no-reply"));
    if bench.history_reads.is_empty() {
        bench.give(Input::Connected);
    }
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.late), (Some(message.id), true));
}

#[test]
fn record_before_the_open_message_is_not_its_reply() {
    let mut bench = Bench::opened(known(), |bot| bot.welcome = ms(0));
    let message = bench.post();
    bench.give(Input::Connected);
    bench.ack(&message);
    bench.history(vec![outgoing("ms-1"), incoming(&message), outgoing("ms-2")]);
    assert_eq!(bench.reply("ms-1").in_reply_to, None);
    let reply = bench.reply("ms-2");
    assert_eq!((reply.in_reply_to, reply.correlation), (Some(message.id), Correlation::History));
}

#[test]
fn unclear_record_waits_until_the_message_shows() {
    let mut bench = Bench::opened(known(), |bot| bot.welcome = ms(0));
    let message = bench.post_until(Some(2000));
    bench.give(Input::Connected);
    bench.ack(&message);
    let found = said(&bench, "ms-1", 0);
    bench.history(vec![found.clone()]);
    assert!(journal(&bench).is_empty());
    bench.pass(ms(3000));
    assert_eq!(bench.end(), (0, "no-reply"));
    bench.history(vec![found]);
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn stuck_turn_is_probed_once_before_its_deadline() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(9999));
    assert!(bench.history_reads.is_empty());
    bench.pass(ms(1));
    assert_eq!(reads(&bench), [Some("ms-first")]);
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.reply("ms-1").correlation, Correlation::History);
}

#[test]
fn probe_without_a_result_changes_nothing() {
    let mut bench = Bench::connected();
    bench.post();
    bench.pass(ms(10_000));
    bench.history(Vec::new());
    bench.pass(ms(20_000));
    assert_eq!(bench.end(), (0, "no-ack"));
    assert_eq!((bench.history_reads.len(), gaps(&bench).len()), (1, 0));
}

#[test]
fn probe_that_finds_the_message_proves_receipt() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.pass(ms(10_000));
    bench.history(vec![incoming(&message)]);
    bench.pass(ms(20_000));
    assert_eq!(bench.end(), (0, "no-reply"));
}

#[test]
fn turn_is_not_probed_if_probes_are_off_or_needless() {
    for change in [
        (|bot| bot.stuck_after = None) as fn(&mut rtm_bridge::config::BotConfig),
        |bot| bot.history = false,
        |bot| bot.stuck_after = Some(ms(31_000)),
    ] {
        let mut bench = Bench::with(|bot| {
            bot.welcome = ms(0);
            change(bot);
        });
        bench.post();
        bench.give(Input::Connected);
        bench.pass(ms(30_000));
        assert!(bench.history_reads.is_empty());
        assert_eq!(bench.end().1, "no-ack");
    }
}

#[test]
fn unreadable_history_is_journaled_as_a_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history_fails();
    bench.say("ms-9");
    assert_eq!(journal(&bench), ["historyUnreadable", "ms-9"]);
    bench.idle(2);
    assert_eq!((gaps(&bench).len(), bench.history_reads.len()), (1, 1), "said once");
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.history_reads[1].0.as_deref(), Some("ms-9"), "the next gap begins later");
}

#[test]
fn history_that_fails_is_retried_before_a_gap_is_journaled() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let fails = || Input::History(Err(HistoryFailure::Temporary));
    bench.give(fails());
    for wait in [3000, 15_000] {
        bench.pass(ms(wait));
        bench.give(fails());
    }
    assert!(journal(&bench).is_empty());
    bench.idle(1);
    bench.pass(ms(1));
    assert_eq!(bench.history_reads.len(), 4);
    bench.give(fails());
    assert_eq!(journal(&bench), ["historyUnreadable"]);
}

#[test]
fn anchor_forgotten_by_history_is_journaled_as_a_gap_first() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-8"), outgoing("ms-9")]);
    bench.history(Vec::new());
    assert!(journal(&bench).is_empty());
    bench.history(vec![outgoing("ms-8"), outgoing("ms-9")]);
    assert_eq!(journal(&bench), ["historyTooShort", "ms-8", "ms-9"]);
    assert_eq!(reads(&bench), [Some("ms-first"), None, Some("ms-first"), None]);
}

#[test]
fn history_beyond_the_page_limit_is_journaled_as_a_gap() {
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    let mut n = 0;
    for _ in 0..2 {
        for _ in 0..10 {
            n += 1;
            let records = vec![outgoing(&format!("ms-{n}"))];
            bench.give(Input::History(Ok(HistoryPage { records, more: true })));
        }
        bench.pass(ms(3000));
    }
    assert_eq!(bench.history_reads.len(), 20);
    assert_eq!(journal(&bench).last().map(String::as_str), Some("historyTooShort"));
    assert_eq!(journal(&bench).len(), 21);
}

#[test]
fn loss_without_history_is_a_gap_and_an_own_close_is_not() {
    let without = |bot: &mut rtm_bridge::config::BotConfig| {
        bot.history = false;
        bot.welcome = ms(0);
    };
    let mut bench = Bench::opened(known(), without);
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.idle(16);
    assert_eq!(bench.closes, 1);
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert!(gaps(&bench).is_empty());
    bench.lose(1006);
    assert!(gaps(&bench).is_empty(), "it is said when the link is there again");
    bench.reconnect();
    bench.say("ms-3");
    assert_eq!(journal(&bench), ["ms-1", "ms-2", "historyUnreadable", "ms-3"]);
    assert!(bench.history_reads.is_empty());
}

#[test]
fn draining_machine_backfills_for_an_open_turn_only() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    bench.give(Input::Drain);
    bench.reconnect();
    assert_eq!(bench.history_reads.len(), 1, "its turn waits for this one");
    let mut bench = broken();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.give(Input::Drain);
    bench.pass(ms(10_000));
    assert_eq!(bench.history_reads.len(), 1);
}

#[test]
fn history_pages_older_than_the_gap_are_ignored() {
    let mut bench = Bench::connected();
    bench.respond(rtm_bridge::rtm::BotResponse {
        created_on: Some(bench.now),
        ..super::support::reply("ms-now", "now")
    });
    let old = |bench: &Bench, id: &str| HistoryRecord {
        created_on: Some(Timestamp::from_millis(bench.now.as_millis() - 3_600_000)),
        ..outgoing(id)
    };
    bench.writes.clear();
    bench.lose(1006);
    bench.reconnect();
    let page = vec![old(&bench, "ms-old-1"), old(&bench, "ms-old-2")];
    bench.history(page.clone());
    assert!(journal(&bench).is_empty());
    bench.pass(ms(3000));
    assert_eq!(reads(&bench), [Some("ms-now"), None]);
    let now = said(&bench, "ms-now", 0);
    bench.history([page, vec![now, said(&bench, "ms-1", 1)]].concat());
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn reply_missed_by_an_earlier_owner_is_backfilled() {
    let mut open = known();
    let at = Timestamp::from_millis(1_763_844_000_000);
    // The earlier owner lost its link and reconnected minutes later. It was gone before history had answered.
    (open.record.said_at, open.record.connected_at) = (Some(at), Some(at + ms(600_000)));
    let mut bench = Bench::opened(open, |_| ());
    bench.post();
    bench.give(Input::Connected);
    let missed = HistoryRecord { created_on: Some(at + ms(60_000)), ..outgoing("ms-1") };
    bench.history(vec![missed]);
    assert_eq!(journal(&bench), ["ms-1"]);
}

#[test]
fn anchor_time_stays_until_the_gap_is_closed() {
    let mut bench = Bench::connected();
    let at = bench.now;
    let say = |bench: &mut Bench, id: &str, at| {
        let said = rtm_bridge::rtm::BotResponse { created_on: Some(at), ..super::support::reply(id, id) };
        bench.respond(said);
    };
    say(&mut bench, "ms-0", at);
    bench.lose(1006);
    bench.reconnect();
    say(&mut bench, "ms-2", at + ms(120_000));
    let record = bench.writes.last().unwrap().record.clone();
    assert_eq!((record.last_platform_message.as_deref(), record.said_at), (Some("ms-0"), Some(at)));
    let page = vec![said(&bench, "ms-1", 60_000), said(&bench, "ms-2", 120_000)];
    bench.history(page.clone());
    bench.pass(ms(3000));
    bench.history(page);
    bench.pass(ms(100));
    let record = &bench.writes.last().unwrap().record;
    assert_eq!(record.last_platform_message.as_deref(), Some("ms-2"));
    assert_eq!(record.said_at, Some(at + ms(120_000)));
}

#[test]
fn turn_of_an_earlier_owner_takes_late_replies_by_time() {
    let mut open = known();
    let at = Timestamp::from_millis(1_763_844_999_000);
    let message = MessageId::new(at, 1);
    open.record.last_turn = Some(last_turn(message, at));
    let mut bench = Bench::opened(open, |_| ());
    bench.post();
    bench.give(Input::Connected);
    let record = HistoryRecord { created_on: Some(at + ms(500)), ..outgoing("ms-1") };
    bench.history(vec![record]);
    let reply: &Arc<_> = bench.replies.last().unwrap();
    assert_eq!((reply.in_reply_to, reply.late), (Some(message), true));
}
