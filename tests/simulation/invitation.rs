//! A message that counts as sent from its acceptance on, because its machine would send it at once.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{AcceptedMessage, MessageProgress};
use rtm_bridge::link::Input;
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, OpenMessage};

use super::bench::{Bench, ms};
use super::support::{accepted, plain};

/// The next message of the conversation, accepted now.
fn next(bench: &Bench) -> Arc<AcceptedMessage> {
    accepted(1, bench.now, plain())
}

fn as_sent(message: &Arc<AcceptedMessage>) -> ConversationSnapshot {
    let progress = MessageProgress { sent_at: Some(message.accepted_at), ..MessageProgress::default() };
    let lane = vec![OpenMessage { accepted: Arc::clone(message), progress }];
    let next_position = message.position + 1;
    ConversationSnapshot {
        lane,
        head_at: Some(message.accepted_at),
        next_position,
        ..ConversationSnapshot::default()
    }
}

fn has_sent(bench: &Bench) -> bool {
    bench
        .writes
        .iter()
        .skip(1)
        .flat_map(|write| &write.changes)
        .any(|change| matches!(change, ConversationChange::Sent { .. }))
}

#[test]
fn only_an_idle_machine_with_a_ready_link_invites() {
    let mut bench = Bench::new();
    assert!(!bench.machine.invites(bench.now), "there is no link");
    bench.post();
    bench.give(Input::Connected);
    assert!(!bench.machine.invites(bench.now), "a message is open");
    let mut bench = Bench::connected();
    assert!(bench.machine.invites(bench.now));
    bench.give(Input::Invited);
    assert!(!bench.machine.invites(bench.now), "one is on its way");
    bench.give(Input::NotSent);
    assert!(bench.machine.invites(bench.now));
    bench.give(Input::Lease(false));
    bench.give(Input::Tick);
    assert!(!bench.machine.invites(bench.now), "the lease is not sure");
    bench.give(Input::Lease(true));
    bench.give(Input::Drain);
    assert!(!bench.machine.invites(bench.now), "it is told to go");
}

#[test]
fn a_full_send_rate_invites_nobody() {
    let mut bench = Bench::with(|bot| {
        bot.welcome = Duration::ZERO;
        bot.user_rate_per_minute = 1;
    });
    bench.post_ruled(Some(1), None, None);
    bench.give(Input::Connected);
    bench.say("ms-1");
    assert_eq!(bench.end(), (1, "replyCount"));
    assert!(!bench.machine.invites(bench.now));
    bench.idle(1);
    assert!(bench.machine.invites(bench.now));
    let message = next(&bench);
    bench.give(Input::Invited);
    bench.give(Input::Sent(message));
    assert_eq!(bench.sends.len(), 2);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.told.len(), 2);
    assert!(!bench.machine.invites(bench.now), "it counted");
}

#[test]
fn what_is_accepted_as_sent_goes_out_without_another_write() {
    let mut bench = Bench::connected();
    bench.give(Input::Invited);
    let message = next(&bench);
    bench.store_hangs = true;
    bench.give(Input::Sent(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.store_hangs = false;
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.told.last().unwrap().progress.sent_at, Some(message.accepted_at));
    assert!(!has_sent(&bench));
}

#[test]
fn a_machine_that_is_to_go_stays_for_what_it_invited() {
    let mut bench = Bench::connected();
    bench.rests = 0;
    bench.give(Input::Invited);
    bench.give(Input::Drain);
    bench.pass(ms(5000));
    assert_eq!((bench.rests, bench.closes), (0, 0));
    let message = next(&bench);
    bench.give(Input::Sent(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!((bench.end(), bench.rests), ((1, "quiet"), 1));
}

#[test]
fn a_machine_that_is_to_go_rests_when_nothing_came_of_its_invitation() {
    let mut bench = Bench::connected();
    bench.rests = 0;
    bench.give(Input::Invited);
    bench.give(Input::Drain);
    bench.give(Input::NotSent);
    bench.pass(ms(20));
    assert_eq!((bench.rests, bench.closes), (1, 1));
}

#[test]
fn an_idle_link_is_kept_for_what_is_invited() {
    let mut bench = Bench::connected();
    bench.give(Input::Invited);
    // Longer than the idle TTL.
    bench.idle(20);
    assert_eq!(bench.closes, 0);
    bench.give(Input::NotSent);
    assert_eq!(bench.closes, 1);
}

#[test]
fn where_the_link_broke_meanwhile_it_goes_out_over_the_next_one() {
    let mut bench = Bench::connected();
    bench.give(Input::Invited);
    bench.lose(1006);
    let message = next(&bench);
    bench.give(Input::Sent(message));
    assert!(bench.sends.is_empty());
    bench.reconnect();
    assert_eq!(bench.sends.len(), 1, "no byte of it went out before");
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn what_nobody_told_of_is_found_in_the_lane_as_sent_and_goes_out() {
    let mut bench = Bench::connected();
    bench.give(Input::Invited);
    let message = next(&bench);
    bench.give(Input::NotSent);
    bench.give(Input::Woken);
    let mut open = as_sent(&message);
    open.record.write = bench.writes.last().unwrap().record.write;
    bench.give(Input::Lane(Box::new(open)));
    assert_eq!(bench.sends.len(), 1);
    // The answer comes after all.
    bench.give(Input::Sent(Arc::clone(&message)));
    assert_eq!(bench.sends.len(), 1);
    bench.ack(&message);
    bench.say("ms-2");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(bench.told.last().unwrap().progress.sent_at, Some(message.accepted_at));
}

#[test]
fn a_new_owner_takes_it_for_sent() {
    let bench = Bench::new();
    let message = accepted(0, bench.now, plain());
    let mut bench = Bench::opened(as_sent(&message), |bot| bot.history = false);
    bench.give(Input::Connected);
    bench.pass(ms(30_000));
    assert!(bench.sends.is_empty());
    assert_eq!(bench.end(), (0, "uncertain"));
}
