//! The status of a connection for callers (api.md 2): state, start, reason and next connect.

use std::time::Duration;

use rtm_bridge::domain::{ConnectionStatus, ConversationRecord, LinkState};
use rtm_bridge::link::{ConnectFailure, Input};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms};

fn connection(bench: &Bench) -> ConnectionStatus {
    bench.machine.connection(bench.now)
}

fn unavailable(words: &str, retry_after: Option<Duration>) -> Input {
    Input::ConnectFailed(ConnectFailure::Unavailable { words: words.into(), retry_after })
}

#[test]
fn unused_connection_is_cold_without_a_reason() {
    assert_eq!(connection(&Bench::new()), ConnectionStatus::default());
}

#[test]
fn ready_connection_tells_only_its_start() {
    let mut bench = Bench::new();
    bench.post();
    let posted = bench.now;
    assert_eq!(
        connection(&bench),
        ConnectionStatus { state: LinkState::Connecting, since: Some(posted), ..ConnectionStatus::default() }
    );
    bench.pass(ms(300));
    bench.give(Input::Connected);
    bench.pass(ms(700));
    assert_eq!(
        connection(&bench),
        ConnectionStatus {
            state: LinkState::Ready,
            since: Some(posted + ms(300)),
            ..ConnectionStatus::default()
        }
    );
}

#[test]
fn connection_in_backoff_tells_its_failure_and_its_retry() {
    let mut bench = Bench::new();
    bench.post();
    bench.give(unavailable("the platform answered 503", Some(ms(2000))));
    let failed = connection(&bench);
    assert_eq!((failed.state, failed.since), (LinkState::BackingOff, Some(bench.now)));
    assert_eq!(failed.reason.as_deref(), Some("the platform answered 503"));
    let retry_at = failed.retry_at.unwrap();
    assert!(retry_at >= bench.now + ms(2000) && retry_at <= bench.now + ms(2250), "{retry_at:?}");
    bench.pass(retry_at.since(bench.now + ms(1)));
    assert_eq!(connection(&bench), failed);
    bench.pass(ms(1));
    let again = connection(&bench);
    assert_eq!((again.state, again.since, again.retry_at), (LinkState::Connecting, Some(retry_at), None));
    assert_eq!(again.reason, failed.reason, "it is still not ready");
    bench.give(Input::Connected);
    assert_eq!(connection(&bench).reason, None);
}

#[test]
fn lost_and_refused_connections_tell_their_reasons() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1006);
    let lost = connection(&bench);
    assert_eq!(lost.state, LinkState::BackingOff);
    assert!(lost.reason.is_some_and(|reason| reason.contains("lost")));
    assert!(lost.retry_at.is_some());

    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::ConnectFailed(ConnectFailure::Rejected("unknown bot".into())));
    let refused = connection(&bench);
    assert_eq!(refused.state, LinkState::Cold, "its messages have failed, and it is not needed");
    assert!(refused.reason.as_deref().is_some_and(|reason| reason.contains("unknown bot")), "{refused:?}");
}

#[test]
fn blocked_connection_of_a_new_owner_tells_its_end() {
    let mut bench = Bench::connected();
    bench.post();
    bench.lose(1008);
    let blocked = connection(&bench);
    assert_eq!((blocked.state, blocked.since), (LinkState::Blocked, Some(bench.now)));
    assert_eq!(blocked.retry_at, Some(bench.now + ms(60_000)));
    assert!(blocked.reason.as_deref().is_some_and(|reason| reason.contains("1008")));

    let record = ConversationRecord { blocked_until: blocked.retry_at, ..ConversationRecord::default() };
    let next = Bench::opened(ConversationSnapshot { record, ..ConversationSnapshot::default() }, |_| ());
    assert_eq!(connection(&next), ConnectionStatus { since: None, ..blocked });
}

#[test]
fn draining_connection_tells_its_reason() {
    let mut bench = Bench::connected();
    bench.post();
    bench.give(Input::Drain);
    let draining = connection(&bench);
    assert_eq!((draining.state, draining.since), (LinkState::Draining, Some(bench.now)));
    assert!(draining.reason.is_some());
}
