//! The fleet on Redis: heartbeats, and the shared connect limit.

use std::sync::atomic::Ordering;

use super::RedisStore;
use super::codec::CorruptData;
use super::millis;
use super::scripts::SCRIPTS;
use crate::domain::BotName;
use crate::store::{
    ConnectPermit, FleetStatus, Heartbeat, Incarnation, ReplicaIdentity, StoreError, StoreRefusal,
};

impl RedisStore {
    pub(in crate::store) async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<FleetStatus, StoreError> {
        let keys = &self.0.keys;
        let peer = &heartbeat.peer;
        let bots: Vec<&str> = heartbeat.bots.iter().map(BotName::as_str).collect();
        let call = SCRIPTS
            .heartbeat
            .call(&[&keys.replicas(), &keys.bots()])
            .arg(format!("{}{}", peer.incarnation, peer.name))
            // The name of a bot has no space.
            .arg(bots.join(" "))
            .arg(millis(heartbeat.ttl))
            .arg(keys.replica_channel(peer.incarnation))
            .arg(keys.fleet_channel())
            .arg(heartbeat.echo);
        // The schema is in another slot of a cluster, so two scripts run at the same time.
        let schema = SCRIPTS.exists.call(&[&keys.schema()]);
        let (live, schema) = tokio::join!(self.run(call), self.run(schema));
        let (now, mut live) = live?.expect("OK")?;
        let (_, mut schema) = schema?.expect("OK")?;
        let members = live.values()?;
        let known = live.number()? == 1;
        let live = members.texts().map(|member| read(&member?)).collect::<Result<_, CorruptData>>()?;
        Ok(FleetStatus { now, live, prepared: schema.number()? == 1, known })
    }

    /// Publishes a hint to a channel without a listener, as scripts do after their writes. The state of the subscription
    /// shows the right to listen.
    pub(in crate::store) async fn check_ready(&self) -> Result<(), StoreError> {
        let keys = &self.0.keys;
        let channel = keys.replica_channel(Incarnation(0));
        match self.run(SCRIPTS.tell.call(&[&keys.schema()]).arg(channel).arg("")).await {
            Ok(_) if self.0.deafened.load(Ordering::Relaxed) => {
                Err(StoreError::Unavailable(StoreRefusal::NoChannels))
            }
            Ok(_) => Ok(()),
            // The script does nothing else.
            Err(StoreError::Halfway(refusal)) => Err(StoreError::Unavailable(refusal)),
            Err(error) => Err(error),
        }
    }

    pub(in crate::store) async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        let keys = &self.0.keys;
        let call = SCRIPTS
            .leave
            .call(&[&keys.replicas(), &keys.bots()])
            .arg(incarnation.to_string())
            .arg(keys.fleet_channel());
        self.run(call).await?.expect("OK")?;
        Ok(())
    }

    pub(in crate::store) async fn permit(
        &self,
        bot: &BotName,
        limit: u32,
        token: u64,
        reserved: Option<u64>,
    ) -> Result<ConnectPermit, StoreError> {
        if limit == 0 {
            return Ok(ConnectPermit::Granted);
        }
        let reserved = reserved.map(|reserved| format!("{reserved:016x}")).unwrap_or_default();
        let call = SCRIPTS
            .permit
            .call(&[&self.0.keys.connects(bot)])
            .arg(format!("{token:016x}"))
            .arg(limit)
            .arg(reserved);
        let answer = self.run(call).await?;
        if answer.is("AT") {
            return Ok(ConnectPermit::At(answer.expect("AT")?.1.time()?));
        }
        answer.expect("GRANTED")?;
        Ok(ConnectPermit::Granted)
    }
}

/// Parses a member of the sorted set: 16 digits of the incarnation, then the name.
fn read(member: &str) -> Result<ReplicaIdentity, CorruptData> {
    const WHAT: CorruptData = CorruptData("a heartbeat");
    let (incarnation, name) = member.split_at_checked(16).ok_or(WHAT)?;
    Ok(ReplicaIdentity { name: name.into(), incarnation: incarnation.parse().map_err(|_| WHAT)? })
}
