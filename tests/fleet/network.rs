//! The network between replicas and the store: it delays, loses and refuses.

use rtm_bridge::domain::MessageId;
use rtm_bridge::rtm::ConnectMode;
use rtm_bridge::store::{StoreError, StoreRefusal};

use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld, ReplicaAction, WorldEvent};

/// The timeout of a request.
pub(super) const TIMEOUT: u64 = 2000;

/// A request in flight, and the receiver of its answer.
#[derive(Debug)]
pub(super) struct StoreCall {
    pub(super) slot: usize,
    pub(super) life: u32,
    pub(super) to: CallPurpose,
    pub(super) ask: StoreRequest,
    /// The send time on the replica's clock.
    pub(super) sent: u64,
    sent_at: u64,
}

/// The receiver of an answer.
#[derive(Debug, Clone)]
pub(super) enum CallPurpose {
    Membership,
    Load {
        user: usize,
        number: u64,
    },
    Lane {
        user: usize,
        number: u64,
    },
    Write {
        user: usize,
        number: u64,
    },
    Permit {
        user: usize,
        number: u64,
        attempt: u64,
        mode: ConnectMode,
    },
    Post(usize),
    /// A read of this message for a post.
    Poll(usize, MessageId),
    Waiters(MessageId),
}

pub(super) type StoreReply = Result<StoreAnswer, StoreError>;

impl FleetWorld {
    /// Sends a request of a replica to the store.
    pub(super) fn ask(&mut self, slot: usize, to: CallPurpose, ask: StoreRequest) {
        let here = &self.slots[slot];
        let (life, sent) = (here.life, here.local(self.now));
        let call = Box::new(StoreCall { slot, life, to, ask, sent, sent_at: self.now });
        if self.chance(self.plan.refusal) || (self.is_cut_off(slot) && self.rng.bool()) {
            let wait = self.lag();
            let refused = Err(StoreError::Unavailable(StoreRefusal::Unreachable));
            self.schedule_action(wait, slot, life, ReplicaAction::Answered(call, refused));
            return;
        }
        let (mut there, back) = (self.lag(), self.lag());
        if self.chance(self.plan.loss) {
            if self.rng.bool() {
                self.miss(call);
                return;
            }
            // The request arrives, perhaps after its timeout.
            there += self.rng.u64(0..6000);
        }
        let lost = self.chance(self.plan.loss);
        self.schedule(there, WorldEvent::Arrive { call, back, lost });
    }

    fn is_cut_off(&self, slot: usize) -> bool {
        self.store.away || self.slots[slot].cut
    }

    /// Leaves a request without an answer. A replica that lost its connection learns it soon, another one at the timeout.
    fn miss(&mut self, call: Box<StoreCall>) {
        let timeout = (call.sent_at + TIMEOUT).saturating_sub(self.now);
        let wait =
            if self.is_cut_off(call.slot) && self.rng.bool() { self.lag().min(timeout) } else { timeout };
        let unknown = Err(StoreError::Unknown(std::time::Duration::from_millis(TIMEOUT)));
        self.schedule_action(wait, call.slot, call.life, ReplicaAction::Answered(call, unknown));
    }

    pub(super) fn arrive(&mut self, call: Box<StoreCall>, back: u64, lost: bool) -> CheckResult {
        if self.is_cut_off(call.slot) {
            self.miss(call);
            return Ok(());
        }
        let answer = self.store.carry_out(&call.ask);
        self.audit_answer(&call.ask, &answer)?;
        for (incarnation, hint) in self.store.hints() {
            let Some(slot) = self.slots.iter().position(|slot| slot.incarnation() == Some(incarnation))
            else {
                continue;
            };
            if self.is_cut_off(slot) || self.chance(self.plan.hint_lost) {
                continue;
            }
            let wait = self.lag();
            let life = self.slots[slot].life;
            self.schedule_action(wait, slot, life, ReplicaAction::Hinted(hint));
        }
        if lost || self.now + back > call.sent_at + TIMEOUT {
            self.miss(call);
        } else {
            self.schedule_action(back, call.slot, call.life, ReplicaAction::Answered(call, Ok(answer)));
        }
        Ok(())
    }
}
