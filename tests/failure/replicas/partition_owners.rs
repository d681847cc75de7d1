//! The owners of conversations, as Redis knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rtm_bridge::domain::Partition;

use crate::failure::store_load::partition;
use crate::support::{RedisServer, Resp, within};

/// Returns the names of the lease holders by partition; empty for a free partition.
const OWNERS: &str = r"
local names, owners = {}, {}
for _, member in ipairs(redis.call('ZRANGE', 'rtm:{fleet}:replicas', 0, -1)) do
    names[string.sub(member, 1, 16)] = string.sub(member, 17)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for number = 0, 255 do
    local lease = redis.call('HMGET', 'rtm:{p' .. number .. '}:lease', 'o', 'u')
    local held = lease[1] and lease[2] and tonumber(lease[2]) > now
    owners[number + 1] = held and names[lease[1]] or ''
end
return owners";

/// The owners of all partitions.
#[derive(Clone, Copy)]
pub(super) struct PartitionOwners<'a>(pub(super) &'a RedisServer);

impl PartitionOwners<'_> {
    async fn names(self) -> Vec<String> {
        self.0.command(&["EVAL", OWNERS, "0"]).await.texts()
    }

    /// Waits until these replicas own all partitions and each owns some.
    pub(super) async fn shared(self, replicas: impl IntoIterator<Item = &str>) {
        let replicas: BTreeSet<_> = replicas.into_iter().map(str::to_owned).collect();
        let fair = Partition::COUNT / replicas.len() / 2;
        within(Duration::from_secs(25), &format!("{replicas:?} share"), async || {
            let mut shares: BTreeMap<String, usize> = BTreeMap::new();
            for owner in self.names().await {
                *shares.entry(owner).or_default() += 1;
            }
            shares.keys().eq(&replicas) && shares.values().all(|share| *share >= fair)
        })
        .await;
    }

    /// Returns so many users with this prefix whose conversations a replica owns.
    pub(super) async fn users(self, prefix: &str, replica: &str, count: usize) -> Vec<String> {
        let owners = self.names().await;
        let users = (0..).map(|number| format!("{prefix}-{number}"));
        users.filter(|user| owners[partition(user).index()] == replica).take(count).collect()
    }

    /// Waits until so many messages of a user are open.
    pub(super) async fn open(self, user: &str, count: usize) {
        let key = format!("rtm:{{{}}}:c:sandbox/{user}", partition(user));
        within(Duration::from_secs(20), &format!("{count} messages of {user} are open"), async || {
            let state = self.0.command(&["HGET", &key, "s"]).await;
            let open =
                if state == Resp::None { 0 } else { state.text().matches(' ').count().saturating_sub(4) };
            open == count
        })
        .await;
    }
}
