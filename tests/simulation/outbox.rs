//! The deliveries to webhooks, each in the write of its journal entry (api.md 4).

use std::sync::Arc;

use rtm_bridge::config::{BotWebhookConfig, PayloadExtent};
use rtm_bridge::domain::{
    ConversationRecord, Cursor, DeliveryId, DeliveryKind, DeliveryOrigin, EntryBody, JournalEntry, MessageId,
    MessageProgress, NewDelivery, NewMessage, Partition, ProblemKind, SessionRequest, TraceId,
};
use rtm_bridge::link::Input;
use rtm_bridge::rtm::IncomingFrame;
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite};
use serde_json::{Value, json};

use super::bench::{Bench, ms};
use super::receivers::{reply_of, tells};
use super::support::{accepted, callback, echo, plain, sent, snapshot, webhook};

const TRACE: TraceId = TraceId(7);

/// A bot with a webhook and an open link.
fn connected() -> Bench {
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhooks = vec![webhook()];
    });
    bench.post_with(|new| new.session = SessionRequest::New);
    bench.give(Input::Connected);
    bench.say("ms-first");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    bench.writes.drain(..bench.writes.len() - 1);
    bench
}

/// Returns the changes that were written behind that place.
fn since(bench: &Bench) -> Vec<(&JournalEntry, &NewDelivery)> {
    delivered(&bench.writes[1..])
}

fn to_caller(new: &mut NewMessage) {
    new.callback = Some(callback(Some("crm")));
    new.trace = TRACE;
}

/// Returns the deliveries, each with the entry before it.
fn delivered(writes: &[Arc<ConversationWrite>]) -> Vec<(&JournalEntry, &NewDelivery)> {
    let pairs = writes.iter().flat_map(|write| write.changes.windows(2));
    let found = pairs.filter_map(|pair| match pair {
        [ConversationChange::Append(entry), ConversationChange::Deliver(delivery)] => {
            Some((entry, &**delivery))
        }
        _ => None,
    });
    let found: Vec<_> = found.collect();
    let deliveries = writes
        .iter()
        .flat_map(|write| &write.changes)
        .filter(|change| matches!(change, ConversationChange::Deliver(_)));
    assert_eq!(found.len(), deliveries.count(), "each right behind its entry");
    found
}

fn kinds<'a>(found: &[(&JournalEntry, &'a NewDelivery)]) -> Vec<(DeliveryKind, &'a str)> {
    found.iter().map(|(_, delivery)| (delivery.kind, &*delivery.target)).collect()
}

const CALLER: &str = "https://caller.example/hook";
const BOT: &str = "https://bot.example/hook";

#[test]
fn end_goes_to_the_callback_or_else_to_the_bots_webhook() {
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
    let found = since(&bench);
    let (first, second) = (found[0].1, found[1].1);
    assert_eq!(first.origin, DeliveryOrigin::Callback { signer: Some("crm".into()) });
    assert_eq!(
        (first.message, first.trace, &first.conversation),
        (Some(message.id), TRACE, &plain().conversation)
    );
    assert_eq!(
        (&second.origin, second.trace),
        (&DeliveryOrigin::Endpoint("main".into()), TraceId::default())
    );
    for ((_, delivery), message) in found.iter().zip(&bench.completed[1..]) {
        assert!(tells(delivery, message), "{} is not {message:?}", delivery.data);
    }
    let data: Value = serde_json::from_str(first.data.get()).unwrap();
    assert_eq!(data["callback"], json!({ "url": CALLER }), "the signer is not delivered");
}

#[test]
fn endpoint_gets_the_kinds_of_its_types_by_its_own_deliveries() {
    let of_types = |name: &str, types: &[DeliveryKind]| BotWebhookConfig {
        name: name.into(),
        types: types.to_vec(),
        ..webhook()
    };
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhooks = vec![
            of_types("ends", &[DeliveryKind::MessageAnswered]),
            of_types("all", &DeliveryKind::DEFAULT),
            of_types("asides", &[DeliveryKind::ReplyUnsolicited]),
            BotWebhookConfig { url: None, ..of_types("signs", &DeliveryKind::DEFAULT) },
        ];
    });
    bench.post();
    bench.give(Input::Connected);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.pass(ms(61_000));
    bench.say("ms-unasked");
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    let found: Vec<_> = changes
        .filter_map(|change| match change {
            ConversationChange::Deliver(new) => Some((new.kind, new.endpoint().unwrap(), new.id)),
            _ => None,
        })
        .collect();
    let kinds: Vec<_> = found.iter().map(|(kind, name, _)| (*kind, *name)).collect();
    assert_eq!(
        kinds,
        [
            (DeliveryKind::MessageAnswered, "ends"),
            (DeliveryKind::MessageAnswered, "all"),
            (DeliveryKind::ReplyUnsolicited, "all"),
            (DeliveryKind::ReplyUnsolicited, "asides"),
        ]
    );
    let ids: std::collections::HashSet<_> = found.iter().map(|(.., id)| id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn turn_without_a_target_delivers_nothing() {
    let mut bench = Bench::connected();
    bench.post();
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.say("ms-late");
    assert_eq!(bench.end().1, "quiet");
    assert!(delivered(&bench.writes).is_empty());
}

#[test]
fn session_end_is_not_delivered() {
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
        (bench.completed.len(), bench.end().1),
        (3, "sessionEnd"),
        "where no session lives it ends at once"
    );
    assert!(since(&bench).is_empty());
}

#[test]
fn late_reply_follows_its_turn_and_unsolicited_goes_to_the_bot() {
    let mut bench = connected();
    let message = bench.post_with(to_caller);
    bench.say("ms-1");
    bench.pass(ms(1000));
    bench.say("ms-late");
    bench.pass(ms(61_000));
    bench.say("ms-unasked");
    let found = since(&bench);
    let words: Vec<_> = found
        .iter()
        .map(|(_, delivery)| (delivery.kind, &*delivery.target, delivery.message, delivery.trace))
        .collect();
    assert_eq!(
        words,
        [
            (DeliveryKind::MessageAnswered, CALLER, Some(message.id), TRACE),
            (DeliveryKind::ReplyLate, CALLER, Some(message.id), TRACE),
            (DeliveryKind::ReplyUnsolicited, BOT, None, TraceId::default()),
        ]
    );
    for (_, delivery) in &found[1..] {
        let data: Value = serde_json::from_str(delivery.data.get()).unwrap();
        let reply = bench.reply(data["messageId"].as_str().unwrap());
        assert_eq!(data, reply_of(&plain().conversation, reply));
    }
}

#[test]
fn new_owner_knows_the_last_turns_number_and_callback() {
    let mut bench = connected();
    let message = bench.post_with(to_caller);
    bench.say("ms-1");
    bench.pass(ms(1000));
    let record = bench.writes.last().unwrap().record.clone();
    let mut next = Bench::opened(
        ConversationSnapshot { record, next_position: 2, ..ConversationSnapshot::default() },
        |bot| {
            bot.welcome = ms(0);
            bot.webhooks = vec![webhook()];
        },
    );
    next.give(Input::Connected);
    next.respond(echo("ms-echo", &message));
    let late = next.reply("ms-echo");
    assert_eq!((late.in_reply_to, late.correlation.as_str(), late.late), (Some(message.id), "exact", true));
    assert_eq!(kinds(&delivered(&next.writes)), [(DeliveryKind::ReplyLate, CALLER)]);
}

#[test]
fn delivery_ids_match_their_journal_entries() {
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhooks = vec![webhook()];
    });
    // A failure before the first write begins the journal.
    bench.post_until(Some(500));
    bench.pass(ms(500));
    assert_eq!(bench.end().1, "platform-unavailable");
    let conversation = plain().conversation;
    let write = bench.writes.last().unwrap();
    let (entry, delivery) = delivered(&bench.writes)[0];
    assert_ne!(write.record.epoch, 0);
    let id = DeliveryId::of(&conversation, write.record.epoch, entry.seq, entry.at);
    assert_eq!(delivery.id, id.at_endpoint("main"));
    assert_eq!((entry.seq, delivery.id.partition()), (1, Partition::of(&conversation)));
    assert_eq!(delivery.created_at, entry.at);
}

#[test]
fn rewritten_delivery_keeps_its_id() {
    let mut bench = connected();
    let before = bench.record();
    let message = bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.pass(ms(1000));
    let id_of = |bench: &Bench| {
        let write = bench.writes.last().unwrap();
        let found = delivered(std::slice::from_ref(write));
        (found[0].0.seq, found[0].1.id, write.record.epoch)
    };
    let first = id_of(&bench);
    bench.give(Input::OutOfStep);
    let open = snapshot(before, [(&message, MessageProgress::default())]);
    bench.give(Input::Lane(Box::new(ConversationSnapshot { head_at: None, ..open })));
    let again = id_of(&bench);
    assert_eq!((bench.rebased, again.0, again.1), (1, first.0, first.1));
    assert!(again.2 > first.2, "although the journal is another one");
}

#[test]
fn message_lost_before_its_end_delivers_only_late_replies() {
    let mut bench = connected();
    bench.post();
    bench.say("ms-1");
    bench.store_hangs = true;
    bench.say("ms-2");
    bench.pass(ms(1000));
    bench.say("ms-late");
    let write = bench.writes.len();
    // The store does not have it yet, and the end waits behind the write in flight.
    bench.give(Input::OutOfStep);
    let open = ConversationSnapshot { record: bench.record(), next_position: 2, ..Default::default() };
    bench.give(Input::Lane(Box::new(open)));
    assert_eq!(bench.forgotten.len(), 1);
    let found: Vec<_> = delivered(&bench.writes[write..]).iter().map(|(_, delivery)| delivery.kind).collect();
    assert_eq!(found, [DeliveryKind::ReplyLate]);
}

#[test]
fn message_with_a_lost_end_is_delivered_as_lost() {
    let (at, mut new) = (Bench::new().now - ms(5000), plain());
    to_caller(&mut new);
    let (first, head) = (accepted(0, at, new), accepted(1, at, plain()));
    let record = ConversationRecord { write: 3, epoch: 9, seq: 4, ..ConversationRecord::default() };
    let bench = Bench::opened(snapshot(record, [&first, &head].map(|message| (message, sent(at)))), |_| ());
    assert_eq!(kinds(&delivered(&bench.writes)), [(DeliveryKind::MessageFailed, CALLER)]);
    let (entry, delivery) = delivered(&bench.writes)[0];
    let EntryBody::Ended { message, .. } = &entry.body else { panic!("an end") };
    assert_eq!((*message, delivery.message), (first.id, Some::<MessageId>(first.id)));
    let data: Value = serde_json::from_str(delivery.data.get()).unwrap();
    assert_eq!(data["error"]["type"], json!(format!("/problems/{}", ProblemKind::MessageLost)));
    assert_eq!(data["status"], json!("failed"));
}

/// A bot with one endpoint for every kind.
fn told_everything(payload: PayloadExtent) -> Bench {
    let mut bench = Bench::with(|bot| {
        bot.welcome = ms(0);
        bot.webhooks =
            vec![BotWebhookConfig { types: DeliveryKind::ALL.to_vec(), payload, ..webhook() }, webhook()];
    });
    bench.post_with(to_caller);
    bench.give(Input::Connected);
    bench.say("ms-first");
    bench.pass(ms(1000));
    assert_eq!(bench.end(), (1, "quiet"));
    bench
}

#[test]
fn events_of_a_conversation_go_to_endpoints_that_name_them() {
    let mut bench = told_everything(PayloadExtent::Full);
    let event = super::support::event;
    let frames = [
        IncomingFrame::SessionStart { session_id: None, event: event() },
        IncomingFrame::AgentStart(event()),
        IncomingFrame::AgentStart(event()),
        IncomingFrame::UserMessage(event()),
        IncomingFrame::AgentEnd(event()),
        IncomingFrame::AgentEnd(event()),
        IncomingFrame::Platform(event()),
        IncomingFrame::SessionEnd(event()),
    ];
    let before = bench.writes.len();
    for frame in frames {
        bench.give(Input::Frame(frame));
    }
    let found = delivered(&bench.writes[before..]);
    let kinds: Vec<_> = found.iter().map(|(_, delivery)| delivery.kind).collect();
    assert_eq!(
        kinds,
        [
            DeliveryKind::SessionStarted,
            DeliveryKind::AgentStarted,
            DeliveryKind::UserMessage,
            DeliveryKind::AgentEnded,
            DeliveryKind::SessionEnded,
        ],
        "a repeated sign of the agent is no event"
    );
    for (entry, delivery) in found {
        let data: Value = serde_json::from_str(delivery.data.get()).unwrap();
        let frame: Value = serde_json::from_str(event().get()).unwrap();
        let conversation = plain().conversation;
        assert_eq!(
            data,
            json!({"bot": conversation.bot(), "user": conversation.user(), "seq": entry.seq, "event": frame})
        );
        assert_eq!((delivery.endpoint(), delivery.message), (Some("main"), None));
    }
}

#[test]
fn gap_is_delivered_with_its_reason() {
    let mut bench = told_everything(PayloadExtent::Full);
    let before = bench.writes.len();
    bench.post();
    bench.lose(1006);
    bench.reconnect();
    bench.history_fails();
    let changes = bench.writes[before..].iter().flat_map(|write| &write.changes);
    let gaps: Vec<_> = changes
        .filter_map(|change| match change {
            ConversationChange::Deliver(new) if new.kind == DeliveryKind::Gap => Some(new),
            _ => None,
        })
        .collect();
    let [gap] = &gaps[..] else { panic!("one endpoint takes gaps: {gaps:?}") };
    let data: Value = serde_json::from_str(gap.data.get()).unwrap();
    assert_eq!(data["reason"], "historyUnreadable", "{data}");
}

#[test]
fn thin_delivery_has_ids_and_links_only() {
    let mut bench = told_everything(PayloadExtent::Thin);
    let message = bench.post();
    bench.say("ms-1");
    bench.pass(ms(1000));
    let changes = bench.writes.iter().flat_map(|write| &write.changes);
    let of_end: Vec<_> = changes
        .filter_map(|change| match change {
            ConversationChange::Deliver(new) => Some(&**new),
            _ => None,
        })
        .filter(|new| {
            let is_end = matches!(new.kind, DeliveryKind::MessageAnswered | DeliveryKind::MessageFailed);
            is_end && new.message == Some(message.id)
        })
        .collect();
    let [thin, full] = &of_end[..] else { panic!("two endpoints: {of_end:?}") };
    let data: Value = serde_json::from_str(thin.data.get()).unwrap();
    let (user, bot) = (plain().conversation.user().to_string(), plain().conversation.bot().to_string());
    let cursor = data["links"]["event"].as_str().unwrap().split_once("&after=").unwrap().1;
    let cursor: Cursor = cursor.parse().unwrap();
    let seq = data["seq"].as_u64().unwrap();
    assert_eq!((cursor.seq, cursor.epoch), (seq - 1, bench.record().epoch));
    assert_eq!(
        data,
        json!({
            "bot": bot, "user": user, "seq": seq, "messageId": message.id,
            "links": {
                "conversation": format!("/conversations/{user}?bot={bot}"),
                "event": format!("/conversations/{user}/events?bot={bot}&after={cursor}"),
                "message": format!("/conversations/{user}/messages/{}?bot={bot}", message.id),
            },
        })
    );
    assert!(tells(full, bench.completed.last().unwrap()), "the other endpoint gets all");
}
