//! The load: every user once, as fast as it goes, or at a fixed rate.
//!
//! At a fixed rate each turn has its moment, whether the ones before it are done or not, and its latency counts
//! from that moment. So a stall is seen by all turns that should have begun during it, and not only by the one it
//! hit (coordinated omission).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Mutex, mpsc};

use crate::failure::Failure;
use crate::meter::Run;
use crate::turns::{Caller, Callers};

/// The part of a run that one caller has done.
struct Share {
    latency: Histogram<u64>,
    failed: u64,
    last: Option<Failure>,
}

impl Share {
    fn new() -> Result<Self, Failure> {
        Ok(Self { latency: histogram()?, failed: 0, last: None })
    }

    fn note(&mut self, since: Instant, result: Result<(), Failure>) {
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

/// Up to a minute, in microseconds, with three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// One turn for each of these users.
pub(crate) async fn each<C: Callers>(callers: &mut C, users: Range<usize>) -> Result<Run, Failure> {
    let next = Rc::new(Cell::new(users.start));
    run(callers, async move |caller| {
        let mut share = Share::new()?;
        while next.get() < users.end && share.failed == 0 {
            let user = next.replace(next.get() + 1);
            let began = Instant::now();
            share.note(began, caller.turn(user).await);
        }
        Ok(share)
    })
    .await
}

/// Each caller takes turn after turn.
pub(crate) async fn saturate<C: Callers>(
    callers: &mut C,
    users: usize,
    span: Duration,
) -> Result<Run, Failure> {
    let next = Rc::new(Cell::new(0));
    let end = Instant::now() + span;
    run(callers, async move |caller| {
        let mut share = Share::new()?;
        while Instant::now() < end && share.failed == 0 {
            let user = next.replace((next.get() + 1) % users);
            let began = Instant::now();
            share.note(began, caller.turn(user).await);
        }
        Ok(share)
    })
    .await
}

/// `rate` turns a second. Who is free takes the next one; if nobody is, it waits, and the waiting counts.
pub(crate) async fn pace<C: Callers>(
    callers: &mut C,
    users: usize,
    rate: u32,
    span: Duration,
) -> Result<Run, Failure> {
    let step = Duration::from_secs(1) / rate;
    let total = usize::try_from(span.as_nanos() / step.as_nanos()).unwrap_or(usize::MAX);
    // Room for all: the clock must never wait for those it drives.
    let (clock, turns) = mpsc::channel(total);
    let turns = Rc::new(Mutex::new(turns));
    let ticking = std::thread::Builder::new().name("pace".to_owned()).spawn(move || {
        let mut due = Instant::now();
        for turn in 0..total {
            due += step;
            // A thread's sleep is exact to some 50 µs; the runtime's timer only to a millisecond.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if clock.try_send((turn % users, due)).is_err() {
                return;
            }
        }
    })?;
    let result = run(callers, async move |caller| {
        let mut share = Share::new()?;
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
    // It has sent everything or lost its listeners; either way it is at its end.
    let _ = ticking.join();
    result
}

/// Lets every caller do its share at the same time.
async fn run<C: Callers, F>(callers: &mut C, work: F) -> Result<Run, Failure>
where
    F: AsyncFn(&mut C::Caller) -> Result<Share, Failure> + Clone + 'static,
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
        // Figures of a run with failures would be figures of something else.
        Some(last) => Err(Failure::Turns { failed, turns: latency.len() + failed, last: Box::new(last) }),
        None => Ok(Run { turns: latency.len(), elapsed: began.elapsed(), latency: Some(latency) }),
    }
}
