//! Replicas that share a Redis, and the fate of messages after a fault of one replica.

mod campaign;
mod deliveries;
mod erasure_killed;
mod held_messages;
mod load;
mod network_cut;
mod partition_owners;
mod process_killed;
mod process_paused;

mod rolling_restart;
mod stream_readers;

use std::rc::Rc;
use std::time::Duration;

use rtm_sandbox::{Sandbox, SandboxScript};

use self::held_messages::HeldMessages;
use self::partition_owners::PartitionOwners;
use crate::support::{
    Caller, Ledger, Proxy, RedisOptions, RedisServer, ServedReplica, nothing_left, quiet_platform,
};

/// Replicas as processes, with their Redis and their platform. End them with [`Replicas::finish`].
struct Replicas {
    redis: RedisServer,
    sandbox: Sandbox,
    script: SandboxScript,
    ledger: Rc<Ledger>,
    members: Vec<Member>,
    joined: usize,
    /// Additional tables and environment variables of each configuration.
    more: String,
    settings: Vec<(&'static str, String)>,
}

/// A replica of the group.
struct Member {
    name: String,
    served: ServedReplica,
    /// The replica's proxy to Redis.
    redis: Proxy,
}

impl Replicas {
    /// Starts so many replicas and waits until each owns its share.
    async fn start(count: usize) -> Self {
        Self::start_with(count, RedisOptions::default(), "", Vec::new()).await
    }

    /// Starts replicas with this Redis and these settings.
    async fn start_with(
        count: usize,
        options: RedisOptions,
        more: &str,
        settings: Vec<(&'static str, String)>,
    ) -> Self {
        let redis = RedisServer::start(options).await;
        let sandbox = Sandbox::start(quiet_platform()).await.unwrap();
        let (script, ledger) = (sandbox.script(), Rc::default());
        let (members, more) = (Vec::new(), more.to_owned());
        let mut replicas = Self { redis, sandbox, script, ledger, members, joined: 0, more, settings };
        for _ in 0..count {
            replicas.join().await;
        }
        replicas.shared().await;
        replicas
    }

    /// Starts one more replica.
    async fn join(&mut self) {
        let name = format!("replica-{}", self.joined);
        self.joined += 1;
        let redis = Proxy::start(([127, 0, 0, 1], self.redis.port).into());
        let store = format!("redis://{}", redis.address());
        let mut settings = vec![
            ("SERVER__GRACE", "500ms"),
            // The longest timeout that the shortest lease allows, because Redis can be slow on a busy machine.
            ("STORE__COMMAND_TIMEOUT", "900ms"),
            ("STORE__MESSAGE_TTL", "10m"),
        ];
        settings.extend(self.settings.iter().map(|(key, value)| (*key, value.as_str())));
        let served =
            ServedReplica::start_with(&name, &self.sandbox.url(), &store, &self.more, &settings).await;
        self.members.push(Member { name, served, redis });
    }

    const fn owners(&self) -> PartitionOwners<'_> {
        PartitionOwners(&self.redis)
    }

    /// Waits until the members alone own all partitions.
    async fn shared(&self) {
        self.owners().shared(self.members.iter().map(|member| &*member.name)).await;
    }

    /// Returns callers for all members.
    fn callers(&self) -> Vec<Caller> {
        self.members.iter().map(|member| member.served.api).collect()
    }

    /// Brings messages of a replica's users to the stages of [`HeldMessages`], through all members.
    async fn halfway(&self, replica: &Member, each: usize) -> HeldMessages {
        let (told, owners) = ((&self.script, &*self.ledger), self.owners());
        HeldMessages::bring(told, owners, (&replica.name, 0), &self.callers(), each).await
    }

    /// Checks all promises, ends all members, and checks the keys in Redis.
    async fn finish(self) {
        self.ledger.check(&self.callers(), &self.script).await;
        self.finish_unchecked().await;
    }

    /// Ends all members and checks the keys in Redis.
    async fn finish_unchecked(mut self) {
        for member in &mut self.members {
            assert_eq!(member.served.terminate().await, 0);
        }
        nothing_left(&[&self.redis], "rtm", Duration::from_mins(10)).await;
        self.sandbox.stop().await;
    }
}
