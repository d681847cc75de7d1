//! The chunks of a streamed reply for live readers (api.md 3, `chunk`).

use std::sync::Arc;

use rtm_bridge::domain::{AcceptedMessage, EntryBody, GapReason, SessionRequest};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::{BotResponse, HistoryRecord, IncomingFrame, StreamInfo};
use rtm_bridge::store::ConversationChange;

use super::bench::{Bench, incoming, ms, outgoing};
use super::connect_message::connect_message;
use super::support::{piece, reply};

fn heard(bench: &mut Bench) -> Vec<(u32, String, bool)> {
    let chunks = std::mem::take(&mut bench.chunks);
    chunks.iter().map(|chunk| (chunk.index, chunk.text.to_string(), chunk.last)).collect()
}

#[test]
fn stream_sends_each_chunk_and_one_reply() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    assert_eq!(heard(&mut bench), [(0, "It ".to_owned(), false)]);
    bench.respond(piece("ms-1", "has ", false));
    bench.respond(piece("ms-2", "Other", true));
    bench.respond(piece("ms-1", "left.", true));
    assert_eq!(
        heard(&mut bench),
        [(1, "has ".to_owned(), false), (0, "Other".to_owned(), true), (2, "left.".to_owned(), true)]
    );
    // A repeat is not published.
    bench.respond(piece("ms-1", "left.", true));
    assert!(bench.chunks.is_empty());
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (2, "quiet"));
    assert_eq!(bench.replies.iter().filter(|reply| reply.message_id.as_deref() == Some("ms-1")).count(), 1);
}

#[test]
fn reply_in_one_piece_sends_no_chunk() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    assert!(bench.chunks.is_empty());
}

/// A turn with a stream whose middle fell between two sockets.
fn holed() -> (Bench, Arc<AcceptedMessage>) {
    let mut bench = Bench::connected();
    let message = bench.post();
    bench.ack(&message);
    bench.respond(piece("ms-1", "It ", false));
    bench.lose(1006);
    bench.reconnect();
    bench.history(vec![incoming(&message)]);
    bench.respond(piece("ms-1", "today.", true));
    (bench, message)
}

#[test]
fn stream_with_a_hole_is_told_whole_from_history() {
    let (mut bench, message) = holed();
    let whole = HistoryRecord { text: "It arrives today.".into(), ..outgoing("ms-1") };
    bench.pass(ms(1500));
    bench.history(vec![incoming(&message), whole.clone()]);
    bench.pass(ms(1500));
    bench.history(vec![incoming(&message), whole]);
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    assert_eq!(&*bench.reply("ms-1").text, "It arrives today.");
}

#[test]
fn endless_stream_outside_a_turn_is_cut() {
    let mut bench = Bench::connected();
    let mib = "x".repeat(1024 * 1024);
    for _ in 0..10 {
        bench.respond(piece("ms-1", &mib, false));
    }
    let told: Vec<_> =
        bench.replies.iter().filter(|reply| reply.message_id.as_deref() == Some("ms-1")).collect();
    assert_eq!((told.len(), told[0].text.len(), told[0].partial), (1, 4 * 1024 * 1024, true));
    assert_eq!(gaps(&bench), 1);
}

fn gaps(bench: &Bench) -> usize {
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    let cut = |change: &&ConversationChange| match change {
        ConversationChange::Append(entry) => matches!(entry.body, EntryBody::Gap(GapReason::ReplyCut)),
        _ => false,
    };
    changes.filter(cut).count()
}

#[test]
fn stream_with_a_hole_that_history_does_not_tell_is_partial() {
    let (mut bench, message) = holed();
    for _ in 0..2 {
        bench.pass(ms(1500));
        bench.history(vec![incoming(&message)]);
    }
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    let reply = bench.reply("ms-1");
    assert_eq!((&*reply.text, reply.partial, gaps(&bench)), ("It today.", true, 1));
    let told = serde_json::to_value(bench.completed.last().unwrap()).unwrap();
    assert_eq!((&told["complete"], &told["replies"][0]["partial"]), (&true.into(), &true.into()));
}

#[test]
fn stream_with_a_hole_and_a_whole_last_frame_is_whole() {
    let (mut bench, message) = holed();
    let last = StreamInfo { last: true, complete: Some("It arrives today.".into()) };
    bench.respond(BotResponse { stream: Some(last), ..reply("ms-1", "") });
    for _ in 0..2 {
        bench.pass(ms(1500));
        bench.history(vec![incoming(&message)]);
    }
    bench.pass(ms(1000));
    let reply = bench.reply("ms-1");
    assert_eq!((&*reply.text, reply.partial, gaps(&bench)), ("It arrives today.", false, 0));
    let told = serde_json::to_value(bench.completed.last().unwrap()).unwrap();
    assert_eq!((&told["complete"], told["replies"][0].get("partial")), (&true.into(), None));
}

#[test]
fn stream_that_outlasts_its_turn_is_partial() {
    let mut bench = Bench::connected();
    bench.post_ruled(None, None, Some(5000));
    for _ in 0..6 {
        bench.respond(piece("ms-1", "on ", false));
        bench.pass(ms(1000));
    }
    assert_eq!(bench.end(), (1, "deadline"));
    bench.respond(piece("ms-1", "and on.", true));
    let reply = bench.reply("ms-1");
    assert_eq!((&*reply.text, reply.partial, gaps(&bench)), ("on on on on on ", true, 1));
}

#[test]
fn end_signal_waits_for_an_unfinished_stream() {
    let mut bench = Bench::connected();
    bench.post();
    bench.respond(piece("ms-1", "It ", false));
    bench.give(Input::Frame(IncomingFrame::WaitingForInput));
    bench.pass(ms(3000));
    assert_eq!(bench.completed.len(), 1);
    bench.respond(piece("ms-1", "left.", true));
    assert_eq!((bench.end(), &*bench.reply("ms-1").text), ((1, "inputWait"), "It left."));
    // A stream whose end was lost does not hold it for ever.
    bench.post_ruled(Some(2), None, None);
    bench.respond(piece("ms-2", "It ", false));
    bench.give(Input::Frame(IncomingFrame::WaitingForInput));
    bench.pass(ms(15_000));
    assert_eq!((bench.end(), bench.reply("ms-2").partial), ((1, "inputWait"), true));
}

#[test]
fn stream_outside_a_turn_survives_a_change_of_socket() {
    for told in [true, false] {
        let mut bench = Bench::connected();
        bench.respond(piece("ms-1", "It ", false));
        bench.lose(1006);
        bench.reconnect();
        bench.history(Vec::new());
        bench.respond(piece("ms-1", "today.", true));
        bench.pass(ms(3000));
        let whole = HistoryRecord { text: "It arrives today.".into(), ..outgoing("ms-1") };
        let page = if told { vec![outgoing("ms-first"), whole] } else { vec![outgoing("ms-first")] };
        bench.history(page);
        let reply = bench.reply("ms-1");
        let text = if told { "It arrives today." } else { "It today." };
        assert_eq!((&*reply.text, reply.partial, gaps(&bench)), (text, !told, usize::from(!told)));
    }
}

#[test]
fn stream_whose_beginning_fell_before_the_socket_is_not_whole() {
    let mut bench = Bench::connected();
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.respond(piece("ms-1", "today.", true));
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-first")]);
    assert!(bench.reply("ms-1").partial);
}

#[test]
fn stream_behind_a_silent_connect_answers_nothing_and_may_have_a_hole() {
    let mut bench = Bench::connected();
    bench.lose(1006);
    bench.post_with(|new| *new = connect_message(SessionRequest::Continue));
    bench.store_hangs = true;
    bench.reconnect();
    bench.respond(piece("ms-1", "today.", true));
    bench.store_hangs = false;
    bench.give(Input::Stored { lost: false });
    assert_eq!(bench.end(), (0, "silence"));
    let whole = HistoryRecord { text: "It arrives today.".into(), ..outgoing("ms-1") };
    bench.history(vec![outgoing("ms-first"), whole]);
    assert_eq!((&*bench.reply("ms-1").text, bench.reply("ms-1").partial), ("It arrives today.", false));
}

#[test]
fn long_stream_with_a_hole_is_sought_in_history_at_its_end() {
    let mut bench = Bench::connected();
    bench.respond(piece("ms-1", "It ", false));
    bench.lose(1006);
    bench.reconnect();
    bench.history(Vec::new());
    bench.pass(ms(3000));
    bench.history(vec![outgoing("ms-first")]);
    bench.pass(ms(9000));
    let reads = bench.history_reads.len();
    bench.respond(piece("ms-1", "today.", true));
    bench.pass(ms(3000));
    assert_eq!(bench.history_reads.len(), reads + 1);
    let whole = HistoryRecord { text: "It arrives today.".into(), ..outgoing("ms-1") };
    bench.history(vec![whole]);
    assert_eq!((&*bench.reply("ms-1").text, bench.reply("ms-1").partial), ("It arrives today.", false));
}

#[test]
fn stream_outside_a_turn_without_an_end_is_cut_by_time() {
    let mut bench = Bench::connected();
    bench.respond(piece("ms-1", "It ", false));
    bench.idle(1);
    assert!(bench.reply("ms-1").partial);
    assert_eq!(gaps(&bench), 1);
}

#[test]
fn cut_stream_is_told_if_its_conversation_rests_before_the_reconnect() {
    let mut bench = Bench::connected_with(|bot| bot.idle_ttl = Some(ms(5000)));
    bench.respond(piece("ms-1", "It ", false));
    bench.lose(1006);
    bench.pass(ms(6000));
    assert!(bench.reply("ms-1").partial);
    assert_eq!(gaps(&bench), 1);
}

#[test]
fn next_owner_seeks_a_stream_with_a_hole_that_was_not_told() {
    let mut bench = Bench::connected();
    bench.respond(piece("ms-1", "It ", false));
    bench.lose(1006);
    bench.reconnect();
    bench.respond(piece("ms-1", "today.", true));
    bench.say("ms-2");
    let place = bench.record().last_platform_message;
    assert_eq!(place.as_deref(), Some("ms-first"), "history has the stream before the reply");
}
