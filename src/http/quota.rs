//! A caller's rate: how many requests of its key are answered, on this replica (ADR 25).
//!
//! Each limited caller has a bucket of as many requests as it may make in a minute, which fills again evenly over a
//! minute (GCRA). Whoever keeps to its limit in every 60 s is never refused. Every answer to such a key says how it
//! stands, in the fields of draft-ietf-httpapi-ratelimit-headers.

use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::auth;
use super::problem::Failure;
use crate::config::CallerConfig;
use crate::domain::{Problem, ProblemKind};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The time since the start, by the runtime's clock, which tests can hold.
#[derive(Debug, Clone, Copy)]
struct Since(Instant);

impl Clock for Since {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Since, StateInformationMiddleware>;

/// The buckets of all callers that have one.
#[derive(Debug)]
pub(super) struct Quotas {
    /// By the caller's place in the configuration.
    buckets: Vec<Option<(NonZeroU32, Bucket)>>,
}

/// How a caller's bucket stood when its request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    per_minute: NonZeroU32,
    /// Requests that it may make at once.
    left: u32,
    /// Until there is one more, at most.
    more_in: Duration,
    /// Whether this one was too much.
    refused: bool,
}

impl Quotas {
    /// Full buckets for these callers.
    pub(super) fn new(callers: &[CallerConfig]) -> Self {
        let since = Since(Instant::now());
        let bucket = |limit| (limit, Bucket::new(Quota::per_minute(limit), InMemoryState::default(), since));
        Self {
            buckets: callers
                .iter()
                .map(|caller| NonZeroU32::new(caller.rate_per_minute).map(bucket))
                .collect(),
        }
    }

    /// Counts a request with these headers, if its key has a bucket.
    pub(super) fn spend(&self, callers: &[CallerConfig], headers: &HeaderMap) -> Option<Spent> {
        if self.buckets.iter().all(Option::is_none) {
            return None;
        }
        let (limit, bucket) = self.buckets.get(auth::place(callers, headers)?)?.as_ref()?;
        let spent = Spent { per_minute: *limit, left: 0, more_in: Duration::ZERO, refused: false };
        Some(match bucket.check() {
            Ok(state) => Spent {
                left: state.remaining_burst_capacity(),
                more_in: state.quota().replenish_interval(),
                ..spent
            },
            Err(until) => {
                Spent { more_in: until.wait_time_from(bucket.clock().now()), refused: true, ..spent }
            }
        })
    }
}

impl Spent {
    /// The refusal of a request that was too much.
    pub(super) fn refusal(&self) -> Option<Failure> {
        let detail = format!(
            "This key may make {} requests a minute on this replica, and has made them. Nothing was accepted; try \
             again after `Retry-After`.",
            self.per_minute
        );
        let problem = Problem::new(ProblemKind::RateLimited, detail).retry_after(self.more_in);
        self.refused.then(|| problem.into())
    }

    /// Says it in the headers of the answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        // Rounded up as `Retry-After` is, which may not come before it.
        let seconds = self.more_in.as_secs() + u64::from(self.more_in.subsec_nanos() > 0);
        let policy = format!("\"default\";q={};w=60", self.per_minute);
        let limit = format!("\"default\";r={};t={}", self.left, seconds.max(1));
        for (name, value) in [(POLICY, policy), (LIMIT, limit)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Sha256;
    use actix_web::http::header;
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;
    use crate::config::{CallerScopes, PayloadFormat};

    fn caller(name: &str, rate_per_minute: u32) -> CallerConfig {
        CallerConfig {
            name: name.to_owned(),
            key_sha256: Sha256::digest(name),
            scopes: CallerScopes::default(),
            bots: None,
            user_prefix: String::new(),
            rate_per_minute,
            max_open_requests: 0,
            webhook_secrets: Vec::new(),
            webhook_form: PayloadFormat::Standard,
        }
    }

    fn with(key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}")).unwrap());
        headers
    }

    fn told(spent: Spent) -> (String, String) {
        let mut headers = HeaderMap::new();
        spent.tell(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        (text(POLICY), text(LIMIT))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_bucket_is_emptied_told_and_filled_again() {
        runtime().block_on(async {
            let callers = [caller("free", 0), caller("few", 3), caller("many", 600)];
            let quotas = Quotas::new(&callers);
            let ask = |key: &str| quotas.spend(&callers, &with(key));
            assert_eq!(ask("free"), None);
            assert_eq!(ask("nobody"), None);
            assert_eq!(quotas.spend(&callers, &HeaderMap::new()), None);
            for left in [2, 1, 0] {
                let spent = ask("few").unwrap();
                assert!(spent.refusal().is_none());
                let (policy, limit) = told(spent);
                assert_eq!(policy, "\"default\";q=3;w=60");
                assert_eq!(limit, format!("\"default\";r={left};t=20"));
            }
            advance(Duration::from_millis(500)).await;
            let spent = ask("few").unwrap();
            let refusal = spent.refusal().unwrap();
            assert_eq!(refusal.problem().kind, ProblemKind::RateLimited);
            assert_eq!(refusal.problem().retry_after, Some(Duration::from_millis(19_500)));
            assert_eq!(told(spent).1, "\"default\";r=0;t=20");
            // One caller's requests are not another's.
            assert_eq!(told(ask("many").unwrap()).1, "\"default\";r=599;t=1");
            advance(Duration::from_millis(19_499)).await;
            assert!(ask("few").unwrap().refusal().is_some(), "refused requests cost nothing");
            advance(Duration::from_millis(1)).await;
            assert!(ask("few").unwrap().refusal().is_none());
            assert!(ask("few").unwrap().refusal().is_some());
            advance(Duration::from_mins(1)).await;
            assert_eq!(told(ask("few").unwrap()).1, "\"default\";r=2;t=20");
        });
    }

    #[test]
    fn limits_have_no_odd_ends() {
        runtime().block_on(async {
            for limit in [1, 7, 60, 61, 10_000_000] {
                let callers = [caller("a", limit)];
                let quotas = Quotas::new(&callers);
                let spent = quotas.spend(&callers, &with("a")).unwrap();
                assert_eq!(spent.left, limit - 1);
                assert!(spent.more_in <= Duration::from_mins(1));
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Who stays within the limit in every minute is served; who does not gets no more than a bucket and its refill.
        #[test]
        fn a_caller_gets_its_rate_and_little_more(
            limit in 1u32..40,
            gaps in prop::collection::vec(0u64..9_000, 1..200),
        ) {
            runtime().block_on(async {
                let callers = [caller("a", limit)];
                let quotas = Quotas::new(&callers);
                let (mut now, mut asked, mut served, mut kept) = (0_u64, Vec::new(), 0_u64, true);
                for gap in gaps {
                    advance(Duration::from_millis(gap)).await;
                    now += gap;
                    asked.push(now);
                    kept &= asked.iter().filter(|&&at| at + 60_000 > now).count() <= limit as usize;
                    let spent = quotas.spend(&callers, &with("a")).unwrap();
                    served += u64::from(!spent.refused);
                    prop_assert!(!(kept && spent.refused));
                    prop_assert!(served <= u64::from(limit) + now * u64::from(limit) / 60_000 + 1);
                }
                Ok(())
            })?;
        }
    }
}
