//! How a message that is posted here comes into the store.
//!
//! The shard of its conversation asks the store, whichever replica owns the partition. If this shard owns it and the
//! conversation may send the message at its accept, the store also marks it as sent (ADR 22). This saves a write
//! before the first byte.

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
    /// The conversation that waits to send it at its accept.
    send_at_accept: Option<Rc<Mailbox>>,
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
        let send_at_accept = self.request_send_at_accept(&mut accept);
        let posting = Posting { id, send_at_accept, answer };
        let store = self.setup.store.clone();
        let mut accepting = Box::pin(async move { store.accept(accept).await });
        // A store in memory answers at once.
        if let Some(result) = accepting.as_mut().now_or_never() {
            self.posted(posting, result);
            return;
        }
        if let Some(mailbox) = &posting.send_at_accept {
            mailbox.post(Input::SendAtAcceptPending);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let result = accepting.await;
            shard.posted(posting, result);
        });
    }

    /// Asks the store to mark the message as sent, if its conversation may send it at once. Returns that
    /// conversation.
    fn request_send_at_accept(&self, accept: &mut AcceptRequest) -> Option<Rc<Mailbox>> {
        let conversation = &accept.message.conversation;
        let partition = Partition::of(conversation);
        // A message that wants a new session has to wait for another link.
        if accept.message.session != SessionRequest::Continue || !self.may_act(partition) {
            return None;
        }
        let part = self.part(partition)?;
        let fence = part.works()?;
        let mailbox = part.mailbox(conversation).filter(|mailbox| mailbox.take_send_at_accept())?;
        accept.send_at_accept = Some(fence);
        Some(mailbox)
    }

    fn posted(self: &Rc<Self>, posting: Posting, result: Result<AcceptResult, AcceptError>) {
        let Posting { id, send_at_accept, answer } = posting;
        match (&result, send_at_accept) {
            (Ok(AcceptResult::SentAtAccept(message)), Some(mailbox)) => {
                self.watch.borrow_mut().set_stored(id);
                mailbox.post(Input::SentAtAccept(Arc::clone(message)));
            }
            (result, send_at_accept) => {
                if let Some(mailbox) = send_at_accept {
                    mailbox.post(Input::NotSentAtAccept);
                }
                match result {
                    Ok(AcceptResult::New(message) | AcceptResult::SentAtAccept(message)) => {
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
