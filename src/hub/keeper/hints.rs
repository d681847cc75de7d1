//! What other replicas hint at, and whether hints arrive at all.

use std::time::Duration;

use tokio::time::Instant;

use super::Watchman;
use crate::domain::Partition;
use crate::hub::shard::Command;
use crate::store::{Hint, HintStream, OutboxEvent};

/// A heartbeat that has not come back after this long means that hints are lost.
pub(super) const ECHO: Duration = Duration::from_secs(1);
/// Echoes that are waited for; more are not remembered, and are not needed to notice that none comes.
const ECHOES: usize = 64;

impl Watchman {
    pub(super) async fn listen(&self, hints: Option<HintStream>) {
        let Some(mut hints) = hints else { return std::future::pending().await };
        loop {
            let hint = hints.next().await;
            self.keeper.metrics.hint_received(kind(&hint));
            self.on_hint(hint);
        }
    }

    fn on_hint(&self, hint: Hint) {
        match hint {
            Hint::Accepted(message) => {
                let partition = Partition::of(&message.new.conversation);
                self.pass(partition, Command::Accepted(message));
            }
            Hint::Woken(conversation) => {
                self.pass(Partition::of(&conversation), Command::Woken(conversation));
            }
            Hint::Ended(message) => {
                self.pass(Partition::of(&message.accepted.new.conversation), Command::Ended(message));
            }
            Hint::EndedLarge { conversation, id } => {
                self.pass(Partition::of(&conversation), Command::Read { conversation, id });
            }
            Hint::Appended(conversation) => {
                self.pass(Partition::of(&conversation), Command::Appended(conversation));
            }
            Hint::Chunk(conversation, chunk) => {
                self.pass_or_lose(Partition::of(&conversation), Command::Chunk(conversation, chunk));
            }
            Hint::Observed(conversation, by) => {
                self.pass_or_lose(Partition::of(&conversation), Command::Observed(conversation, by));
            }
            Hint::Asked { conversation, by, number } => {
                let partition = Partition::of(&conversation);
                self.pass_or_lose(partition, Command::Asked { conversation, by, number });
            }
            Hint::Answered(number, connection) => {
                // The shard that asked is the number's remainder.
                let lanes = u64::try_from(self.keeper.lanes.len()).unwrap_or(u64::MAX);
                let asked = number.checked_rem(lanes).and_then(|shard| usize::try_from(shard).ok());
                if let Some(lane) = asked.and_then(|shard| self.keeper.lanes.get(shard)) {
                    lane.commands.try_send(Command::Answered(number, connection)).ok();
                }
            }
            Hint::Redelivered(partition) => {
                if self.leases().state(partition).is_some() {
                    self.keeper.news.tell_now(OutboxEvent::Redelivered(partition));
                }
            }
            Hint::Fleet => self.leases().round.notify_one(),
            Hint::Echo(number) => self.echoes.borrow_mut().retain(|(sent, _)| *sent > number),
            Hint::Subscribed => {
                self.keeper.news.tell_now(OutboxEvent::Missed);
                self.leases().missed();
                self.leases().round.notify_one();
            }
        }
    }

    /// Passes a hint on. A shard that is too busy to take it reads what it told of.
    fn pass(&self, partition: Partition, command: Command) {
        let lane = self.keeper.lanes.get(self.leases().shard(partition));
        if lane.is_some_and(|lane| lane.commands.try_send(command).is_err()) {
            self.leases().missed();
        }
    }

    /// Passes on what nobody misses for long: pieces of replies are never kept, readers are noted again, and a question
    /// without an answer is given up. A shard that is too busy has enough to do without reading all anew.
    fn pass_or_lose(&self, partition: Partition, command: Command) {
        if let Some(lane) = self.keeper.lanes.get(self.leases().shard(partition)) {
            lane.commands.try_send(command).ok();
        }
    }

    pub(super) fn remember_echo(&self, number: u64) {
        let mut echoes = self.echoes.borrow_mut();
        if echoes.len() < ECHOES {
            echoes.push_back((number, Instant::now()));
        }
    }

    pub(super) fn is_deaf(&self) -> bool {
        self.echoes.borrow().front().is_some_and(|(_, sent)| sent.elapsed() >= ECHO)
    }
}

const fn kind(hint: &Hint) -> &'static str {
    match hint {
        Hint::Accepted(_) => "accepted",
        Hint::Woken(_) => "woken",
        Hint::Ended(_) => "ended",
        Hint::EndedLarge { .. } => "ended_large",
        Hint::Appended(_) => "appended",
        Hint::Chunk(..) => "chunk",
        Hint::Observed(..) => "observed",
        Hint::Asked { .. } => "asked",
        Hint::Answered(..) => "answered",
        Hint::Redelivered(_) => "redelivered",
        Hint::Fleet => "fleet",
        Hint::Echo(_) => "echo",
        Hint::Subscribed => "subscribed",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::watchman;
    use super::*;
    use crate::hub::lease::Leases;
    use crate::store::{Fence, Incarnation, news};

    #[tokio::test]
    async fn who_attempts_deliveries_is_told_what_hints_say_of_them() {
        let me = Incarnation(1);
        let leases = Arc::new(Leases::new(me, Duration::from_secs(10), 1));
        let (teller, mut listening) = news();
        let mut watchman = watchman(&leases);
        watchman.keeper.news = teller;
        let (ours, others) = (Partition::from_byte(3), Partition::from_byte(4));
        leases.own(ours, Fence { incarnation: me, epoch: 5 }, Instant::now());
        for hint in [Hint::Redelivered(others), Hint::Redelivered(ours), Hint::Subscribed] {
            watchman.on_hint(hint);
        }
        drop(watchman);
        assert!(
            matches!(listening.next().await, Some(OutboxEvent::Redelivered(partition)) if partition == ours)
        );
        assert!(matches!(listening.next().await, Some(OutboxEvent::Missed)));
        assert!(listening.next().await.is_none(), "what others own is theirs to attempt");
    }
}
