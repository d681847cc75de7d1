//! A run, and what the processes that took part spent on it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::child::Child;
use crate::failure::Failure;
use crate::load;

/// Memory is still when it moved by less than a part in this many between two looks.
const STILL: u64 = 500;
/// After that it is taken as it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a run.
pub(crate) struct Run {
    pub(crate) turns: u64,
    pub(crate) elapsed: Duration,
    /// Of each turn, in microseconds; not of those that another process took.
    pub(crate) latency: Option<Histogram<u64>>,
}

/// A run, and the CPU time that was spent on it.
pub(crate) struct Metered {
    pub(crate) run: Run,
    /// By the processes under test together.
    pub(crate) cpu: Duration,
    /// By Redis, where there is one.
    pub(crate) store: Duration,
    pub(crate) sandbox: Duration,
}

impl Metered {
    pub(crate) fn rate(&self) -> f64 {
        self.run.turns as f64 / self.run.elapsed.as_secs_f64()
    }

    pub(crate) fn micros(&self) -> f64 {
        self.each(self.cpu)
    }

    pub(crate) fn store_micros(&self) -> f64 {
        self.each(self.store)
    }

    pub(crate) fn sandbox_micros(&self) -> f64 {
        self.each(self.sandbox)
    }

    fn each(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.run.turns as f64
    }
}

/// The processes that take part.
#[derive(Clone, Copy)]
pub(crate) struct Parties<'a> {
    pub(crate) subject: &'a [Child],
    pub(crate) store: Option<&'a Child>,
    pub(crate) sandbox: &'a Child,
}

impl Parties<'_> {
    /// A run, with what each of them spent on it.
    pub(crate) async fn metered(
        self,
        run: impl Future<Output = Result<Run, Failure>>,
    ) -> Result<Metered, Failure> {
        let before = self.cpu()?;
        let run = run.await?;
        let after = self.cpu()?;
        Ok(Metered {
            run,
            cpu: after.0.saturating_sub(before.0),
            store: after.1.saturating_sub(before.1),
            sandbox: after.2.saturating_sub(before.2),
        })
    }

    /// Of the subject, of Redis, of the sandbox.
    pub(crate) fn cpu(self) -> Result<(Duration, Duration, Duration), Failure> {
        let subject = self.subject.iter().map(Child::cpu).sum::<Result<_, _>>()?;
        let store = self.store.map_or(Ok(Duration::ZERO), Child::cpu)?;
        Ok((subject, store, self.sandbox.cpu()?))
    }
}

/// The resident memory of these processes in KiB, once it has stopped moving: buffers are given back a little after the
/// last request.
pub(crate) async fn settled(subject: &[Child], look: Duration) -> Result<u64, Failure> {
    let resident = || subject.iter().map(Child::resident).sum::<Result<u64, Failure>>();
    let began = Instant::now();
    let mut last = resident()?;
    let mut still = 0;
    while still < 3 && began.elapsed() < PATIENCE {
        tokio::time::sleep(look).await;
        let now = resident()?;
        still = if now.abs_diff(last) * STILL <= last { still + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// The middle one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The middle, the least and the most, for people.
pub(crate) fn spread(figures: Vec<f64>, digits: usize) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(figures))
}

/// One figure of each run.
pub(crate) fn figures(runs: &[Metered], figure: impl Fn(&Metered) -> f64) -> Vec<f64> {
    runs.iter().map(figure).collect()
}

/// The latencies of all rounds together, in milliseconds.
pub(crate) fn quantile(runs: &[Metered], quantile: f64) -> f64 {
    let Ok(mut all) = load::histogram() else { return f64::NAN };
    for latency in runs.iter().filter_map(|metered| metered.run.latency.as_ref()) {
        all += latency;
    }
    all.value_at_quantile(quantile) as f64 / 1e3
}
