//! Long work of requests, which takes turns.
//!
//! A large body or a long page takes milliseconds of a thread. Hundreds at once would hold up each step of all other requests
//! for as long as all of them together. So such work is cut into pieces, and one is in work at a time. A piece takes some
//! tens of microseconds, or one read of the store. Callers that wait take turns, and the requests of one caller come in their order.
//!
//! Pieces one after the other would still keep a thread busy. So long work rests when it has taken some milliseconds, and takes
//! a quarter of a thread's time in the long run. A single body or page of a common size has no rest.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// The approximate size of a piece in bytes.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Work of this duration needs no rest.
const BURST: Duration = Duration::from_millis(4);
/// The most that one piece counts. A read that waits for a late store is not work.
const PIECE_MOST: Duration = BURST;
/// Each duration of work needs a time this many times as long, before as much can be done again.
const TIME_PER_WORK: u32 = 4;

/// The queues of callers. Callers beyond them share queues.
const QUEUES: usize = 64;

/// The turns of one kind of long work in all requests of a replica.
#[derive(Debug)]
pub(super) struct LongWork {
    /// The first request of each queue waits for `debt`, the others behind it.
    queues: [Mutex<()>; QUEUES],
    debt: Mutex<WorkDebt>,
}

/// The turn of one piece, until it is dropped. No work may wait for its caller during its turn.
pub(super) struct WorkTurn<'w> {
    debt: MutexGuard<'w, WorkDebt>,
    begun: Instant,
    _head: Option<MutexGuard<'w, ()>>,
}

/// The duration of long work that time has not made up for.
#[derive(Debug)]
struct WorkDebt {
    owed: Duration,
    /// The time up to which `owed` is counted.
    at: Instant,
}

impl WorkDebt {
    /// Returns the rest that is due before more work.
    fn rest(&mut self, now: Instant) -> Duration {
        let made_up = now.saturating_duration_since(self.at) / TIME_PER_WORK;
        (self.owed, self.at) = (self.owed.saturating_sub(made_up), now);
        self.owed.saturating_sub(BURST) * TIME_PER_WORK
    }

    /// Counts work between these times.
    fn add(&mut self, begun: Instant, ended: Instant) {
        self.owed += ended.saturating_duration_since(begun).min(PIECE_MOST);
    }
}

impl Default for LongWork {
    fn default() -> Self {
        Self {
            queues: std::array::from_fn(|_| Mutex::default()),
            debt: Mutex::new(WorkDebt { owed: Duration::ZERO, at: Instant::now() }),
        }
    }
}

impl LongWork {
    /// Waits for the turn of the caller's next piece. Short work of this thread comes first.
    pub(super) async fn turn(&self, holder: Option<usize>) -> WorkTurn<'_> {
        yield_now().await;
        let head = match self.queues.get(holder.unwrap_or_default() % QUEUES) {
            Some(queue) => Some(queue.lock().await),
            None => None,
        };
        let mut debt = self.debt.lock().await;
        let rest = debt.rest(Instant::now());
        if !rest.is_zero() {
            sleep(rest).await;
        }
        WorkTurn { debt, begun: Instant::now(), _head: head }
    }
}

impl Drop for WorkTurn<'_> {
    fn drop(&mut self) {
        self.debt.add(self.begun, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn pieces_of_two_callers_alternate() {
        let (work, order) = (LongWork::default(), RefCell::new(Vec::new()));
        let request = async |caller, name| {
            for _ in 0..2 {
                let _turn = work.turn(Some(caller)).await;
                order.borrow_mut().push(name);
            }
        };
        // All ask while the turn is taken. However many requests a caller has, another one waits for one piece at a time.
        let taken = work.turn(Some(3)).await;
        let requests = [(1, "greedy"), (1, "greedy"), (1, "greedy"), (2, "other")];
        let mut requests = std::pin::pin!(join_all(requests.map(|(caller, name)| request(caller, name))));
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = &mut requests => panic!("the turn is taken"),
                () = yield_now() => {}
            }
        }
        drop(taken);
        requests.await;
        let other: Vec<usize> = order
            .borrow()
            .iter()
            .enumerate()
            .filter(|(_, name)| **name == "other")
            .map(|(at, _)| at)
            .collect();
        // It asks again after its first piece, and another piece may begin before that.
        assert!(matches!(other[..], [1, 3 | 4]), "{other:?}");
    }

    #[test]
    fn long_work_takes_a_quarter_of_the_time() {
        let start = Instant::now();
        let (mut debt, mut now, mut work) =
            (WorkDebt { owed: Duration::ZERO, at: start }, start, Duration::ZERO);
        while now < start + Duration::from_secs(1) {
            let rest = debt.rest(now);
            assert!(work >= BURST || rest.is_zero(), "the first {BURST:?} need no rest");
            now += rest;
            let piece = Duration::from_micros(50);
            debt.add(now, now + piece);
            now += piece;
            work += piece;
        }
        let share = work.as_secs_f64() / (now - start).as_secs_f64();
        assert!((0.24..0.26).contains(&share), "{share}");
        // A rest of the same length as the debt makes up for all of it.
        assert_eq!(debt.rest(now + BURST * 2 * TIME_PER_WORK), Duration::ZERO);
        assert_eq!(debt.owed, Duration::ZERO);
    }

    #[test]
    fn late_store_causes_no_long_rest() {
        let start = Instant::now();
        let mut debt = WorkDebt { owed: Duration::ZERO, at: start };
        let answered = start + Duration::from_secs(2);
        debt.add(start, answered);
        assert_eq!(debt.rest(answered), Duration::ZERO);
    }

    #[tokio::test]
    async fn request_that_is_given_up_gives_its_turn_to_the_next() {
        let work = LongWork::default();
        let turn = work.turn(None).await;
        {
            let mut waiting = std::pin::pin!(work.turn(None));
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("the turn is taken"),
                () = yield_now() => {}
            }
        }
        drop(turn);
        drop(work.turn(None).await);
    }
}
