//! Random numbers of scripted bots. They follow from a seed, so a run can be repeated.

use std::cell::Cell;
use std::f64::consts::TAU;

use super::id_generator::mixed;

/// A sequence of random numbers.
#[derive(Debug, Default)]
pub(super) struct RandomSequence(Cell<u64>);

impl RandomSequence {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Returns the sequence for the message with this number of a user. Other users do not change it.
    pub(super) fn of_message(seed: u64, user: &str, number: u64) -> Self {
        Self::new(mixed(user.bytes().fold(mixed(seed), |hash, byte| mixed(hash ^ u64::from(byte))) ^ number))
    }

    fn bits(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(1));
        mixed(self.0.get())
    }

    /// Returns a number from 0 up to 1, without 1.
    pub(super) fn unit(&self) -> f64 {
        let bits = u32::try_from(self.bits() >> 32).unwrap_or_default();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns a whole number within the bounds.
    pub(super) fn between(&self, least: u64, most: u64) -> u64 {
        let count = most.saturating_sub(least).saturating_add(1);
        least + self.bits() % count
    }

    /// Returns a number of the standard normal distribution (Box and Muller).
    pub(super) fn normal(&self) -> f64 {
        // The logarithm of 0 is no number.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_follows_from_seed_user_and_number() {
        let numbers = |seed, user, number| {
            let sequence = RandomSequence::of_message(seed, user, number);
            [(); 3].map(|()| sequence.between(0, 1 << 40))
        };
        let first = numbers(7, "ann", 1);
        assert_eq!(first, numbers(7, "ann", 1));
        for other in [numbers(8, "ann", 1), numbers(7, "bob", 1), numbers(7, "ann", 2)] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn numbers_have_their_distributions() {
        let sequence = RandomSequence::new(1);
        let mean = |draw: &dyn Fn() -> f64| (0..10_000).map(|_| draw()).sum::<f64>() / 10_000.0;
        assert!((mean(&|| sequence.unit()) - 0.5).abs() < 0.02);
        assert!(mean(&|| sequence.normal()).abs() < 0.05);
        assert!((mean(&|| sequence.normal().powi(2)) - 1.0).abs() < 0.1);
        let drawn: Vec<u64> = (0..1000).map(|_| sequence.between(2, 4)).collect();
        assert!([2, 3, 4].iter().all(|number| drawn.contains(number)));
        assert!(drawn.iter().all(|number| (2..=4).contains(number)));
        assert_eq!(sequence.between(3, 3), 3);
    }
}
