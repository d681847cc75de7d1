//! The store of the simulated fleet: the memory store with a manual clock, and records for the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{
    AcceptedMessage, ConversationId, Message, MessageId, Partition, ReadStart, Timestamp,
};
use rtm_bridge::store::{
    AcceptError, AcceptRequest, AcceptResult, ClaimMode, ClaimResult, Clock, ConnectPermit,
    ConversationSnapshot, ConversationWrite, Fence, FleetStatus, Heartbeat, Hint, Incarnation, ManualClock,
    MemoryLimits, MemoryStore, StoreError, WriteResult,
};
use tokio::sync::mpsc;

/// A request of a replica.
#[derive(Debug, Clone)]
pub(super) enum StoreRequest {
    Heartbeat(Heartbeat),
    Leave(Incarnation),
    Claim(Vec<(Partition, ClaimMode)>, Incarnation),
    Renew(Vec<(Partition, Fence)>),
    Release(Partition, Fence),
    Ready(Vec<(Partition, Fence)>, bool),
    Open(Fence, ConversationId),
    Write(Fence, ConversationId, Arc<ConversationWrite>),
    Accept(Box<AcceptRequest>),
    /// Reads a message, and notes a watcher with it.
    ReadMessage(ConversationId, MessageId, Option<Incarnation>),
    Permit(u64),
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum StoreAnswer {
    Fleet(FleetStatus),
    Claims(Vec<(Partition, ClaimResult)>),
    Renewed(Vec<(Partition, Fence, Result<Timestamp, StoreError>)>),
    Released,
    Ready(Vec<(Partition, Fence, Result<Vec<ConversationId>, StoreError>)>),
    Opened(Result<Box<(ConversationSnapshot, Timestamp)>, StoreError>),
    Written(Result<WriteResult, StoreError>),
    Accepted(Result<AcceptResult, AcceptError>),
    Message(Option<Message>),
    Permit(ConnectPermit),
    Left,
}

/// The store. Each of its lives starts empty.
pub(super) struct SimulatedStore {
    memory: Arc<MemoryStore>,
    clock: Clock,
    hand: ManualClock,
    lease: Duration,
    /// The connect limit of the bot per minute; 0 is no limit.
    pub(super) connects: u32,
    /// The number of times the store was emptied.
    pub(super) life: u32,
    pub(super) emptied_at: u64,
    /// Whether no request reaches the store.
    pub(super) away: bool,
    holders: BTreeMap<Partition, Option<Fence>>,
    /// The last owner of each partition.
    lasts: BTreeMap<Partition, Incarnation>,
    pub(super) moves: Vec<(Partition, Incarnation, Incarnation)>,
    /// All accepted messages, with the life of the store.
    pub(super) accepted: BTreeMap<MessageId, (Arc<AcceptedMessage>, u32)>,
    listeners: Vec<(Incarnation, mpsc::Receiver<Hint>)>,
}

impl SimulatedStore {
    pub(super) fn new(now: u64, lease: Duration, connects: u32) -> Self {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(now));
        Self {
            memory: MemoryStore::new(limits(), clock.clone()),
            clock,
            hand,
            lease,
            connects,
            life: 0,
            emptied_at: 0,
            away: false,
            holders: BTreeMap::new(),
            lasts: BTreeMap::new(),
            moves: Vec::new(),
            accepted: BTreeMap::new(),
            listeners: Vec::new(),
        }
    }

    pub(super) fn advance(&self, now: u64) {
        let behind = now.saturating_sub(self.clock.now().as_millis());
        if behind > 0 {
            self.hand.advance(Duration::from_millis(behind));
        }
    }

    /// Empties the store; listeners stay.
    pub(super) fn empty(&mut self, now: u64) {
        self.memory = MemoryStore::new(limits(), self.clock.clone());
        self.life += 1;
        self.emptied_at = now;
        self.holders.clear();
        for (incarnation, hints) in &mut self.listeners {
            *hints = self.memory.listen(*incarnation);
        }
    }

    pub(super) fn listen(&mut self, incarnation: Incarnation) {
        self.listeners.push((incarnation, self.memory.listen(incarnation)));
    }

    pub(super) fn hang_up(&mut self, incarnation: Incarnation) {
        self.listeners.retain(|(listener, _)| *listener != incarnation);
    }

    /// Returns the hints since the last call.
    pub(super) fn hints(&mut self) -> Vec<(Incarnation, Hint)> {
        let mut all = Vec::new();
        for (incarnation, hints) in &mut self.listeners {
            while let Ok(hint) = hints.try_recv() {
                all.push((*incarnation, hint));
            }
        }
        all
    }

    /// Returns the owner of a partition.
    pub(super) fn holder(&self, partition: Partition) -> Option<Incarnation> {
        self.holders.get(&partition).copied().flatten().map(|fence| fence.incarnation)
    }

    pub(super) fn message(&self, conversation: &ConversationId, id: MessageId) -> Option<Message> {
        self.memory.message(conversation, id, None)
    }

    pub(super) fn journal(&self, conversation: &ConversationId) -> Vec<rtm_bridge::domain::JournalEntry> {
        let (mut entries, mut after) = (Vec::new(), ReadStart::Oldest);
        loop {
            let page = self.memory.page(conversation, after, 1000, None);
            entries.extend(page.entries.into_iter().map(|item| item.entry));
            if !page.more {
                return entries;
            }
            after = ReadStart::Cursor(page.next);
        }
    }

    /// Returns the messages that have not ended.
    pub(super) fn open(&self) -> BTreeSet<MessageId> {
        let here = self.accepted.values().filter(|(_, life)| *life == self.life);
        let open = here.filter(|(message, _)| {
            let stored = self.message(&message.new.conversation, message.id);
            stored.is_none_or(|message| !message.progress.has_ended())
        });
        open.map(|(message, _)| message.id).collect()
    }

    pub(super) fn carry_out(&mut self, ask: &StoreRequest) -> StoreAnswer {
        let memory = &self.memory;
        match ask {
            StoreRequest::Heartbeat(heartbeat) => {
                let mut fleet = memory.heartbeat(heartbeat);
                fleet.live.sort();
                StoreAnswer::Fleet(fleet)
            }
            StoreRequest::Leave(incarnation) => {
                memory.leave(*incarnation);
                StoreAnswer::Left
            }
            StoreRequest::Claim(wanted, incarnation) => {
                let claims = wanted.iter().map(|&(partition, claiming)| {
                    (partition, memory.claim(partition, *incarnation, self.lease, claiming))
                });
                let claims: Vec<_> = claims.collect();
                for (partition, claim) in &claims {
                    if let Some(fence) = claim.fence() {
                        self.holders.insert(*partition, Some(fence));
                        let last = self.lasts.insert(*partition, fence.incarnation);
                        if let Some(last) = last.filter(|&last| last != fence.incarnation) {
                            self.moves.push((*partition, last, fence.incarnation));
                        }
                    }
                }
                StoreAnswer::Claims(claims)
            }
            StoreRequest::Renew(leases) => {
                let renew =
                    |&(partition, fence)| (partition, fence, memory.renew(partition, fence, self.lease));
                StoreAnswer::Renewed(leases.iter().map(renew).collect())
            }
            StoreRequest::Release(partition, fence) => {
                if memory.release(*partition, *fence).is_ok() {
                    self.holders.insert(*partition, None);
                }
                StoreAnswer::Released
            }
            StoreRequest::Ready(leases, warm) => {
                let ready = leases.iter().map(|&(partition, fence)| {
                    let ready = memory.ready(partition, fence, *warm).map(|mut ready| {
                        // The order of the store is random, and that of a run is not.
                        ready.sort();
                        ready
                    });
                    (partition, fence, ready)
                });
                StoreAnswer::Ready(ready.collect())
            }
            StoreRequest::Open(fence, conversation) => {
                StoreAnswer::Opened(memory.open(*fence, conversation).map(Box::new))
            }
            StoreRequest::Write(fence, conversation, write) => {
                StoreAnswer::Written(memory.write(*fence, conversation, write))
            }
            StoreRequest::Accept(accept) => {
                let accepted = memory.accept(AcceptRequest::clone(accept));
                if let Ok(AcceptResult::New(message) | AcceptResult::SentAtAccept(message)) = &accepted {
                    // An emptied store accepts a repeat as a new message.
                    self.accepted.insert(message.id, (Arc::clone(message), self.life));
                }
                StoreAnswer::Accepted(accepted)
            }
            StoreRequest::ReadMessage(conversation, id, watcher) => {
                StoreAnswer::Message(memory.message(conversation, *id, *watcher))
            }
            StoreRequest::Permit(token) => {
                let bot = super::bot_name();
                StoreAnswer::Permit(memory.permit(&bot, self.connects, *token, None))
            }
        }
    }
}

fn limits() -> MemoryLimits {
    MemoryLimits::new(1 << 30, Duration::from_hours(24))
}
