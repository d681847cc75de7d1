//! While a human agent has the conversation (api.md 1), and what of the platform's events is told (api.md 3).

use rtm_bridge::domain::{ConversationRecord, Correlation, EntryBody, MessageProgress};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, OpenMessage};
use serde_json::value::RawValue;

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{accepted, event, plain};

fn with_agent() -> Bench {
    let mut bench = Bench::connected();
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    bench
}

fn is_alone(bench: &Bench, id: &str) -> bool {
    let reply = bench.reply(id);
    reply.in_reply_to.is_none() && reply.correlation == Correlation::Unsolicited && !reply.late
}

#[test]
fn a_turn_ends_with_its_ack_and_what_the_agent_says_stands_free() {
    let mut bench = with_agent();
    bench.say("ms-1");
    let message = bench.post();
    bench.say("ms-2");
    bench.ack(&message);
    assert_eq!(bench.end(), (0, "agent"));
    assert!(bench.told.last().unwrap().progress.acked_at.is_some());
    bench.say("ms-3");
    assert!(["ms-1", "ms-2", "ms-3"].iter().all(|id| is_alone(&bench, id)));
}

#[test]
fn without_an_ack_it_fails_as_ever() {
    let mut bench = with_agent();
    bench.post();
    bench.say("ms-1");
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-ack"));
}

#[test]
fn the_turn_in_which_the_agent_takes_over_keeps_what_is_said_in_it() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.say("ms-1");
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    // Platforms may say it in two ways.
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    bench.pass(ms(100));
    bench.say("ms-2");
    bench.pass(ms(50));
    assert_eq!(bench.end(), (2, "agent"));
    bench.say("ms-3");
    assert!(is_alone(&bench, "ms-3"));
}

#[test]
fn the_bot_answers_again_when_it_has_the_conversation_back() {
    for back in [IncomingFrame::AgentEnd(event()), IncomingFrame::SessionEnd(event())] {
        let mut bench = with_agent();
        bench.give(Input::Frame(back));
        let message = bench.post();
        bench.ack(&message);
        bench.say("ms-1");
        bench.pass(ms(1000));
        assert_eq!(bench.end(), (1, "quiet"));
    }
}

#[test]
fn a_new_session_begins_with_the_bot() {
    let mut bench = with_agent();
    bench.give(Input::Frame(IncomingFrame::SessionStart { session_id: None, event: event() }));
    let message = bench.post();
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn a_new_owner_knows_of_the_agent() {
    let at = Bench::new().now;
    let record =
        ConversationRecord { write: 3, connected_at: Some(at), agent: true, ..ConversationRecord::default() };
    let progress = MessageProgress { sent_at: Some(at), ..MessageProgress::default() };
    let message = accepted(0, at, plain());
    let lane = vec![OpenMessage { accepted: message.clone(), progress }];
    let open = ConversationSnapshot {
        record,
        lane,
        head_at: Some(at),
        next_position: 1,
        ..ConversationSnapshot::default()
    };
    let mut bench = Bench::opened(open, |_| ());
    bench.give(Input::Connected);
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    assert_eq!(bench.end(), (0, "agent"), "history shows that it was received");
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.correlation), (None, Correlation::History), "nobody heard it");
}

#[test]
fn events_are_told_as_they_came_and_noise_is_not() {
    let frame = |name: &str| RawValue::from_string(format!("{{\"type\":\"{name}\"}}")).unwrap();
    let mut bench = Bench::connected();
    let from = bench.writes.len();
    for told in [
        IncomingFrame::SessionStart { session_id: None, event: frame("session_start") },
        IncomingFrame::Active { session_id: None, session_continues: true },
        IncomingFrame::AgentStart(frame("agent_session_start")),
        IncomingFrame::Typing,
        IncomingFrame::AgentEnd(frame("agent_session_end")),
        IncomingFrame::WaitingForInput,
        IncomingFrame::Unknown(frame("never_heard_of")),
        IncomingFrame::Pong,
        IncomingFrame::Malformed,
        IncomingFrame::Platform(frame("form_submitted")),
        IncomingFrame::SessionEnd(frame("session_end")),
    ] {
        bench.give(Input::Frame(told));
    }
    let changes = bench.writes[from..].iter().flat_map(|write| &write.changes);
    let told: Vec<_> = changes
        .filter_map(|change| match change {
            ConversationChange::Append(entry) => match &entry.body {
                EntryBody::Platform(event) => Some(event.get().to_owned()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let names = [
        "session_start",
        "agent_session_start",
        "agent_session_end",
        "never_heard_of",
        "form_submitted",
        "session_end",
    ];
    assert_eq!(told, names.map(|name| format!("{{\"type\":\"{name}\"}}")));
}
