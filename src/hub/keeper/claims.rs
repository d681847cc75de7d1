//! Which partitions a replica takes, and which it begins to drain.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::Watchman;
use crate::domain::{Partition, Timestamp};
use crate::hub::lease::Phase;
use crate::hub::partition::{Standing, Step, Tenure, View, decide};
use crate::store::{ClaimMode, ClaimResult, StoreError};

impl Watchman {
    /// Does what there is to do, whenever there is news.
    pub(super) async fn settle(&self) {
        loop {
            let soon = self.soonest_in_the_way();
            tokio::select! {
                () = self.news.notified() => {}
                () = until(soon) => {}
            }
            #[cfg(test)]
            self.leases().thawed().await;
            let mut claims = Vec::new();
            let mut wanted = vec![false; Partition::COUNT];
            for step in self.steps() {
                match step {
                    Step::Claim { partition, claiming } => {
                        wanted.get_mut(partition.index()).into_iter().for_each(|wanted| *wanted = true);
                        claims.push(self.claim(partition, claiming));
                    }
                    Step::Drain { partition } => {
                        let leaving = self.leases().is_leaving();
                        self.leases().drain(partition, if leaving { Phase::Leaving } else { Phase::Moving });
                    }
                }
            }
            for (in_the_way, _) in
                self.in_the_way.borrow_mut().iter_mut().zip(wanted).filter(|(_, wanted)| !wanted)
            {
                *in_the_way = None;
            }
            join_all(claims).await;
            self.count();
            if self.leases().is_leaving() && self.leases().held().any(|(_, _, phase)| phase == Phase::Owned) {
                // Claimed while the replica was told to leave.
                self.news.notify_one();
            }
            if self.contact.get().since().is_some()
                && let Some(first) = self.first.take()
            {
                first.send(()).ok();
            }
        }
    }

    fn steps(&self) -> Vec<Step> {
        let leases = self.leases();
        let leaving = leases.is_leaving();
        let standings: Vec<_> = Partition::all()
            .zip(&*self.troubled.borrow())
            .map(|(partition, troubled)| Standing {
                tenure: match leases.state(partition) {
                    None => Tenure::Out,
                    Some((_, Phase::Owned)) => Tenure::Owned,
                    // What was on its way to somebody may take its time now.
                    Some((_, Phase::Moving)) if leaving => Tenure::Owned,
                    Some((_, Phase::Moving | Phase::Leaving)) => Tenure::Draining,
                },
                troubled: *troubled,
            })
            .collect();
        decide(&View {
            me: leases.incarnation(),
            deal: &self.deal.borrow(),
            leaving,
            contact: self.contact.get().since(),
            now: leases.elapsed(),
            lease: leases.ttl(),
            standings: &standings,
        })
    }

    async fn claim(&self, partition: Partition, claiming: ClaimMode) {
        let sent = Instant::now();
        let leases = self.leases();
        match self.keeper.store.claim(partition, leases.incarnation(), leases.ttl(), claiming).await {
            Ok(ClaimResult::Yours { fence, now }) => {
                self.observe(now);
                let metrics = &self.keeper.metrics;
                // One that had not run out yet was given back.
                let ran_out = self.set_in_the_way(partition, None).is_some_and(|until| until <= now);
                match claiming {
                    ClaimMode::Expired if ran_out => &metrics.claimed_expired,
                    ClaimMode::Free | ClaimMode::Expired => &metrics.claimed_free,
                }
                .inc();
                leases.own(partition, fence, sent);
            }
            Ok(ClaimResult::Held { until, .. }) => {
                self.set_in_the_way(partition, Some(until));
            }
            Err(error) => self.trouble(partition, &error),
        }
    }

    pub(super) fn trouble(&self, partition: Partition, error: &StoreError) {
        tracing::debug!(%partition, %error, "the store did not answer for a partition");
        if let Some(troubled) = self.troubled.borrow_mut().get_mut(partition.index()) {
            *troubled = Some(self.leases().elapsed());
        }
    }

    fn set_in_the_way(&self, partition: Partition, until: Option<Timestamp>) -> Option<Timestamp> {
        let mut in_the_way = self.in_the_way.borrow_mut();
        let slot = in_the_way.get_mut(partition.index())?;
        std::mem::replace(slot, until)
    }

    /// When the first lease runs out that is in the way; the next round comes without it where it is not renewed.
    fn soonest_in_the_way(&self) -> Option<Instant> {
        let now = self.clock.now();
        let in_the_way = self.in_the_way.borrow();
        let soonest = in_the_way.iter().flatten().filter(|until| **until >= now).min()?;
        Some(self.clock.instant(*soonest + Duration::from_millis(1)))
    }

    pub(super) fn count(&self) {
        let held = self.leases().held().count();
        self.keeper.metrics.partitions_owned.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
