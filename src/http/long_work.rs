//! Long work of requests, which takes turns.
//!
//! A large body or a long page takes milliseconds of a thread. Hundreds at once would hold up each step of all other requests
//! for as long as all of them together. So such work is cut into pieces of some tens of microseconds, and one piece is in
//! work at a time. The requests that wait come in their order.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// The approximate size of a piece in bytes.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// The turns of long work in all requests of a replica.
#[derive(Debug)]
pub(super) struct LongWork(Semaphore);

/// The turn of one piece, until it is dropped. No work may wait for anything outside during its turn.
pub(super) struct WorkTurn<'w>(
    #[expect(dead_code, reason = "its drop ends the turn")] Option<SemaphorePermit<'w>>,
);

impl Default for LongWork {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl LongWork {
    /// Waits for the turn of the next piece. Short work of this thread comes first.
    pub(super) async fn turn(&self) -> WorkTurn<'_> {
        yield_now().await;
        // The semaphore is never closed.
        WorkTurn(self.0.acquire().await.ok())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn pieces_of_two_requests_alternate() {
        let (work, order) = (LongWork::default(), RefCell::new(Vec::new()));
        let request = async |name| {
            for _ in 0..3 {
                let _turn = work.turn().await;
                order.borrow_mut().push(name);
            }
        };
        join_all(["first", "second"].map(request)).await;
        assert_eq!(order.into_inner(), ["first", "second"].repeat(3));
    }

    #[tokio::test]
    async fn request_that_is_given_up_gives_its_turn_to_the_next() {
        let work = LongWork::default();
        let turn = work.turn().await;
        {
            let mut waiting = std::pin::pin!(work.turn());
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("the turn is taken"),
                () = yield_now() => {}
            }
        }
        drop(turn);
        drop(work.turn().await);
    }
}
