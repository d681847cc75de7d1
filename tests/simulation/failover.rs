//! A store that loses confirmed data: losses are counted and reported, and no message is resurrected or doubled.

use std::sync::Arc;

use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, MessageId, MessageProgress, ProblemKind, ResendPolicy,
    SessionRequest, TurnOutcome,
};
use rtm_bridge::link::{AbandonReason, Input};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite};

use super::bench::{Bench, ms};
use super::connect_message::connect_message;
use super::support::{accepted, plain, sent, snapshot};

fn open<const N: usize>(
    record: &ConversationRecord,
    lane: [(&Arc<AcceptedMessage>, MessageProgress); N],
    next_position: u64,
) -> Input {
    let open = snapshot(record.clone(), lane);
    Input::Lane(Box::new(ConversationSnapshot { head_at: None, next_position, ..open }))
}

fn record(bench: &Bench) -> ConversationRecord {
    bench.writes.last().unwrap().record.clone()
}

/// Describes a write by its changes.
fn tell(write: &ConversationWrite) -> Vec<String> {
    let tell = |change: &ConversationChange| match change {
        ConversationChange::Sent { .. } => "sent".to_owned(),
        ConversationChange::Acked { .. } => "acked".to_owned(),
        ConversationChange::Answering { .. } => "answering".to_owned(),
        ConversationChange::HeadSince { .. } => "head".to_owned(),
        ConversationChange::Deliver(_) => "deliver".to_owned(),
        ConversationChange::Append(entry) => match &entry.body {
            EntryBody::Reply(reply) => format!("{} {}", entry.seq, reply.message_id.as_deref().unwrap()),
            EntryBody::Ended { outcome: TurnOutcome::Failed(problem), .. }
            | EntryBody::Closed { outcome: TurnOutcome::Failed(problem), .. } => {
                format!("{} {}", entry.seq, problem.kind)
            }
            EntryBody::Ended { .. } | EntryBody::Closed { .. } => format!("{} answered", entry.seq),
            _ => format!("{} other", entry.seq),
        },
    };
    write.changes.iter().map(tell).collect()
}

fn ends(write: &ConversationWrite) -> Vec<(MessageId, ProblemKind)> {
    let end = |change: &ConversationChange| match change {
        ConversationChange::Append(entry) => match &entry.body {
            EntryBody::Ended { message, outcome: TurnOutcome::Failed(problem) } => {
                Some((*message, problem.kind))
            }
            _ => None,
        },
        _ => None,
    };
    write.changes.iter().filter_map(end).collect()
}

#[test]
fn message_lost_before_its_sending_is_not_sent() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    let lost = bench.post();
    let next = bench.post();
    bench.give(Input::Stored { lost: true });
    assert_eq!((bench.sends.len(), &*bench.forgotten, bench.lane_reads), (0, &[lost.id][..], 1));
    bench.store_hangs = false;
    let lane = open(&record(&bench), [(&next, MessageProgress::default())], 3);
    bench.give(lane);
    assert_eq!(bench.sends.len(), 1, "the next one goes on");
    assert_eq!(bench.sends[0].0, next.client_message_id);
}

#[test]
fn message_lost_before_its_end_is_forgotten() {
    let mut bench = Bench::connected();
    let lost = bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.pass(ms(1000));
    let told = bench.completed.len();
    bench.give(Input::Stored { lost: true });
    bench.give(open(&record(&bench), [], 2));
    assert_eq!((bench.completed.len(), &*bench.forgotten), (told, &[lost.id][..]));
    assert_eq!(bench.machine.open_messages(), 0);
}

#[test]
fn lost_changes_of_the_open_turn_are_rewritten_in_order() {
    let mut bench = Bench::connected();
    let before = record(&bench);
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.ack(&message);
    bench.say("ms-1");
    bench.say("ms-2");
    bench.store_hangs = true;
    bench.say("ms-3");
    let refused = bench.writes.last().unwrap().record.write;
    bench.give(Input::OutOfStep);
    assert_eq!(bench.lane_reads, 1);
    bench.give(open(&before, [(&message, MessageProgress::default())], 2));
    let again = bench.writes.last().unwrap();
    assert!(again.record.write > refused, "what was on its way is not taken after it");
    assert_eq!((again.follows, bench.rebased), (before.write, 1));
    assert!(again.record.epoch > before.epoch, "readers learn that their entries may be gone");
    let seq = before.seq;
    let entries = [1, 2, 3].map(|i| format!("{} ms-{i}", seq + i));
    let words: Vec<&str> =
        ["sent", "acked", "answering"].into_iter().chain(entries.iter().map(|entry| &**entry)).collect();
    assert_eq!(tell(again), words);
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    bench.pass(ms(1000));
    assert_eq!((bench.end(), bench.sends.len()), ((3, "quiet"), 1));
    assert!(bench.forgotten.is_empty());
}

#[test]
fn stored_changes_of_the_open_turn_are_not_rewritten() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.say("ms-1");
    let kept = record(&bench);
    let reply = Arc::clone(bench.replies.last().unwrap());
    bench.say("ms-2");
    bench.store_hangs = true;
    bench.say("ms-3");
    bench.give(Input::OutOfStep);
    let at = Some(bench.now);
    let progress = MessageProgress {
        sent_at: at,
        acked_at: at,
        first_reply_at: at,
        replies: vec![reply],
        ..MessageProgress::default()
    };
    bench.give(open(&kept, [(&message, progress)], 2));
    let again = bench.writes.last().unwrap();
    assert_eq!(tell(again), [format!("{} ms-2", kept.seq + 1), format!("{} ms-3", kept.seq + 2)]);
}

#[test]
fn message_with_a_lost_end_fails_without_resending() {
    let mut bench = Bench::connected();
    let before = record(&bench);
    let message = bench.post_with(|new| new.resend = ResendPolicy::Auto);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    let seq = record(&bench).seq;
    // The sweep finds it open and wakes the conversation.
    let told = bench.completed.len();
    bench.give(Input::Woken);
    let lane = || open(&before, [(&message, MessageProgress::default())], 2);
    bench.give(lane());
    assert_eq!(bench.lane_reads, 2, "it is looked at again, with nothing in flight");
    let epoch = record(&bench).epoch;
    bench.give(lane());
    assert!(record(&bench).epoch > epoch, "places of the journal before mean nothing any more");
    let end = bench.writes.last().unwrap();
    assert_eq!(ends(end), [(message.id, ProblemKind::MessageLost)]);
    assert!(end.record.seq > seq, "the places of what was lost are not used again");
    assert_eq!((bench.sends.len(), bench.completed.len(), &*bench.forgotten), (1, told, &[message.id][..]));
    assert_eq!(bench.machine.open_messages(), 0);
}

#[test]
fn queued_message_lost_by_the_store_is_replaced() {
    let mut bench = Bench::connected();
    let first = bench.post();
    let lost = bench.post();
    bench.pass(ms(10));
    bench.store_hangs = true;
    bench.say("ms-1");
    bench.give(Input::OutOfStep);
    // The store lost the second message and has accepted another one since.
    let other = accepted(lost.position, bench.now + ms(5), plain());
    let stored = ConversationRecord { write: record(&bench).write - 2, ..record(&bench) };
    bench.give(open(
        &stored,
        [(&first, sent(bench.now)), (&other, MessageProgress::default())],
        lost.position + 1,
    ));
    assert_eq!(bench.forgotten, [lost.id]);
    assert!(bench.machine.is_open(other.id) && !bench.machine.is_open(lost.id));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    bench.pass(ms(1000));
    assert_eq!(bench.sends[1].0, other.client_message_id);
}

#[test]
fn hint_at_the_position_of_a_lost_message_reads_the_lane() {
    let mut bench = Bench::connected();
    let first = bench.post();
    let reads = bench.lane_reads;
    bench.give(Input::Accepted(Arc::clone(&first)));
    assert_eq!(bench.lane_reads, reads, "a hint that comes twice");
    bench.give(Input::Accepted(accepted(first.position, bench.now + ms(5), plain())));
    assert_eq!(bench.lane_reads, reads + 1);
}

#[test]
fn lane_answer_overtaken_by_an_end_is_not_a_loss() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.give(Input::Accepted(accepted(9, bench.now, plain())));
    let lane = open(&record(&bench), [(&message, MessageProgress::default())], 2);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.give(lane);
    assert_eq!(bench.lane_reads, 2);
    let writes = bench.writes.len();
    bench.give(open(&record(&bench), [], 2));
    assert_eq!((bench.writes.len(), bench.forgotten.len()), (writes, 0));
}

#[test]
fn machine_in_doubt_sends_only_after_the_lane_read() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.say("ms-1");
    let message = bench.post();
    bench.give(Input::OutOfStep);
    bench.pass(ms(3000));
    assert!(bench.sends.is_empty());
    bench.store_hangs = false;
    let stored = ConversationRecord { write: 1, ..ConversationRecord::default() };
    bench.give(open(&stored, [(&message, MessageProgress::default())], 2));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn connect_in_doubt_begins_no_session() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    let next = bench.post_with(|new| *new = connect_message(SessionRequest::New));
    bench.give(Input::Stored { lost: true });
    bench.pass(ms(3000));
    assert_eq!((bench.closes, bench.connects.len()), (0, 1), "the store may have lost it too");
    bench.give(open(&record(&bench), [(&next, MessageProgress::default())], 3));
    assert_eq!((bench.closes, bench.connects.len()), (1, 2));
}

#[test]
fn connect_that_the_store_lost_has_no_replies() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    let lost = bench.post();
    let connect = bench.post_with(|new| *new = connect_message(SessionRequest::Continue));
    bench.give(Input::Stored { lost: true });
    bench.say("ms-1");
    bench.store_hangs = false;
    bench.give(open(&record(&bench), [], 0));
    bench.say("ms-2");
    assert_eq!(bench.forgotten, [lost.id, connect.id]);
    let owners = ["ms-1", "ms-2"].map(|id| bench.reply(id).in_reply_to);
    assert!(!owners.contains(&Some(connect.id)), "it opened no socket");
}

#[test]
fn record_that_expired_is_not_a_loss() {
    let mut bench = Bench::connected();
    let epoch = record(&bench).epoch;
    bench.give(Input::Woken);
    bench.give(open(&ConversationRecord::default(), [], 0));
    bench.give(open(&ConversationRecord::default(), [], 0));
    assert!(bench.forgotten.is_empty());
    bench.pass(ms(20));
    let again = bench.writes.last().unwrap();
    assert_eq!((again.follows, bench.rebased), (0, 0), "the count restarts");
    assert_eq!(again.record.epoch, epoch, "and readers miss nothing");
    let message = accepted(0, bench.now, plain());
    bench.give(Input::Accepted(message));
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn link_older_than_its_record_stays_open() {
    let mut bench = Bench::with(|bot| (bot.idle_ttl, bot.welcome) = (None, std::time::Duration::ZERO));
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.idle(25 * 60);
    let (before, told) = (record(&bench), bench.completed.len());
    bench.store_hangs = true;
    bench.say("ms-2");
    let refused = bench.writes.last().unwrap().record.write;
    bench.give(Input::OutOfStep);
    bench.give(open(&ConversationRecord::default(), [], 0));
    let again = bench.writes.last().unwrap();
    assert_eq!((again.follows, tell(again)), (0, vec![format!("{} ms-2", before.seq + 1)]));
    assert!(again.record.write > refused);
    assert_eq!(again.record.recent.iter().count(), 2, "what is still known is written");
    bench.give(Input::Stored { lost: false });
    bench.store_hangs = false;
    // Positions restart with the next message.
    bench.give(Input::Accepted(accepted(0, bench.now, plain())));
    assert_eq!((bench.sends.len(), bench.connects.len()), (2, 1));
    assert_eq!((bench.rebased, bench.forgotten.len(), bench.completed.len()), (0, 0, told));
}

#[test]
fn store_ahead_of_the_machine_replaces_its_state() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    let message = bench.post();
    bench.give(Input::OutOfStep);
    let ahead = ConversationRecord { write: record(&bench).write + 5, ..record(&bench) };
    bench.give(open(&ahead, [(&message, sent(bench.now))], 2));
    assert_eq!((&*bench.abandons, bench.sends.len()), (&[AbandonReason::StoreAhead][..], 0));
    bench.give(Input::Connected);
    assert_eq!(bench.history_reads.len(), 1, "it may have been sent");
}

#[test]
fn message_hinted_during_the_lane_read_is_kept() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.say("ms-1");
    bench.give(Input::OutOfStep);
    let (first, second) = (bench.post(), bench.post());
    // The answer was on its way before both events, or between them.
    bench.give(open(
        &ConversationRecord { write: 1, ..ConversationRecord::default() },
        [(&first, MessageProgress::default())],
        2,
    ));
    assert!(bench.machine.is_open(first.id) && bench.machine.is_open(second.id));
    assert!(bench.forgotten.is_empty());
    bench.post();
    assert_eq!((bench.machine.open_messages(), bench.lane_reads), (3, 1));
}

#[test]
fn message_with_a_lost_sent_mark_waits_for_its_rewrite() {
    let mut bench = Bench::connected();
    let before = record(&bench);
    bench.store_hangs = true;
    let message = bench.post();
    bench.give(Input::Lease(false));
    bench.give(Input::Stored { lost: false });
    bench.say("ms-unsolicited");
    bench.give(Input::OutOfStep);
    bench.give(Input::Lease(true));
    bench.give(open(&before, [(&message, MessageProgress::default())], 2));
    assert_eq!(tell(bench.writes.last().unwrap())[0], "sent");
    bench.pass(ms(1000));
    assert!(bench.sends.is_empty());
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn new_owner_ends_messages_before_a_sent_one() {
    let at = Bench::new().now - ms(1000);
    let (ended, acked) = (accepted(0, at, plain()), accepted(1, at, plain()));
    let progress = MessageProgress { acked_at: Some(at), ..sent(at) };
    let lane = [(&ended, MessageProgress::default()), (&acked, progress)];
    let record = ConversationRecord { write: 3, seq: 5, ..ConversationRecord::default() };
    let mut bench = Bench::opened(snapshot(record, lane), |bot| bot.welcome = std::time::Duration::ZERO);
    assert_eq!(ends(bench.writes.last().unwrap()), [(ended.id, ProblemKind::MessageLost)]);
    assert_eq!(bench.forgotten, [ended.id]);
    bench.give(Input::Connected);
    assert!(bench.sends.is_empty() && bench.machine.is_open(acked.id));
}
