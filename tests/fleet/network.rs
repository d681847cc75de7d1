//! The way between replicas and the store: late, lost on the way there or back, refused.

use rtm_bridge::domain::MessageId;
use rtm_bridge::rtm::ConnectMode;
use rtm_bridge::store::{StoreError, StoreRefusal};

use super::store::{Answer, Ask};
use super::world::{Deed, Event, Outcome, World};

/// So long an answer is awaited.
pub(super) const TIMEOUT: u64 = 2000;

/// A request on its way, and who wants its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) slot: usize,
    pub(super) life: u32,
    pub(super) to: To,
    pub(super) ask: Ask,
    /// By the replica's clock.
    pub(super) sent: u64,
    sent_at: u64,
}

/// Who wants an answer.
#[derive(Debug, Clone)]
pub(super) enum To {
    Keeper,
    Load { user: usize, number: u64 },
    Lane { user: usize, number: u64 },
    Write { user: usize, number: u64 },
    Permit { user: usize, number: u64, attempt: u64, mode: ConnectMode },
    Post(usize),
    Look(usize),
    Waiters(MessageId),
}

pub(super) type Reply = Result<Answer, StoreError>;

impl World {
    /// A replica asks the store something.
    pub(super) fn ask(&mut self, slot: usize, to: To, ask: Ask) {
        let here = &self.slots[slot];
        let (life, sent) = (here.life, here.local(self.now));
        let call = Box::new(Call { slot, life, to, ask, sent, sent_at: self.now });
        if self.lucky(self.temper.refusal) || (self.is_cut_off(slot) && self.rng.bool()) {
            let wait = self.lag();
            let refused = Err(StoreError::Unavailable(StoreRefusal::Unreachable));
            self.schedule(wait, Event::To(slot, life, Deed::Answered(call, refused)));
            return;
        }
        let (mut there, back) = (self.lag(), self.lag());
        if self.lucky(self.temper.loss) {
            if self.rng.bool() {
                self.miss(call);
                return;
            }
            // It comes through, but perhaps after nobody waits for it any more.
            there += self.rng.u64(0..6000);
        }
        let lost = self.lucky(self.temper.loss);
        self.schedule(there, Event::Arrive { call, back, lost });
    }

    fn is_cut_off(&self, slot: usize) -> bool {
        self.store.away || self.slots[slot].cut
    }

    /// No answer comes in time.
    fn miss(&mut self, call: Box<Call>) {
        let wait = (call.sent_at + TIMEOUT).saturating_sub(self.now);
        let unknown = Err(StoreError::Unknown(std::time::Duration::from_millis(TIMEOUT)));
        self.schedule(wait, Event::To(call.slot, call.life, Deed::Answered(call, unknown)));
    }

    pub(super) fn arrive(&mut self, call: Box<Call>, back: u64, lost: bool) -> Outcome {
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
            if self.is_cut_off(slot) || self.lucky(self.temper.hint_lost) {
                continue;
            }
            let wait = self.lag();
            let life = self.slots[slot].life;
            self.schedule(wait, Event::To(slot, life, Deed::Hinted(hint)));
        }
        if lost || self.now + back > call.sent_at + TIMEOUT {
            self.miss(call);
        } else {
            self.schedule(back, Event::To(call.slot, call.life, Deed::Answered(call, Ok(answer))));
        }
        Ok(())
    }
}
