//! The conversation's machine: what may be sent, what a reply belongs to, when a turn ends, what a broken link
//! means.
//!
//! It is a value: [`Machine::step`] takes the time and one [`Input`] and says what is to be done. It waits for
//! nothing and reads no clock, so thousands of interleavings can be tried in a second. Time is the store's.
//!
//! Promises (kept by property tests):
//! * every message of the lane ends exactly once, and is told only after the store confirmed the end; where the
//!   store lost it, that is said instead;
//! * nothing is sent unless `sent` is stored, the link is ready and the lease sure; one turn is in flight at a
//!   time;
//! * a turn that is proved received is never sent again;
//! * while anything is to be done, [`Machine::wake_at`] names a time or an answer is awaited.
//!
//! The parts: [`lane`] (heads begin and turns end), [`socket`] (connects, losses, keep-alive), [`arrival`] (what
//! the platform says), [`backfill`] (the replies that were missed), [`kept`] (links that nobody waits for),
//! [`close`] (sessions that callers end), [`rebase`] (what a store that lost data makes of all that), [`connection`]
//! (how all that looks from outside).

mod arrival;
mod backfill;
mod close;
mod connection;
mod kept;
mod lane;
mod rebase;
mod socket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::backfill::{Backfill, GapCause};
use super::input::{Effect, Input};
use super::ledger::Ledger;
use super::seen::Seen;
use super::stream::Streams;
use super::turn::{Turn, TurnPhase};
use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, Backoff, ConversationId, Fingerprint, LinkState, MessageId, Problem, Timestamp,
};
use crate::store::{ConversationChange, ConversationSnapshot};
use lane::Head;
use socket::Link;

/// The first and the longest step between two connects that fail.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// One conversation's machine.
#[derive(Debug)]
pub struct Machine {
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    random: fastrand::Rng,
    ledger: Ledger,
    /// Accepted messages that have not ended, the head first.
    lane: VecDeque<Arc<AcceptedMessage>>,
    head: Head,
    /// The turn of the lane's head, once it is begun.
    turn: Option<Box<Turn>>,
    next_position: u64,
    /// The greatest `clientMessageId` that is known: a message with a smaller one that is not in the lane has
    /// ended.
    last_known: u64,
    reading: Reading,
    /// Whether the lease of the partition is surely ours: only then is anything sent or connected.
    sure: bool,
    /// The backfill of the gap that is open.
    backfill: Option<Box<Backfill>>,
    /// The platform's time of the newest reply that is known.
    said_at: Option<Timestamp>,
    /// The newest replies that were cut in the middle, a few.
    unfinished: Vec<Fingerprint>,
    link: Link,
    backoff: Backoff,
    /// Blocks by the platform that followed each other.
    blocks: u8,
    /// Until when the link is worth having although no message is open.
    keep_until: Option<Timestamp>,
    /// When the store is to be told again that the link is kept for good.
    warm_at: Timestamp,
    /// After a refusal for good, what every message gets for a while instead of another refusal.
    refusal: Option<(Problem, Timestamp)>,
    /// Why the last connect failed, in words for the caller.
    last_failure: Option<Box<str>>,
    seen: Seen,
    streams: Streams,
    leaving: Leaving,
    /// How the link stood after the last step, and since when, where that is known.
    stands: (LinkState, Option<Timestamp>),
    /// Whether a message is being accepted that this machine alone may send ([`Input::SendAtAcceptPending`]).
    send_at_accept_pending: bool,
    /// Whether [`Effect::Rest`] was said and nobody asked for anything since: whoever does is answered again.
    resting: bool,
}

impl Machine {
    /// The machine of a conversation as the store knows it. `seed` feeds its jitter: the same seed and inputs
    /// give the same effects.
    pub fn new(
        bot: Arc<BotConfig>,
        conversation: ConversationId,
        open: ConversationSnapshot,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let ConversationSnapshot { record, lane, head_at, next_position, .. } = open;
        let (keep_until, said_at) = (kept::kept(&bot, &record, now), record.said_at);
        let mut taken = Seen::default();
        for id in record.recent.iter() {
            taken.insert(id);
        }
        let mut machine = Self {
            random: fastrand::Rng::with_seed(seed),
            ledger: Ledger::new(record),
            lane: VecDeque::with_capacity(lane.len()),
            head: Head::new(head_at.unwrap_or(now)),
            turn: None,
            next_position,
            last_known: now.as_millis(),
            reading: Reading::Not,
            sure: true,
            backfill: None,
            said_at,
            unfinished: Vec::new(),
            link: Link::Cold,
            backoff: CONNECT_BACKOFF,
            blocks: 0,
            keep_until,
            warm_at: now,
            refusal: None,
            last_failure: None,
            seen: taken,
            streams: Streams::default(),
            leaving: Leaving::Not,
            stands: Default::default(),
            send_at_accept_pending: false,
            resting: false,
            conversation,
            bot,
        };
        machine.stands = (machine.link_state(now), None);
        let sent = lane.iter().rposition(|open| open.progress.sent_at.is_some());
        for (place, open) in lane.into_iter().enumerate() {
            machine.last_known = machine.last_known.max(open.accepted.client_message_id);
            if sent.is_some_and(|sent| place < sent) {
                // One after it was sent, so it had ended.
                machine.end_lost(now, open);
                continue;
            }
            machine.lane.push_back(Arc::clone(&open.accepted));
            if Some(place) == sent {
                for id in open.progress.replies.iter().filter_map(|reply| reply.message_id.as_deref()) {
                    machine.seen.insert(Fingerprint::of(id));
                }
                let head_at = head_at.unwrap_or(now);
                machine.turn = Some(Box::new(Turn::resume(open, &machine.bot, head_at, now)));
            }
        }
        machine.on_gap(if machine.turn.is_some() { GapCause::Lost } else { GapCause::Away });
        machine
    }

    /// Takes one input at this time and appends what is to be done. Time never goes back between calls; where
    /// it does, deadlines come late and nothing else suffers.
    pub fn step(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        self.take(now, input, effects);
        self.note_connection(now);
    }

    fn take(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        if self.leaving == Leaving::AtOnce {
            self.on_last(now, &input, effects);
            return;
        }
        match input {
            Input::Accepted(message) => {
                self.resting = false;
                self.on_accepted(message);
            }
            Input::SendAtAcceptPending => {
                self.send_at_accept_pending = true;
                self.resting = false;
            }
            Input::SentAtAccept(message) => {
                self.send_at_accept_pending = false;
                self.on_sent_at_accept(now, message);
            }
            Input::NotSentAtAccept => self.send_at_accept_pending = false,
            Input::Woken => {
                self.resting = false;
                if self.lane.is_empty() {
                    self.want_lane();
                }
            }
            Input::Tick => {}
            Input::Lane(open) => self.on_lane(now, *open, effects),
            Input::Stored { lost } => self.on_stored(now, lost, effects),
            Input::Unknown => self.on_unknown(now),
            Input::OutOfStep => {
                self.ledger.on_refused();
                self.doubt();
            }
            Input::Lease(sure) => {
                self.on_lease(now, sure);
                return;
            }
            Input::Withheld => self.on_withheld(),
            Input::Connected => self.on_connected(now),
            Input::ConnectFailed(failure) => self.on_connect_failed(now, failure, effects),
            Input::Frame(frame) => self.on_frame(now, frame, effects),
            Input::Heard => self.on_heard(now),
            Input::Lost(loss) => self.on_lost(now, loss, effects),
            Input::History(page) => self.on_history(now, page, effects),
            Input::Drain => {
                if self.leaving == Leaving::Not {
                    self.leaving = Leaving::Drained;
                }
                self.resting = false;
            }
            Input::Stop => {
                self.stop(now, effects);
                return;
            }
        }
        self.advance(now, effects);
    }

    fn on_unknown(&mut self, now: Timestamp) {
        let draw = self.random.f64();
        self.ledger.on_unknown(now, draw);
    }

    fn on_lease(&mut self, now: Timestamp, sure: bool) {
        if sure && !self.sure {
            self.on_heard(now);
        }
        self.sure = sure;
    }

    /// Nothing is begun any more. What the store does not know yet is written, and the head that waits begins its
    /// time anew with the next owner.
    fn stop(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.hand_over(now);
        self.leaving = Leaving::AtOnce;
        self.ledger.hurry();
        self.finish(now, effects);
    }

    /// What still counts after [`Input::Stop`]: how the last writes went.
    fn on_last(&mut self, now: Timestamp, input: &Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Stored { lost } => self.on_stored(now, *lost, effects),
            Input::Unknown => self.on_unknown(now),
            Input::OutOfStep => self.ledger.doubt(),
            _ => {}
        }
        self.finish(now, effects);
    }

    fn finish(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        // What a store that lost data would have to be told takes too long now: the next owner goes by the store.
        if self.ledger.is_in_doubt() || self.ledger.is_settled() {
            effects.push(Effect::Rest);
        } else if let Some(write) = self.ledger.flush(now) {
            effects.push(Effect::Write(write));
        }
    }

    /// Gives the head that was not sent a new beginning: what kept it is ours.
    fn hand_over(&mut self, now: Timestamp) {
        if self.turn.is_none() && !self.lane.is_empty() && self.leaving != Leaving::HandedOver {
            self.leaving = Leaving::HandedOver;
            self.ledger.push(ConversationChange::HeadSince { at: now });
        }
    }

    /// When the machine wants a [`Input::Tick`] although nothing happens; none where only an answer to an effect
    /// or a new message can move it.
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.leaving == Leaving::AtOnce {
            return self.ledger.wake_at();
        }
        let turn = self.turn.as_ref().and_then(|turn| turn.wake_at(self.streams.in_turn().is_some()));
        let refusal = self.refusal.as_ref().map(|(_, until)| *until);
        [
            turn,
            refusal,
            self.backfill_wake_at(),
            self.head_wake_at(),
            self.link_wake_at(),
            self.ledger.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How many messages have not ended.
    pub fn open_messages(&self) -> usize {
        self.lane.len()
    }

    /// When the oldest message was accepted that has not ended.
    pub fn oldest_message(&self) -> Option<Timestamp> {
        self.lane.front().map(|message| message.accepted_at)
    }

    /// Returns whether the machine would send a message at once if it were accepted now (ADR 22). A message that
    /// wants a new session is never sent at its accept.
    pub fn may_send_at_accept(&self, now: Timestamp) -> bool {
        let idle = self.lane.is_empty() && self.turn.is_none() && self.reading == Reading::Not;
        idle && !self.send_at_accept_pending
            && !self.is_draining()
            && self.refusal.is_none()
            && self.is_ready(now)
            && self.rate_free_at(now) <= now
    }

    /// Whether a turn waits for what history tells: reading it must not wait for others.
    pub fn needs_history(&self) -> bool {
        self.turn
            .as_ref()
            .is_some_and(|turn| turn.phase == TurnPhase::Broken || turn.is_open() && turn.probed)
    }

    /// Whether a turn is in flight.
    pub const fn in_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Whether the message is in the lane and has not ended.
    pub fn is_open(&self, id: MessageId) -> bool {
        self.lane.iter().any(|message| message.id == id)
    }

    /// All that follows from the state at this time, until nothing more does.
    fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.refusal = self.refusal.take().filter(|(_, until)| now < *until);
        self.tend_socket(now, effects);
        self.tend_backfill(now, effects);
        self.tend_turn(now, effects);
        self.tend_head(now, effects);
        self.tend_link(now, effects);
        self.tend_warmth(now);
        // In doubt only an answer that no write crosses says how the store stands.
        if self.reading == Reading::Wanted && !(self.ledger.is_in_doubt() && self.ledger.is_in_flight()) {
            let known = Known {
                write: self.ledger.confirmed(),
                position: self.next_position,
                settled: self.ledger.is_in_doubt(),
            };
            self.reading = Reading::UnderWay { again: false, known };
            effects.push(Effect::ReadLane);
        }
        let at_rest = matches!(self.link, Link::Cold)
            && self.turn.is_none()
            && self.reading == Reading::Not
            && !self.send_at_accept_pending;
        if at_rest && self.is_draining() {
            self.hand_over(now);
        }
        if let Some(write) = self.ledger.flush(now) {
            effects.push(Effect::Write(write));
        }
        // A refusal is remembered here alone: to rest would be to ask the platform again with the next message.
        let done = self.is_draining() || (self.lane.is_empty() && self.refusal.is_none());
        let resting = at_rest && done && self.ledger.is_settled();
        if resting && !self.resting {
            effects.push(Effect::Rest);
        }
        self.resting = resting;
    }

    /// Whether nothing more is to be started.
    fn is_draining(&self) -> bool {
        self.leaving != Leaving::Not
    }

    /// The lane has to be read: there is a message that nobody told of.
    const fn want_lane(&mut self) {
        self.reading = match self.reading {
            Reading::UnderWay { known, .. } => Reading::UnderWay { again: true, known },
            Reading::Not | Reading::Wanted => Reading::Wanted,
        };
    }
}

/// Whether the conversation is to leave memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Not,
    /// When the open turn has ended.
    Drained,
    /// The same; and the head that goes over unsent has a new beginning, so that the drain's time does not count.
    HandedOver,
    /// As soon as the store knows everything.
    AtOnce,
}

/// Whether the lane has to be read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Not,
    Wanted,
    /// Asked for; `again` where something came up since, which the answer may not know.
    UnderWay {
        again: bool,
        known: Known,
    },
}

/// What the store had told when its lane was asked for; it cannot know less, unless it lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The last write that it confirmed.
    write: u64,
    /// Below this every position was accepted.
    position: u64,
    /// Whether no write was in flight, nor is before the answer comes.
    settled: bool,
}

/// A time that never comes.
const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// How long a refusal for good answers for the platform: long enough not to hammer it with bad credentials,
/// short enough that a mended configuration on its side is noticed.
const REFUSAL_TTL: Duration = Duration::from_secs(5);
