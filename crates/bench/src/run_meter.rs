//! A run of load with the CPU time of all processes.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bench_error::BenchError;
use crate::child_process::ChildProcess;
use crate::load;

/// Memory is stable if it changed by less than this fraction between two looks.
const STILL: u64 = 500;
/// After this time the memory counts as stable.
const PATIENCE: Duration = Duration::from_secs(20);

/// The result of a run.
pub(crate) struct LoadRun {
    pub(crate) turns: u64,
    pub(crate) elapsed: Duration,
    /// The latency of each turn in microseconds, unless another process took the turns.
    pub(crate) latency: Option<Histogram<u64>>,
}

/// A run with its CPU time.
pub(crate) struct MeteredRun {
    pub(crate) run: LoadRun,
    /// The CPU time of the measured processes together.
    pub(crate) cpu: Duration,
    /// The CPU time of Redis, if there is one.
    pub(crate) store: Duration,
    pub(crate) sandbox: Duration,
}

impl MeteredRun {
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

/// The processes of a run.
#[derive(Clone, Copy)]
pub(crate) struct RunProcesses<'a> {
    pub(crate) subject: &'a [ChildProcess],
    pub(crate) store: Option<&'a ChildProcess>,
    pub(crate) sandbox: &'a ChildProcess,
}

impl RunProcesses<'_> {
    /// Measures a run with the CPU time of each process.
    pub(crate) async fn metered(
        self,
        run: impl Future<Output = Result<LoadRun, BenchError>>,
    ) -> Result<MeteredRun, BenchError> {
        let before = self.cpu()?;
        let run = run.await?;
        let after = self.cpu()?;
        Ok(MeteredRun {
            run,
            cpu: after.0.saturating_sub(before.0),
            store: after.1.saturating_sub(before.1),
            sandbox: after.2.saturating_sub(before.2),
        })
    }

    /// Returns the CPU time of the subject, of Redis, and of the sandbox.
    pub(crate) fn cpu(self) -> Result<(Duration, Duration, Duration), BenchError> {
        let subject = self.subject.iter().map(ChildProcess::cpu).sum::<Result<_, _>>()?;
        let store = self.store.map_or(Ok(Duration::ZERO), ChildProcess::cpu)?;
        Ok((subject, store, self.sandbox.cpu()?))
    }
}

/// Returns the stable resident memory of these processes in KiB. Buffers are freed a little after the last request.
pub(crate) async fn settled(subject: &[ChildProcess], look: Duration) -> Result<u64, BenchError> {
    let resident = || subject.iter().map(ChildProcess::resident).sum::<Result<u64, BenchError>>();
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

/// Returns the median.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Formats median, least and greatest figure.
pub(crate) fn spread(figures: Vec<f64>, digits: usize) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(figures))
}

/// Returns one figure of each run.
pub(crate) fn figures(runs: &[MeteredRun], figure: impl Fn(&MeteredRun) -> f64) -> Vec<f64> {
    runs.iter().map(figure).collect()
}

/// Returns a quantile of the latencies of all rounds together, in milliseconds.
pub(crate) fn quantile(runs: &[MeteredRun], quantile: f64) -> f64 {
    let Ok(mut all) = load::histogram() else { return f64::NAN };
    for latency in runs.iter().filter_map(|metered| metered.run.latency.as_ref()) {
        all += latency;
    }
    all.value_at_quantile(quantile) as f64 / 1e3
}
