//! Every value survives encoding and decoding, and unreadable data is reported.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::domain::fixtures;
use crate::domain::{
    Attachment, Callback, ConversationRecord, Correlation, Delivery, DeliveryAttempt, DeliveryId,
    DeliveryKind, DeliveryOrigin, DeliveryState, EndedBy, EntryBody, Fingerprint, FirstGap, GapReason,
    JournalEntry, JsonObject, LastTurn, LateReplies, MediaKind, Message, MessageContent, MessageEvent,
    NewDelivery, NewMessage, Problem, ProblemKind, QuietSource, QuietWait, Reply, ReplyChoice, ReplyMedia,
    ResendPolicy, SessionRequest, TraceId, TurnOutcome, TurnRules, UserDetails, UserId, UserProfile,
};
use crate::store::redis::netstring;

/// Generates any text: controls, quotes, characters beyond the first plane.
fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), length).prop_map(|chars| chars.into_iter().collect())
}

fn boxed() -> impl Strategy<Value = Option<Box<str>>> {
    prop::option::of(text(0..20).prop_map(Into::into))
}

/// Generates objects as platforms and callers write them, with spaces, escapes and numbers that no float holds.
fn raw() -> impl Strategy<Value = Box<RawValue>> {
    let odd = prop::sample::select(vec![
        r#"{ "a" : [1 ,2e5 ,  0.10],"b":{}}"#,
        r#"{"n":123456789012345678901234567890.00}"#,
        r#"{"lone":"\ud800","slash":"\/","e":"\u00e9"}"#,
        "{\n\t\"lines\" : null }",
        "{}",
    ]);
    prop_oneof![
        odd.prop_map(str::to_owned),
        (text(0..10), text(0..200)).prop_map(|(key, value)| serde_json::json!({ key: value }).to_string()),
    ]
    .prop_map(|json| RawValue::from_string(json).unwrap())
}

fn object() -> impl Strategy<Value = Option<JsonObject>> {
    prop::option::of(raw().prop_map(|raw| JsonObject::new(raw).unwrap()))
}

fn ids() -> impl Strategy<Value = MessageId> {
    (0..1_u64 << 48, any::<u128>()).prop_map(|(at, bits)| MessageId::new(Timestamp::from_millis(at), bits))
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn alice() -> ConversationId {
    fixtures::conversation("support", "alice")
}

fn content() -> impl Strategy<Value = MessageContent> {
    let member = (text(0..9).prop_map(Into::into), raw());
    let members = prop::collection::vec(member, 0..3).prop_map(|members| members.into_iter().collect());
    let file = (text(0..20), boxed(), boxed(), members).prop_map(
        |(file_id, file_name, file_type, other_members)| Attachment {
            file_id: file_id.into(),
            file_name,
            file_type,
            other_members,
        },
    );
    (text(0..200), boxed(), prop::collection::vec(file, 0..3), object(), object(), object()).prop_map(
        |(text, display_text, attachments, custom_data, meta_tags, meta)| {
            // Only beside files a text may be empty.
            let text = if attachments.is_empty() { format!("{text}.") } else { text };
            let mut content = MessageContent::with_attachments(text, attachments).unwrap();
            content.display_text = display_text;
            (content.custom_data, content.meta_tags, content.meta) = (custom_data, meta_tags, meta);
            content
        },
    )
}

/// Returns the content of an event, which has no text.
fn bare(content: MessageContent) -> MessageContent {
    let mut bare = MessageContent::without_text();
    (bare.custom_data, bare.meta_tags) = (content.custom_data, content.meta_tags);
    bare
}

fn name() -> impl Strategy<Value = Option<Box<str>>> {
    prop::option::of("[^\\p{Cc}]{1,20}".prop_map(Into::into))
}

fn new_messages() -> impl Strategy<Value = NewMessage> {
    use SessionRequest::{Continue, New, NewKeepAgent};
    let rules = (
        prop::option::of(1..=50_u64),
        prop::option::of(50..=60_000_u64),
        prop::option::of(500..=600_000_u64),
    );
    let session = prop::sample::select(vec![Continue, New, NewKeepAgent]);
    let resend = prop::sample::select(vec![ResendPolicy::Never, ResendPolicy::Auto]);
    let callback = boxed().prop_map(|url| url.map(|url| Callback { url, signer: None }));
    let event = prop::option::of(Just(MessageEvent::Connect));
    let details = (name(), name(), prop::option::of("[a-z0-9]{1,20}")).prop_map(|(first, last, merge)| {
        let profile = UserProfile { first_name: first, last_name: last };
        let merge_with = merge.map(|user| UserId::new(&user).unwrap());
        UserDetails { profile, merge_with }
    });
    let session = (session, event, details);
    (content(), session, rules, resend, callback, any::<u128>(), boxed()).prop_map(
        |(content, session, (replies, quiet, deadline), resend, callback, trace, caller)| NewMessage {
            conversation: alice(),
            content: if session.1.is_some() { bare(content) } else { content },
            event: session.1,
            user_details: Some(Box::new(session.2)).filter(|details| !details.is_empty()),
            session: session.0,
            rules: TurnRules::new(replies, quiet, deadline).unwrap(),
            resend,
            callback,
            trace: TraceId(trace),
            caller: caller.map(Into::into),
        },
    )
}

fn choices() -> impl Strategy<Value = Box<[ReplyChoice]>> {
    let choice = (text(0..20), text(0..20))
        .prop_map(|(title, payload)| ReplyChoice { title: title.into(), payload: payload.into() });
    prop::collection::vec(choice, 0..3).prop_map(Into::into)
}

fn media() -> impl Strategy<Value = Box<[ReplyMedia]>> {
    let media = (prop::sample::select(MediaKind::ALL.to_vec()), boxed(), boxed())
        .prop_map(|(kind, url, title)| ReplyMedia { kind, url, title });
    prop::collection::vec(media, 0..3).prop_map(Into::into)
}

fn replies() -> impl Strategy<Value = Reply> {
    use Correlation::{Exact, History, Unsolicited, Window};
    let correlation = prop::sample::select(vec![Exact, Window, History, Unsolicited]);
    (
        (any::<u64>(), boxed(), prop::option::of(ids()), correlation),
        (any::<bool>(), text(0..200), any::<[bool; 2]>(), prop::option::of(times()), raw()),
        (choices(), media()),
    )
        .prop_map(
            |(
                (seq, message_id, in_reply_to, correlation),
                (late, text, [agent, partial], created_on, event),
                (choices, media),
            )| Reply {
                seq,
                message_id,
                in_reply_to,
                correlation,
                late,
                text: text.into(),
                choices,
                media,
                partial,
                agent,
                created_on,
                event,
            },
        )
}

fn outcomes() -> impl Strategy<Value = TurnOutcome> {
    let problem = (prop::sample::select(ProblemKind::ALL), text(0..100), prop::option::of(any::<u64>()))
        .prop_map(|(kind, detail, wait)| {
            let mut problem = Problem::new(kind, detail);
            problem.retry_after = wait.map(Duration::from_millis);
            problem
        });
    let quiet = (any::<u64>(), prop::sample::select(QuietSource::ALL.to_vec())).prop_map(|(ms, by)| {
        let wait = QuietWait { wait: Duration::from_millis(ms), by };
        TurnOutcome::Answered(EndedBy::Quiet(Some(wait)))
    });
    prop_oneof![
        prop::sample::select(EndedBy::ALL.to_vec()).prop_map(TurnOutcome::Answered),
        quiet,
        problem.prop_map(TurnOutcome::Failed),
    ]
}

fn entries() -> impl Strategy<Value = JournalEntry> {
    let body = prop_oneof![
        replies().prop_map(|reply| EntryBody::Reply(Arc::new(reply))),
        (ids(), outcomes()).prop_map(|(message, outcome)| EntryBody::Ended { message, outcome }),
        (ids(), outcomes()).prop_map(|(message, outcome)| EntryBody::Closed { message, outcome }),
        raw().prop_map(EntryBody::UserMessage),
        raw().prop_map(EntryBody::Platform),
        prop::sample::select(GapReason::ALL.to_vec()).prop_map(EntryBody::Gap),
    ];
    (any::<u64>(), times(), body).prop_map(|(seq, at, mut body)| {
        if let EntryBody::Reply(reply) = &mut body {
            Arc::make_mut(reply).seq = seq;
        }
        JournalEntry { seq, at, body }
    })
}

fn records() -> impl Strategy<Value = ConversationRecord> {
    let callback = (".{1,20}", prop::option::of(".{1,8}"))
        .prop_map(|(url, signer)| Callback { url: url.into(), signer: signer.map(Into::into) });
    let first_gap = (times(), any::<Option<u64>>()).prop_map(|(since, own)| FirstGap { since, own });
    let last_turn = (
        ids(),
        times(),
        any::<(Option<u64>, u32, u64)>(),
        prop::option::of(callback),
        prop::option::of(any::<u128>()),
    )
        .prop_map(|(message, ended_at, (client_message_id, count, bytes), callback, trace)| LastTurn {
            message,
            ended_at,
            client_message_id,
            callback,
            trace: TraceId(trace.unwrap_or_default()),
            late: LateReplies { count, bytes },
        });
    (
        (any::<(u64, u64, u64)>(), prop::option::of(times()), prop::option::of((ids(), ids())), boxed()),
        (prop::collection::vec(any::<u64>(), 0..20), boxed(), prop::option::of(last_turn), any::<bool>()),
        (
            prop::option::of(first_gap),
            prop::option::of(times()),
            prop::option::of(times()),
            prop::collection::vec(times(), 0..60),
        ),
    )
        .prop_map(
            |(
                ((epoch, seq, write), connected_at, messages, last_platform_message),
                (recent, session_id, last_turn, agent),
                (first_gap, said_at, blocked_until, sends),
            )| ConversationRecord {
                epoch,
                seq,
                write,
                connected_at,
                session_done: messages.map(|(done, _)| done),
                context: messages.map(|(_, context)| context),
                last_platform_message,
                first_gap,
                said_at,
                recent: recent.into_iter().map(Fingerprint::from_bits).collect(),
                session_id,
                last_turn,
                agent,
                blocked_until,
                sends: sends.into_iter().collect(),
            },
        )
}

fn deliveries() -> impl Strategy<Value = NewDelivery> {
    let kind = prop::sample::select(DeliveryKind::ALL.to_vec());
    let origin = prop_oneof![
        text(1..20).prop_map(|name| DeliveryOrigin::Endpoint(name.into())),
        boxed().prop_map(|signer| DeliveryOrigin::Callback { signer })
    ];
    ((any::<u64>(), times(), kind, prop::option::of(ids())), (text(1..50), origin, any::<u128>(), raw()))
        .prop_map(|((seq, created_at, kind, message), (target, origin, trace, data))| NewDelivery {
            id: DeliveryId::of(&alice(), 7, seq, Timestamp::from_millis(seq % 1000)),
            kind,
            conversation: alice(),
            message,
            target: target.into(),
            origin,
            trace: TraceId(trace),
            created_at,
            data,
        })
}

fn attempts() -> impl Strategy<Value = DeliveryAttempt> {
    (times(), any::<Option<u16>>(), boxed(), any::<u64>(), boxed()).prop_map(
        |(at, status, error, millis, response)| DeliveryAttempt {
            at,
            status,
            error,
            duration: Duration::from_millis(millis),
            response,
        },
    )
}

/// Returns the fields that the write script stores, and those of these attempts.
fn hash(new: &NewDelivery, attempts: &[(u64, DeliveryAttempt)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let mut fields = vec![
        pair("c", new.conversation.to_string().as_bytes()),
        pair("t", new.target.as_bytes()),
        pair("n", &new_delivery(new).unwrap()),
        pair("b", new.data.get().as_bytes()),
        pair("s", b"pending 0 1 2 3 "),
        pair("of a later version", b"\0"),
    ];
    for (number, of) in attempts {
        fields.push(pair(&format!("a{number}"), &attempt(of).unwrap()));
    }
    fields
}

/// Encodes an accepted message as the accept script stores it.
fn stored(stamp: AcceptStamp, new: &NewMessage) -> Vec<u8> {
    let AcceptStamp { position, client_message_id, accepted_at } = stamp;
    let mut stored = format!("{position} {client_message_id} {} ", accepted_at.as_millis()).into_bytes();
    stored.extend(new_message(new).unwrap());
    stored
}

/// `Debug` of these types shows all their content.
fn told(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

proptest! {
    #[test]
    fn accepted_message_after_encoding_is_equal(
        new in new_messages(), id in ids(), position: u64, client_message_id: u64, at in times(),
    ) {
        let stamp = AcceptStamp { position, client_message_id, accepted_at: at };
        let read = accepted(alice(), id, &stored(stamp, &new)).unwrap();
        prop_assert_eq!(told(read), told(stamp.on(id, new)));
    }

    #[test]
    fn entry_after_encoding_is_equal(entry in entries()) {
        let encoded = encode_entry(&entry).unwrap();
        let read = read_entry(encoded.bytes()).unwrap();
        prop_assert_eq!(told(&read), told(&entry));
        let weight = encoded.text().split(|&byte| byte == b' ').nth(1).unwrap();
        prop_assert_eq!(number(weight).unwrap(), entry.weight() as u64, "the script counts with it");
    }

    #[test]
    fn record_after_encoding_is_equal(first in records()) {
        prop_assert_eq!(read_record(&record(&first).unwrap()).unwrap(), first);
    }

    #[test]
    fn delivery_after_encoding_is_equal(
        new in deliveries(), tried in prop::collection::vec(attempts(), 0..15), reason in boxed(),
        due in prop::option::of(times()), first in 1..100_u64,
    ) {
        let numbered: Vec<_> = (first..).zip(tried.clone()).collect();
        let mut fields = hash(&new, &numbered);
        fields.extend(reason.as_ref().map(|reason| (b"r".to_vec(), reason.as_bytes().to_vec())));
        // The fields of a hash have no order.
        fields.sort();
        let read = delivery(new.id, due, fields.into_iter().map(Ok)).unwrap();
        let state = DeliveryState::Pending;
        let stands = Delivery { new, state, next_attempt_at: due, reason, attempts: tried };
        prop_assert_eq!(told(read), told(stands));
    }

    #[test]
    fn damaged_delivery_never_panics(
        new in deliveries(), tried in attempts(), field in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(), byte: u8,
    ) {
        let fields = hash(&new, &[(1, tried)]);
        let field = field.index(fields.len());
        let at = cut.index(fields[field].1.len());
        let (mut short, mut changed, mut gone) = (fields.clone(), fields.clone(), fields);
        short[field].1.truncate(at);
        changed[field].1[at] = byte;
        gone.remove(field);
        let lacks = |of: usize| of < 5;
        for fields in [short, changed] {
            delivery(new.id, None, fields.into_iter().map(Ok)).ok();
        }
        prop_assert_eq!(delivery(new.id, None, gone.into_iter().map(Ok)).is_err(), lacks(field));
    }

    #[test]
    fn damaged_data_never_panics(
        new in new_messages(), entry in entries(), first in records(),
        cut in any::<prop::sample::Index>(), byte: u8,
    ) {
        let stamp = AcceptStamp { position: 0, client_message_id: 1, accepted_at: Timestamp::default() };
        let encoded = encode_entry(&entry).unwrap();
        for bytes in [stored(stamp, &new), encoded.bytes().to_vec(), record(&first).unwrap()] {
            let at = cut.index(bytes.len());
            let mut changed = bytes.clone();
            changed[at] = byte;
            for bytes in [&bytes[..at], &changed] {
                accepted(alice(), id(ID).unwrap(), bytes).ok();
                read_entry(bytes).ok();
                read_record(bytes).ok();
            }
        }
    }
}

const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// Returns the value of a message with these parts.
fn value(parts: &[&str]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    netstring::sequence(&parts)
}

fn decoded(parts: &[&[u8]]) -> Result<Option<Message>, CorruptData> {
    message(&alice(), id(ID).unwrap(), parts.iter().copied().map(Ok))
}

const ACCEPTED: &str = r#"3 20 10 {"t":"hello"}"#;

#[test]
fn ended_message_has_moved_late_and_journal_replies() {
    let turn = format!(r#"4,,6 9+12 8 160 {{"m":"{ID}","a":"quiet"}}"#);
    let moved = r#"9 6 160 {"c":"exact","t":"a","e":{}}"#;
    let value = value(&["support/alice", ACCEPTED, &turn, "15", moved]);
    let (first, late) =
        (br#"7 160 {"c":"window","t":"b","e":{}}"#, br#"9 160 {"c":"window","t":"c","e":{}}"#);
    let message = decoded(&[&value, b"", b"15", late, b"12", first]).unwrap().unwrap();
    let at = |millis| Some(Timestamp::from_millis(millis));
    let (accepted, progress) = (message.accepted, message.progress);
    assert_eq!(
        (accepted.position, accepted.client_message_id, accepted.new.content.text()),
        (3, 20, "hello")
    );
    assert_eq!((progress.sent_at, progress.acked_at, progress.first_reply_at), (at(4), None, at(6)));
    assert_eq!(
        (progress.ended_at, progress.outcome),
        (at(8), Some(TurnOutcome::Answered(EndedBy::Quiet(None))))
    );
    let replies: Vec<_> = progress.replies.iter().map(|reply| (reply.seq, &*reply.text)).collect();
    assert_eq!(replies, [(9, "a"), (12, "b"), (15, "c")], "in the order of the journal");
}

#[test]
fn open_message_has_the_signs_beside_it() {
    let value = value(&["support/alice", ACCEPTED, ""]);
    let progress = decoded(&[&value, b"4,5,"]).unwrap().unwrap().progress;
    let at = |millis| Some(Timestamp::from_millis(millis));
    assert_eq!((progress.sent_at, progress.acked_at, progress.first_reply_at), (at(4), at(5), None));
    assert!(!progress.has_ended());
    // A store that evicts may have lost the lane.
    assert!(decoded(&[&value, b""]).unwrap().unwrap().progress.sent_at.is_none());
    assert!(decoded(&[]).unwrap().is_none());
}

#[test]
fn incomplete_message_is_corrupt() {
    let whole = value(&["support/alice", ACCEPTED, ""]);
    for length in 0..whole.len() {
        assert!(decoded(&[&whole[..length], b""]).is_err(), "{length} bytes");
    }
    assert!(decoded(&[&whole]).is_err());
    assert!(decoded(&[&whole, b"", b"15"]).is_err());
    for turn in ["4,,6", "4,,6 9", "4,,6 9 x", "4 9 8 160 {}"] {
        assert!(decoded(&[&value(&["support/alice", ACCEPTED, turn]), b""]).is_err(), "{turn}");
    }
}

#[test]
fn fields_of_later_versions_are_ignored() {
    let later = r#"1 2 3 {"t":"hello","zz":{"new":[1,2]},"f":[{"i":"x","zz":1}]}"#;
    assert_eq!(accepted(alice(), id(ID).unwrap(), later.as_bytes()).unwrap().new.content.text(), "hello");
    assert!(read_record(br#"{"s":3,"zz":null}"#).is_ok_and(|record| record.seq == 3));
    assert!(read_entry(br#"9 r 1 2 {"c":"exact","t":"","e":1,"zz":[]}"#).is_ok());
    let end = format!(r#"9 e 1 2 {{"m":"{ID}","a":"quiet","q":140,"b":"guessed","zz":0}}"#);
    let EntryBody::Ended { outcome, .. } = read_entry(end.as_bytes()).unwrap().body else { panic!("{end}") };
    assert_eq!(
        outcome,
        TurnOutcome::Answered(EndedBy::Quiet(None)),
        "a source that this version does not know"
    );
}

#[test]
fn record_of_an_earlier_version_has_no_echo() {
    let earlier = format!(r#"{{"w":3,"t":["{ID}",1763845000123]}}"#);
    let read = read_record(earlier.as_bytes()).unwrap();
    let last = LastTurn {
        message: id(ID).unwrap(),
        ended_at: Timestamp::from_millis(1_763_845_000_123),
        client_message_id: None,
        callback: None,
        trace: TraceId::default(),
        late: LateReplies::default(),
    };
    assert_eq!(
        read,
        ConversationRecord { write: 3, last_turn: Some(last.clone()), ..ConversationRecord::default() }
    );
    assert_eq!(record(&read).unwrap(), earlier.as_bytes());
    let last = LastTurn { client_message_id: Some(1_763_845_000_000), ..last };
    let later = format!(r#"{{"t":["{ID}",1763845000123],"x":123}}"#);
    let stored =
        record(&ConversationRecord { last_turn: Some(last), ..ConversationRecord::default() }).unwrap();
    assert_eq!(stored, later.as_bytes(), "which takes no more than it must");
}

#[test]
fn usual_values_take_no_room() {
    let new = fixtures::new_message(alice(), "hello");
    assert_eq!(new_message(&new).unwrap(), br#"{"t":"hello"}"#);
    assert_eq!(record(&ConversationRecord::default()).unwrap(), b"{}");
    let at = Timestamp::from_millis(2);
    let told = new_delivery(&NewDelivery {
        kind: DeliveryKind::MessageAnswered,
        ..fixtures::new_delivery(&alice(), 1, at, "https://legacy.example")
    });
    assert_eq!(told.unwrap(), br#"{"k":"message.answered","ep":"main","a":2}"#);
}

#[test]
fn conversation_name_is_split_at_the_first_slash() {
    let odd = conversation("support/a/b: {c}").unwrap();
    assert_eq!((odd.bot().as_str(), odd.user().as_str()), ("support", "a/b: {c}"));
    assert_eq!(conversation(&odd.to_string()), Ok(odd));
    for bad in ["support", "support/", "/alice", "sup port/alice", "support/\n"] {
        assert!(conversation(bad).is_err(), "{bad:?}");
    }
}
