//! The status of many conversations at once: one hint to each owner, and one answer from each of its shards.
//!
//! A list is for operators. It takes no place of the queries of callers. It asks in few hints, because a burst would fill
//! the queue of the owner.

use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Shard, spawn};
use crate::domain::{ConnectionStatus, ConversationId};
use crate::hub::COMMAND_TIMEOUT;
use crate::store::{Hint, Incarnation};

/// Lists of one shard that may wait for answers.
const MAX_LISTS: usize = 16;
/// Conversations of one hint.
const TOGETHER: usize = 100;
/// Answers to one list that may wait for it: those to a page of 1000 conversations from replicas with 25 shards.
const ANSWERS: usize = 256;

/// Conversations with their status.
pub(crate) type StatusList = Vec<(ConversationId, ConnectionStatus)>;

/// A query for the status of conversations, each with its owner. The answer lacks those whose owner did not answer.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) conversations: Vec<(ConversationId, Incarnation)>,
    pub(crate) answer: oneshot::Sender<StatusList>,
}

impl Shard {
    /// Answers a query of this replica.
    pub(super) fn query_list(self: &Rc<Self>, query: ListQuery) {
        let ListQuery { conversations, answer } = query;
        let me = self.setup.leases.incarnation();
        let mut found = StatusList::new();
        let mut others: HashMap<Incarnation, Vec<ConversationId>> = HashMap::new();
        for (conversation, owner) in conversations {
            if owner != me {
                others.entry(owner).or_default().push(conversation);
            } else if let Some(connection) = self.local_connection(&conversation) {
                found.push((conversation, connection));
            }
        }
        let mut lists = self.queries.lists.borrow_mut();
        if others.is_empty() || lists.len() >= MAX_LISTS {
            // A caller that has gone needs no answer.
            answer.send(found).ok();
            return;
        }
        let number = self.next_query();
        let (sender, answers) = mpsc::channel(ANSWERS);
        lists.insert(number, sender);
        drop(lists);
        let missing = others.values().map(Vec::len).sum();
        for (owner, conversations) in others {
            for conversations in conversations.chunks(TOGETHER) {
                let conversations = conversations.to_vec();
                self.hint_sender.send(owner, Hint::AskedList { conversations, by: me, number });
            }
        }
        let shard = Rc::clone(self);
        spawn(async move {
            collect(&mut found, missing, answers).await;
            shard.queries.lists.borrow_mut().remove(&number);
            answer.send(found).ok();
        });
    }

    /// Answers a query of another replica.
    pub(super) fn answer_list(&self, conversations: Vec<ConversationId>, by: Incarnation, number: u64) {
        let answer = conversations.into_iter().map(|conversation| {
            let connection = self.connection_or_moving(&conversation);
            (conversation, connection)
        });
        self.hint_sender.send(by, Hint::AnsweredList(number, answer.collect()));
    }

    /// Takes the answer of another replica. A list that timed out ignores it.
    pub(super) fn on_list_answer(&self, number: u64, answer: StatusList) {
        if let Some(list) = self.queries.lists.borrow().get(&number) {
            // The list goes on without an answer that finds no place.
            list.try_send(answer).ok();
        }
    }
}

/// Takes answers until the list is complete, or for a second.
async fn collect(found: &mut StatusList, mut missing: usize, mut answers: mpsc::Receiver<StatusList>) {
    let until = Instant::now() + COMMAND_TIMEOUT;
    while missing > 0
        && let Ok(Some(answer)) = timeout_at(until, answers.recv()).await
    {
        missing = missing.saturating_sub(answer.len());
        found.extend(answer);
    }
}
