//! The faults of a run: their kinds, rates and times.

use fastrand::Rng;

use crate::simulation::platform;

/// The maximum number of replicas.
pub(super) const SLOTS: usize = 4;
/// The end of all faults, in milliseconds.
pub(super) const FAULT_TIME: u64 = 45_000;

/// A fault of a replica, the store or the fleet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The replica loses its state and comes back later.
    Crash { slot: usize, back: u64 },
    /// The replica stands still for a while. A `frozen` one has a clock that stands still too.
    Pause { slot: usize, time: u64, frozen: bool },
    /// A pause between the check of the lease and the send that it allowed.
    PauseInSend { slot: usize, time: u64 },
    /// The replica does not reach the store.
    Cut { slot: usize, time: u64 },
    /// The replica shuts down and comes back later.
    Term { slot: usize, back: u64 },
    /// A replica starts in a free slot.
    Join { slot: usize },
    /// No replica reaches the store.
    Away { time: u64, empty: bool },
}

/// The rates and times of faults. Rates are per cent unless noted.
#[derive(Debug, Clone)]
pub(super) struct FaultPlan {
    pub(super) platform: platform::FaultPlan,
    /// The highest latency to the store or back, in milliseconds.
    pub(super) lag: u64,
    /// Requests and answers that are lost.
    pub(super) loss: u32,
    /// Requests that are refused at once.
    pub(super) refusal: u32,
    /// Hints that are lost.
    pub(super) hint_lost: u32,
    /// Hints stay lost after the end of all faults.
    pub(super) deaf: bool,
    /// Whether a caller polls another replica after its first wait.
    pub(super) roaming: bool,
    /// Whether all replicas start at the same time.
    pub(super) together: bool,
    pub(super) replicas: usize,
    pub(super) posts: u32,
    /// Posts that come close to a fault.
    pub(super) burst: u32,
    /// The number of users that write.
    pub(super) users: usize,
    /// Connects per minute for the fleet; 0 is no limit.
    pub(super) connects: u32,
    pub(super) faults: Vec<(u64, Fault)>,
}

impl FaultPlan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let percent = |rng: &mut Rng, most: u32| if rng.bool() { 0 } else { rng.u32(1..=most) };
        let mut platform = platform::FaultPlan::draw(rng);
        if rng.bool() {
            // Faults of the fleet show best without faults of the platform.
            platform = without_faults(&platform);
        }
        let deaf = rng.u8(0..6) == 0;
        let mut plan = Self {
            platform,
            lag: rng.choice([3, 3, 40, 400]).unwrap_or(3),
            loss: percent(rng, 15),
            refusal: percent(rng, 10),
            hint_lost: if deaf { 100 } else { percent(rng, 60) },
            deaf,
            roaming: rng.bool(),
            together: false,
            replicas: rng.usize(1..SLOTS),
            posts: rng.u32(4..20),
            burst: rng.choice([0, 50, 90]).unwrap_or(0),
            users: rng.usize(1..=super::USERS),
            connects: if rng.u8(0..6) == 0 { 60 } else { 0 },
            faults: Vec::new(),
        };
        for _ in 0..rng.u8(0..6) {
            let fault = Fault::draw(rng);
            plan.faults.push((rng.u64(500..FAULT_TIME), fault));
        }
        plan
    }

    /// Replaces all faults by these, and starts all replicas at the same time.
    pub(super) fn only(&mut self, replicas: usize, faults: Vec<(u64, Fault)>) {
        self.end_faults();
        (self.hint_lost, self.deaf, self.lag, self.connects) = (0, false, 3, 0);
        (self.replicas, self.together, self.faults) = (replicas, true, faults);
    }

    /// Ends all faults that a fleet has to survive only for a while.
    pub(super) fn end_faults(&mut self) {
        self.platform = without_faults(&self.platform);
        self.loss = 0;
        self.refusal = 0;
        self.hint_lost = if self.deaf { 100 } else { 0 };
        self.lag = self.lag.min(40);
    }
}

impl Fault {
    fn draw(rng: &mut Rng) -> Self {
        let slot = rng.usize(0..SLOTS);
        // A lease takes ten seconds.
        let time = rng.choice([400, 3000, 8000, 12_000, 25_000]).unwrap_or(3000) + rng.u64(0..2000);
        let back = rng.u64(100..20_000);
        match rng.u8(0..18) {
            0..4 => Self::Crash { slot, back },
            4..7 => Self::Pause { slot, time, frozen: rng.u8(0..6) == 0 },
            7..9 => Self::PauseInSend { slot, time },
            9..12 => Self::Cut { slot, time },
            12..14 => Self::Term { slot, back },
            14..16 => Self::Join { slot },
            _ => Self::Away { time, empty: rng.u8(0..3) == 0 },
        }
    }
}

fn without_faults(plan: &platform::FaultPlan) -> platform::FaultPlan {
    platform::FaultPlan {
        drop: 0,
        connect_fails: 0,
        ack_missing: 0,
        silent: 0,
        history_fails: 0,
        history_lag: plan.history_lag.min(300),
        ..plan.clone()
    }
}
