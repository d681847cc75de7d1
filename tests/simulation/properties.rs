//! The machine under inputs that no platform would ever send in this order: proptest draws them, and shrinks what
//! breaks a promise to the shortest script that does.
//!
//! The simulation beside this draws from a model of the platform; here there is no model, only the promises.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, MessageId, MessageProgress, ResendPolicy, SessionRequest,
    Timestamp, TurnRules,
};
use rtm_bridge::link::{ConnectFailure, Effect, HistoryFailure, Input, Machine, SocketLoss};
use rtm_bridge::rtm::{BotResponse, HistoryPage, IncomingFrame};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage};

use super::bench::{incoming, outgoing};
use super::support::{accepted, bot, event, plain, reply};

/// Something that happens. What does not fit the moment (a frame without a socket) is left out.
#[derive(Debug, Clone, Copy)]
enum Op {
    Post {
        session: u8,
        resend: bool,
        expect: bool,
        told: bool,
    },
    Woken,
    Pass(u16),
    Stored,
    Unknown,
    Connected,
    Refused {
        for_good: bool,
    },
    Ack {
        right: bool,
    },
    Reply(u8),
    /// One that says what it answers: what is out, or something else.
    Echo {
        id: u8,
        right: bool,
    },
    Signal(u8),
    Heard,
    Lost(u16),
    /// The lease is sure from now on, or not.
    Lease(bool),
    /// What goes out next finds the lease unsure at the last moment.
    Fades,
    History {
        ours: bool,
        reply: Option<u8>,
    },
    NoHistory {
        for_good: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let code = prop::sample::select(vec![1000, 1002, 1005, 1006, 1007, 1008, 1009, 1011]);
    prop_oneof![
        4 => (0..4u8, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(session, resend, expect, told)| Op::Post { session, resend, expect, told }),
        1 => Just(Op::Woken),
        6 => (0..5_000u16).prop_map(Op::Pass),
        6 => Just(Op::Stored),
        1 => Just(Op::Unknown),
        6 => Just(Op::Connected),
        1 => any::<bool>().prop_map(|for_good| Op::Refused { for_good }),
        4 => any::<bool>().prop_map(|right| Op::Ack { right }),
        5 => (0..40u8).prop_map(Op::Reply),
        2 => (0..40u8, any::<bool>()).prop_map(|(id, right)| Op::Echo { id, right }),
        3 => (0..6u8).prop_map(Op::Signal),
        1 => Just(Op::Heard),
        2 => any::<bool>().prop_map(Op::Lease),
        1 => Just(Op::Fades),
        2 => code.prop_map(Op::Lost),
        2 => (any::<bool>(), prop::option::of(0..40u8)).prop_map(|(ours, reply)| Op::History { ours, reply }),
        1 => any::<bool>().prop_map(|for_good| Op::NoHistory { for_good }),
    ]
}

/// What the machine has of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Socket {
    None,
    Connecting,
    Open,
}

/// What is true of the lease. Fading: it is sure until something is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Sure,
    Fading,
    Unsure,
}

/// A machine, what it waits for, and what it has promised so far.
struct Trial {
    machine: Machine,
    now: Timestamp,
    posted: Vec<Arc<AcceptedMessage>>,
    write: Option<Arc<ConversationWrite>>,
    socket: Socket,
    history: bool,
    reading: bool,
    stored_sent: HashSet<MessageId>,
    stored_end: HashSet<MessageId>,
    told: HashSet<MessageId>,
    proved: HashSet<MessageId>,
    said: HashSet<u8>,
    out: Option<Arc<AcceptedMessage>>,
    lease: Lease,
    /// The record that the store has.
    record: ConversationRecord,
}

impl Trial {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_763_845_000_000);
        Self {
            machine: Machine::new(
                Arc::new(bot()),
                plain().conversation,
                ConversationSnapshot::default(),
                now,
                11,
            ),
            now,
            posted: Vec::new(),
            write: None,
            socket: Socket::None,
            history: false,
            reading: false,
            stored_sent: HashSet::new(),
            stored_end: HashSet::new(),
            told: HashSet::new(),
            proved: HashSet::new(),
            said: HashSet::new(),
            out: None,
            lease: Lease::Sure,
            record: ConversationRecord::default(),
        }
    }

    fn give(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.machine.step(self.now, input, &mut effects);
        assert!(effects.len() < 100, "a step does a bounded number of things");
        for effect in effects {
            self.check(effect);
        }
    }

    fn check(&mut self, effect: Effect) {
        match effect {
            Effect::Write(write) => {
                let repeats = self.write.as_ref().is_none_or(|known| Arc::ptr_eq(known, &write));
                assert!(repeats, "a second write while one is in flight");
                self.write = Some(write);
            }
            Effect::Connect(_) => {
                assert_eq!(self.socket, Socket::None, "a second socket");
                assert!(self.lease != Lease::Unsure, "a connect under an unsure lease");
                if self.lease == Lease::Fading {
                    self.lose_lease();
                    self.give(Input::ConnectFailed(ConnectFailure::Withheld));
                } else {
                    self.socket = Socket::Connecting;
                }
            }
            Effect::Send(message) => {
                assert_eq!(self.socket, Socket::Open, "sent without a socket");
                assert!(self.lease != Lease::Unsure, "sent under an unsure lease");
                assert!(self.stored_sent.contains(&message.id), "sent before the store knew");
                let closes = message.new.session == SessionRequest::Close;
                assert!(closes || !self.proved.contains(&message.id), "sent again although received");
                assert!(!self.stored_end.contains(&message.id), "sent after its end");
                let other = self.out.as_ref().is_some_and(|out| out.id != message.id);
                assert!(!other, "two turns in flight");
                if self.lease == Lease::Fading {
                    self.lose_lease();
                    self.give(Input::Withheld);
                } else {
                    self.out = Some(message);
                }
            }
            Effect::Tell { message, .. } => {
                let id = message.accepted.id;
                assert!(self.stored_end.contains(&id), "told before its end was stored");
                assert!(self.told.insert(id), "told twice");
                assert!(message.progress.has_ended());
                if self.out.as_ref().is_some_and(|out| out.id == id) {
                    self.out = None;
                }
            }
            Effect::ReadHistory(_) => self.history = true,
            Effect::ReadLane => self.reading = true,
            Effect::Close(_) | Effect::Abandon(_) => self.socket = Socket::None,
            Effect::Rest => {
                let nothing = self.write.is_none() && self.socket == Socket::None;
                assert!(nothing, "rests with something in hand");
            }
            Effect::Forget(id) => panic!("{id} is lost in a store that loses nothing"),
            Effect::Rebased => panic!("writes are lost in a store that loses nothing"),
            Effect::Ping | Effect::Aside(_) | Effect::Chunk(_) => {}
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Post { session, resend, expect, told } => {
                let mut new = plain();
                new.session = [
                    SessionRequest::Continue,
                    SessionRequest::New,
                    SessionRequest::NewKeepAgent,
                    SessionRequest::Close,
                ][usize::from(session)];
                new.resend = if resend { ResendPolicy::Auto } else { ResendPolicy::Never };
                new.rules = TurnRules::new(expect.then_some(2), None, None).unwrap();
                let message = accepted(self.posted.len() as u64, self.now, new);
                self.posted.push(Arc::clone(&message));
                // A hint may be lost; then a later one, or the sweep, finds the message.
                if told {
                    self.give(Input::Accepted(message));
                }
            }
            Op::Woken => self.give(Input::Woken),
            Op::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
            Op::Stored => self.store(),
            Op::Unknown if self.write.is_some() => self.give(Input::Unknown),
            Op::Connected if self.socket == Socket::Connecting => {
                self.socket = Socket::Open;
                self.give(Input::Connected);
            }
            Op::Refused { for_good } if self.socket == Socket::Connecting => {
                self.socket = Socket::None;
                self.give(Input::ConnectFailed(if for_good {
                    ConnectFailure::Rejected("no".into())
                } else {
                    ConnectFailure::Unavailable { words: "later".into(), retry_after: None }
                }));
            }
            Op::Ack { right } if self.is_open() => {
                let reply_to = match (&self.out, right) {
                    (Some(out), true) => {
                        self.proved.insert(out.id);
                        Some(out.client_message_id)
                    }
                    _ => Some(5),
                };
                self.give(Input::Frame(IncomingFrame::Ack { reply_to }));
            }
            Op::Reply(id) if self.is_open() => {
                self.is_new(id);
                let response = Box::new(reply(&format!("ms-{id}"), "said"));
                self.give(Input::Frame(IncomingFrame::Response(response)));
            }
            Op::Echo { id, right } if self.is_open() => {
                let out = self.out.clone().filter(|_| right);
                let echoes = out.as_ref().map_or(5, |out| out.client_message_id);
                if self.is_new(id) {
                    self.proved.extend(out.map(|out| out.id));
                }
                let response =
                    BotResponse { correlation_id: Some(echoes), ..reply(&format!("ms-{id}"), "said") };
                self.give(Input::Frame(IncomingFrame::Response(Box::new(response))));
            }
            Op::Signal(which) if self.is_open() => self.give(Input::Frame(match which {
                0 => IncomingFrame::WaitingForInput,
                1 => IncomingFrame::SessionEnd(event()),
                2 => IncomingFrame::AgentStart(event()),
                3 => IncomingFrame::AgentEnd(event()),
                4 => IncomingFrame::Active { session_id: None, session_continues: true },
                _ => IncomingFrame::Malformed,
            })),
            Op::Heard if self.is_open() => self.give(Input::Heard),
            Op::Lease(sure) => self.lease(sure),
            Op::Fades if self.lease == Lease::Sure => self.lease = Lease::Fading,
            Op::Lost(code) if self.is_open() => {
                self.socket = Socket::None;
                self.give(Input::Lost(SocketLoss { code }));
            }
            Op::History { ours, reply } if self.history => {
                self.history = false;
                self.said.extend(reply);
                let own = self.out.clone().filter(|_| ours);
                let mut records: Vec<_> = own.iter().map(|message| incoming(message)).collect();
                records.extend(reply.map(|id| outgoing(&format!("ms-{id}"))));
                self.give(Input::History(Ok(HistoryPage { records, more: false })));
            }
            Op::NoHistory { for_good } if self.history => {
                self.history = false;
                let failure = if for_good { HistoryFailure::ForGood } else { HistoryFailure::Now };
                self.give(Input::History(Err(failure)));
            }
            _ => {}
        }
    }

    /// Whether nothing was said under this id before.
    fn is_new(&mut self, id: u8) -> bool {
        self.said.insert(id)
    }

    fn is_open(&self) -> bool {
        self.socket == Socket::Open
    }

    fn lease(&mut self, sure: bool) {
        self.lease = if sure { Lease::Sure } else { Lease::Unsure };
        self.give(Input::Lease(sure));
        self.give(Input::Tick);
    }

    fn lose_lease(&mut self) {
        self.lease = Lease::Unsure;
        self.give(Input::Lease(false));
    }

    fn store(&mut self) {
        let Some(write) = self.write.take() else { return };
        self.record = write.record.clone();
        for change in &write.changes {
            match change {
                ConversationChange::Sent { message, .. } => {
                    self.stored_sent.insert(*message);
                }
                ConversationChange::Append(entry) => {
                    if let EntryBody::Ended { message, .. } | EntryBody::Closed { message, .. } = &entry.body
                    {
                        assert!(self.stored_end.insert(*message), "ended twice");
                    }
                }
                ConversationChange::Acked { .. }
                | ConversationChange::Answering { .. }
                | ConversationChange::HeadSince { .. }
                | ConversationChange::Deliver(_) => {}
            }
        }
        self.give(Input::Stored { lost: false });
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..1000 {
            match self.machine.wake_at() {
                Some(wake) if wake <= end => {
                    self.now = self.now.max(wake);
                    self.give(Input::Tick);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("a busy loop");
    }

    fn lane(&self) -> ConversationSnapshot {
        let open = self.posted.iter().filter(|message| !self.stored_end.contains(&message.id));
        ConversationSnapshot {
            record: self.record.clone(),
            lane: open
                .map(|message| OpenMessage {
                    accepted: Arc::clone(message),
                    progress: MessageProgress::default(),
                })
                .collect(),
            next_position: self.posted.len() as u64,
            ..ConversationSnapshot::default()
        }
    }

    /// Everything answers from now on: whatever was accepted must end.
    fn calm(&mut self) {
        self.lease(true);
        self.give(Input::Woken);
        for _ in 0..20_000 {
            if self.told.len() == self.posted.len() {
                return;
            }
            if self.reading {
                self.reading = false;
                let lane = self.lane();
                self.give(Input::Lane(Box::new(lane)));
            } else if self.write.is_some() {
                self.store();
            } else if self.socket == Socket::Connecting {
                self.apply(Op::Connected);
            } else if self.history {
                self.apply(Op::History { ours: false, reply: None });
            } else if let Some(wake) = self.machine.wake_at().filter(|_| self.machine.open_messages() > 0) {
                self.now = self.now.max(wake);
                self.give(Input::Tick);
            } else {
                // What nobody told of is found by the sweep.
                assert_eq!(self.machine.open_messages(), 0, "open, and nothing to wait for");
                self.give(Input::Woken);
            }
        }
        panic!("{} of {} messages ended", self.told.len(), self.posted.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_message_ends_once_and_nothing_is_sent_too_early(ops in prop::collection::vec(op(), 0..120)) {
        let mut trial = Trial::new();
        for op in ops {
            trial.apply(op);
        }
        trial.calm();
    }
}
