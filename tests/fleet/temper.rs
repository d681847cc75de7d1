//! What goes wrong in a run, how often and when.

use fastrand::Rng;

use crate::simulation::platform;

/// Replicas there may be at a time.
pub(super) const SLOTS: usize = 4;
/// Until when things go wrong, in milliseconds.
pub(super) const UNREST: u64 = 45_000;

/// Something that befalls a replica, the store or the fleet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
    /// Its state is gone; it comes back after a while.
    Crash { slot: usize, back: u64 },
    /// Nothing happens there for a while, then everything goes on. Where `frozen`, its clock stood still too.
    Pause { slot: usize, time: u64, frozen: bool },
    /// As a pause, but beginning between the look at the lease and the bytes that it allowed.
    PauseInSend { slot: usize, time: u64 },
    /// It does not reach the store.
    Cut { slot: usize, time: u64 },
    /// It is told to go, and comes back after a while.
    Term { slot: usize, back: u64 },
    /// A replica begins where none is.
    Join { slot: usize },
    /// Nobody reaches the store.
    Away { time: u64, empty: bool },
}

/// How often things go wrong; percent where nothing else is said.
#[derive(Debug, Clone)]
pub(super) struct Temper {
    pub(super) platform: platform::FaultPlan,
    /// The longest way to the store or back, in milliseconds.
    pub(super) lag: u64,
    /// Requests, and answers, that get lost.
    pub(super) loss: u32,
    /// Requests that are refused at once.
    pub(super) refusal: u32,
    /// Hints that get lost.
    pub(super) hint_lost: u32,
    /// Hints stay lost also when everything else goes well again.
    pub(super) deaf: bool,
    /// Whether a caller who waits more than once asks another replica.
    pub(super) roaming: bool,
    /// How many replicas begin, and whether all at the same time.
    pub(super) together: bool,
    pub(super) replicas: usize,
    pub(super) posts: u32,
    /// Of a hundred posts so many come as a blow falls or soon after.
    pub(super) burst: u32,
    /// How many users write.
    pub(super) users: usize,
    /// Connects a minute for the fleet; 0 is no limit.
    pub(super) connects: u32,
    pub(super) blows: Vec<(u64, Blow)>,
}

impl Temper {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let percent = |rng: &mut Rng, most: u32| if rng.bool() { 0 } else { rng.u32(1..=most) };
        let mut platform = platform::FaultPlan::draw(rng);
        if rng.bool() {
            // The fleet's own trouble shows best where the platform gives none.
            platform = calm(&platform);
        }
        let deaf = rng.u8(0..6) == 0;
        let mut temper = Self {
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
            blows: Vec::new(),
        };
        for _ in 0..rng.u8(0..6) {
            let blow = Blow::draw(rng);
            temper.blows.push((rng.u64(500..UNREST), blow));
        }
        temper
    }

    /// Nothing goes wrong but these blows; all replicas begin at the same time.
    pub(super) fn only(&mut self, replicas: usize, blows: Vec<(u64, Blow)>) {
        self.calm_down();
        (self.hint_lost, self.deaf, self.lag, self.connects) = (0, false, 3, 0);
        (self.replicas, self.together, self.blows) = (replicas, true, blows);
    }

    /// Everything goes well, but for what may stay as it is.
    pub(super) fn calm_down(&mut self) {
        self.platform = calm(&self.platform);
        self.loss = 0;
        self.refusal = 0;
        self.hint_lost = if self.deaf { 100 } else { 0 };
        self.lag = self.lag.min(40);
    }
}

impl Blow {
    fn draw(rng: &mut Rng) -> Self {
        let slot = rng.usize(0..SLOTS);
        // A lease is ten seconds.
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

fn calm(temper: &platform::FaultPlan) -> platform::FaultPlan {
    platform::FaultPlan {
        drop: 0,
        connect_fails: 0,
        ack_missing: 0,
        silent: 0,
        history_fails: 0,
        history_lag: temper.history_lag.min(300),
        ..temper.clone()
    }
}
