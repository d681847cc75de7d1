//! Signals of the user, and acknowledgements of replies (api.md 2, `POST …/signals`).

use rtm_bridge::domain::{SignalKind, UserSignal};
use rtm_bridge::link::Input;

use super::bench::{Bench, ms};

fn signal(bench: &mut Bench, kind: SignalKind) {
    bench.give(Input::Signal(UserSignal { kind, message_id: None }));
}

#[test]
fn signal_goes_out_over_an_open_socket_only() {
    let mut bench = Bench::new();
    signal(&mut bench, SignalKind::Typing);
    bench.post();
    signal(&mut bench, SignalKind::Typing);
    assert_eq!(bench.signals, [], "the socket is not open");
    let mut bench = Bench::connected();
    let writes = bench.writes.len();
    signal(&mut bench, SignalKind::Read);
    assert_eq!((bench.signals.len(), bench.signals[0].0), (1, SignalKind::Read));
    bench.pass(ms(1000));
    assert_eq!(bench.writes.len(), writes, "it is not stored");
    bench.give(Input::Lease(false));
    signal(&mut bench, SignalKind::Read);
    bench.give(Input::Lease(true));
    bench.give(Input::Drain);
    signal(&mut bench, SignalKind::Read);
    assert_eq!(bench.signals.len(), 1);
}

#[test]
fn number_of_a_signal_is_that_of_no_message() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.pass(ms(1000));
    signal(&mut bench, SignalKind::CloseAgentChat);
    let number = bench.signals[0].1;
    assert!(number < message.client_message_id, "{number}");
}

#[test]
fn signals_count_in_the_rate_and_leave_a_quarter() {
    let mut bench = Bench::connected_with(|bot| bot.user_rate_per_minute = 8);
    for _ in 0..20 {
        signal(&mut bench, SignalKind::Typing);
    }
    assert_eq!(bench.signals.len(), 5, "the first message counts too");
    bench.post();
    assert_eq!(bench.sends.len(), 1, "messages have room");
    bench.pass(ms(60_000));
    signal(&mut bench, SignalKind::Typing);
    assert_eq!(bench.signals.len(), 6);
    let mut bench = Bench::connected_with(|bot| bot.user_rate_per_minute = 0);
    for _ in 0..200 {
        signal(&mut bench, SignalKind::Typing);
    }
    assert_eq!(bench.signals.len(), 200, "no limit");
}

#[test]
fn marked_response_is_acknowledged_if_wanted() {
    let marked = || {
        let mut response = super::support::reply("ms-marked", "hello");
        let frame = r#"{"type":"bot_response","timestamp":1512722848096,"key":"k-1"}"#;
        response.event = rtm_bridge::domain::fixtures::raw_json(frame);
        response
    };
    let mut bench = Bench::connected();
    bench.respond(marked());
    assert!(bench.acknowledged.is_empty());
    let mut bench = Bench::connected_with(|bot| bot.delivery_acks = true);
    bench.say("ms-unmarked");
    assert!(bench.acknowledged.is_empty());
    bench.respond(marked());
    bench.respond(marked());
    assert_eq!(bench.acknowledged.len(), 2, "a repeated frame too");
}
