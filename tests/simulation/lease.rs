//! What a link does while it is not sure that its partition is its own (docs/architecture.md, decision 6).

use std::time::Duration;

use rtm_bridge::domain::TurnOutcome;
use rtm_bridge::link::{ConnectFailure, Input};
use rtm_bridge::store::ConversationChange;

use super::bench::{Bench, ms};

fn unsure(bench: &mut Bench, unsure: bool) {
    bench.give(Input::Lease(!unsure));
    bench.give(Input::Tick);
}

#[test]
fn no_connect_begins_while_the_lease_is_unsure() {
    let mut bench = Bench::new();
    unsure(&mut bench, true);
    bench.post();
    bench.pass(ms(5000));
    assert!(bench.connects.is_empty());
    unsure(&mut bench, false);
    assert_eq!(bench.connects.len(), 1);
}

#[test]
fn no_reconnect_begins_while_the_lease_is_unsure() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    unsure(&mut bench, true);
    let connects = bench.connects.len();
    bench.pass(ms(10_000));
    assert_eq!(bench.connects.len(), connects);
    unsure(&mut bench, false);
    assert_eq!(bench.connects.len(), connects + 1);
}

#[test]
fn a_running_connect_is_finished_and_nothing_goes_out_over_it() {
    let mut bench = Bench::with(|bot| bot.welcome = Duration::ZERO);
    bench.post();
    unsure(&mut bench, true);
    bench.give(Input::Connected);
    assert!(bench.sends.is_empty() && bench.writes.is_empty(), "not even decided");
    unsure(&mut bench, false);
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn a_connect_that_was_withheld_is_made_when_the_lease_is_sure() {
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Lease(false));
    bench.give(Input::ConnectFailed(ConnectFailure::Withheld));
    bench.pass(ms(5000));
    assert_eq!(bench.connects.len(), 1);
    unsure(&mut bench, false);
    assert_eq!(bench.connects.len(), 2);
}

#[test]
fn a_message_that_is_stored_as_sent_waits_for_a_sure_lease() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    unsure(&mut bench, true);
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert!(bench.sends.is_empty());
    unsure(&mut bench, false);
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn a_message_that_was_withheld_at_the_last_moment_goes_out_later() {
    let mut bench = Bench::connected();
    bench.post();
    assert_eq!(bench.sends.len(), 1);
    bench.give(Input::Lease(false));
    bench.give(Input::Withheld);
    bench.pass(ms(3000));
    assert_eq!(bench.sends.len(), 1);
    unsure(&mut bench, false);
    assert_eq!(bench.sends.len(), 2);
    let sent = |change: &&ConversationChange| matches!(change, ConversationChange::Sent { .. });
    let marks = bench.writes.iter().flat_map(|write| &write.changes).filter(sent).count();
    assert_eq!(marks, 2, "the one before and this one, which is marked once");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn a_message_that_was_withheld_past_its_deadline_fails_and_says_why() {
    let mut bench = Bench::connected();
    bench.post_ruled(None, None, Some(4000));
    bench.give(Input::Lease(false));
    bench.give(Input::Withheld);
    bench.pass(ms(4000));
    assert_eq!((bench.end(), bench.sends.len()), ((0, "platform-unavailable"), 1));
    let Some(TurnOutcome::Failed(problem)) = &bench.told.last().unwrap().progress.outcome else { panic!() };
    assert!(problem.detail.contains("could not reach its store"), "{problem:?}");
}

#[test]
fn the_open_socket_is_read_on_while_the_lease_is_unsure() {
    let mut bench = Bench::connected();
    let message = bench.post();
    unsure(&mut bench, true);
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn the_socket_is_silent_while_the_lease_is_unsure_and_is_not_taken_for_dead() {
    let mut bench = Bench::connected();
    unsure(&mut bench, true);
    bench.pass(ms(300_000));
    assert_eq!((bench.pings, bench.abandons.len()), (0, 0));
    unsure(&mut bench, false);
    assert_eq!((bench.pings, bench.abandons.len()), (1, 0));
    bench.pass(ms(62_500));
    assert_eq!(bench.abandons.len(), 1, "from then on it has to answer");
}
