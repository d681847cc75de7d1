//! The activation of conversations: how they come into memory and leave it.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use tracing::error;

use super::partition_state::PartitionState;
use super::{Shard, spawn};
use crate::config::BotConfig;
use crate::domain::ConversationId;
use crate::link::{self, ConversationHost as _, ExitReason, Input, Mailbox};
use crate::store::Fence;

/// Conversations that are activated between two round trips to the store.
const BATCH: usize = 64;

/// A conversation's place in memory. Dropping it gives the place back, after an abort or a panic too.
struct ActivationGuard {
    shard: Rc<Shard>,
    part: Rc<PartitionState>,
    conversation: ConversationId,
    mailbox: Rc<Mailbox>,
}

impl Drop for ActivationGuard {
    fn drop(&mut self) {
        self.shard.idle(&self.mailbox, Some(self.shard.clock.now()));
        self.part.leave(&self.conversation);
        self.shard.setup.store.leave_memory(&self.conversation);
        self.shard.active.set(self.shard.active.get().saturating_sub(1));
        self.shard.setup.metrics.conversations.dec();
        self.shard.idle.notify_waiters();
    }
}

impl Shard {
    pub(super) fn bot(&self, conversation: &ConversationId) -> Option<&Arc<BotConfig>> {
        self.setup.bots.iter().find(|bot| bot.name == *conversation.bot())
    }

    /// Activates a conversation that is not in memory.
    pub(super) fn start(self: &Rc<Self>, part: &Rc<PartitionState>, conversation: ConversationId) {
        if self.stopping.get() {
            return;
        }
        let (Some(fence), Some(bot)) = (part.active_fence(), self.bot(&conversation)) else { return };
        if self.active.get() >= self.setup.capacity {
            self.evict();
        }
        let mailbox = Rc::new(Mailbox::default());
        self.active.set(self.active.get() + 1);
        self.setup.metrics.conversations.inc();
        self.setup.busy.fetch_add(1, Ordering::Relaxed);
        let guard = ActivationGuard {
            shard: Rc::clone(self),
            part: Rc::clone(part),
            conversation: conversation.clone(),
            mailbox: Rc::clone(&mailbox),
        };
        let task = spawn(Rc::clone(self).run_conversation(Arc::clone(bot), fence, guard));
        part.enter(conversation, mailbox, task.abort_handle());
    }

    /// Activates many conversations, and wakes those in memory. Each batch ends with a request to the store, whose answer
    /// comes behind the answers to the batch. A failover of thousands so leaves room for other requests.
    pub(super) async fn start_all(
        self: &Rc<Self>,
        part: &Rc<PartitionState>,
        fence: Fence,
        conversations: Vec<ConversationId>,
    ) {
        if conversations.is_empty() {
            return;
        }
        let _permit = self.activation_permit.lock().await;
        let mut begun = 0;
        for conversation in conversations {
            if part.active_fence() != Some(fence) {
                return;
            }
            if let Some(mailbox) = part.mailbox(&conversation) {
                mailbox.post(Input::Woken);
                continue;
            }
            self.start(part, conversation);
            begun += 1;
            if begun % BATCH == 0 {
                tokio::task::yield_now().await;
                if let Ok(now) = self.setup.store.now().await {
                    self.clock.observe(now);
                }
            }
        }
    }

    /// Runs a conversation from its activation until it has left.
    async fn run_conversation(self: Rc<Self>, bot: Arc<BotConfig>, fence: Fence, guard: ActivationGuard) {
        let ActivationGuard { part, conversation, mailbox, .. } = &guard;
        loop {
            mailbox.forget_drain();
            let run = link::run(
                Rc::clone(&self),
                Arc::clone(&bot),
                conversation.clone(),
                fence,
                Rc::clone(mailbox),
            );
            match AssertUnwindSafe(run).catch_unwind().await {
                // A message arrived during the eviction.
                Ok(ExitReason::Rested)
                    if (!mailbox.is_empty() || mailbox.open() > 0) && part.active_fence() == Some(fence) => {}
                // A message may have been accepted since, and its hint came to the conversation that was erased.
                Ok(ExitReason::Erased) if part.active_fence() == Some(fence) => mailbox.begin_anew(),
                Ok(ExitReason::Fenced) => {
                    self.setup.leases.suspect(part.partition, fence);
                    break;
                }
                Ok(ExitReason::Rested | ExitReason::Stopped | ExitReason::Erased) => break,
                Err(_) => {
                    self.setup.metrics.panics.inc();
                    error!(bot = %bot.name, "a conversation's task panicked, its open messages fail; this is a bug");
                    let failing = link::fail_open(&*self, &bot, fence, conversation);
                    let failed = AssertUnwindSafe(failing).catch_unwind().await;
                    if failed.is_err() {
                        // Open messages stay in the store, and the next sweep activates the conversation again.
                        self.setup.metrics.panics.inc();
                    }
                    if failed.is_err() || mailbox.is_empty() || part.active_fence() != Some(fence) {
                        break;
                    }
                }
            }
        }
        // No await lies between the last look into the mailbox and the drop of `guard`, so no mail is lost.
    }

    /// Evicts the conversations that have been idle longest: the excess, one more, and one per cent of the capacity.
    /// Evicted conversations that have not left yet count too, because they are still the first in order.
    fn evict(&self) {
        let mut idle: Vec<_> = self
            .partitions
            .iter()
            .flat_map(|part| part.mailboxes())
            .filter_map(|mailbox| Some((mailbox.idle_since()?, mailbox)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let excess = self.active.get().saturating_sub(self.setup.capacity);
        let evicted = excess + 1 + self.setup.capacity / 100;
        for (_, mailbox) in idle.into_iter().take(evicted) {
            mailbox.post(Input::Drain);
        }
    }
}
