//! How a conversation stands: asked here, answered by the replica that owns it.
//!
//! The store says what it knows and who the owner is, and hints at the question to it in the same step. The owner's
//! shard answers with a hint of its own. A question that nobody answers is given up after a moment: then the store's
//! word stands, with a reason that says why nothing more is known.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Shard, spawn};
use crate::domain::{ConnectionStatus, ConversationId, ConversationState, LinkState, Partition};
use crate::hub::{HubError, PATIENCE};
use crate::store::{Hint, Incarnation, StoreError};

/// Questions of one shard that may wait for their answers.
const QUESTIONS: usize = 256;

/// A question about a conversation, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) conversation: ConversationId,
    pub(crate) answer: oneshot::Sender<Result<ConversationState, HubError>>,
}

/// The questions that wait for other replicas.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: RefCell<HashMap<u64, oneshot::Sender<ConnectionStatus>>>,
    asked: Cell<u64>,
}

impl Shard {
    /// Finds out how the conversation stands.
    pub(super) fn ask(self: &Rc<Self>, question: Question) {
        let Question { conversation, mut answer } = question;
        let (told, connection) = oneshot::channel();
        let number = self.next_question();
        {
            let mut waiting = self.questions.waiting.borrow_mut();
            if waiting.len() >= QUESTIONS {
                // Who has gone needs no answer.
                answer.send(Err(HubError::Overloaded("too many ask how conversations stand"))).ok();
                return;
            }
            // Before the store is asked: its hint may be answered sooner than its own answer is here.
            waiting.insert(number, told);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let state = tokio::select! {
                state = shard.state(&conversation, number, connection) => Some(state),
                () = answer.closed() => None,
            };
            shard.questions.waiting.borrow_mut().remove(&number);
            if let Some(state) = state {
                answer.send(state.map_err(HubError::Store)).ok();
            }
        });
    }

    /// Its remainder by the number of shards is this shard, so that the answer finds it.
    fn next_question(&self) -> u64 {
        let wide = |number: usize| u64::try_from(number).unwrap_or_default();
        let asked = self.questions.asked.get().wrapping_add(1);
        self.questions.asked.set(asked);
        asked.wrapping_mul(wide(self.setup.leases.shards())).wrapping_add(wide(self.setup.index))
    }

    async fn state(
        &self,
        conversation: &ConversationId,
        number: u64,
        told: oneshot::Receiver<ConnectionStatus>,
    ) -> Result<ConversationState, StoreError> {
        let me = self.setup.leases.incarnation();
        let (mut state, owner) = self.setup.store.state(conversation, me, number).await?;
        let unknown = match owner {
            None => "no replica has the conversation at the moment; one takes it over within seconds",
            Some(owner) if owner == me => {
                if let Some(connection) = self.connection(conversation) {
                    learn(&mut state, connection);
                    return Ok(state);
                }
                "the replica that has the conversation is taking it over, or gives it up"
            }
            Some(_) => {
                if let Ok(Ok(connection)) = timeout(PATIENCE, told).await {
                    learn(&mut state, connection);
                    return Ok(state);
                }
                "the replica that has the conversation did not answer"
            }
        };
        state.connection.reason.get_or_insert_with(|| unknown.into());
        Ok(state)
    }

    /// How the conversation's connection stands, where this shard has it; none where its partition is not ours. One that
    /// is not in memory has no connection, and wants none.
    fn connection(&self, conversation: &ConversationId) -> Option<ConnectionStatus> {
        let part = self.part(Partition::of(conversation))?;
        let mailbox = part.mailbox(conversation);
        match mailbox {
            Some(mailbox) => Some(mailbox.connection()),
            None => part.fence.get().map(|_| ConnectionStatus::default()),
        }
    }

    /// Another replica asks.
    pub(super) fn answer(&self, conversation: &ConversationId, by: Incarnation, number: u64) {
        let connection = self.connection(conversation).unwrap_or_else(|| ConnectionStatus {
            reason: Some("the conversation is going from one replica to another".into()),
            ..ConnectionStatus::default()
        });
        self.relay.send(by, Hint::Answered(number, Box::new(connection)));
    }

    /// Another replica answers. A question that was given up is not there any more.
    pub(super) fn answered(&self, number: u64, connection: ConnectionStatus) {
        let asked = self.questions.waiting.borrow_mut().remove(&number);
        if let Some(asked) = asked {
            asked.send(connection).ok();
        }
    }
}

/// Takes the owner's word. That a conversation is not in its memory says nothing of a block, which the record keeps.
fn learn(state: &mut ConversationState, connection: ConnectionStatus) {
    if connection.state != LinkState::Cold || state.connection.state != LinkState::Blocked {
        state.connection = connection;
    }
}
