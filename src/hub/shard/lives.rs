//! How conversations come into memory and leave it.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use tracing::error;

use super::part::Part;
use super::{Shard, spawn};
use crate::config::BotConfig;
use crate::domain::ConversationId;
use crate::link::{self, ConversationHost as _, ExitReason, Input, Mailbox};
use crate::store::Fence;

/// Conversations that are brought into memory between two round trips to the store.
const BATCH: usize = 64;

/// A conversation's place in memory. It is given back however its task ends: cut and panicked ones too.
struct Stay {
    shard: Rc<Shard>,
    part: Rc<Part>,
    conversation: ConversationId,
    mailbox: Rc<Mailbox>,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.shard.idle(&self.mailbox, Some(self.shard.clock.now()));
        self.part.leave(&self.conversation);
        self.shard.count.set(self.shard.count.get().saturating_sub(1));
        self.shard.setup.metrics.conversations.dec();
        self.shard.calm.notify_waiters();
    }
}

impl Shard {
    pub(super) fn bot(&self, conversation: &ConversationId) -> Option<&Arc<BotConfig>> {
        self.setup.bots.iter().find(|bot| bot.name == conversation.bot)
    }

    /// Brings a conversation into memory, which is not there yet.
    pub(super) fn start(self: &Rc<Self>, part: &Rc<Part>, conversation: ConversationId) {
        if self.stopping.get() {
            return;
        }
        let (Some(fence), Some(bot)) = (part.works(), self.bot(&conversation)) else { return };
        if self.count.get() >= self.setup.room {
            self.evict();
        }
        let mailbox = Rc::new(Mailbox::default());
        self.count.set(self.count.get() + 1);
        self.setup.metrics.conversations.inc();
        self.setup.busy.fetch_add(1, Ordering::Relaxed);
        let stay = Stay {
            shard: Rc::clone(self),
            part: Rc::clone(part),
            conversation: conversation.clone(),
            mailbox: Rc::clone(&mailbox),
        };
        let task = spawn(Rc::clone(self).live(Arc::clone(bot), fence, stay));
        part.enter(conversation, mailbox, task.abort_handle());
    }

    /// Brings many conversations into memory, or wakes them where they are. After each batch the store is asked
    /// something: the answer comes behind those that the batch asked for, so a take-over of thousands does not
    /// stand in the way of everything else.
    pub(super) async fn start_all(
        self: &Rc<Self>,
        part: &Rc<Part>,
        fence: Fence,
        conversations: Vec<ConversationId>,
    ) {
        if conversations.is_empty() {
            return;
        }
        let _door = self.door.lock().await;
        let mut begun = 0;
        for conversation in conversations {
            if part.works() != Some(fence) {
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

    /// A conversation's life in memory, from its start until it has left.
    async fn live(self: Rc<Self>, bot: Arc<BotConfig>, fence: Fence, stay: Stay) {
        let Stay { part, conversation, mailbox, .. } = &stay;
        loop {
            mailbox.forget_drain();
            let life = link::run(
                Rc::clone(&self),
                Arc::clone(&bot),
                conversation.clone(),
                fence,
                Rc::clone(mailbox),
            );
            match AssertUnwindSafe(life).catch_unwind().await {
                // A message came as it was about to give way to others.
                Ok(ExitReason::Rested)
                    if (!mailbox.is_empty() || mailbox.open() > 0) && part.works() == Some(fence) => {}
                Ok(ExitReason::Fenced) => {
                    self.setup.leases.doubt(part.partition, fence);
                    break;
                }
                Ok(ExitReason::Rested | ExitReason::Stopped) => break,
                Err(_) => {
                    self.setup.metrics.panics.inc();
                    error!(bot = %bot.name, "a conversation's task panicked, its open messages fail; this is a bug");
                    let failing = link::fail_open(&*self, &bot, fence, conversation);
                    let failed = AssertUnwindSafe(failing).catch_unwind().await;
                    if failed.is_err() {
                        // What is open stays in the store; the sweep brings it back in a second.
                        self.setup.metrics.panics.inc();
                    }
                    if failed.is_err() || mailbox.is_empty() || part.works() != Some(fence) {
                        break;
                    }
                }
            }
        }
        // Nothing is awaited between the last look into the mailbox and the end of `stay`: no mail is lost.
    }

    /// Lets the conversations go that have been idle longest: as many as are too many, one more, and one in a
    /// hundred. Those that were told before and are not gone yet count among them: they are still the first.
    fn evict(&self) {
        let mut idle: Vec<_> = self
            .parts
            .iter()
            .flat_map(|part| part.mailboxes())
            .filter_map(|mailbox| Some((mailbox.idle_since()?, mailbox)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        let too_many = self.count.get().saturating_sub(self.setup.room) + 1 + self.setup.room / 100;
        for (_, mailbox) in idle.into_iter().take(too_many) {
            mailbox.post(Input::Drain);
        }
    }
}
