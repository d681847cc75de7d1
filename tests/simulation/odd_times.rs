//! Times of the platform that are wrong: they are counted, and decide nothing (api.md 1).

use std::time::Duration;

use rtm_bridge::domain::{ConversationRecord, EntryBody, Timestamp};
use rtm_bridge::rtm::{BotResponse, HistoryRecord};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::reply;

const YEARS: Duration = Duration::from_hours(24 * 3650);
const MINUTES: Duration = Duration::from_mins(7);

fn say(bench: &mut Bench, id: &str, at: Timestamp) {
    bench.respond(BotResponse { created_on: Some(at), ..reply(id, id) });
}

fn record(id: &str, at: Timestamp) -> HistoryRecord {
    HistoryRecord { created_on: Some(at), ..outgoing(id) }
}

fn gaps(bench: &Bench) -> usize {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    changes
        .filter(
            |change| matches!(change, ConversationChange::Append(entry) if matches!(entry.body, EntryBody::Gap(_))),
        )
        .count()
}

#[test]
fn reply_behind_one_with_a_wrong_time_is_backfilled() {
    for wrong in [MINUTES, YEARS] {
        for page_shows_it in [true, false] {
            let mut bench = Bench::connected();
            let wrong = bench.now + wrong;
            say(&mut bench, "ms-odd", wrong);
            assert_eq!(bench.far_off_times, 1);
            assert_eq!(bench.reply("ms-odd").created_on, Some(wrong), "it is told as it is");
            bench.lose(1006);
            let at = bench.now;
            bench.reconnect();
            let mut page = vec![record("ms-1", at), record("ms-2", at + ms(1))];
            if page_shows_it {
                page.insert(0, record("ms-odd", wrong));
            }
            for _ in 0..2 {
                bench.history(page.clone());
                bench.pass(ms(3000));
            }
            let told: Vec<_> = bench.replies.iter().filter_map(|reply| reply.message_id.as_deref()).collect();
            assert_eq!(told, ["ms-first", "ms-odd", "ms-1", "ms-2"]);
            assert_eq!(gaps(&bench), 0);
        }
    }
}

#[test]
fn stored_time_of_the_future_hides_no_reply() {
    let now = Bench::new().now;
    let record_of = ConversationRecord {
        seq: 1,
        last_platform_message: Some("ms-0".into()),
        said_at: Some(now + YEARS),
        ..ConversationRecord::default()
    };
    let open = ConversationSnapshot { record: record_of, ..ConversationSnapshot::default() };
    let mut bench = Bench::opened(open, |_| ());
    bench.post();
    let later = bench.now;
    bench.give(rtm_bridge::link::Input::Connected);
    bench.history(vec![record("ms-1", later)]);
    assert_eq!(bench.replies.len(), 1);
}

#[test]
fn answer_on_a_wrong_clock_belongs_to_its_turn() {
    for (fast, lead) in [(true, MINUTES), (false, MINUTES), (true, YEARS)] {
        let on_platform = |at: Timestamp| if fast { at + lead } else { at - lead };
        let mut bench = Bench::connected();
        for n in 0..4 {
            let at = on_platform(bench.now);
            say(&mut bench, &format!("ms-{n}"), at);
        }
        let message = bench.post();
        bench.ack(&message);
        bench.lose(1006);
        bench.reconnect();
        let at = on_platform(bench.now);
        let page = vec![
            record("ms-3", at),
            HistoryRecord { created_on: Some(at), ..incoming(&message) },
            record("ms-4", at),
        ];
        for _ in 0..3 {
            bench.history(page.clone());
            bench.pass(ms(1500));
        }
        assert_eq!(bench.end(), (1, "quiet"), "{fast} {lead:?}");
        assert_eq!((bench.replies.len(), gaps(&bench)), (6, 0), "{fast} {lead:?}");
    }
}

#[test]
fn page_is_read_in_its_own_order() {
    for newest_first in [false, true] {
        let mut bench = Bench::connected();
        say(&mut bench, "ms-0", Bench::new().now);
        bench.lose(1006);
        bench.reconnect();
        let at = bench.now;
        let mut page = vec![
            record("ms-0", at),
            record("ms-1", at + YEARS),
            record("ms-2", at + ms(2)),
            record("ms-3", Timestamp::from_millis(0)),
            record("ms-4", at + ms(4)),
        ];
        if newest_first {
            page.reverse();
        }
        bench.history(page);
        let told: Vec<_> = bench.replies.iter().filter_map(|reply| reply.message_id.as_deref()).collect();
        assert_eq!(told, ["ms-first", "ms-0", "ms-1", "ms-2", "ms-3", "ms-4"], "{newest_first}");
    }
}

#[test]
fn record_without_a_known_time_does_not_begin_the_next_gap() {
    // It may be of the new link, where history may show it before an earlier one.
    for at in [None, Some(MINUTES)] {
        let mut bench = Bench::connected();
        bench.lose(1006);
        bench.reconnect();
        let record = HistoryRecord { created_on: at.map(|lead| bench.now + lead), ..outgoing("ms-2") };
        bench.history(vec![record.clone()]);
        bench.pass(ms(3000));
        bench.history(vec![record]);
        bench.pass(ms(3000));
        assert_eq!(bench.replies.len(), 2);
        assert_eq!(bench.record().last_platform_message.as_deref(), Some("ms-first"));
    }
}
