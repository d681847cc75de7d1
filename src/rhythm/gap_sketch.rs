//! How long a bot takes from one reply to the next: a histogram whose buckets grow by a quarter, and its tail.

use std::time::Duration;

/// The number of buckets: 50 ms to 50 s.
pub(super) const BUCKETS: usize = 32;
/// The upper edge of the first bucket, in milliseconds, and its logarithm.
const FIRST: f32 = 50.0;
const LOG_FIRST: f32 = 3.912_023;
const GROWTH: f32 = 1.25;
const LOG_GROWTH: f32 = 0.223_143_55;
/// The upper edges, in milliseconds.
const EDGES: [f32; BUCKETS] = edges();
/// The deviation of the logarithms that is assumed before anything was seen, and its weight in observations.
const ASSUMED_DEVIATION: f32 = 0.5;
const ASSUMED_WEIGHT: f32 = 2.0;
/// A weight below this is nothing.
const LEAST: f32 = 0.05;

/// Gaps between replies, as faded weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GapSketch {
    pub(super) weights: [f32; BUCKETS],
    /// The sum of the weights.
    total: f32,
}

impl GapSketch {
    /// Returns the sketch of these weights.
    pub(super) fn of(weights: [f32; BUCKETS]) -> Self {
        Self { weights, total: weights.iter().sum() }
    }

    /// Adds a gap with the weight of one observation.
    pub(super) fn add(&mut self, gap: Duration) {
        if let Some(weight) = self.weights.get_mut(bucket_of(millis(gap))) {
            *weight += 1.0;
            self.total += 1.0;
        }
    }

    /// Multiplies all weights.
    pub(super) fn scale(&mut self, factor: f32) {
        if self.total > 0.0 {
            for weight in &mut self.weights {
                *weight *= factor;
            }
            self.total = self.weights.iter().sum();
        }
    }

    /// Returns the weight of all gaps.
    pub(super) const fn total(&self) -> f32 {
        self.total
    }

    /// Returns whether it holds a gap, as far as is remembered.
    pub(super) const fn has_any(&self) -> bool {
        self.total >= LEAST
    }

    /// Returns the weight of the gaps that may be longer than so many milliseconds.
    fn beyond(&self, wait: f32) -> f32 {
        EDGES.iter().zip(&self.weights).filter(|(edge, _)| **edge > wait).map(|(_, weight)| weight).sum()
    }

    /// Returns the upper edge of the longest gap that has any weight to speak of.
    pub(super) fn longest(&self) -> Option<Duration> {
        let bucket = self.weights.iter().rposition(|weight| *weight >= LEAST)?;
        EDGES.get(bucket).map(|edge| Duration::from_secs_f32(edge / 1000.0))
    }

    /// Returns the fitted tail, or `None` without a gap.
    pub(super) fn tail(&self) -> Option<GapTail<'_>> {
        if !self.has_any() {
            return None;
        }
        let mut sum = 0.0;
        let mut squares = 0.0;
        let mut step = 0.0;
        for weight in &self.weights {
            sum += weight * step;
            squares += weight * step * step;
            step += 1.0;
        }
        let mean = sum / self.total;
        let squares = (squares - mean * sum).max(0.0) * LOG_GROWTH * LOG_GROWTH;
        let freedom = (self.total - 1.0).max(0.0) + ASSUMED_WEIGHT;
        let assumed = ASSUMED_WEIGHT * ASSUMED_DEVIATION * ASSUMED_DEVIATION;
        let within_bucket = LOG_GROWTH * LOG_GROWTH / 12.0;
        let variance = (squares + assumed) / freedom + within_bucket;
        Some(GapTail {
            sketch: self,
            // The middle of a bucket is half a step below its edge.
            mean: LOG_FIRST + (mean - 0.5) * LOG_GROWTH,
            deviation: (variance * (1.0 + 1.0 / self.total.max(1.0))).sqrt(),
            freedom,
        })
    }
}

/// The chance of long gaps: the seen ones, and a log-normal tail with the uncertainty of its two parameters (Student's
/// t).
#[derive(Clone, Copy, Debug)]
pub(super) struct GapTail<'a> {
    sketch: &'a GapSketch,
    mean: f32,
    deviation: f32,
    freedom: f32,
}

impl GapTail<'_> {
    /// Returns the weight of the gaps that are expected beyond so many milliseconds. It falls with the wait.
    pub(super) fn expected_beyond(&self, wait: f32) -> f32 {
        let fitted = student_tail((wait.max(1.0).ln() - self.mean) / self.deviation, self.freedom);
        self.sketch.beyond(wait).max(self.sketch.total * fitted)
    }
}

/// Returns the chance that a value of Student's t distribution is above `t` (Wallace's approximation, 1959).
fn student_tail(t: f32, freedom: f32) -> f32 {
    let spread = (freedom * (1.0 + t * t / freedom).ln()).sqrt();
    let tail = normal_tail((8.0 * freedom + 1.0) / (8.0 * freedom + 3.0) * spread);
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// Returns the chance that a standard normal value is above `z`, for `z` from 0 (Abramowitz and Stegun, 7.1.26).
fn normal_tail(z: f32) -> f32 {
    let x = z / std::f32::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial =
        t * (0.254_829_6 + t * (-0.284_496_73 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    0.5 * polynomial * (-x * x).exp()
}

#[expect(clippy::indexing_slicing, reason = "a constant: the compiler checks it")]
const fn edges() -> [f32; BUCKETS] {
    let mut edges = [FIRST; BUCKETS];
    let mut bucket = 1;
    while bucket < BUCKETS {
        edges[bucket] = edges[bucket - 1] * GROWTH;
        bucket += 1;
    }
    edges
}

pub(super) fn millis(span: Duration) -> f32 {
    span.as_secs_f32() * 1000.0
}

/// Returns the bucket of a gap in milliseconds. The last one takes all that are longer.
fn bucket_of(gap: f32) -> usize {
    EDGES.partition_point(|edge| *edge < gap).min(BUCKETS - 1)
}

/// The waits that are weighed: the shortest, the edges of buckets, and the longest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WaitGrid {
    min: f32,
    max: f32,
    /// The first edge above the shortest wait.
    from: usize,
    /// The number of waits.
    pub(super) len: usize,
}

impl WaitGrid {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        let (min, max) = (millis(min), millis(max.max(min)));
        let from = EDGES.partition_point(|edge| *edge <= min);
        let to = EDGES.partition_point(|edge| *edge < max);
        Self { min, max, from, len: to.saturating_sub(from) + 2 }
    }

    /// Returns a wait in milliseconds.
    pub(super) fn wait(&self, at: usize) -> f32 {
        match at {
            0 => self.min,
            at if at + 1 >= self.len => self.max,
            at => EDGES.get(self.from + at - 1).copied().unwrap_or(self.max),
        }
    }

    /// Returns the longest wait below so many milliseconds.
    pub(super) fn below(&self, millis: f32) -> Option<f32> {
        (0..self.len).rev().map(|at| self.wait(at)).find(|wait| *wait < millis)
    }
}
