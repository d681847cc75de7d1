//! The conversation's machine. It decides which message may be sent, which turn a reply belongs to, when a turn ends
//! and how a broken link is repaired.
//!
//! The machine is a value: [`Machine::step`] takes the time and one [`Input`] and returns the effects. It never waits
//! and reads no clock, so a test runs thousands of interleavings in a second. All times are the store's.
//!
//! Promises, checked by property tests and simulations:
//! * Every message of the lane ends exactly once. The end is reported after the store confirmed it. If the
//!   store lost the message, the loss is reported instead.
//! * A message is sent only if `sent` is stored, the link is ready and the lease valid. One turn is in flight
//!   at a time.
//! * A turn whose receipt is proved is never sent again.
//! * As long as work is left, [`Machine::wake_at`] names a time, or an answer is awaited.
//!
//! The parts:
//! * [`lane`]: heads begin and turns end
//! * [`link_phase`]: connects, losses and keep-alive
//! * [`incoming_frames`]: the platform's frames and their turns
//! * [`backfill`]: replies that were missed
//! * [`history_page`], [`own_record`]: a page of history, and our message in it
//! * [`human_agent`], [`agent_messages`]: the human agent of a conversation, and the ids of its messages
//! * [`record_owner`]: the records of history and their turns
//! * [`keep_open`]: links without a waiting message
//! * [`end_session`]: sessions that callers end
//! * [`connect_message`]: messages that only connect, so that the bot speaks first
//! * [`exit_phase`]: the way out of memory
//! * [`reconcile`]: a store that lost data
//! * [`connection_status`]: the link as callers see it

mod agent_messages;
mod backfill;
mod close_code;
mod connect_message;
mod connection_status;
mod end_session;
mod erasure;
mod exit_phase;
mod history_page;
mod human_agent;
mod incoming_frames;
mod keep_open;
mod lane;
mod lane_read;
mod link_phase;
mod own_record;
mod reconcile;
mod record_owner;
mod user_signals;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::backfill_schedule::{Backfill, GapCause};
use super::dedup::DedupWindow;
use super::input::{Effect, Input};
use super::open_streams::OpenStreams;
use super::platform_clock::PlatformClock;
use super::turn::{Turn, TurnPhase};
use super::turn_rhythm::RhythmWatch;
use super::write_buffer::WriteBuffer;
use crate::config::BotConfig;
use crate::domain::{
    AcceptedMessage, Backoff, ConversationId, Fingerprint, LinkState, MessageId, Problem, Timestamp,
};
use crate::rhythm::SharedRhythm;
use crate::store::ConversationSnapshot;
use agent_messages::AgentMessages;
use erasure::ErasurePhase;
use exit_phase::ExitPhase;
use human_agent::AgentEvidence;
use lane::LaneHead;
use lane_read::{KnownLane, LaneRead};
use link_phase::LinkPhase;

const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The state of one conversation.
#[derive(Debug)]
pub struct Machine {
    bot: Arc<BotConfig>,
    conversation: ConversationId,
    random: fastrand::Rng,
    buffer: WriteBuffer,
    /// Accepted messages that have not ended, the head first.
    lane: VecDeque<Arc<AcceptedMessage>>,
    head: LaneHead,
    /// The turn of the head, once it has begun.
    turn: Option<Box<Turn>>,
    next_position: u64,
    /// The greatest known `clientMessageId`. A message with a smaller one has ended if it is not in the lane.
    last_known: u64,
    lane_read: LaneRead,
    /// Whether the lease of the partition is valid. Without it the machine neither sends nor connects.
    lease_valid: bool,
    /// The backfill of the gap that is open.
    backfill: Option<Box<Backfill>>,
    rhythm: RhythmWatch,
    /// The platform's time of the newest known reply.
    said_at: Option<Timestamp>,
    platform_clock: PlatformClock,
    /// Whether the end of the record's agent may have been missed.
    agent_evidence: AgentEvidence,
    agent_messages: AgentMessages,
    /// The reply that was journaled last, without those that were cut.
    newest_reply: Option<Fingerprint>,
    /// When the last message was first sent.
    last_sent_at: Option<Timestamp>,
    /// The newest replies that were cut, at most a few.
    unfinished: Vec<Fingerprint>,
    link: LinkPhase,
    backoff: Backoff,
    /// The number of blocks by the platform in a row.
    blocks: u8,
    /// Until when the link is kept without an open message.
    keep_until: Option<Timestamp>,
    /// When the store is told again that the link is kept open for good.
    warm_at: Timestamp,
    /// A permanent refusal. Until this time it answers every message in place of the platform.
    refusal: Option<(Problem, Timestamp)>,
    /// The reason of the last failed connect, for callers.
    last_failure: Option<Box<str>>,
    dedup: DedupWindow,
    streams: OpenStreams,
    exit: ExitPhase,
    /// The state of the link after the last step, and since when, if that is known.
    status: (LinkState, Option<Timestamp>),
    /// Whether a message is being accepted that this machine alone may send ([`Input::SendAtAcceptPending`]).
    send_at_accept_pending: bool,
    /// The message of the lane that the store marked as sent at its accept, until its turn begins.
    sent_at_accept: Option<MessageId>,
    /// The erasure that the lane asks for, once it has begun.
    erasure: Option<ErasurePhase>,
    /// Whether [`Effect::Rest`] is the latest answer. A new request is answered again.
    resting: bool,
}

impl Machine {
    /// Creates the machine of a stored conversation. With a `rhythm` it learns from its turns. `seed` feeds its jitter:
    /// equal seeds, rhythms and inputs give equal effects.
    pub fn new(
        bot: Arc<BotConfig>,
        rhythm: Option<Arc<SharedRhythm>>,
        conversation: ConversationId,
        open: ConversationSnapshot,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let ConversationSnapshot { record, lane, head_at, next_position, journaled, .. } = open;
        let keep_until = keep_open::initial_keep_until(&bot, &record, now);
        let platform_clock = PlatformClock::default();
        let said_at = platform_clock.plausible(record.said_at, now);
        let mut dedup = DedupWindow::default();
        for id in journaled.into_iter().chain(record.recent.iter()) {
            dedup.insert(id);
        }
        let mut machine = Self {
            random: fastrand::Rng::with_seed(seed),
            buffer: WriteBuffer::new(record),
            lane: VecDeque::with_capacity(lane.len()),
            head: LaneHead::new(head_at.unwrap_or(now)),
            turn: None,
            next_position,
            last_known: now.as_millis(),
            lane_read: LaneRead::Idle,
            lease_valid: true,
            backfill: None,
            rhythm: RhythmWatch::new(rhythm),
            said_at,
            platform_clock,
            agent_evidence: AgentEvidence::Current,
            agent_messages: AgentMessages::default(),
            newest_reply: None,
            last_sent_at: None,
            unfinished: Vec::new(),
            link: LinkPhase::Cold,
            backoff: CONNECT_BACKOFF,
            blocks: 0,
            keep_until,
            warm_at: now,
            refusal: None,
            last_failure: None,
            dedup,
            streams: OpenStreams::default(),
            exit: ExitPhase::Staying,
            status: Default::default(),
            send_at_accept_pending: false,
            sent_at_accept: None,
            erasure: None,
            resting: false,
            conversation,
            bot,
        };
        machine.status = (machine.link_state(now), None);
        let sent = lane.iter().rposition(|open| open.progress.sent_at.is_some());
        for (place, open) in lane.into_iter().enumerate() {
            machine.last_known = machine.last_known.max(open.accepted.client_message_id);
            if sent.is_some_and(|sent| place < sent) {
                // A later message was sent, so this one had ended.
                machine.end_lost(now, open);
                continue;
            }
            machine.lane.push_back(Arc::clone(&open.accepted));
            if Some(place) == sent {
                for id in open.progress.replies.iter().filter_map(|reply| reply.message_id.as_deref()) {
                    machine.dedup.insert(Fingerprint::of(id));
                }
                let head_at = head_at.unwrap_or(now);
                machine.turn = Some(Box::new(Turn::resume(open, &machine.bot, head_at, now)));
            }
        }
        machine.on_gap(if machine.turn.is_some() { GapCause::Lost } else { GapCause::Away });
        machine
    }

    /// Takes one input and appends the effects. If the time goes back between calls, deadlines come late and
    /// everything else stays correct.
    pub fn step(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        self.take(now, input, effects);
        self.note_connection(now);
    }

    fn take(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        if self.exit == ExitPhase::Stopping {
            self.on_last(now, &input, effects);
            return;
        }
        if self.erasure.is_some() {
            self.on_input_of_erasure(now, input, effects);
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
                self.on_sent_at_accept(message);
            }
            Input::NotSentAtAccept => self.send_at_accept_pending = false,
            Input::Woken => {
                self.resting = false;
                if self.lane.is_empty() {
                    self.want_lane();
                }
            }
            Input::Tick => {}
            Input::Signal(signal) => self.on_user_signal(now, signal, effects),
            Input::Lane(open) => self.on_lane(now, *open, effects),
            Input::Stored { lost } => self.on_stored(now, lost, effects),
            Input::WriteUnknown => self.on_unknown(now),
            Input::OutOfStep => {
                self.buffer.on_refused();
                self.doubt();
            }
            Input::Lease(valid) => {
                self.on_lease(now, valid);
                return;
            }
            Input::Writing => self.on_writing(now),
            Input::Withheld => self.on_withheld(),
            Input::Connected => self.on_connected(now),
            Input::ConnectFailed(failure) => self.on_connect_failed(now, failure, effects),
            Input::Frame(frame) => self.on_frame(now, frame, effects),
            Input::PeerAlive => self.on_heard(now),
            Input::Lost(loss) => self.on_lost(now, loss, effects),
            Input::History(page) => self.on_history(now, page, effects),
            Input::Drain => {
                if self.exit == ExitPhase::Staying {
                    self.exit = ExitPhase::Draining;
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
        self.buffer.on_unknown(now, draw);
    }

    fn on_lease(&mut self, now: Timestamp, valid: bool) {
        if valid && !self.lease_valid {
            self.on_heard(now);
        }
        self.lease_valid = valid;
    }

    /// Returns when the machine needs a [`Input::Tick`]. Without a time, only an answer or a new message can move it.
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.exit == ExitPhase::Stopping {
            return self.buffer.wake_at();
        }
        if self.erasure.is_some() {
            return self.erasure_wake_at();
        }
        let turn = self.turn.as_ref().and_then(|turn| turn.wake_at(self.streams.in_turn().is_some()));
        let refusal = self.refusal.as_ref().map(|(_, until)| *until);
        [
            turn,
            refusal,
            self.backfill_wake_at(),
            self.doubt_ends_at(),
            self.head_wake_at(),
            self.link_wake_at(),
            self.streams.silent_at(),
            self.buffer.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns the number of messages that have not ended.
    pub fn open_messages(&self) -> usize {
        self.lane.len()
    }

    /// Returns whether so many changes wait for a write that no further frame should be read before it.
    pub const fn is_crowded(&self) -> bool {
        self.buffer.is_crowded()
    }

    /// Returns when the oldest open message was accepted.
    pub fn oldest_message(&self) -> Option<Timestamp> {
        self.lane.front().map(|message| message.accepted_at)
    }

    /// Returns the caller of the oldest open message, if callers share the bridge.
    pub fn oldest_caller(&self) -> Option<&Arc<str>> {
        self.lane.front().and_then(|message| message.new.caller.as_ref())
    }

    /// Returns whether the machine would send a message at once if it were accepted now (ADR 22). A message that
    /// wants a new session is never sent at its accept.
    pub fn may_send_at_accept(&self, now: Timestamp) -> bool {
        let idle = self.lane.is_empty() && self.turn.is_none() && self.lane_read == LaneRead::Idle;
        idle && !self.send_at_accept_pending
            && !self.is_draining()
            && self.refusal.is_none()
            && self.is_ready(now)
            && self.rate_free_at(now) <= now
    }

    /// Returns whether a turn waits for history. Its read must not wait for others.
    pub fn needs_history(&self) -> bool {
        self.turn
            .as_ref()
            .is_some_and(|turn| turn.phase == TurnPhase::Broken || turn.is_open() && turn.probed)
    }

    /// Returns whether the message of [`Effect::Send`] is to be written. Frames that came first may have ended its turn.
    pub fn is_sending(&self, id: MessageId) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.phase == TurnPhase::Sending && turn.message.id == id)
    }

    /// Returns whether a turn is in flight.
    pub const fn in_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Returns whether the message is in the lane and has not ended.
    pub fn is_open(&self, id: MessageId) -> bool {
        self.lane.iter().any(|message| message.id == id)
    }

    fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.begin_erasure(now);
        if self.erasure.is_some() {
            self.tend_erasure(now, effects);
            return;
        }
        self.refusal = self.refusal.take().filter(|(_, until)| now < *until);
        self.tend_socket(now, effects);
        self.tend_rhythm(now, effects);
        self.tend_backfill(now, effects);
        self.tend_deferred(now, effects);
        self.tend_streams(now, effects);
        self.tend_turn(now, effects);
        self.tend_head(now, effects);
        self.tend_link(now, effects);
        self.tend_warmth(now);
        // In doubt, an answer counts only if no write crosses it.
        if self.lane_read == LaneRead::Wanted && !(self.buffer.is_in_doubt() && self.buffer.is_in_flight()) {
            let known = KnownLane {
                write: self.buffer.confirmed(),
                position: self.next_position,
                settled: self.buffer.is_in_doubt(),
            };
            self.lane_read = LaneRead::Pending { again: false, known };
            effects.push(Effect::ReadLane);
        }
        let at_rest = matches!(self.link, LinkPhase::Cold)
            && self.turn.is_none()
            && self.lane_read == LaneRead::Idle
            && !self.send_at_accept_pending;
        if at_rest && self.is_draining() {
            self.hand_off(now);
        }
        if let Some(write) = self.buffer.next_write(now) {
            effects.push(Effect::Write(write));
        }
        // Only this machine remembers the refusal. After a rest the next message would ask the platform again.
        let done = self.is_draining() || (self.lane.is_empty() && self.refusal.is_none());
        let resting = at_rest && done && self.buffer.is_settled();
        if resting && !self.resting {
            effects.push(Effect::Rest);
        }
        self.resting = resting;
    }

    /// Has the lane read, because it may hold an unknown message.
    const fn want_lane(&mut self) {
        self.lane_read = match self.lane_read {
            LaneRead::Pending { known, .. } => LaneRead::Pending { again: true, known },
            LaneRead::Idle | LaneRead::Wanted => LaneRead::Wanted,
        };
    }
}

const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// How long a permanent refusal stands in for the platform. Bad credentials must not hammer the platform, and a
/// corrected configuration must be noticed soon.
const REFUSAL_TTL: Duration = Duration::from_secs(5);
