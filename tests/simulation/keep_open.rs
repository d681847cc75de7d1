//! Links that are kept for good: `idle_ttl = "never"` (api.md 9).

use std::time::Duration;

use rtm_bridge::config::BotConfig;
use rtm_bridge::domain::{ConversationRecord, MessageId, SessionRequest};
use rtm_bridge::link::{ConnectFailure, Input, LinkState};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms};
use super::support::{event, last_turn};

const HOUR: Duration = Duration::from_hours(1);

fn never(bot: &mut BotConfig) {
    bot.idle_ttl = None;
    bot.welcome = Duration::ZERO;
}

/// A conversation that had a turn.
fn known() -> ConversationSnapshot {
    let at = Bench::new().now - 2 * HOUR;
    let last_turn = Some(last_turn(MessageId::new(at, 1), at));
    ConversationSnapshot {
        record: ConversationRecord { write: 3, last_turn, ..ConversationRecord::default() },
        ..ConversationSnapshot::default()
    }
}

fn kept() -> Bench {
    after_a_turn(never)
}

fn after_a_turn(change: impl FnOnce(&mut BotConfig)) -> Bench {
    let mut bench = Bench::with(change);
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    bench
}

#[test]
fn new_owner_reopens_a_kept_link() {
    let mut bench = Bench::opened(known(), never);
    assert_eq!(
        bench.connects,
        [ConnectMode::Reconnect],
        "and asks for no greeting, however old the session is"
    );
    bench.give(Input::Connected);
    assert_eq!(bench.machine.link_state(bench.now), LinkState::Ready);
    bench.say("ms-alert");
    assert_eq!(bench.reply("ms-alert").in_reply_to, None);
    assert_eq!(bench.writes[0].record.connected_at, None, "a socket alone shows no session");
}

#[test]
fn new_owner_with_an_idle_ttl_opens_no_link() {
    let bench = Bench::opened(known(), |bot| bot.idle_ttl = Some(Duration::from_hours(100)));
    assert!(bench.connects.is_empty());
    assert_eq!(bench.rests, 1);
}

#[test]
fn new_owner_opens_no_link_of_an_ended_or_unknown_session() {
    assert!(Bench::opened(ConversationSnapshot::default(), never).connects.is_empty());
    let mut bench = kept();
    let rests = bench.rests;
    bench.post_with(|new| new.session = SessionRequest::Close);
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    assert_eq!((bench.end(), bench.rests), ((0, "sessionEnd"), rests + 1));
    let left = bench.writes.last().unwrap();
    assert!(left.warm_until <= Some(bench.now));
    let open = ConversationSnapshot {
        record: left.record.clone(),
        next_position: 2,
        ..ConversationSnapshot::default()
    };
    assert!(Bench::opened(open, never).connects.is_empty());
}

#[test]
fn kept_link_survives_a_session_end() {
    let mut bench = kept();
    bench.give(Input::Frame(IncomingFrame::SessionEnd(event())));
    bench.idle(120);
    assert_eq!((bench.closes, bench.machine.link_state(bench.now)), (0, LinkState::Ready));
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Reconnect));
}

#[test]
fn kept_link_survives_any_number_of_failures() {
    for failure in [
        ConnectFailure::Unavailable { words: "refused".into(), retry_after: None },
        ConnectFailure::Rejected("unknown bot".into()),
    ] {
        let mut bench = kept();
        let rests = bench.rests;
        bench.lose(1000);
        for tries in 2..30 {
            bench.pass(ms(36_000));
            assert_eq!(bench.connects.len(), tries, "{failure:?}");
            bench.give(Input::ConnectFailed(failure.clone()));
        }
        bench.pass(ms(36_000));
        bench.give(Input::Connected);
        assert_eq!((bench.machine.link_state(bench.now), bench.rests), (LinkState::Ready, rests));
    }
}

#[test]
fn message_after_a_session_timeout_connects_for_a_greeting() {
    let mut bench = kept();
    bench.idle(16);
    bench.lose(1006);
    bench.post();
    bench.reconnect();
    assert_eq!(bench.connects.last(), Some(&ConnectMode::Default));
}

#[test]
fn kept_link_renews_its_record_twice_a_day() {
    let mut bench = kept();
    assert_eq!(bench.writes.iter().rev().find_map(|write| write.warm_until), Some(bench.now + 24 * HOUR));
    let writes = bench.writes.len();
    bench.idle(12 * 60 - 1);
    assert_eq!(bench.writes.len(), writes);
    bench.idle(2);
    assert_eq!(bench.writes.len(), writes + 1);
    assert!(bench.writes.last().unwrap().warm_until >= Some(bench.now + 23 * HOUR));
    bench.idle(24 * 60);
    assert_eq!(bench.writes.len(), writes + 3);
}

#[test]
fn long_idle_link_renews_its_record_twice_a_day() {
    let mut bench = after_a_turn(|bot| {
        never(bot);
        bot.idle_ttl = Some(HOUR * 48);
    });
    let writes = bench.writes.len();
    bench.idle(12 * 60 + 2);
    assert_eq!(bench.writes.len(), writes + 1);
    assert_eq!(bench.writes.last().unwrap().warm_until, None, "a new owner opens no link");
    bench.idle(30 * 60);
    assert_eq!((bench.writes.len(), bench.closes), (writes + 3, 0));
}
