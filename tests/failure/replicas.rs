//! Replicas that share a Redis, and what becomes of their users' messages when one of them is hurt.

mod cut;
mod deliveries;
mod halfway;
mod killed;
mod load;
mod owners;
mod paused;
mod readers;
mod restarted;
mod storm;

use std::rc::Rc;
use std::time::Duration;

use rtm_sandbox::{Sandbox, SandboxScript};

use self::halfway::Halfway;
use self::owners::Owners;
use crate::support::{
    Caller, Ledger, Proxy, RedisOptions, RedisServer, Served, nothing_left, quiet_platform,
};

/// Replicas as processes of their own, their Redis and their platform. End them with [`Replicas::finish`].
struct Replicas {
    redis: RedisServer,
    sandbox: Sandbox,
    script: SandboxScript,
    ledger: Rc<Ledger>,
    members: Vec<Member>,
    joined: usize,
    /// Of each one's configuration: what is put behind its tables, and what its environment says.
    more: String,
    settings: Vec<(&'static str, String)>,
}

/// One of them.
struct Member {
    name: String,
    served: Served,
    /// Its way to Redis.
    redis: Proxy,
}

impl Replicas {
    /// Starts so many; each owns its share when this returns.
    async fn start(count: usize) -> Self {
        Self::start_with(count, RedisOptions::default(), "", Vec::new()).await
    }

    /// The same, with this Redis and these settings.
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

    /// Starts one more.
    async fn join(&mut self) {
        let name = format!("replica-{}", self.joined);
        self.joined += 1;
        let redis = Proxy::start(([127, 0, 0, 1], self.redis.port).into());
        let store = format!("redis://{}", redis.address());
        let mut settings = vec![
            ("SERVER__GRACE", "500ms"),
            // As long as the shortest lease allows: on a busy machine Redis is slow without being broken.
            ("STORE__COMMAND_TIMEOUT", "900ms"),
            ("STORE__MESSAGE_TTL", "10m"),
        ];
        settings.extend(self.settings.iter().map(|(key, value)| (*key, value.as_str())));
        let served = Served::start_with(&name, &self.sandbox.url(), &store, &self.more, &settings).await;
        self.members.push(Member { name, served, redis });
    }

    const fn owners(&self) -> Owners<'_> {
        Owners(&self.redis)
    }

    /// Waits until the members, and nobody else, own all.
    async fn shared(&self) {
        self.owners().shared(self.members.iter().map(|member| &*member.name)).await;
    }

    /// Where to call the members.
    fn callers(&self) -> Vec<Caller> {
        self.members.iter().map(|member| member.served.api).collect()
    }

    /// Brings messages of a replica's users halfway; the members are called.
    async fn halfway(&self, replica: &Member, each: usize) -> Halfway {
        let (told, owners) = ((&self.script, &*self.ledger), self.owners());
        Halfway::bring(told, owners, (&replica.name, 0), &self.callers(), each).await
    }

    /// Checks all promises, ends all members, and looks into Redis.
    async fn finish(mut self) {
        self.ledger.check(&self.callers(), &self.script).await;
        for member in &mut self.members {
            assert_eq!(member.served.terminate().await, 0);
        }
        nothing_left(&[&self.redis], "rtm", Duration::from_mins(10)).await;
        self.sandbox.stop().await;
    }
}
