//! Conversations with a human agent (api.md 1), and the journaled events of the platform (api.md 3).

use std::sync::Arc;

use rtm_bridge::domain::fixtures::raw_json;
use rtm_bridge::domain::{AcceptedMessage, ConversationRecord, Correlation, EntryBody};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{BotResponse, HistoryRecord, IncomingFrame};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot};

use super::bench::{Bench, incoming, ms, outgoing};
use super::support::{accepted, event, plain, reply, sent, snapshot};

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
fn turn_with_an_agent_ends_with_its_ack() {
    let mut bench = with_agent();
    bench.say("ms-1");
    let message = bench.post();
    bench.say("ms-2");
    bench.ack(&message);
    assert_eq!(bench.end(), (0, "agent"));
    assert!(bench.completed.last().unwrap().progress.acked_at.is_some());
    bench.say("ms-3");
    assert!(["ms-1", "ms-2", "ms-3"].iter().all(|id| is_alone(&bench, id)));
}

#[test]
fn turn_with_an_agent_and_without_an_ack_fails() {
    let mut bench = with_agent();
    bench.post();
    bench.say("ms-1");
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-ack"));
}

#[test]
fn turn_keeps_the_replies_of_an_agent_who_takes_over() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.say("ms-1");
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    // Platforms may signal it in two ways.
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    bench.pass(ms(100));
    bench.say("ms-2");
    bench.pass(ms(50));
    assert_eq!(bench.end(), (2, "agent"));
    bench.say("ms-3");
    assert!(is_alone(&bench, "ms-3"));
}

#[test]
fn bot_answers_again_after_the_agent_left() {
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
fn new_session_takes_the_conversation_from_the_agent() {
    let mut bench = with_agent();
    bench.give(Input::Frame(IncomingFrame::SessionStart { session_id: None, event: event() }));
    let message = bench.post();
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

/// A conversation with an agent whose link was lost and is open again.
fn with_agent_after_a_loss() -> Bench {
    let mut bench = with_agent();
    bench.lose(1006);
    bench.reconnect();
    bench
}

#[test]
fn reply_of_the_bot_after_a_loss_ends_the_agent() {
    let mut bench = with_agent_after_a_loss();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(2000));
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"), "the end of the agent was lost with the link");
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(4000));
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert!(!bench.record().agent);
}

/// The read of history after a loss may answer later than the bot, whose frame then comes again.
#[test]
fn reply_of_the_bot_in_history_after_a_loss_ends_the_agent() {
    let mut bench = with_agent_after_a_loss();
    let message = bench.post();
    bench.history(vec![incoming(&message), outgoing("ms-1")]);
    bench.ack(&message);
    bench.say("ms-1");
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (1, "quiet"));
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.correlation), (Some(message.id), Correlation::History));
    assert!(!bench.record().agent);
}

#[test]
fn line_of_the_agent_in_history_after_a_loss_answers_no_message() {
    let mut bench = with_agent_after_a_loss();
    let message = bench.post();
    bench.history(vec![incoming(&message), HistoryRecord { agent: true, ..outgoing("ms-1") }]);
    bench.pass(ms(5000));
    assert_eq!(bench.end(), (0, "agent"));
    assert_eq!(bench.reply("ms-1").in_reply_to, None);
}

#[test]
fn silent_agent_after_a_loss_ends_the_turn_3_s_later() {
    let mut bench = with_agent_after_a_loss();
    let message = bench.post();
    bench.ack(&message);
    bench.pass(ms(2999));
    assert_eq!(bench.completed.len(), 1);
    bench.pass(ms(1));
    assert_eq!(bench.end(), (0, "agent"));
}

#[test]
fn sign_of_the_agent_after_a_loss_ends_the_doubt() {
    let signs = [IncomingFrame::Typing(event()), IncomingFrame::AgentStart(event()), line("ms-1")];
    for sign in signs {
        let mut bench = with_agent_after_a_loss();
        bench.give(Input::Frame(sign));
        let message = bench.post();
        bench.ack(&message);
        assert_eq!(bench.end(), (0, "agent"));
    }
}

/// A line of the agent.
fn line(id: &str) -> IncomingFrame {
    IncomingFrame::Response(Box::new(BotResponse { agent: true, ..reply(id, "Hi") }))
}

#[test]
fn sign_of_the_bot_or_another_session_ends_the_agent() {
    let active = |id: &str| IncomingFrame::Active { session_id: Some(id.into()), session_continues: true };
    for sign in [IncomingFrame::WaitingForInput, active("s-2")] {
        let mut bench = Bench::connected();
        bench.give(Input::Frame(active("s-1")));
        bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
        bench.lose(1006);
        bench.reconnect();
        bench.give(Input::Frame(sign));
        bench.pass(ms(100));
        assert!(!bench.record().agent);
        let message = bench.post();
        bench.ack(&message);
        bench.pass(ms(4000));
        bench.say("ms-1");
        bench.pass(ms(1000));
        assert_eq!(bench.end(), (1, "quiet"));
    }
    let mut bench = Bench::connected();
    bench.give(Input::Frame(active("s-1")));
    bench.give(Input::Frame(IncomingFrame::AgentStart(event())));
    bench.give(Input::Frame(active("s-1")));
    let message = bench.post();
    bench.ack(&message);
    assert_eq!(bench.end(), (0, "agent"), "the same session goes on");
}

#[test]
fn agent_and_session_end_with_the_time_of_the_session() {
    let now = Bench::new().now;
    let record = ConversationRecord {
        write: 3,
        connected_at: Some(now - ms(16 * 60_000)),
        session_id: Some("s-1".into()),
        agent: true,
        ..ConversationRecord::default()
    };
    let open = ConversationSnapshot { record, ..ConversationSnapshot::default() };
    let mut bench = Bench::opened(open, |bot| bot.welcome = ms(0));
    let message = bench.post();
    bench.give(Input::Connected);
    bench.ack(&message);
    bench.pass(ms(5000));
    bench.say("ms-1");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    let record = bench.record();
    assert_eq!((record.agent, record.session_id), (false, None));
}

/// A conversation with an agent whose owner died during a turn. Returns the turn's message.
fn with_agent_under_a_new_owner() -> (Bench, Arc<AcceptedMessage>) {
    let at = Bench::new().now;
    let record =
        ConversationRecord { write: 3, connected_at: Some(at), agent: true, ..ConversationRecord::default() };
    let message = accepted(0, at, plain());
    let mut bench = Bench::opened(snapshot(record, [(&message, sent(at))]), |_| ());
    bench.give(Input::Connected);
    (bench, message)
}

#[test]
fn new_owner_knows_that_an_agent_has_the_conversation() {
    let (mut bench, message) = with_agent_under_a_new_owner();
    bench.history(vec![incoming(&message), HistoryRecord { agent: true, ..outgoing("ms-1") }]);
    assert_eq!(bench.end(), (0, "agent"), "history shows that it was received");
    let reply = bench.reply("ms-1");
    assert_eq!((reply.in_reply_to, reply.correlation), (None, Correlation::History), "no socket was open");
}

#[test]
fn new_owner_learns_from_history_that_the_bot_answers_again() {
    let (mut bench, message) = with_agent_under_a_new_owner();
    for _ in 0..3 {
        bench.history(vec![incoming(&message), outgoing("ms-1")]);
        bench.pass(ms(1500));
    }
    assert_eq!(bench.end(), (1, "quiet"));
    assert!(!bench.record().agent);
}

#[test]
fn event_frames_are_journaled_and_noise_is_not() {
    let frame = |name: &str| raw_json(&format!("{{\"type\":\"{name}\"}}"));
    let mut bench = Bench::connected();
    let from = bench.writes.len();
    for told in [
        IncomingFrame::SessionStart { session_id: None, event: frame("session_start") },
        IncomingFrame::Active { session_id: None, session_continues: true },
        IncomingFrame::AgentStart(frame("agent_session_start")),
        IncomingFrame::Typing(event()),
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
    assert_eq!(bench.live_frames.len(), 1, "typing goes to live readers");
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
