//! Gaps of conversations without any known reply: their start, and what history shows of it.

use std::sync::Arc;

use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, FirstGap, GapReason, LastTurn, Timestamp,
};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{HistoryPage, HistoryRecord};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing, unnumbered};
use super::support::{accepted, plain};

/// A new owner of a conversation whose only message ended without a reply.
fn unanswered() -> (Bench, Arc<AcceptedMessage>) {
    let now = Bench::new().now;
    let message = accepted(0, now, plain());
    let record = ConversationRecord {
        last_turn: Some(LastTurn::of(&message, now)),
        connected_at: Some(now),
        ..ConversationRecord::default()
    };
    let open = ConversationSnapshot { record, next_position: 1, ..ConversationSnapshot::default() };
    (Bench::opened(open, |_| ()), message)
}

fn said_at(id: &str, at: Timestamp) -> HistoryRecord {
    HistoryRecord { created_on: Some(at), ..outgoing(id) }
}

/// The newest page of a long history, with the replies from this number on.
fn newest_page(bench: &Bench, first: u64) -> Input {
    let records = (first..first + 10).map(|n| said_at(&format!("ms-{n}"), bench.now + ms(n))).collect();
    Input::History(Ok(HistoryPage { records, more: true }))
}

fn replies(bench: &Bench) -> Vec<&str> {
    entries(bench)
        .filter_map(
            |body| if let EntryBody::Reply(reply) = body { reply.message_id.as_deref() } else { None },
        )
        .collect()
}

fn gaps(bench: &Bench) -> Vec<GapReason> {
    entries(bench)
        .filter_map(|body| if let EntryBody::Gap(reason) = body { Some(*reason) } else { None })
        .collect()
}

fn entries(bench: &Bench) -> impl Iterator<Item = &EntryBody> {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    changes.filter_map(
        |change| if let ConversationChange::Append(entry) = change { Some(&entry.body) } else { None },
    )
}

fn reads(bench: &Bench) -> Vec<Option<&str>> {
    bench.history_reads.iter().map(|(after, _)| after.as_deref()).collect()
}

/// Connects for a second message, and returns that message once it is sent.
fn second_turn(bench: &mut Bench) -> Arc<AcceptedMessage> {
    let second = bench.post();
    bench.give(Input::Connected);
    bench.pass(ms(600));
    bench.ack(&second);
    second
}

#[test]
fn unclear_reply_is_read_again_behind_the_message_before_it() {
    let (mut bench, first) = unanswered();
    let second = second_turn(&mut bench);
    // By its time the open turn may own the reply.
    let missed = said_at("ms-1", bench.now + ms(1000));
    bench.history(vec![incoming(&first), missed.clone()]);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!((bench.end().0, replies(&bench)), (1, vec!["ms-2"]));
    assert_eq!(reads(&bench), [None, Some("user-1")], "the newest page may soon lack the reply");
    let own = HistoryRecord { id: Some("user-2".into()), ..incoming(&second) };
    bench.history(vec![missed, own, outgoing("ms-2")]);
    bench.pass(ms(200_000));
    assert_eq!((replies(&bench), gaps(&bench)), (vec!["ms-2", "ms-1"], vec![]));
}

#[test]
fn reply_behind_the_message_before_the_gap_is_told_whatever_its_time() {
    let (mut bench, first) = unanswered();
    let second = second_turn(&mut bench);
    bench.say("ms-2");
    bench.pass(ms(1500));
    assert_eq!(bench.end().0, 1);
    let own = HistoryRecord { id: Some("user-2".into()), ..incoming(&second) };
    let day_behind = said_at("ms-1", bench.now - ms(86_400_000));
    bench.history(vec![incoming(&first), day_behind, own, outgoing("ms-2")]);
    assert_eq!(replies(&bench), ["ms-2", "ms-1"]);
}

#[test]
fn newest_page_without_the_start_is_told_as_a_gap() {
    let (mut bench, _) = unanswered();
    bench.give(Input::Connected);
    let page = newest_page(&bench, 5);
    bench.give(page);
    assert_eq!(replies(&bench).len(), 10);
    bench.pass(ms(3000));
    let page = newest_page(&bench, 5);
    bench.give(page);
    bench.pass(ms(200_000));
    assert_eq!((replies(&bench).len(), gaps(&bench)), (10, vec![GapReason::HistoryTooShort]));
}

#[test]
fn newest_page_behind_the_first_live_reply_is_told_as_a_gap() {
    let (mut bench, _) = unanswered();
    bench.give(Input::Connected);
    bench.say("ms-3");
    let page = newest_page(&bench, 20);
    bench.give(page);
    bench.pass(ms(100));
    let last_read = bench.history_reads.last().map(|(after, _)| after.as_deref());
    assert_eq!((gaps(&bench), last_read), (vec![GapReason::HistoryTooShort], Some(Some("ms-3"))));
}

/// The conversation as the next owner finds it.
fn next_owner(bench: &Bench) -> Bench {
    let open =
        ConversationSnapshot { record: bench.record(), next_position: 1, ..ConversationSnapshot::default() };
    Bench::opened(open, |_| ())
}

#[test]
fn next_owner_reads_what_was_before_the_first_live_reply() {
    let (mut bench, first) = unanswered();
    let start = FirstGap { since: bench.now, own: Some(first.client_message_id) };
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-2");
    assert_eq!(bench.record().first_gap, Some(start));
    let mut next = next_owner(&bench);
    next.give(Input::Connected);
    assert_eq!(reads(&next), [None], "the newest page, and not behind the live reply");
    let missed = said_at("ms-1", next.now);
    next.history(vec![incoming(&first), missed, outgoing("ms-2")]);
    assert_eq!(replies(&next), ["ms-1"]);
    next.pass(ms(3000));
    next.history(vec![outgoing("ms-1"), outgoing("ms-2")]);
    next.pass(ms(100));
    assert_eq!(next.record().first_gap, None, "the gap is closed");
    assert_eq!(gaps(&next), []);
}

#[test]
fn gap_that_was_told_is_not_read_by_the_next_owner() {
    let (mut bench, _) = unanswered();
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-3");
    let page = newest_page(&bench, 20);
    bench.give(page);
    bench.pass(ms(100));
    assert_eq!((gaps(&bench), bench.record().first_gap), (vec![GapReason::HistoryTooShort], None));
}

/// Reads these records twice, and returns the gaps.
fn gaps_after(records: impl Fn(&Bench, &AcceptedMessage) -> Vec<HistoryRecord>) -> Vec<GapReason> {
    let (mut bench, first) = unanswered();
    bench.give(Input::Connected);
    for _ in 0..2 {
        let page = records(&bench, &first);
        bench.history(page);
        bench.pass(ms(5000));
    }
    assert_eq!(replies(&bench), Vec::<&str>::new());
    gaps(&bench)
}

#[test]
fn record_that_nothing_places_is_told_as_a_gap() {
    // Without numbers, and on an unknown clock, it may be of the gap or from before.
    for (minutes_ago, gap) in [(7, Some(GapReason::HistoryTooShort)), (90, None)] {
        let began = Bench::new().now;
        let of = |at: Timestamp| vec![unnumbered("Where is my order?", at), said_at("ms-1", at)];
        let told = gaps_after(|_, _| of(began - ms(minutes_ago * 60_000)));
        assert_eq!(told, Vec::from_iter(gap), "{minutes_ago} minutes ago");
    }
}

#[test]
fn record_before_a_message_from_before_the_gap_is_no_gap() {
    let began = Bench::new().now;
    let told = gaps_after(|_, first| {
        let number = Some(first.client_message_id - 1);
        let earlier = HistoryRecord { user_msg_id: number, ..incoming(first) };
        vec![said_at("ms-1", began - ms(60_000)), earlier]
    });
    assert_eq!(told, []);
}

#[test]
fn newest_page_with_a_later_message_of_ours_only_is_too_short() {
    let (mut bench, _) = unanswered();
    let second = second_turn(&mut bench);
    bench.say("ms-20");
    let mut records: Vec<_> = (5..14).map(|n| said_at(&format!("ms-{n}"), bench.now - ms(100 - n))).collect();
    records.push(HistoryRecord { id: Some("user-2".into()), ..incoming(&second) });
    records.push(said_at("ms-20", bench.now));
    for _ in 0..2 {
        bench.give(Input::History(Ok(HistoryPage { records: records.clone(), more: true })));
        bench.pass(ms(5000));
    }
    assert_eq!(gaps(&bench), [GapReason::HistoryTooShort]);
}

#[test]
fn newest_page_of_a_later_link_is_judged_anew() {
    let (mut bench, first) = unanswered();
    bench.give(Input::Connected);
    let own = HistoryRecord { id: None, ..incoming(&first) };
    bench.history(vec![own, said_at("ms-1", bench.now)]);
    bench.lose(1006);
    bench.reconnect();
    for _ in 0..2 {
        let page = newest_page(&bench, 5);
        bench.give(page);
        bench.pass(ms(5000));
    }
    assert_eq!(gaps(&bench), [GapReason::HistoryTooShort], "more than a page may have come between the two");
}
