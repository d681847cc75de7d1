//! The replicas: heartbeats, and the budget they share.

use super::Redis;
use super::codec::Corrupt;
use super::millis;
use super::scripts::SCRIPTS;
use crate::domain::BotName;
use crate::store::{Fleet, Heartbeat, Incarnation, Peer, Permit, StoreError};

impl Redis {
    /// Says that a replica lives; see [`crate::store::Store::heartbeat`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Fleet, StoreError> {
        let keys = &self.0.keys;
        let peer = &heartbeat.peer;
        let bots: Vec<&str> = heartbeat.bots.iter().map(BotName::as_str).collect();
        let call = self
            .call(&SCRIPTS.heartbeat, &[&keys.replicas(), &keys.bots()])
            .arg(format!("{}{}", peer.incarnation, peer.name))
            // Bot names have no space.
            .arg(bots.join(" "))
            .arg(millis(heartbeat.ttl))
            .arg(keys.replica_channel(peer.incarnation))
            .arg(keys.fleet_channel())
            .arg(heartbeat.echo);
        // Another slot of a cluster: two scripts, on their way at the same time.
        let schema = self.call(&SCRIPTS.exists, &[&keys.schema()]);
        let (live, schema) = tokio::join!(self.run(call), self.run(schema));
        let (now, mut live) = live?.expect("OK")?;
        let (_, mut schema) = schema?.expect("OK")?;
        let members = live.values()?;
        let known = live.number()? == 1;
        let live = members.texts().map(|member| read(&member?)).collect::<Result<_, Corrupt>>()?;
        Ok(Fleet { now, live, prepared: schema.number()? == 1, known })
    }

    /// A replica goes; see [`crate::store::Store::leave`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        let keys = &self.0.keys;
        let call = self
            .call(&SCRIPTS.leave, &[&keys.replicas(), &keys.bots()])
            .arg(incarnation.to_string())
            .arg(keys.fleet_channel());
        self.run(call).await?.expect("OK")?;
        Ok(())
    }

    /// Counts a connect; see [`crate::store::Store::permit`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Unknown`].
    pub async fn permit(&self, bot: &BotName, limit: u32, token: u64) -> Result<Permit, StoreError> {
        if limit == 0 {
            return Ok(Permit::Granted);
        }
        let call =
            self.call(&SCRIPTS.permit, &[&self.0.keys.connects(bot)]).arg(format!("{token:016x}")).arg(limit);
        let answer = self.run(call).await?;
        if answer.is("AT") {
            return Ok(Permit::At(answer.expect("AT")?.1.time()?));
        }
        answer.expect("GRANTED")?;
        Ok(Permit::Granted)
    }
}

/// A member of the sorted set: 16 digits of the incarnation, then the name.
fn read(member: &str) -> Result<Peer, Corrupt> {
    const WHAT: Corrupt = Corrupt("a heartbeat");
    let (incarnation, name) = member.split_at_checked(16).ok_or(WHAT)?;
    Ok(Peer { name: name.into(), incarnation: incarnation.parse().map_err(|_| WHAT)? })
}
