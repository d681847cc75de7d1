//! A link without a valid lease of its partition (docs/architecture.md, decision 6).

use std::time::Duration;

use rtm_bridge::domain::TurnOutcome;
use rtm_bridge::link::{ConnectFailure, Input, LinkState};
use rtm_bridge::store::ConversationChange;

use super::bench::{Bench, ms};

fn suspect(bench: &mut Bench, suspect: bool) {
    bench.give(Input::Lease(!suspect));
    bench.give(Input::Tick);
}

#[test]
fn connect_waits_for_a_valid_lease() {
    let mut bench = Bench::new();
    suspect(&mut bench, true);
    bench.post();
    bench.pass(ms(5000));
    assert!(bench.connects.is_empty());
    suspect(&mut bench, false);
    assert_eq!(bench.connects.len(), 1);
}

#[test]
fn reconnect_waits_for_a_valid_lease() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.lose(1006);
    suspect(&mut bench, true);
    let connects = bench.connects.len();
    bench.pass(ms(10_000));
    assert_eq!(bench.connects.len(), connects);
    suspect(&mut bench, false);
    assert_eq!(bench.connects.len(), connects + 1);
}

#[test]
fn running_connect_under_a_suspect_lease_sends_nothing() {
    let mut bench = Bench::with(|bot| bot.welcome = Duration::ZERO);
    bench.post();
    suspect(&mut bench, true);
    bench.give(Input::Connected);
    assert!(bench.sends.is_empty() && bench.writes.is_empty(), "not even decided");
    suspect(&mut bench, false);
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn withheld_connect_is_made_when_the_lease_is_valid() {
    let mut bench = Bench::new();
    bench.post();
    bench.give(Input::Lease(false));
    bench.give(Input::ConnectFailed(ConnectFailure::Withheld));
    bench.pass(ms(5000));
    assert_eq!(bench.connects.len(), 1);
    suspect(&mut bench, false);
    assert_eq!(bench.connects.len(), 2);
}

#[test]
fn message_marked_as_sent_waits_for_a_valid_lease() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    bench.post();
    suspect(&mut bench, true);
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert!(bench.sends.is_empty());
    suspect(&mut bench, false);
    assert_eq!(bench.sends.len(), 1);
}

#[test]
fn withheld_message_goes_out_when_the_lease_is_valid() {
    let mut bench = Bench::connected();
    bench.withholds = true;
    bench.post();
    bench.pass(ms(3000));
    assert_eq!(bench.sends.len(), 0);
    bench.withholds = false;
    suspect(&mut bench, false);
    assert_eq!(bench.sends.len(), 1);
    let sent = |change: &&ConversationChange| matches!(change, ConversationChange::Sent { .. });
    let marks = bench.writes.iter().flat_map(|write| &write.changes).filter(sent).count();
    assert_eq!(marks, 2, "the one before and this one, which is marked once");
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn withheld_message_past_its_deadline_fails_with_a_reason() {
    let mut bench = Bench::connected();
    bench.withholds = true;
    bench.post_ruled(None, None, Some(4000));
    bench.pass(ms(4000));
    assert_eq!((bench.end(), bench.sends.len()), ((0, "platform-unavailable"), 0));
    let Some(TurnOutcome::Failed(problem)) = &bench.completed.last().unwrap().progress.outcome else {
        panic!()
    };
    assert!(problem.detail.contains("could not reach its store"), "{problem:?}");
}

#[test]
fn open_socket_under_a_suspect_lease_is_still_read() {
    let mut bench = Bench::connected();
    let message = bench.post();
    suspect(&mut bench, true);
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn silent_socket_under_a_suspect_lease_is_kept() {
    let mut bench = Bench::connected();
    suspect(&mut bench, true);
    bench.pass(ms(300_000));
    assert_eq!((bench.pings, bench.abandons.len()), (0, 0));
    suspect(&mut bench, false);
    assert_eq!((bench.pings, bench.abandons.len()), (1, 0));
    bench.pass(ms(62_500));
    assert_eq!(bench.abandons.len(), 1, "from then on it has to answer");
}

#[test]
fn withheld_reconnect_of_an_idle_link_stays_wanted() {
    for never in [false, true] {
        let mut bench = Bench::connected_with(|bot| bot.idle_ttl = bot.idle_ttl.filter(|_| !never));
        let (rests, connects) = (bench.rests, bench.connects.len());
        bench.lose(1006);
        while bench.connects.len() == connects {
            bench.pass(ms(50));
        }
        // The store hangs: the connect waits for its permit until the lease is not valid any more.
        bench.give(Input::Lease(false));
        bench.give(Input::ConnectFailed(ConnectFailure::Withheld));
        bench.pass(ms(5000));
        assert_eq!((bench.rests, bench.machine.link_state(bench.now)), (rests, LinkState::BackingOff));
        suspect(&mut bench, false);
        assert_eq!((bench.rests, bench.connects.len()), (rests, connects + 2));
        bench.give(Input::Connected);
        assert_eq!(bench.machine.link_state(bench.now), LinkState::Ready);
    }
}

#[test]
fn idle_link_lost_under_a_suspect_lease_comes_back() {
    let mut bench = Bench::connected();
    let (rests, connects) = (bench.rests, bench.connects.len());
    suspect(&mut bench, true);
    bench.lose(1006);
    bench.pass(ms(5000));
    assert_eq!((bench.rests, bench.connects.len()), (rests, connects));
    suspect(&mut bench, false);
    assert_eq!((bench.rests, bench.connects.len()), (rests, connects + 1));
}

#[test]
fn idle_link_comes_back_however_often_it_failed() {
    for failure in [
        ConnectFailure::Unavailable { words: "refused".into(), retry_after: None },
        ConnectFailure::Rejected("unknown bot".into()),
    ] {
        let mut bench = Bench::connected();
        let (rests, connects) = (bench.rests, bench.connects.len());
        bench.lose(1006);
        for failed in 1..=12 {
            bench.pass(ms(36_000));
            assert_eq!((bench.connects.len(), bench.rests), (connects + failed, rests), "{failure:?}");
            bench.give(Input::ConnectFailed(failure.clone()));
        }
        bench.pass(ms(36_000));
        bench.give(Input::Connected);
        assert_eq!(bench.machine.link_state(bench.now), LinkState::Ready);
    }
}
