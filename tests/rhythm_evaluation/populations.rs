//! Simulated bots: the turns that each would take.

use fastrand::Rng;

/// A reply of a turn: its kind, its template, and the milliseconds until the next one.
pub(super) struct SimulatedReply {
    pub(super) kind: u64,
    pub(super) template: u64,
    pub(super) gap: Option<f64>,
}

/// A population of bots of one behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Population {
    SingleAnswers,
    TwoBubbles,
    ServiceCall,
    Menus,
    Mixed,
    HeavyTails,
    Bursts,
    RandomBranches,
    /// Like [`Population::Mixed`], but in the middle each kind gets another behaviour.
    Redeploy,
    /// Kinds that go on every other time, and one that goes on after each 59 times of silence.
    Alternation,
}

impl Population {
    pub(super) const ALL: [Self; 10] = [
        Self::SingleAnswers,
        Self::TwoBubbles,
        Self::ServiceCall,
        Self::Menus,
        Self::Mixed,
        Self::HeavyTails,
        Self::Bursts,
        Self::RandomBranches,
        Self::Redeploy,
        Self::Alternation,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SingleAnswers => "single answers, a tenth of them never said before",
            Self::TwoBubbles => "two bubbles 300 ms apart",
            Self::ServiceCall => "message, service call of 0.5 to 4 s, result",
            Self::Menus => "menus, some with a word before",
            Self::Mixed => "200 kinds by Zipf's law, a tenth of them go on by chance",
            Self::HeavyTails => "heavy tails (log-normal, σ 0.8)",
            Self::Bursts => "bursts of up to 5 replies",
            Self::RandomBranches => "branches by chance (2, 30 and 70 %)",
            Self::Redeploy => "redeploy in the middle: all 200 kinds change",
            Self::Alternation => "alternation against the learner",
        }
    }

    /// Whether the bot behaves at the end as at the start.
    pub(super) const fn is_stationary(self) -> bool {
        !matches!(self, Self::Redeploy | Self::Alternation)
    }

    /// Returns the replies of a turn.
    pub(super) fn turn(self, turn: usize, turns: usize, random: &mut Rng) -> Vec<SimulatedReply> {
        match self {
            Self::SingleAnswers => {
                let new = random.u8(0..10) == 0;
                vec![last(if new { 1000 + turn as u64 } else { zipf(random, 40) }, 1)]
            }
            Self::TwoBubbles => {
                let kind = zipf(random, 30);
                vec![then(kind, 1, log_normal(random, 300.0, 0.1)), last(100 + kind, 1)]
            }
            Self::ServiceCall if random.bool() => vec![last(zipf(random, 20), 1)],
            Self::ServiceCall => {
                let kind = zipf(random, 10);
                let result = if random.u8(0..10) < 3 { 1000 + turn as u64 } else { 200 + kind };
                vec![then(100 + kind, 1, 500.0 + 3500.0 * random.f64()), last(result, 1)]
            }
            Self::Menus => {
                let kind = zipf(random, 15);
                let word = then(500 + kind % 3, 1, log_normal(random, 120.0, 0.2));
                let mut replies = if random.u8(0..10) < 3 { vec![word] } else { Vec::new() };
                replies.push(last(kind, 2));
                replies
            }
            Self::Mixed => mixed(3, random),
            Self::Redeploy => mixed(if turn < turns / 2 { 3 } else { 7 }, random),
            Self::HeavyTails => {
                let kind = zipf(random, 20);
                let count = [3, 1, 2][usize::try_from(kind % 3).unwrap()];
                chain(count, |at| (kind * 10 + at, log_normal(random, 250.0, 0.8)))
            }
            Self::Bursts => {
                let kind = zipf(random, 20);
                chain(1 + kind % 5, |at| (kind * 10 + at, 40.0 + 60.0 * random.f64()))
            }
            Self::RandomBranches => {
                let kind = zipf(random, 20);
                let chance = [0.0, 0.02, 0.3, 0.0, 0.7][usize::try_from(kind % 5).unwrap()];
                go_on(random.f64() < chance, kind, log_normal(random, 400.0, 0.3))
            }
            Self::Alternation => {
                let kind = (turn % 5) as u64;
                let goes_on = match kind {
                    0 => turn.is_multiple_of(2),
                    1 => (turn / 5) % 60 == 59,
                    _ => false,
                };
                go_on(goes_on, kind, log_normal(random, 300.0, 0.1))
            }
        }
    }
}

/// A dialog through 200 kinds. The behaviour of each follows from the seed.
fn mixed(seed: u64, random: &mut Rng) -> Vec<SimulatedReply> {
    let mut replies = Vec::new();
    let mut kind = zipf(random, 200);
    for _ in 0..5 {
        let mut behaviour = Rng::with_seed(seed * 1_000_003 + kind);
        let chance = match behaviour.u8(0..100) {
            0..55 => 0.0,
            55..90 => 1.0,
            _ => 0.05 + 0.9 * behaviour.f64(),
        };
        let gap = 150.0 * 10_f64.powf(behaviour.f64());
        if random.f64() >= chance {
            break;
        }
        replies.push(then(kind, kind % 3, log_normal(random, gap, 0.15)));
        kind = behaviour.u64(0..200);
    }
    replies.push(last(kind, kind % 3));
    replies
}

const fn last(kind: u64, template: u64) -> SimulatedReply {
    SimulatedReply { kind, template, gap: None }
}

const fn then(kind: u64, template: u64, gap: f64) -> SimulatedReply {
    SimulatedReply { kind, template, gap: Some(gap) }
}

fn go_on(goes_on: bool, kind: u64, gap: f64) -> Vec<SimulatedReply> {
    if goes_on { vec![then(kind, 1, gap), last(100 + kind, 1)] } else { vec![last(kind, 1)] }
}

fn chain(count: u64, mut reply: impl FnMut(u64) -> (u64, f64)) -> Vec<SimulatedReply> {
    let mut replies: Vec<_> = (0..count)
        .map(|at| {
            let (kind, gap) = reply(at);
            then(kind, 1, gap)
        })
        .collect();
    if let Some(last) = replies.last_mut() {
        last.gap = None;
    }
    replies
}

/// Draws a number below `count` by Zipf's law.
fn zipf(random: &mut Rng, count: u64) -> u64 {
    let share = |rank: u64| 1.0 / rank as f64;
    let mut left = random.f64() * (1..=count).map(share).sum::<f64>();
    for rank in 1..count {
        left -= share(rank);
        if left <= 0.0 {
            return rank - 1;
        }
    }
    count - 1
}

/// Draws from a log-normal distribution (Box and Muller).
pub(super) fn log_normal(random: &mut Rng, median: f64, deviation: f64) -> f64 {
    let radius = (-2.0 * random.f64().max(1e-12).ln()).sqrt();
    median * (deviation * radius * (std::f64::consts::TAU * random.f64()).cos()).exp()
}
