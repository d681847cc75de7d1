//! A stream against a journal that is written, trimmed and lost meanwhile. The client is cut off at any point and
//! resumes with its last id.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::domain::fixtures::{self, accepted_message, new_message, raw_json};
use crate::domain::{
    AcceptedMessage, EndedBy, EntryBody, JournalEntry, Message, MessageId, NewMessage, ReplyChunk,
    SessionRequest, Timestamp, TurnOutcome,
};

fn conversation() -> ConversationId {
    fixtures::conversation("b", "u")
}

/// A journal by the store's contract.
#[derive(Debug, Default)]
struct Journal {
    epoch: u64,
    last: u64,
    kept: VecDeque<EntryWithMessage>,
    /// Number of entries that ever existed. Each entry has a unique number.
    written: u64,
    /// Entries that are invisible or were lost.
    hidden: BTreeSet<u64>,
}

impl Journal {
    fn append(&mut self, is_close: bool) {
        self.epoch = self.epoch.max(1);
        self.last += 1;
        self.written += 1;
        // An entry's time is its number, which identifies it.
        let at = Timestamp::from_millis(self.written);
        let number = raw_json(&self.written.to_string());
        let (body, message) = if is_close {
            self.hidden.insert(self.written);
            let outcome = TurnOutcome::Answered(EndedBy::SessionEnd);
            let id = MessageId::new(at, self.written.into());
            (EntryBody::Closed { message: id, outcome: outcome.clone() }, Some(closing(id, outcome)))
        } else {
            (EntryBody::UserMessage(number), None)
        };
        self.kept.push_back(EntryWithMessage { entry: JournalEntry { seq: self.last, at, body }, message });
    }

    /// Returns the cursor behind the newest entry.
    fn end(&self) -> Cursor {
        let newest = self.kept.back().filter(|item| item.entry.seq == self.last);
        Cursor { epoch: self.epoch, seq: self.last, at: newest.map(|item| item.entry.at) }
    }

    fn page(&self, after: ReadStart, limit: usize) -> JournalPage {
        let end = self.end();
        let asked = match after {
            ReadStart::Oldest => Cursor::default(),
            ReadStart::Cursor(cursor) => cursor,
            ReadStart::Latest => end,
        };
        let known = asked.epoch == self.epoch && asked.seq <= self.last;
        let from = if known || asked == Cursor::default() { asked.seq } else { 0 };
        let mut rest = self.kept.iter().filter(|item| item.entry.seq > from).cloned();
        let entries: Vec<_> = rest.by_ref().take(limit).collect();
        let first = entries.first().map_or(self.last + 1, |item| item.entry.seq);
        let lost = !known && asked != Cursor::default();
        let gap = after != ReadStart::Oldest && (lost || first > from + 1);
        let seq =
            entries.last().map_or(if lost { self.last } else { from.max(first - 1) }, |item| item.entry.seq);
        let at = entries.last().map_or(asked.at.filter(|_| seq == asked.seq), |item| Some(item.entry.at));
        JournalPage { next: Cursor { epoch: self.epoch, seq, at }, more: rest.next().is_some(), gap, entries }
    }
}

fn closing(id: MessageId, outcome: TurnOutcome) -> Message {
    let new = NewMessage { session: SessionRequest::Close, ..new_message(conversation(), "close") };
    fixtures::message(AcceptedMessage { id, ..accepted_message(new) }, Some(outcome))
}

/// A client that acts on whole blocks and keeps the last id, as browsers do.
#[derive(Debug, Default)]
struct Client {
    inbox: String,
    last_id: Option<Cursor>,
    /// Numbers of entries; `None` for a gap.
    received: Vec<Option<u64>>,
    chunks: usize,
}

impl Client {
    fn receive(&mut self, bytes: &[u8]) {
        self.inbox.push_str(std::str::from_utf8(bytes).unwrap());
        while let Some((block, rest)) =
            self.inbox.split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned()))
        {
            self.inbox = rest;
            let mut kind = "";
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => self.last_id = Some(id.parse().unwrap()),
                    Some(("event", word)) => kind = word,
                    Some(("data", data)) => {
                        let event: serde_json::Value = serde_json::from_str(data).unwrap();
                        assert_eq!(event["type"], kind);
                        match kind {
                            "userMessage" => self.received.push(event["data"].as_u64()),
                            "gap" => self.received.push(None),
                            "chunk" => self.chunks += 1,
                            other => panic!("{other}"),
                        }
                    }
                    Some(("retry", _)) => {}
                    _ => assert_eq!(line, ":", "{block}"),
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Append {
        is_close: bool,
    },
    /// The oldest entries expire.
    Trim(usize),
    /// The store loses its newest entries and continues under another epoch.
    Lose(usize),
    /// The stream runs up to this many steps.
    Run(usize),
    /// The connection breaks after this many bytes of the next write.
    Cut(usize),
    Look,
    Chunk,
    KeepAlive,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => prop::bool::weighted(0.2).prop_map(|is_close| Act::Append { is_close }),
        1 => (1..5_usize).prop_map(Act::Trim),
        1 => (0..3_usize).prop_map(Act::Lose),
        6 => (1..8_usize).prop_map(Act::Run),
        2 => (0..200_usize).prop_map(Act::Cut),
        3 => Just(Act::Look),
        1 => Just(Act::Chunk),
        1 => Just(Act::KeepAlive),
    ]
}

struct World {
    journal: Journal,
    client: Client,
    start: ReadStart,
    feed: StreamFeed,
    filter: EventFilter,
    limit: usize,
}

impl World {
    fn new(start: ReadStart, limit: usize, before: usize) -> Self {
        Self::filtered(EventFilter::default(), start, limit, before)
    }

    fn filtered(filter: EventFilter, start: ReadStart, limit: usize, before: usize) -> Self {
        let mut journal = Journal::default();
        (0..before).for_each(|_| journal.append(false));
        let feed = StreamFeed::new(conversation(), filter, journal.page(start, limit), 1000);
        Self { journal, client: Client::default(), start, feed, filter, limit }
    }

    /// Runs one step. Bytes up to `length` reach the client. Returns false if the stream waits.
    fn step(&mut self, length: usize) -> bool {
        match self.feed.step() {
            FeedStep::Write(bytes, _) => self.client.receive(&bytes[..length.min(bytes.len())]),
            FeedStep::Read(after) => self.feed.page_read(self.journal.page(after, self.limit)),
            FeedStep::Wait | FeedStep::End => return false,
        }
        true
    }

    fn reconnect(&mut self) {
        self.client.inbox.clear();
        let after = self.client.last_id.map_or(self.start, ReadStart::Cursor);
        self.feed = StreamFeed::new(conversation(), self.filter, self.journal.page(after, self.limit), 1000);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Append { is_close } => self.journal.append(*is_close),
            Act::Trim(count) => {
                let count = (*count).min(self.journal.kept.len().saturating_sub(1));
                self.journal.kept.drain(..count);
            }
            Act::Lose(count) => {
                let kept = self.journal.kept.len() - (*count).min(self.journal.kept.len());
                for lost in self.journal.kept.split_off(kept) {
                    self.journal.last -= 1;
                    self.journal.hidden.insert(lost.entry.at.as_millis());
                }
                self.journal.epoch += 1;
            }
            Act::Run(steps) => {
                let _ = (0..*steps).all(|_| self.step(usize::MAX));
            }
            Act::Cut(length) => {
                self.step(*length);
                self.reconnect();
            }
            // Signals reach only a stream that waits.
            Act::Look | Act::Chunk | Act::KeepAlive if self.feed.step_is_wait() => match act {
                Act::Look => self.feed.signal_received(Some(LiveSignal::Look)),
                Act::Chunk => {
                    let chunk = ReplyChunk { message_id: None, index: 0, text: "x".into(), last: false };
                    self.feed.signal_received(Some(LiveSignal::Chunk(Arc::new(chunk))));
                }
                _ => self.feed.keep_alive(),
            },
            Act::Look | Act::Chunk | Act::KeepAlive => {}
        }
    }

    /// Lets the stream write all entries and end.
    fn end(&mut self) {
        while self.step(usize::MAX) {}
        self.feed.signal_received(None);
        while self.step(usize::MAX) {}
        assert_eq!(self.feed.step(), FeedStep::End);
    }
}

impl StreamFeed {
    fn step_is_wait(&self) -> bool {
        self.pending.is_none()
            && !self.gap
            && self.entries.len() == 0
            && self.last_id == Some(self.next)
            && !self.behind
            && !self.ended
    }
}

proptest! {
    #[test]
    fn entries_arrive_once_in_order_over_any_cuts(
        acts in prop::collection::vec(act().prop_filter("loses nothing", |act| {
            !matches!(act, Act::Trim(_) | Act::Lose(_))
        }), 0..60),
        limit in 1..5_usize,
        before in 0..6_usize,
        latest: bool,
    ) {
        let start = if latest { ReadStart::Latest } else { ReadStart::Oldest };
        let mut world = World::new(start, limit, before);
        // A client that starts at the end needs an id to know that place.
        while world.step(usize::MAX) {}
        for act in &acts {
            world.act(act);
        }
        world.end();
        let first = if latest { before as u64 + 1 } else { 1 };
        let hidden = &world.journal.hidden;
        let expected: Vec<_> =
            (first..=world.journal.written).filter(|number| !hidden.contains(number)).map(Some).collect();
        prop_assert_eq!(&world.client.received, &expected);
        // The last id is the end, whether its entry is visible or not.
        let end = world.journal.end();
        prop_assert_eq!(world.client.last_id, Some(end));
    }

    #[test]
    fn missing_entries_are_reported_as_gap(
        acts in prop::collection::vec(act(), 0..60),
        limit in 1..5_usize,
        before in 0..6_usize,
    ) {
        let mut world = World::new(ReadStart::Oldest, limit, before);
        while world.step(usize::MAX) {}
        for act in &acts {
            world.act(act);
        }
        world.end();
        let mut next = Some(1);
        for number in &world.client.received {
            if let (Some(next), Some(number)) = (next, number) {
                // Invisible entries may lie between two visible ones.
                let between = next..*number;
                prop_assert!(next <= *number, "{:?}", &world.client.received);
                prop_assert!(between.clone().all(|n| world.journal.hidden.contains(&n)), "{:?} lost", between);
            }
            next = number.map(|number| number + 1);
        }
        if let Some(next) = next {
            let mut rest = next..=world.journal.written;
            prop_assert!(rest.all(|n| world.journal.hidden.contains(&n)), "the end is missing");
        }
    }
}

#[test]
fn cursor_passes_what_the_filter_leaves_out() {
    // Every visible entry of this journal is a message of the user.
    let replies = EventFilter::parse("reply,chunk").unwrap();
    let mut world = World::filtered(replies, ReadStart::Oldest, 2, 5);
    while world.step(usize::MAX) {}
    assert_eq!((&*world.client.received, world.client.last_id), (&[][..], Some(world.journal.end())));
    world.journal.kept.drain(..5);
    world.journal.last += 2;
    world.journal.append(false);
    world.feed.signal_received(Some(LiveSignal::Look));
    while world.step(usize::MAX) {}
    assert_eq!(world.client.received, [], "the gap is left out too");
    assert_eq!(world.client.last_id, Some(world.journal.end()));
    let messages = EventFilter::parse("userMessage").unwrap();
    let mut world = World::filtered(messages, ReadStart::Oldest, 2, 3);
    while world.step(usize::MAX) {}
    assert_eq!(world.client.received, [Some(1), Some(2), Some(3)]);
}

#[test]
fn typing_is_for_readers_that_name_its_type() {
    let frame: Arc<RawValue> = Arc::from(raw_json(r#"{"type":"events"}"#));
    for (types, expected) in [(None, false), (Some("reply"), false), (Some("reply,platform"), true)] {
        let filter = types.map(|types| EventFilter::parse(types).unwrap()).unwrap_or_default();
        let mut world = World::filtered(filter, ReadStart::Oldest, 2, 0);
        while world.step(usize::MAX) {}
        world.feed.signal_received(Some(LiveSignal::Platform(Arc::clone(&frame))));
        let told = match world.feed.step() {
            FeedStep::Write(bytes, Some(EventKind::Platform)) => {
                bytes
                    == "event: platform\ndata: {\"type\":\"platform\",\"data\":{\"event\":{\"type\":\"events\"}}}\n\n"
            }
            step => step != FeedStep::Wait,
        };
        assert_eq!(told, expected, "{types:?}");
    }
}

#[test]
fn gap_is_sent_once_over_reconnects() {
    let mut world = World::new(ReadStart::Oldest, 2, 5);
    world.step(usize::MAX);
    world.step(usize::MAX);
    assert_eq!(world.client.received, [Some(1)]);
    world.journal.kept.drain(..3);
    world.reconnect();
    world.step(usize::MAX);
    world.step(usize::MAX);
    assert_eq!(world.client.received, [Some(1), None]);
    world.reconnect();
    world.end();
    assert_eq!(world.client.received, [Some(1), None, Some(4), Some(5)]);
}

#[test]
fn stream_begins_with_retry_and_cursor() {
    let mut world = World::new(ReadStart::Latest, 2, 3);
    let FeedStep::Write(bytes, None) = world.feed.step() else { panic!("nothing to write") };
    assert_eq!(bytes, "retry: 1000\n\n");
    let FeedStep::Write(bytes, None) = world.feed.step() else { panic!("nothing to write") };
    assert_eq!(bytes, format!("id: {}\n\n", world.journal.end()));
    assert_eq!(world.feed.step(), FeedStep::Wait);
    world.feed.keep_alive();
    assert_eq!(world.feed.step(), FeedStep::Write(":\n\n".into(), None));
    assert_eq!(world.feed.step(), FeedStep::Wait);
}
