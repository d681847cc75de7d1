//! The status of a conversation, which the owner of its partition knows best.
//!
//! The store returns its own record and the owner, and passes the query to the owner by a hint in the same step. The
//! owner's shard answers with another hint. A query without an answer times out. The caller then gets the record of the
//! store, with a reason that says why the owner's status is missing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::list_query::StatusList;
use super::{Shard, spawn};
use crate::domain::{ConnectionStatus, ConversationId, ConversationState, LinkState, Partition};
use crate::hub::{COMMAND_TIMEOUT, HubError};
use crate::store::{Hint, Incarnation, StoreError};

/// Queries of one shard that may wait for answers.
const MAX_QUERIES: usize = 256;

/// A query for the status of a conversation.
#[derive(Debug)]
pub(crate) struct StatusQuery {
    pub(crate) conversation: ConversationId,
    pub(crate) answer: oneshot::Sender<Result<ConversationState, HubError>>,
}

/// The queries that wait for other replicas.
#[derive(Debug, Default)]
pub(super) struct PendingQueries {
    pub(super) waiting: RefCell<HashMap<u64, oneshot::Sender<ConnectionStatus>>>,
    /// Lists that wait for answers.
    pub(super) lists: RefCell<HashMap<u64, mpsc::Sender<StatusList>>>,
    asked: Cell<u64>,
}

impl Shard {
    /// Answers a query of this replica.
    pub(super) fn query_status(self: &Rc<Self>, query: StatusQuery) {
        let StatusQuery { conversation, mut answer } = query;
        let (reply, connection) = oneshot::channel();
        let number = self.next_query();
        {
            let mut waiting = self.queries.waiting.borrow_mut();
            if waiting.len() >= MAX_QUERIES {
                // A caller that has gone needs no answer.
                answer.send(Err(HubError::Overloaded("too many status queries are waiting"))).ok();
                return;
            }
            // The insert comes before the request to the store: the owner may answer sooner than the store.
            waiting.insert(number, reply);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let state = tokio::select! {
                state = shard.status(&conversation, number, connection) => Some(state),
                () = answer.closed() => None,
            };
            shard.queries.waiting.borrow_mut().remove(&number);
            if let Some(state) = state {
                answer.send(state.map_err(HubError::Store)).ok();
            }
        });
    }

    /// Returns the number of a new query. Its remainder by the number of shards is this shard, so the answer finds it.
    pub(super) fn next_query(&self) -> u64 {
        let wide = |number: usize| u64::try_from(number).unwrap_or_default();
        let asked = self.queries.asked.get().wrapping_add(1);
        self.queries.asked.set(asked);
        asked.wrapping_mul(wide(self.setup.leases.shards())).wrapping_add(wide(self.setup.index))
    }

    async fn status(
        &self,
        conversation: &ConversationId,
        number: u64,
        answered: oneshot::Receiver<ConnectionStatus>,
    ) -> Result<ConversationState, StoreError> {
        let me = self.setup.leases.incarnation();
        let (mut state, owner) = self.setup.store.state(conversation, me, number).await?;
        let unknown = match owner {
            None => "no replica owns the conversation at the moment; a failover takes seconds",
            Some(owner) if owner == me => {
                if let Some(connection) = self.local_connection(conversation) {
                    apply(&mut state, connection);
                    return Ok(state);
                }
                "the conversation is moving from one replica to another"
            }
            Some(_) => {
                if let Ok(Ok(connection)) = timeout(COMMAND_TIMEOUT, answered).await {
                    apply(&mut state, connection);
                    return Ok(state);
                }
                "the owner of the conversation did not answer"
            }
        };
        state.connection.reason.get_or_insert_with(|| unknown.into());
        Ok(state)
    }

    /// Returns the connection status of a conversation in a partition of this replica. A conversation that is not in
    /// memory has no connection and wants none.
    pub(super) fn local_connection(&self, conversation: &ConversationId) -> Option<ConnectionStatus> {
        let part = self.partition(Partition::of(conversation))?;
        let mailbox = part.mailbox(conversation);
        match mailbox {
            Some(mailbox) => Some(mailbox.connection()),
            None => part.fence().map(|_| ConnectionStatus::default()),
        }
    }

    /// Answers a query of another replica.
    pub(super) fn answer_query(&self, conversation: &ConversationId, by: Incarnation, number: u64) {
        let connection = self.connection_or_moving(conversation);
        self.hint_sender.send(by, Hint::Answered(number, Box::new(connection)));
    }

    /// Returns the connection status of a conversation for another replica that takes this one for the owner.
    pub(super) fn connection_or_moving(&self, conversation: &ConversationId) -> ConnectionStatus {
        self.local_connection(conversation).unwrap_or_else(|| ConnectionStatus {
            reason: Some("the conversation is moving from one replica to another".into()),
            ..ConnectionStatus::default()
        })
    }

    /// Takes the answer of another replica. A query that timed out ignores it.
    pub(super) fn on_query_answer(&self, number: u64, connection: ConnectionStatus) {
        let asked = self.queries.waiting.borrow_mut().remove(&number);
        if let Some(asked) = asked {
            asked.send(connection).ok();
        }
    }
}

/// Replaces the connection status by the owner's. A block in the record stays if the owner has no connection: the record
/// keeps blocks, the owner's memory does not.
fn apply(state: &mut ConversationState, connection: ConnectionStatus) {
    if connection.state != LinkState::Cold || state.connection.state != LinkState::Blocked {
        state.connection = connection;
    }
}
