//! The machine under inputs in any order. Proptest draws them, and shrinks a failing script to the shortest one.
//!
//! The simulation beside this file draws from a model of the platform. Here the promises are checked without a model.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtm_bridge::domain::fixtures::START;
use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, EntryBody, MessageContent, MessageEvent, MessageId, MessageProgress,
    ResendPolicy, SessionRequest, Timestamp, TurnRules,
};
use rtm_bridge::link::{ConnectFailure, Effect, HistoryFailure, Input, Machine, SocketLoss};
use rtm_bridge::rtm::{BotResponse, HistoryPage, IncomingFrame};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage};

use super::bench::{incoming, outgoing};
use super::support::{accepted, advance, bot, event, plain, reply};

/// A random event. An event that does not fit the state, such as a frame without a socket, is skipped.
#[derive(Debug, Clone, Copy)]
enum RandomInput {
    Post {
        session: u8,
        resend: bool,
        expect: bool,
        hinted: bool,
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
    /// A reply with an echo of the sent message, or of another one.
    Echo {
        id: u8,
        right: bool,
    },
    Signal(u8),
    Heard,
    Lost(u16),
    /// The lease becomes valid or suspect.
    Lease(bool),
    /// The lease becomes suspect right before the next sending.
    Fades,
    History {
        ours: bool,
        reply: Option<u8>,
    },
    NoHistory {
        for_good: bool,
    },
}

fn random_input() -> impl Strategy<Value = RandomInput> {
    let code = prop::sample::select(vec![1000, 1002, 1005, 1006, 1007, 1008, 1009, 1011]);
    prop_oneof![
        4 => (0..6u8, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(session, resend, expect, hinted)| RandomInput::Post { session, resend, expect, hinted }),
        1 => Just(RandomInput::Woken),
        6 => (0..5_000u16).prop_map(RandomInput::Pass),
        6 => Just(RandomInput::Stored),
        1 => Just(RandomInput::Unknown),
        6 => Just(RandomInput::Connected),
        1 => any::<bool>().prop_map(|for_good| RandomInput::Refused { for_good }),
        4 => any::<bool>().prop_map(|right| RandomInput::Ack { right }),
        5 => (0..40u8).prop_map(RandomInput::Reply),
        2 => (0..40u8, any::<bool>()).prop_map(|(id, right)| RandomInput::Echo { id, right }),
        3 => (0..6u8).prop_map(RandomInput::Signal),
        1 => Just(RandomInput::Heard),
        2 => any::<bool>().prop_map(RandomInput::Lease),
        1 => Just(RandomInput::Fades),
        2 => code.prop_map(RandomInput::Lost),
        2 => (any::<bool>(), prop::option::of(0..40u8)).prop_map(|(ours, reply)| RandomInput::History { ours, reply }),
        1 => any::<bool>().prop_map(|for_good| RandomInput::NoHistory { for_good }),
    ]
}

/// The phase of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketModel {
    None,
    Connecting,
    Open,
}

/// The validity of the lease. A fading lease becomes suspect with the next effect that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaseModel {
    Valid,
    Fading,
    Suspect,
}

/// A machine with its pending answers and promises.
struct MachineTrial {
    machine: Machine,
    now: Timestamp,
    posted: Vec<Arc<AcceptedMessage>>,
    write: Option<Arc<ConversationWrite>>,
    socket: SocketModel,
    history: bool,
    reading: bool,
    stored_sent: HashSet<MessageId>,
    stored_end: HashSet<MessageId>,
    completed: HashSet<MessageId>,
    proved: HashSet<MessageId>,
    said: HashSet<u8>,
    out: Option<Arc<AcceptedMessage>>,
    lease: LeaseModel,
    /// The stored record.
    record: ConversationRecord,
}

impl MachineTrial {
    fn new() -> Self {
        let now = START;
        Self {
            machine: Machine::new(
                Arc::new(bot()),
                None,
                plain().conversation,
                ConversationSnapshot::default(),
                now,
                11,
            ),
            now,
            posted: Vec::new(),
            write: None,
            socket: SocketModel::None,
            history: false,
            reading: false,
            stored_sent: HashSet::new(),
            stored_end: HashSet::new(),
            completed: HashSet::new(),
            proved: HashSet::new(),
            said: HashSet::new(),
            out: None,
            lease: LeaseModel::Valid,
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
                assert_eq!(self.socket, SocketModel::None, "a second socket");
                assert!(self.lease != LeaseModel::Suspect, "a connect under a suspect lease");
                if self.lease == LeaseModel::Fading {
                    self.lose_lease();
                    self.give(Input::ConnectFailed(ConnectFailure::Withheld));
                } else {
                    self.socket = SocketModel::Connecting;
                }
            }
            Effect::Send(message) => {
                assert_eq!(self.socket, SocketModel::Open, "sent without a socket");
                assert!(self.lease != LeaseModel::Suspect, "sent under a suspect lease");
                assert!(self.stored_sent.contains(&message.id), "sent before the store knew");
                let closes = message.new.session == SessionRequest::Close;
                assert!(closes || !self.proved.contains(&message.id), "sent again although received");
                assert!(!self.stored_end.contains(&message.id), "sent after its end");
                let other = self.out.as_ref().is_some_and(|out| out.id != message.id);
                assert!(!other, "two turns in flight");
                if !self.machine.is_sending(message.id) {
                    return;
                }
                if self.lease == LeaseModel::Fading {
                    self.lose_lease();
                    self.give(Input::Withheld);
                } else {
                    self.out = Some(message);
                    self.give(Input::Writing);
                }
            }
            Effect::Complete { message, .. } => {
                let id = message.accepted.id;
                assert!(self.stored_end.contains(&id), "completed before its end was stored");
                assert!(self.completed.insert(id), "completed twice");
                assert!(message.progress.has_ended());
                if self.out.as_ref().is_some_and(|out| out.id == id) {
                    self.out = None;
                }
            }
            Effect::ReadHistory(_) => self.history = true,
            Effect::ReadLane => self.reading = true,
            Effect::Close(_) | Effect::Abandon(_) => self.socket = SocketModel::None,
            Effect::Rest => {
                let nothing = self.write.is_none() && self.socket == SocketModel::None;
                assert!(nothing, "rests with something in hand");
            }
            Effect::Erase => panic!("no user asks for an erasure"),
            Effect::ReportLoss(id) => panic!("{id} is lost in a store that loses nothing"),
            Effect::Reconciled => panic!("writes are lost in a store that loses nothing"),
            Effect::Ping
            | Effect::OutOfTurn(_)
            | Effect::Learn(_)
            | Effect::FarOffTime
            | Effect::Chunk(_)
            | Effect::Platform(_)
            | Effect::Signal(..)
            | Effect::Acknowledge(_) => {}
        }
    }

    fn apply(&mut self, random_input: RandomInput) {
        match random_input {
            RandomInput::Post { session, resend, expect, hinted } => {
                let mut new = plain();
                new.session = [
                    SessionRequest::Continue,
                    SessionRequest::New,
                    SessionRequest::NewKeepAgent,
                    SessionRequest::Close,
                    SessionRequest::New,
                    SessionRequest::Continue,
                ][usize::from(session)];
                if session > 3 {
                    new.event = Some(MessageEvent::Connect);
                    new.content = MessageContent::without_text();
                }
                new.resend = if resend { ResendPolicy::Auto } else { ResendPolicy::Never };
                new.rules = TurnRules::new(expect.then_some(2), None, None).unwrap();
                let message = accepted(self.posted.len() as u64, self.now, new);
                self.posted.push(Arc::clone(&message));
                // A hint may be lost. A later one or the sweep finds the message.
                if hinted {
                    self.give(Input::Accepted(message));
                }
            }
            RandomInput::Woken => self.give(Input::Woken),
            RandomInput::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
            RandomInput::Stored => self.store(),
            RandomInput::Unknown if self.write.is_some() => self.give(Input::WriteUnknown),
            RandomInput::Connected if self.socket == SocketModel::Connecting => {
                self.socket = SocketModel::Open;
                self.give(Input::Connected);
            }
            RandomInput::Refused { for_good } if self.socket == SocketModel::Connecting => {
                self.socket = SocketModel::None;
                self.give(Input::ConnectFailed(if for_good {
                    ConnectFailure::Rejected("no".into())
                } else {
                    ConnectFailure::Unavailable { words: "later".into(), retry_after: None }
                }));
            }
            RandomInput::Ack { right } if self.is_open() => {
                let reply_to = match (&self.out, right) {
                    (Some(out), true) => {
                        self.proved.insert(out.id);
                        Some(out.client_message_id)
                    }
                    _ => Some(5),
                };
                self.give(Input::Frame(IncomingFrame::Ack { reply_to }));
            }
            RandomInput::Reply(id) if self.is_open() => {
                self.is_new(id);
                let response = Box::new(reply(&format!("ms-{id}"), "said"));
                self.give(Input::Frame(IncomingFrame::Response(response)));
            }
            RandomInput::Echo { id, right } if self.is_open() => {
                let out = self.out.clone().filter(|_| right);
                let echoes = out.as_ref().map_or(5, |out| out.client_message_id);
                if self.is_new(id) {
                    self.proved.extend(out.map(|out| out.id));
                }
                let response =
                    BotResponse { correlation_id: Some(echoes), ..reply(&format!("ms-{id}"), "said") };
                self.give(Input::Frame(IncomingFrame::Response(Box::new(response))));
            }
            RandomInput::Signal(which) if self.is_open() => self.give(Input::Frame(match which {
                0 => IncomingFrame::WaitingForInput,
                1 => IncomingFrame::SessionEnd(event()),
                2 => IncomingFrame::AgentStart(event()),
                3 => IncomingFrame::AgentEnd(event()),
                4 => IncomingFrame::Active { session_id: None, session_continues: true },
                _ => IncomingFrame::Malformed,
            })),
            RandomInput::Heard if self.is_open() => self.give(Input::PeerAlive),
            RandomInput::Lease(valid) => self.lease(valid),
            RandomInput::Fades if self.lease == LeaseModel::Valid => self.lease = LeaseModel::Fading,
            RandomInput::Lost(code) if self.is_open() => {
                self.socket = SocketModel::None;
                self.give(Input::Lost(SocketLoss { code }));
            }
            RandomInput::History { ours, reply } if self.history => {
                self.history = false;
                self.said.extend(reply);
                let own = self.out.clone().filter(|_| ours);
                let mut records: Vec<_> = own.iter().map(|message| incoming(message)).collect();
                records.extend(reply.map(|id| outgoing(&format!("ms-{id}"))));
                self.give(Input::History(Ok(HistoryPage { records, more: false })));
            }
            RandomInput::NoHistory { for_good } if self.history => {
                self.history = false;
                let failure = if for_good { HistoryFailure::Permanent } else { HistoryFailure::Temporary };
                self.give(Input::History(Err(failure)));
            }
            _ => {}
        }
    }

    /// Returns whether no reply had this id before.
    fn is_new(&mut self, id: u8) -> bool {
        self.said.insert(id)
    }

    fn is_open(&self) -> bool {
        self.socket == SocketModel::Open
    }

    fn lease(&mut self, valid: bool) {
        self.lease = if valid { LeaseModel::Valid } else { LeaseModel::Suspect };
        self.give(Input::Lease(valid));
        self.give(Input::Tick);
    }

    fn lose_lease(&mut self) {
        self.lease = LeaseModel::Suspect;
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
        let mut ticks = 0;
        while advance(&mut self.now, &self.machine, end) {
            self.give(Input::Tick);
            ticks += 1;
            assert!(ticks < 1000, "a busy loop");
        }
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

    /// Answers every effect from now on, so that every accepted message must end.
    fn calm(&mut self) {
        self.lease(true);
        self.give(Input::Woken);
        for _ in 0..20_000 {
            if self.completed.len() == self.posted.len() {
                return;
            }
            if self.reading {
                self.reading = false;
                let lane = self.lane();
                self.give(Input::Lane(Box::new(lane)));
            } else if self.write.is_some() {
                self.store();
            } else if self.socket == SocketModel::Connecting {
                self.apply(RandomInput::Connected);
            } else if self.history {
                self.apply(RandomInput::History { ours: false, reply: None });
            } else if let Some(wake) = self.machine.wake_at().filter(|_| self.machine.open_messages() > 0) {
                self.now = self.now.max(wake);
                self.give(Input::Tick);
            } else {
                // The sweep finds messages whose hints were lost.
                assert_eq!(self.machine.open_messages(), 0, "open, and nothing to wait for");
                self.give(Input::Woken);
            }
        }
        panic!("{} of {} messages ended", self.completed.len(), self.posted.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn random_inputs_end_each_message_once_and_send_none_early(ops in prop::collection::vec(random_input(), 0..120)) {
        let mut trial = MachineTrial::new();
        for random_input in ops {
            trial.apply(random_input);
        }
        trial.calm();
    }
}
