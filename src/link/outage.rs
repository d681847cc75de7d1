//! What cannot go on without the store's answer outlasts its outages.

use tracing::debug;

use crate::domain::Backoff;
use crate::store::StoreError;

/// Asks until the store answers, however long that takes; soon after it is back it is asked again. `what` is for
/// the log.
///
/// # Errors
/// What the store answered: no error that passes by itself.
pub async fn outlast<T>(
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::for_store();
    loop {
        match ask().await {
            Err(error) if error.is_passing() => {
                debug!(what, %error, "the store did not answer; asking again");
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_away_for_long_is_asked_soon_after_it_is_back() {
        for _ in 0..20 {
            let back = Instant::now() + Duration::from_mins(2);
            let ask = async || {
                let now = Instant::now();
                if now < back { Err(StoreError::Unknown(Duration::ZERO)) } else { Ok(now) }
            };
            let asked = outlast("a test", ask).await.unwrap();
            assert!(asked - back <= Duration::from_secs(2), "{:?}", asked - back);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_an_answer() {
        assert_eq!(
            outlast("a test", async || Err::<(), _>(StoreError::Fenced)).await,
            Err(StoreError::Fenced)
        );
    }
}
