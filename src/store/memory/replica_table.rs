//! The replicas that share an embedded store, and their hints. Only tests have more than one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::{BotName, Timestamp};
use crate::store::{ConnectPermit, FleetStatus, Heartbeat, Hint, Incarnation, ReplicaIdentity};

/// The limit of waiting hints. More are dropped.
const HINTS: usize = 1024;
/// The window over which connects are counted.
const MINUTE: Duration = Duration::from_mins(1);

/// The live replicas, their channels, and each bot's connects of the last minute.
#[derive(Debug, Default)]
pub(super) struct ReplicaTable {
    live: HashMap<Incarnation, (ReplicaIdentity, Timestamp)>,
    channels: HashMap<Incarnation, mpsc::Sender<Hint>>,
    /// Each connect with its token.
    connects: HashMap<BotName, VecDeque<(Timestamp, u64)>>,
}

impl ReplicaTable {
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> FleetStatus {
        let peer = &heartbeat.peer;
        let known = self.live.insert(peer.incarnation, (peer.clone(), now + heartbeat.ttl)).is_some();
        self.live.retain(|_, (_, until)| now < *until);
        self.hint(peer.incarnation, Hint::Echo(heartbeat.echo));
        if !known {
            self.hint_all();
        }
        FleetStatus {
            now,
            live: self.live.values().map(|(peer, _)| peer.clone()).collect(),
            prepared: true,
            known,
        }
    }

    pub(super) fn leave(&mut self, incarnation: Incarnation) {
        self.live.remove(&incarnation);
        self.hint_all();
    }

    pub(super) fn listen(&mut self, incarnation: Incarnation) -> mpsc::Receiver<Hint> {
        let (sender, hints) = mpsc::channel(HINTS);
        self.channels.retain(|_, channel| !channel.is_closed());
        self.channels.insert(incarnation, sender);
        self.hint(incarnation, Hint::Subscribed);
        hints
    }

    pub(super) fn hint(&self, to: Incarnation, hint: Hint) {
        if let Some(channel) = self.channels.get(&to) {
            // A hint may be lost.
            channel.try_send(hint).ok();
        }
    }

    pub(super) fn hint_all(&self) {
        for channel in self.channels.values() {
            channel.try_send(Hint::Fleet).ok();
        }
    }

    pub(super) fn permit(
        &mut self,
        bot: &BotName,
        limit: u32,
        token: u64,
        reserved: Option<u64>,
        now: Timestamp,
    ) -> ConnectPermit {
        if limit == 0 {
            return ConnectPermit::Granted;
        }
        let connects = self.connects.entry(bot.clone()).or_default();
        while connects.front().is_some_and(|&(at, _)| at + MINUTE <= now) {
            connects.pop_front();
        }
        if connects.iter().any(|&(_, counted)| counted == token) {
            return ConnectPermit::Granted;
        }
        if let Some((_, counted)) = connects.iter_mut().find(|(_, counted)| Some(*counted) == reserved) {
            *counted = token;
            return ConnectPermit::Granted;
        }
        // If the limit was lowered, the oldest connects are not the ones that count.
        let limiting = connects.len().checked_sub(limit as usize).and_then(|oldest| connects.get(oldest));
        if let Some(&(at, _)) = limiting {
            return ConnectPermit::At(at + MINUTE);
        }
        connects.push_back((now, token));
        ConnectPermit::Granted
    }
}
