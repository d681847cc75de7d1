//! Retries of store operations that a shard or a conversation cannot go on without.

use tracing::debug;

use crate::domain::Backoff;
use crate::store::StoreError;

/// Repeats an operation until the store answers. The backoff is short, so an answer comes soon after an outage.
/// `what` names the operation in the log.
///
/// # Errors
/// The error of the store if it is not temporary.
pub async fn retry_while_unavailable<T>(
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::for_store();
    loop {
        match ask().await {
            Err(error) if error.is_passing() => {
                debug!(what, %error, "the store did not answer; retrying");
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
    async fn retry_after_a_long_outage_comes_within_2_s() {
        for _ in 0..20 {
            let outage_end = Instant::now() + Duration::from_mins(2);
            let ask = async || {
                let now = Instant::now();
                if now < outage_end { Err(StoreError::Unknown(Duration::ZERO)) } else { Ok(now) }
            };
            let asked = retry_while_unavailable("a test", ask).await.unwrap();
            assert!(asked - outage_end <= Duration::from_secs(2), "{:?}", asked - outage_end);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_error_is_returned_at_once() {
        assert_eq!(
            retry_while_unavailable("a test", async || Err::<(), _>(StoreError::Fenced)).await,
            Err(StoreError::Fenced)
        );
    }
}
