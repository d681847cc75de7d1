//! What the worker shares with other replicas through the store besides the outboxes: the states of endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::worker::DeliveryWorker;
use crate::domain::{DeliveryState, EndpointId, EndpointState, Timestamp};
use crate::store::{ClaimedDelivery, DeliveryQuery, StoreError};
use crate::webhook::attempt::AttemptResult;
use crate::webhook::endpoint_board::{BoardChanges, BoardNews};

/// The time between two exchanges with the store. Another replica learns of a switch after this time at the latest.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(2);

impl<A: AsyncFn(&ClaimedDelivery) -> AttemptResult + 'static> DeliveryWorker<A> {
    /// Plans an exchange about endpoints at once. One that is under way is followed by another soon.
    pub(super) fn exchange_soon(&mut self, now: Timestamp) {
        self.exchange_at = self.exchange_at.map(|at| at.min(now));
    }

    /// Takes over the states of endpoints. What waits for an endpoint that is off becomes dead letters.
    pub(super) fn endpoints_read(
        &mut self,
        changes: BoardChanges,
        result: Result<BTreeMap<EndpointId, EndpointState>, StoreError>,
    ) {
        let now = self.clock.now();
        self.exchange_at = Some(now + EXCHANGE_INTERVAL);
        let states = match result {
            Ok(states) => states,
            Err(error) => {
                debug!(%error, "the store did not take the states of endpoints; they are told again");
                self.board.put_back(changes);
                return;
            }
        };
        let BoardNews { off, on } = self.board.update(&states, &changes);
        for (id, reason) in &off {
            warn!(
                bot = %id.bot, webhook = &*id.name, %reason,
                "an endpoint is switched off; its deliveries become dead letters until it is switched on"
            );
        }
        for id in &on {
            info!(bot = %id.bot, webhook = &*id.name, "an endpoint is switched on");
        }
        if !off.is_empty() {
            self.scheduler.request_all_reads(now);
        }
        if self.board.is_switching() {
            self.exchange_soon(now);
        }
        self.stats.endpoints(&self.board);
    }

    /// Logs the number of pending deliveries that end with the memory store.
    pub(super) async fn warn_of_lost_deliveries(&self) {
        let mut query =
            DeliveryQuery { state: Some(DeliveryState::Pending), limit: 1000, ..DeliveryQuery::default() };
        let mut lost = 0;
        while let Ok(page) = self.store.deliveries(&query).await {
            lost += page.deliveries.len();
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        if lost > 0 {
            warn!(lost, "pending deliveries are lost with the memory store");
        }
    }
}
