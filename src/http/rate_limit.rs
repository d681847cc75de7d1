//! The rate limit of a caller, on this replica or on all of them (ADR 25).
//!
//! Each limited caller has a token bucket (GCRA). It holds the requests of a minute and refills evenly over a minute. A
//! caller that keeps to its limit in every 60 s is never refused. Every answer to its key carries the fields of
//! draft-ietf-httpapi-ratelimit-headers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::api_error::ApiError;
use super::fleet_rate::{FleetCount, FleetRate};
use crate::config::{CallerConfig, RateScope};
use crate::domain::{Problem, ProblemKind};
use crate::hub::Hub;
use crate::metrics::CallerMetrics;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Time since the start by the runtime's clock, which tests can pause.
#[derive(Debug, Clone, Copy)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type TokenBucket = RateLimiter<NotKeyed, InMemoryState, RuntimeClock, StateInformationMiddleware>;

/// The rate limit of a caller.
#[derive(Debug)]
pub(super) struct CallerRateLimit {
    per_minute: NonZeroU32,
    /// The bucket of this replica. It serves a caller of the whole fleet too while the store is away.
    bucket: TokenBucket,
    /// The part of the fleet's bucket that this replica has, if the limit holds for all replicas.
    fleet: Option<FleetRate>,
    partition: PartitionKey,
}

/// The parameter `pk` of the fields: the name of a caller whose bucket all replicas share, as a byte sequence (RFC 9651).
type PartitionKey = Option<Arc<str>>;

/// State of a caller's bucket after its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RateLimitStatus {
    per_minute: NonZeroU32,
    partition: PartitionKey,
    /// Requests that the caller may still make at once.
    remaining: u32,
    /// Longest time until another request is allowed.
    next_in: Duration,
    /// True if this request exceeded the limit.
    refused: bool,
}

impl CallerRateLimit {
    /// Creates a full bucket for a caller, or returns `None` without a limit.
    pub(super) fn new(caller: &CallerConfig) -> Option<Self> {
        let per_minute = NonZeroU32::new(caller.rate_per_minute)?;
        let (quota, clock) = (Quota::per_minute(per_minute), RuntimeClock(Instant::now()));
        let is_shared = caller.rate_scope == RateScope::Fleet;
        Some(Self {
            per_minute,
            bucket: TokenBucket::new(quota, InMemoryState::default(), clock),
            fleet: is_shared.then(|| FleetRate::new(&caller.name, per_minute)),
            partition: is_shared.then(|| format!(";pk=:{}:", STANDARD.encode(&caller.name)).into()),
        })
    }

    /// Returns whether this is the limit of the configuration.
    pub(super) fn is_of(&self, caller: &CallerConfig) -> bool {
        self.per_minute.get() == caller.rate_per_minute
            && self.fleet.is_some() == (caller.rate_scope == RateScope::Fleet)
    }

    /// Counts a request. Only a limit of the fleet waits, for the store.
    pub(super) async fn count(&self, hub: &Hub, metrics: &CallerMetrics) -> RateLimitStatus {
        match &self.fleet {
            None => self.count_here(),
            Some(fleet) => match Box::pin(fleet.count(hub, metrics)).await {
                Some(FleetCount { remaining, next_in, refused }) => RateLimitStatus {
                    per_minute: self.per_minute,
                    partition: self.partition.clone(),
                    remaining,
                    next_in,
                    refused,
                },
                None => self.count_here(),
            },
        }
    }

    /// Gives the fleet back what this replica does not use.
    pub(super) async fn return_idle(&self, hub: &Hub, metrics: &CallerMetrics) {
        if let Some(fleet) = &self.fleet {
            fleet.return_idle(hub, metrics).await;
        }
    }

    /// Counts a request on this replica alone.
    fn count_here(&self) -> RateLimitStatus {
        let status = RateLimitStatus {
            per_minute: self.per_minute,
            partition: self.partition.clone(),
            remaining: 0,
            next_in: Duration::ZERO,
            refused: false,
        };
        match self.bucket.check() {
            Ok(state) => RateLimitStatus {
                remaining: state.remaining_burst_capacity(),
                next_in: state.quota().replenish_interval(),
                ..status
            },
            Err(until) => RateLimitStatus {
                next_in: until.wait_time_from(self.bucket.clock().now()),
                refused: true,
                ..status
            },
        }
    }
}

impl RateLimitStatus {
    /// Returns the refusal of a request over the limit.
    pub(super) fn refusal(&self) -> Option<ApiError> {
        let detail = format!(
            "This caller has made its {} requests a minute. Nothing was accepted; retry after `Retry-After` seconds.",
            self.per_minute
        );
        let problem = Problem::new(ProblemKind::RateLimited, detail).retry_after(self.next_in);
        self.refused.then(|| problem.into())
    }

    /// Writes the state into the headers of the answer.
    pub(super) fn write_headers(&self, headers: &mut HeaderMap) {
        // Rounded up like `Retry-After`, which must not be earlier.
        let seconds = self.next_in.as_secs() + u64::from(self.next_in.subsec_nanos() > 0);
        let partition = self.partition.as_deref().unwrap_or_default();
        let policy = format!("\"default\";q={};w=60{partition}", self.per_minute);
        let limit = format!("\"default\";r={};t={}{partition}", self.remaining, seconds.max(1));
        for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, limit)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;
    use crate::config::{CallerScopes, fixtures};

    fn caller(name: &str, rate_per_minute: u32) -> CallerConfig {
        CallerConfig { rate_per_minute, ..fixtures::caller(name, CallerScopes::default()) }
    }

    fn header_values(status: &RateLimitStatus) -> (String, String) {
        let mut headers = HeaderMap::new();
        status.write_headers(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        (text(RATELIMIT_POLICY), text(RATELIMIT))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn bucket_empties_and_refills() {
        runtime().block_on(async {
            assert!(CallerRateLimit::new(&caller("free", 0)).is_none());
            let few = CallerRateLimit::new(&caller("few", 3)).unwrap();
            for left in [2, 1, 0] {
                let status = few.count_here();
                assert!(status.refusal().is_none());
                let (policy, limit) = header_values(&status);
                assert_eq!(policy, "\"default\";q=3;w=60");
                assert_eq!(limit, format!("\"default\";r={left};t=20"));
            }
            advance(Duration::from_millis(500)).await;
            let status = few.count_here();
            let refusal = status.refusal().unwrap();
            assert_eq!(refusal.problem().kind, ProblemKind::RateLimited);
            assert_eq!(refusal.problem().retry_after, Some(Duration::from_millis(19_500)));
            assert_eq!(header_values(&status).1, "\"default\";r=0;t=20");
            advance(Duration::from_millis(19_499)).await;
            assert!(few.count_here().refusal().is_some(), "refused requests cost nothing");
            advance(Duration::from_millis(1)).await;
            assert!(few.count_here().refusal().is_none());
            assert!(few.count_here().refusal().is_some());
            advance(Duration::from_mins(1)).await;
            assert_eq!(header_values(&few.count_here()).1, "\"default\";r=2;t=20");
        });
    }

    #[test]
    fn extreme_limits_work() {
        runtime().block_on(async {
            for limit in [1, 7, 60, 61, 10_000_000] {
                let status = CallerRateLimit::new(&caller("a", limit)).unwrap().count_here();
                assert_eq!(status.remaining, limit - 1);
                assert!(status.next_in <= Duration::from_mins(1));
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A caller within its limit is served. Any other caller gets at most a bucket and its refill.
        #[test]
        fn caller_gets_its_rate_and_one_bucket_more(
            limit in 1u32..40,
            gaps in prop::collection::vec(0u64..9_000, 1..200),
        ) {
            runtime().block_on(async {
                let bucket = CallerRateLimit::new(&caller("a", limit)).unwrap();
                let (mut now, mut asked, mut served, mut kept) = (0_u64, Vec::new(), 0_u64, true);
                for gap in gaps {
                    advance(Duration::from_millis(gap)).await;
                    now += gap;
                    asked.push(now);
                    kept &= asked.iter().filter(|&&at| at + 60_000 > now).count() <= limit as usize;
                    let status = bucket.count_here();
                    served += u64::from(!status.refused);
                    prop_assert!(!(kept && status.refused));
                    prop_assert!(served <= u64::from(limit) + now * u64::from(limit) / 60_000 + 1);
                }
                Ok(())
            })?;
        }
    }
}
