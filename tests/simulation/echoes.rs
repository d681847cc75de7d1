//! Replies that tell their answered message themselves (docs/exact-correlation.md).

use rtm_bridge::domain::{ConversationRecord, Correlation, MessageId, ResendPolicy};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{BotResponse, ConnectMode};
use rtm_bridge::store::ConversationSnapshot;

use super::bench::{Bench, ms};
use super::support::{echo, last_turn, piece, plain, reply};

/// Returns the message that a reply was joined to, its correlation, and whether it was late.
fn joined(bench: &Bench, id: &str) -> (Option<MessageId>, Correlation, bool) {
    let reply = bench.reply(id);
    (reply.in_reply_to, reply.correlation, reply.late)
}

const ALONE: (Option<MessageId>, Correlation, bool) = (None, Correlation::Unsolicited, false);

#[test]
fn echo_of_the_open_turn_is_exact_and_proves_receipt() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.respond(echo("ms-1", &message));
    bench.lose(1006);
    bench.reconnect();
    assert!(bench.sends.len() == 1, "it is not sent again");
    assert_eq!(joined(&bench, "ms-1"), (Some(message.id), Correlation::Exact, false));
}

/// A conversation whose sent message lost its link, and whose bot may greet on the next one.
fn greeted(resend: ResendPolicy) -> (Bench, std::sync::Arc<rtm_bridge::domain::AcceptedMessage>) {
    let mut bench = Bench::with(|bot| bot.session_timeout = ms(1));
    let message = bench.post_with(|new| new.resend = resend);
    bench.give(Input::Connected);
    bench.pass(ms(500));
    assert_eq!(bench.sends.len(), 1);
    bench.lose(1006);
    bench.reconnect();
    assert_eq!(bench.connects, [ConnectMode::Default; 2]);
    (bench, message)
}

#[test]
fn echo_during_a_greeting_is_exact() {
    let (mut bench, message) = greeted(ResendPolicy::Never);
    bench.say("ms-welcome");
    bench.respond(echo("ms-1", &message));
    assert_eq!(joined(&bench, "ms-welcome"), ALONE);
    assert_eq!(joined(&bench, "ms-1"), (Some(message.id), Correlation::Exact, false));
}

#[test]
fn late_echo_during_the_next_turn_joins_its_own() {
    let mut bench = Bench::connected();
    let first = bench.post();
    bench.say("ms-1");
    bench.pass(ms(1000));
    let second = bench.post();
    bench.respond(echo("ms-late", &first));
    bench.say("ms-2");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(joined(&bench, "ms-late"), (Some(first.id), Correlation::Exact, true));
    assert_eq!(joined(&bench, "ms-2"), (Some(second.id), Correlation::Window, false));
}

#[test]
fn late_echo_after_the_late_window_joins_its_turn() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.say("ms-1");
    bench.idle(10);
    bench.say("ms-2");
    bench.respond(echo("ms-3", &message));
    assert_eq!(joined(&bench, "ms-2"), ALONE);
    assert_eq!(joined(&bench, "ms-3"), (Some(message.id), Correlation::Exact, true));
}

#[test]
fn echo_of_another_message_is_unsolicited() {
    let mut bench = Bench::connected();
    let older = bench.post();
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.post();
    bench.say("ms-2");
    bench.pass(ms(1000));
    // The echo comes late, during the next turn.
    bench.respond(echo("ms-3", &older));
    bench.post();
    bench.respond(BotResponse { correlation_id: Some(17), ..reply("ms-4", "to another client") });
    bench.pass(ms(30_000));
    assert_eq!(bench.end(), (0, "no-ack"), "it does not prove receipt either");
    assert_eq!(joined(&bench, "ms-3"), ALONE);
    assert_eq!(joined(&bench, "ms-4"), ALONE);
}

#[test]
fn echo_of_an_unsent_message_is_unsolicited() {
    let mut bench = Bench::connected();
    bench.store_hangs = true;
    let message = bench.post();
    assert!(bench.sends.is_empty());
    bench.respond(echo("ms-1", &message));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(joined(&bench, "ms-1"), ALONE);
}

#[test]
fn echo_before_the_resend_cancels_it() {
    let (mut bench, message) = greeted(ResendPolicy::Auto);
    // History does not show the message, so it is sent again after the greeting.
    bench.history_fails();
    bench.respond(echo("ms-1", &message));
    bench.pass(ms(2000));
    assert_eq!((bench.sends.len(), bench.end()), (1, (1, "quiet")));
}

#[test]
fn echo_in_one_piece_of_a_stream_is_enough() {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.respond(BotResponse {
        correlation_id: Some(message.client_message_id),
        ..piece("ms-1", "left.", true)
    });
    assert_eq!(joined(&bench, "ms-1"), (Some(message.id), Correlation::Exact, false));
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
}

#[test]
fn echo_unknown_to_a_new_owner_is_ignored() {
    let now = Bench::new().now;
    let last = last_turn(MessageId::new(now, 5), now);
    let record = ConversationRecord {
        write: 3,
        connected_at: Some(now),
        last_turn: Some(last.clone()),
        ..ConversationRecord::default()
    };
    let mut bench =
        Bench::opened(ConversationSnapshot { record, ..ConversationSnapshot::default() }, |bot| {
            bot.welcome = ms(0);
        });
    bench.give(Input::Connected);
    bench.respond(BotResponse { correlation_id: Some(17), ..reply("ms-1", "late") });
    assert_eq!(joined(&bench, "ms-1"), (Some(last.message), Correlation::Window, true));
    let message = bench.post_with(|new| *new = plain());
    bench.respond(BotResponse { correlation_id: Some(17), ..reply("ms-2", "later") });
    assert_eq!(joined(&bench, "ms-2"), ALONE, "it is no answer to what is open");
    bench.respond(echo("ms-3", &message));
    assert_eq!(joined(&bench, "ms-3"), (Some(message.id), Correlation::Exact, false));
}
