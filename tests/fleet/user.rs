//! The platform of one user: the bot, and the sockets of replicas.

use std::collections::BTreeMap;

use rtm_bridge::domain::Timestamp;
use rtm_bridge::domain::{AcceptedMessage, ConversationId, MessageId, Partition, ResendPolicy, UserId};
use rtm_bridge::link::{ConnectFailure, Input, SocketLoss};
use rtm_bridge::rtm::{ConnectMode, IncomingFrame};

use super::bot_name;
use super::world::{CheckResult, FleetWorld, ReplicaAction, WorldEvent};
use crate::simulation::platform::{Platform, PlatformEvent};

pub(super) struct SimulatedUser {
    pub(super) name: ConversationId,
    pub(super) partition: Partition,
    pub(super) platform: Platform,
    pub(super) sockets: BTreeMap<u64, PlatformSocket>,
    /// The number of times the platform received each message.
    received: BTreeMap<MessageId, u32>,
}

/// A socket, as the platform sees it.
pub(super) struct PlatformSocket {
    pub(super) slot: usize,
    life: u32,
    /// The number of the conversation in the replica's memory.
    number: u64,
    /// The peer disappeared without a close, and no frame passes any more.
    dead: bool,
}

impl SimulatedUser {
    pub(super) fn new(index: usize) -> Self {
        let name = ConversationId::new(bot_name(), UserId::new(&format!("user-{index}")).unwrap());
        let partition = Partition::of(&name);
        let platform = Platform::default();
        Self { name, partition, platform, sockets: BTreeMap::new(), received: BTreeMap::new() }
    }
}

impl FleetWorld {
    /// Handles a connect.
    pub(super) fn open_socket(
        &mut self,
        (slot, life): (usize, u32),
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    ) {
        if self.slots[slot].life != life {
            return;
        }
        let wait = self.rng.u64(1..50);
        if self.chance(self.plan.platform.connect_fails) {
            let failure = if self.rng.u8(0..20) == 0 {
                ConnectFailure::Rejected("unknown bot".into())
            } else {
                ConnectFailure::Unavailable { words: "refused".into(), retry_after: None }
            };
            let action = ReplicaAction::Connected { user, number, attempt, socket: Err(failure) };
            self.schedule_action(wait, slot, life, action);
            return;
        }
        let replaces = self.rng.u8(0..3) == 0;
        let others: Vec<u64> = self.users[user].sockets.keys().copied().filter(|_| replaces).collect();
        for other in others {
            self.say(user, other, PlatformEvent::Close(1005));
        }
        let socket = self.number();
        let known = self.users[user].platform.session;
        let new_session = match mode {
            ConnectMode::Default => !known || self.rng.u8(0..3) == 0,
            ConnectMode::StartNew | ConnectMode::StartNewResumeAgent => true,
            ConnectMode::Reconnect => false,
        };
        let here = &mut self.users[user];
        here.platform.session = true;
        here.sockets.insert(socket, PlatformSocket { slot, life, number, dead: false });
        let plan = here.platform.welcome(&mut self.rng, &self.plan.platform, new_session);
        // The welcome follows the handshake.
        for (at, said) in plan {
            self.schedule(wait + 1 + at, WorldEvent::Said { user, socket, said });
        }
        let action = ReplicaAction::Connected { user, number, attempt, socket: Ok(socket) };
        self.schedule_action(wait, slot, life, action);
    }

    /// Receives a message if the socket is open.
    pub(super) fn receive(
        &mut self,
        user: usize,
        socket: u64,
        slot: usize,
        message: &AcceptedMessage,
    ) -> CheckResult {
        let here = &mut self.users[user];
        if here.sockets.get(&socket).is_none_or(|socket| socket.dead) {
            return Ok(());
        }
        let times = here.received.entry(message.id).or_default();
        *times += 1;
        if *times > 1 && message.new.resend == ResendPolicy::Never {
            return Err(format!("the platform saw {} twice, the second time from {slot}", message.id));
        }
        let lag = self.rng.u64(0..=self.plan.platform.history_lag);
        here.platform.received(super::START + self.now, lag, message.client_message_id);
        let plan = here.platform.answer(&mut self.rng, &self.plan.platform, message.client_message_id);
        self.note(|| format!("the platform received {} of user {user} from {slot}", message.id));
        for (at, said) in plan {
            self.schedule(at, WorldEvent::Said { user, socket, said });
        }
        Ok(())
    }

    /// Sends a frame over a socket, or over another one of the user.
    pub(super) fn say(&mut self, user: usize, mut socket: u64, mut said: PlatformEvent) {
        if let PlatformEvent::Frame(IncomingFrame::Response(response)) = &mut said {
            let lag = self.rng.u64(0..=self.plan.platform.history_lag);
            let here = &mut self.users[user];
            let first_said = here.platform.first_said(super::START + self.now, response);
            response.created_on = Some(Timestamp::from_millis(first_said));
            here.platform.spoke(super::START + self.now, lag, response);
        }
        let here = &mut self.users[user];
        if !here.sockets.contains_key(&socket) {
            let other = here.sockets.keys().next_back().copied();
            let Some(other) =
                other.filter(|_| !matches!(said, PlatformEvent::Close(_) | PlatformEvent::Death))
            else {
                return;
            };
            socket = other;
        }
        let Some(peer) = here.sockets.get_mut(&socket) else { return };
        if peer.dead {
            return;
        }
        let input = match said {
            PlatformEvent::Frame(frame) => {
                if let IncomingFrame::SessionEnd(_) = frame {
                    here.platform.session = false;
                }
                Input::Frame(frame)
            }
            PlatformEvent::Death => {
                peer.dead = true;
                return;
            }
            PlatformEvent::Close(code) => Input::Lost(SocketLoss { code }),
        };
        let (slot, life, number) = (peer.slot, peer.life, peer.number);
        if matches!(input, Input::Lost(_)) {
            here.sockets.remove(&socket);
        }
        // All frames take the same time, so they keep their order.
        self.schedule_action(1, slot, life, ReplicaAction::Heard { user, number, socket, input });
    }

    pub(super) fn read_history(
        &mut self,
        (slot, life): (usize, u32),
        user: usize,
        number: u64,
        after: Option<&str>,
    ) {
        use rtm_bridge::link::HistoryFailure;
        let page = if self.chance(self.plan.platform.history_fails) {
            Err(if self.rng.u8(0..4) == 0 { HistoryFailure::Permanent } else { HistoryFailure::Temporary })
        } else {
            self.users[user].platform.history(super::START + self.now, after)
        };
        let wait = self.rng.u64(1..200);
        self.schedule_action(wait, slot, life, ReplicaAction::History { user, number, page });
    }
}
