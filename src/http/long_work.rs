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

use super::work_debt::WorkDebt;

/// The approximate size of a piece in bytes.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Work of this duration needs no rest.
const BURST: Duration = Duration::from_millis(4);

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

impl Default for LongWork {
    fn default() -> Self {
        Self { queues: std::array::from_fn(|_| Mutex::default()), debt: Mutex::new(WorkDebt::new(BURST)) }
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
