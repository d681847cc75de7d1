//! The load: every user once, at saturation, or at a fixed rate.
//!
//! At a fixed rate each turn has a scheduled time, and its latency counts from that time. So a stall affects all turns
//! that should have begun during it, not only the one that it hit (coordinated omission).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};

use crate::bench_error::BenchError;
use crate::run_meter::LoadRun;
use crate::turns::{TurnCaller, TurnCallers};

/// One caller's share of a run.
struct CallerShare {
    latency: Histogram<u64>,
    failed: u64,
    last: Option<BenchError>,
}

impl CallerShare {
    fn new() -> Result<Self, BenchError> {
        Ok(Self { latency: histogram()?, failed: 0, last: None })
    }

    fn note(&mut self, since: Instant, result: Result<(), BenchError>) {
        match result {
            Ok(()) => {
                let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
            }
            Err(failure) => {
                self.failed += 1;
                self.last = Some(failure);
            }
        }
    }
}

/// Creates a histogram for up to a minute, in microseconds, with three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, BenchError> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Takes one turn for each of these users.
pub(crate) async fn each<C: TurnCallers>(
    callers: &mut C,
    users: Range<usize>,
) -> Result<LoadRun, BenchError> {
    let next = Rc::new(Cell::new(users.start));
    run(callers, async move |caller| {
        let mut share = CallerShare::new()?;
        while next.get() < users.end && share.failed == 0 {
            let user = next.replace(next.get() + 1);
            let began = Instant::now();
            share.note(began, caller.turn(user).await);
        }
        Ok(share)
    })
    .await
}

/// Takes turns without pauses, each caller in sequence.
pub(crate) async fn saturate<C: TurnCallers>(
    callers: &mut C,
    users: usize,
    span: Duration,
) -> Result<LoadRun, BenchError> {
    let next = Rc::new(Cell::new(0));
    let end = Instant::now() + span;
    run(callers, async move |caller| {
        let mut share = CallerShare::new()?;
        while Instant::now() < end && share.failed == 0 {
            let user = next.replace((next.get() + 1) % users);
            let began = Instant::now();
            share.note(began, caller.turn(user).await);
        }
        Ok(share)
    })
    .await
}

/// Takes `rate` turns a second. A free caller takes the next one. The wait for a free caller counts as latency.
pub(crate) async fn pace<C: TurnCallers>(
    callers: &mut C,
    users: usize,
    rate: u32,
    span: Duration,
) -> Result<LoadRun, BenchError> {
    let step = Duration::from_secs(1) / rate;
    let total = usize::try_from(span.as_nanos() / step.as_nanos()).unwrap_or(usize::MAX);
    // The channel has room for all turns, so the clock never waits for the callers.
    let (clock, turns) = mpsc::channel(total);
    let turns = Rc::new(Mutex::new(turns));
    let ticking = std::thread::Builder::new().name("pace".to_owned()).spawn(move || {
        let mut due = Instant::now();
        for turn in 0..total {
            due += step;
            // A thread's sleep is exact to some 50 µs, the runtime's timer only to a millisecond.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if clock.try_send((turn % users, due)).is_err() {
                return;
            }
        }
    })?;
    let result = run(callers, async move |caller| {
        let mut share = CallerShare::new()?;
        loop {
            let Some((user, due)) = turns.lock().await.recv().await else { break };
            share.note(due, caller.turn(user).await);
            if share.failed > 0 {
                break;
            }
        }
        Ok(share)
    })
    .await;
    // The clock has ended, with or without listeners.
    let _ = ticking.join();
    result
}

/// Runs the share of every caller concurrently.
async fn run<C: TurnCallers, F>(callers: &mut C, work: F) -> Result<LoadRun, BenchError>
where
    F: AsyncFn(&mut C::TurnCaller) -> Result<CallerShare, BenchError> + Clone + 'static,
{
    let began = Instant::now();
    let tasks: Vec<_> = std::mem::take(callers.callers())
        .into_iter()
        .map(|mut caller| {
            let work = work.clone();
            tokio::task::spawn_local(async move {
                let share = match caller.ready().await {
                    Ok(()) => work(&mut caller).await,
                    Err(failure) => Err(failure),
                };
                (caller, share)
            })
        })
        .collect();
    let mut latency = histogram()?;
    let (mut failed, mut last) = (0, None);
    for task in tasks {
        let (caller, share) = task.await.map_err(std::io::Error::other)?;
        callers.callers().push(caller);
        let share = share?;
        latency += share.latency;
        failed += share.failed;
        last = share.last.or(last);
    }
    match last {
        // The figures of a run with failures would be misleading.
        Some(last) => Err(BenchError::Turns { failed, turns: latency.len() + failed, last: Box::new(last) }),
        None => Ok(LoadRun { turns: latency.len(), elapsed: began.elapsed(), latency: Some(latency) }),
    }
}
