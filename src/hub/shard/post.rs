//! How a message that is posted here comes into the store.
//!
//! The shard of its conversation asks the store, whoever owns the partition. Where that is this shard, and the
//! conversation would send the message at once, the store takes it as sent in the same step: what would be a write
//! of its own before the first byte costs nothing then.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::super::watch::Waiter;
use super::{Shard, spawn};
use crate::domain::{MessageId, Partition, SessionRequest};
use crate::link::{ConversationHost as _, Input, Mailbox};
use crate::store::{AcceptError, AcceptRequest, AcceptResult};

/// A message that is posted.
#[derive(Debug)]
pub(crate) struct Post {
    /// What the store is asked.
    pub(crate) accept: AcceptRequest,
    /// Where its end is told to a request that waits. It is let go of where no message comes of it.
    pub(crate) waiter: Option<Waiter>,
    /// Where the store's answer goes.
    pub(crate) answer: Answer,
}

type Answer = oneshot::Sender<Result<AcceptResult, AcceptError>>;

/// A message on its way into the store.
struct Posting {
    id: MessageId,
    /// The conversation that would send it at once.
    inviting: Option<Rc<Mailbox>>,
    answer: Answer,
}

impl Shard {
    pub(super) fn post(self: &Rc<Self>, post: Post) {
        let Post { mut accept, waiter, answer } = post;
        let id = accept.id;
        if let Some(waiter) = waiter {
            // The message may end before the answer to the accept is here: a hint may overtake that.
            self.watch.borrow_mut().add(accept.message.conversation.clone(), id, waiter);
        }
        let inviting = self.invitation(&mut accept);
        let posting = Posting { id, inviting, answer };
        let store = self.setup.store.clone();
        let mut accepting = Box::pin(async move { store.accept(accept).await });
        // A store in memory answers at once.
        if let Some(result) = accepting.as_mut().now_or_never() {
            self.posted(posting, result);
            return;
        }
        if let Some(mailbox) = &posting.inviting {
            mailbox.post(Input::Invited);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let result = accepting.await;
            shard.posted(posting, result);
        });
    }

    /// The conversation that would send the message at once; the store is asked to take it as sent then.
    fn invitation(&self, accept: &mut AcceptRequest) -> Option<Rc<Mailbox>> {
        let conversation = &accept.message.conversation;
        let partition = Partition::of(conversation);
        // A message that wants a new session has to wait for another link.
        if accept.message.session != SessionRequest::Continue || !self.may_act(partition) {
            return None;
        }
        let part = self.part(partition)?;
        let fence = part.works()?;
        let mailbox = part.mailbox(conversation).filter(|mailbox| mailbox.take_invitation())?;
        accept.sends = Some(fence);
        Some(mailbox)
    }

    fn posted(self: &Rc<Self>, posting: Posting, result: Result<AcceptResult, AcceptError>) {
        let Posting { id, inviting, answer } = posting;
        match (&result, inviting) {
            (Ok(AcceptResult::Sent(message)), Some(mailbox)) => {
                self.watch.borrow_mut().set_stored(id);
                mailbox.post(Input::Sent(Arc::clone(message)));
            }
            (result, inviting) => {
                if let Some(mailbox) = inviting {
                    mailbox.post(Input::NotSent);
                }
                match result {
                    Ok(AcceptResult::New(message) | AcceptResult::Sent(message)) => {
                        self.accepted(Arc::clone(message));
                    }
                    Ok(AcceptResult::Replayed(_)) | Err(_) => self.watch.borrow_mut().dismiss(id),
                }
            }
        }
        // Who does not wait for it has gone.
        answer.send(result).ok();
    }
}
