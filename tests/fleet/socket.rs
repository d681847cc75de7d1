//! The sends and connects of a conversation, which need a valid lease.

use std::sync::Arc;

use rtm_bridge::domain::AcceptedMessage;
use rtm_bridge::link::{ConnectFailure, Input};
use rtm_bridge::rtm::ConnectMode;
use rtm_bridge::store::ConnectPermit;

use super::START;
use super::audit::FencingGap;
use super::network::{CallPurpose, StoreReply};
use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld, ReplicaAction, WorldEvent};

impl FleetWorld {
    /// Starts a connect: the connect limiter, the lease, then the platform.
    pub(super) fn connect(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    ) -> CheckResult<Option<Input>> {
        if self.plan.connects > 0 {
            self.ask(
                slot,
                CallPurpose::Permit { user, number, attempt, mode },
                StoreRequest::Permit(attempt),
            );
            return Ok(None);
        }
        self.dial(slot, user, number, attempt, mode)
    }

    pub(super) fn on_permit(
        &mut self,
        slot: usize,
        (user, number, attempt, mode): (usize, u64, u64, ConnectMode),
        reply: &StoreReply,
    ) -> CheckResult {
        let wanted = self.conversation(slot, user, number).is_some_and(|it| it.connecting == Some(attempt));
        if !wanted {
            return Ok(());
        }
        if let Ok(StoreAnswer::Permit(ConnectPermit::Granted)) = reply {
            let input = self.dial(slot, user, number, attempt, mode)?;
            return input.map_or(Ok(()), |input| self.input(slot, user, number, input));
        }
        let wait = match reply {
            Ok(StoreAnswer::Permit(ConnectPermit::At(at))) => {
                at.as_millis().saturating_sub(START + self.now).max(1)
            }
            _ => self.rng.u64(100..1000),
        };
        let life = self.slots[slot].life;
        self.schedule_action(wait, slot, life, ReplicaAction::AskPermit { user, number, attempt, mode });
        Ok(())
    }

    fn dial(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    ) -> CheckResult<Option<Input>> {
        if !self.may_act(slot, user) {
            if let Some(conversation) = self.conversation(slot, user, number) {
                conversation.connecting = None;
            }
            return Ok(Some(Input::ConnectFailed(ConnectFailure::Withheld)));
        }
        self.ledger.connects += 1;
        self.audit_action(slot, user, "connects", FencingGap::None)?;
        let life = self.slots[slot].life;
        let wait = self.rng.u64(10..1200);
        self.schedule(wait, WorldEvent::Connecting { slot, life, user, number, attempt, mode });
        Ok(None)
    }

    pub(super) fn may_act(&self, slot: usize, user: usize) -> bool {
        let here = &self.slots[slot];
        let Some(replica) = &here.replica else { return false };
        let Some(conversation) = replica.conversations.get(&user) else { return false };
        replica.membership.may_act(conversation.partition, conversation.fence, here.local(self.now))
    }

    pub(super) fn send(
        &mut self,
        slot: usize,
        user: usize,
        number: u64,
        message: Arc<AcceptedMessage>,
    ) -> CheckResult<Option<Input>> {
        if !self.may_act(slot, user) {
            return Ok(Some(Input::Withheld));
        }
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(None) };
        if let Some(time) = replica.pause_in_send.take() {
            if let Some(conversation) = self.conversation(slot, user, number) {
                conversation.held_message = Some(message);
            }
            self.note(|| format!("{slot} stands still with a held message of user {user}"));
            self.pause(slot, time, false);
            return Ok(Some(Input::Writing));
        }
        self.send_bytes(slot, user, message, FencingGap::None)?;
        Ok(Some(Input::Writing))
    }

    /// Sends the messages that were held by a pause.
    pub(super) fn send_held(&mut self, slot: usize) -> CheckResult {
        let Some(replica) = &mut self.slots[slot].replica else { return Ok(()) };
        let held: Vec<_> = replica
            .conversations
            .iter_mut()
            .filter_map(|(&user, conversation)| Some((user, conversation.held_message.take()?)))
            .collect();
        for (user, message) in held {
            self.send_bytes(slot, user, message, FencingGap::Stopped)?;
        }
        Ok(())
    }

    fn send_bytes(
        &mut self,
        slot: usize,
        user: usize,
        message: Arc<AcceptedMessage>,
        excuse: FencingGap,
    ) -> CheckResult {
        let socket = self.slots[slot].replica.as_ref().and_then(|it| it.conversations.get(&user)?.socket);
        let Some(socket) = socket else { return Err(format!("{} is sent without a socket", message.id)) };
        self.audit_send(slot, user, &message, excuse)?;
        let wait = self.rng.u64(1..30);
        self.schedule(wait, WorldEvent::Received { user, socket, slot, message });
        Ok(())
    }

    pub(super) fn on_connected(
        &mut self,
        slot: usize,
        user: usize,
        (number, attempt): (u64, u64),
        socket: Result<u64, ConnectFailure>,
    ) -> CheckResult {
        let conversation = self.conversation(slot, user, number);
        let Some(conversation) = conversation.filter(|it| it.connecting == Some(attempt)) else {
            // The connect was abandoned.
            if let Ok(socket) = socket {
                self.users[user].sockets.remove(&socket);
            }
            return Ok(());
        };
        conversation.connecting = None;
        let input = match socket {
            Ok(socket) => {
                conversation.socket = Some(socket);
                Input::Connected
            }
            Err(failure) => Input::ConnectFailed(failure),
        };
        self.input(slot, user, number, input)
    }

    pub(super) fn on_heard(
        &mut self,
        slot: usize,
        user: usize,
        (number, socket): (u64, u64),
        input: Input,
    ) -> CheckResult {
        let conversation = self.conversation(slot, user, number);
        let Some(conversation) = conversation.filter(|it| it.socket == Some(socket)) else { return Ok(()) };
        if matches!(input, Input::Lost(_)) {
            conversation.socket = None;
        }
        self.input(slot, user, number, input)
    }
}
