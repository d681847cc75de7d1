//! Who is told of what by webhook, and that it stands in the write that it tells of (api.md 4).

use std::sync::Arc;

use rtm_bridge::domain::{
    ConversationRecord, DeliveryId, DeliveryKind, DeliveryOrigin, EntryBody, JournalEntry, MessageId,
    MessageProgress, NewDelivery, NewMessage, Partition, ProblemKind, SessionRequest, TraceId,
};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage};
use serde_json::{Value, json};

use super::bench::{Bench, ms};
use super::receivers::{reply_of, tells};
use super::support::{accepted, callback, echo, plain, webhook};

const TRACE: TraceId = TraceId(7);

/// One whose bot has a webhook, with an open link.
fn connected() -> Bench {
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhook = Some(webhook());
    });
    bench.post_with(|new| new.session = SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-first");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    bench.writes.drain(..bench.writes.len() - 1);
    bench
}

/// What is written behind that.
fn since(bench: &Bench) -> Vec<(&JournalEntry, &NewDelivery)> {
    delivered(&bench.writes[1..])
}

fn to_caller(new: &mut NewMessage) {
    new.callback = Some(callback(Some("crm")));
    new.trace = TRACE;
}

/// What is delivered, each with the entry that stands right before it.
fn delivered(writes: &[Arc<ConversationWrite>]) -> Vec<(&JournalEntry, &NewDelivery)> {
    let pairs = writes.iter().flat_map(|write| write.changes.windows(2));
    let told = pairs.filter_map(|pair| match pair {
        [ConversationChange::Append(entry), ConversationChange::Deliver(delivery)] => {
            Some((entry, &**delivery))
        }
        _ => None,
    });
    let told: Vec<_> = told.collect();
    let deliveries = writes
        .iter()
        .flat_map(|write| &write.changes)
        .filter(|change| matches!(change, ConversationChange::Deliver(_)));
    assert_eq!(told.len(), deliveries.count(), "each right behind its entry");
    told
}

fn kinds<'a>(told: &[(&JournalEntry, &'a NewDelivery)]) -> Vec<(DeliveryKind, &'a str)> {
    told.iter().map(|(_, told)| (told.kind, &*told.target)).collect()
}

const CALLER: &str = "https://caller.example/hook";
const BOT: &str = "https://bot.example/hook";

#[test]
fn an_end_goes_to_the_callback_and_else_to_the_bots_webhook() {
    let mut bench = connected();
    let message = bench.post_with(to_caller);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.post();
    bench.pass(ms(30_000));
    assert_eq!(bench.end().1, "no-ack");
    assert_eq!(
        kinds(&since(&bench)),
        [(DeliveryKind::MessageAnswered, CALLER), (DeliveryKind::MessageFailed, BOT)]
    );
    let told = since(&bench);
    let (first, second) = (told[0].1, told[1].1);
    assert_eq!(first.origin, DeliveryOrigin::Callback { signer: Some("crm".into()) });
    assert_eq!(
        (first.message, first.trace, &first.conversation),
        (Some(message.id), TRACE, &plain().conversation)
    );
    assert_eq!((&second.origin, second.trace), (&DeliveryOrigin::Bot, TraceId::default()));
    for ((_, delivery), message) in told.iter().zip(&bench.told[1..]) {
        assert!(tells(delivery, message), "{} is not {message:?}", delivery.data);
    }
    let data: Value = serde_json::from_str(first.data.get()).unwrap();
    assert_eq!(data["callback"], json!({ "url": CALLER }), "who signs is nobody's business");
}

#[test]
fn without_a_target_nothing_is_delivered() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.say("ms-late");
    assert_eq!(bench.end().1, "quiet");
    assert!(delivered(&bench.writes).is_empty());
}

#[test]
fn the_end_of_a_session_is_told_to_nobody() {
    let mut bench = connected();
    bench.post_with(|new| {
        to_caller(new);
        new.session = SessionRequest::Close;
    });
    bench.give(Input::Frame(IncomingFrame::SessionEnd(super::support::event())));
    assert_eq!(bench.end().1, "sessionEnd");
    assert!(since(&bench).is_empty());
    bench.post_with(|new| new.session = SessionRequest::Close);
    assert_eq!(
        (bench.told.len(), bench.end().1),
        (3, "sessionEnd"),
        "where no session lives it ends at once"
    );
    assert!(since(&bench).is_empty());
}

#[test]
fn late_replies_follow_their_turns_end_and_unsolicited_ones_go_to_the_bot() {
    let mut bench = connected();
    let message = bench.post_with(to_caller);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.say("ms-late");
    bench.pass(ms(61_000));
    bench.say("ms-unasked");
    let told = since(&bench);
    let words: Vec<_> =
        told.iter().map(|(_, told)| (told.kind, &*told.target, told.message, told.trace)).collect();
    assert_eq!(
        words,
        [
            (DeliveryKind::MessageAnswered, CALLER, Some(message.id), TRACE),
            (DeliveryKind::ReplyLate, CALLER, Some(message.id), TRACE),
            (DeliveryKind::ReplyUnsolicited, BOT, None, TraceId::default()),
        ]
    );
    for (_, delivery) in &told[1..] {
        let data: Value = serde_json::from_str(delivery.data.get()).unwrap();
        let reply = bench.reply(data["messageId"].as_str().unwrap());
        assert_eq!(data, reply_of(&plain().conversation, reply));
    }
}

#[test]
fn a_new_owner_knows_what_the_last_turn_is_echoed_by_and_who_is_told() {
    let mut bench = connected();
    let message = bench.post_with(to_caller);
    bench.say("ms-1");
    bench.pass(ms(1000));
    let record = bench.writes.last().unwrap().record.clone();
    let mut next = Bench::opened(
        ConversationSnapshot { record, next_position: 2, ..ConversationSnapshot::default() },
        |bot| {
            bot.welcome = ms(0);
            bot.webhook = Some(webhook());
        },
    );
    next.give(Input::Connected);
    next.respond(echo("ms-echo", &message));
    let late = next.reply("ms-echo");
    assert_eq!((late.in_reply_to, late.correlation.as_str(), late.late), (Some(message.id), "exact", true));
    assert_eq!(kinds(&delivered(&next.writes)), [(DeliveryKind::ReplyLate, CALLER)]);
}

#[test]
fn ids_are_those_of_the_entries_from_the_first_one_on() {
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhook = Some(webhook());
    });
    // What fails before anything was written begins the journal.
    bench.post_until(Some(500));
    bench.pass(ms(500));
    assert_eq!(bench.end().1, "platform-unavailable");
    let conversation = plain().conversation;
    let write = bench.writes.last().unwrap();
    let (entry, delivery) = delivered(&bench.writes)[0];
    assert_ne!(write.record.epoch, 0);
    assert_eq!(delivery.id, DeliveryId::of(&conversation, write.record.epoch, entry.seq, entry.at));
    assert_eq!((entry.seq, delivery.id.partition()), (1, Partition::of(&conversation)));
    assert_eq!(delivery.created_at, entry.at);
}

#[test]
fn what_is_written_again_keeps_its_id() {
    let mut bench = connected();
    let before = bench.record();
    let message = bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.pass(ms(1000));
    let id_of = |bench: &Bench| {
        let write = bench.writes.last().unwrap();
        let told = delivered(std::slice::from_ref(write));
        (told[0].0.seq, told[0].1.id, write.record.epoch)
    };
    let first = id_of(&bench);
    bench.give(Input::OutOfStep);
    let lane = vec![OpenMessage { accepted: message, progress: MessageProgress::default() }];
    bench.give(Input::Lane(Box::new(ConversationSnapshot {
        record: before,
        lane,
        head_at: None,
        next_position: 2,
        ..ConversationSnapshot::default()
    })));
    let again = id_of(&bench);
    assert_eq!((bench.rebased, again.0, again.1), (1, first.0, first.1));
    assert!(again.2 > first.2, "although the journal is another one");
}

#[test]
fn what_is_lost_before_its_end_is_not_delivered_and_what_was_said_late_is() {
    let mut bench = connected();
    bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.say("ms-2");
    bench.pass(ms(1000));
    bench.say("ms-late");
    let write = bench.writes.len();
    // Nobody has it, and the end still waits behind what is in flight.
    bench.give(Input::OutOfStep);
    let record = bench.record();
    bench.give(Input::Lane(Box::new(ConversationSnapshot {
        record,
        next_position: 2,
        ..ConversationSnapshot::default()
    })));
    assert_eq!(bench.forgotten.len(), 1);
    let told: Vec<_> = delivered(&bench.writes[write..]).iter().map(|(_, told)| told.kind).collect();
    assert_eq!(told, [DeliveryKind::ReplyLate]);
}

#[test]
fn a_message_whose_end_is_lost_is_told_as_lost() {
    let (at, mut new) = (Bench::new().now - ms(5000), plain());
    to_caller(&mut new);
    let (first, head) = (accepted(0, at, new), accepted(1, at, plain()));
    let sent = MessageProgress { sent_at: Some(at), ..MessageProgress::default() };
    let lane =
        [&first, &head].map(|message| OpenMessage { accepted: Arc::clone(message), progress: sent.clone() });
    let record = ConversationRecord { write: 3, epoch: 9, seq: 4, ..ConversationRecord::default() };
    let open = ConversationSnapshot {
        record,
        lane: lane.into(),
        head_at: Some(at),
        next_position: 2,
        ..ConversationSnapshot::default()
    };
    let bench = Bench::opened(open, |_| ());
    assert_eq!(kinds(&delivered(&bench.writes)), [(DeliveryKind::MessageFailed, CALLER)]);
    let (entry, delivery) = delivered(&bench.writes)[0];
    let EntryBody::Ended { message, .. } = &entry.body else { panic!("an end") };
    assert_eq!((*message, delivery.message), (first.id, Some::<MessageId>(first.id)));
    let data: Value = serde_json::from_str(delivery.data.get()).unwrap();
    assert_eq!(data["error"]["type"], json!(format!("/problems/{}", ProblemKind::MessageLost)));
    assert_eq!(data["status"], json!("failed"));
}
