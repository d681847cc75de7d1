//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
/// Whoever wants to be left alone for longer is asked all the same: somebody waits at the terminal.
const ASKED_MAX: Duration = Duration::from_secs(30);

/// Waits that grow, and differ between those who lost the same bridge.
#[derive(Debug, Default)]
pub(super) struct Pause(u32);

impl Pause {
    /// The next one, at least as long as was asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let most = FIRST.saturating_mul(1 << self.0.min(8)).min(LONGEST);
        self.0 += 1;
        let drawn = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        drawn.max(asked.unwrap_or_default().min(ASKED_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut pause = Pause::default();
        let waits: Vec<_> = (0..40).map(|_| pause.next(None)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2, "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= LONGEST / 2 && *wait <= LONGEST), "{waits:?}");
        assert_eq!(Pause::default().next(Some(Duration::from_secs(9))), Duration::from_secs(9));
        assert_eq!(Pause::default().next(Some(Duration::from_hours(1))), ASKED_MAX);
    }
}
