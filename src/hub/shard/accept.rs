//! How the store accepts a message that is posted at this replica.
//!
//! The shard of the conversation asks the store, even if another replica owns the partition. If this shard owns it and the
//! conversation would send the message at once, the accept records the message as sent (ADR 22). That saves a write
//! before the first byte.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::super::open_message_shares::OpenMessagePlaces;
use super::super::waiters::CompletionSender;
use super::{Shard, spawn};
use crate::domain::{AcceptedMessage, MessageId, Partition, SessionRequest};
use crate::link::{ConversationHost as _, Input, Mailbox};
use crate::store::{AcceptError, AcceptRequest, AcceptResult};

/// A message to accept.
#[derive(Debug)]
pub(crate) struct AcceptCommand {
    /// The request to the store.
    pub(crate) accept: AcceptRequest,
    /// The waiter for the end of the message. It is dropped if no message comes of the request.
    pub(crate) waiter: Option<CompletionSender>,
    /// The places of the message until its end.
    pub(crate) places: Option<OpenMessagePlaces>,
    /// The receiver of the store's answer.
    pub(crate) answer: AcceptReply,
}

type AcceptReply = oneshot::Sender<Result<AcceptResult, AcceptError>>;

/// A message on its way into the store.
struct PendingAccept {
    id: MessageId,
    partition: Partition,
    /// The conversation that would send it at once.
    send_at_accept: Option<Rc<Mailbox>>,
    answer: AcceptReply,
}

impl Shard {
    pub(super) fn accept(self: &Rc<Self>, command: AcceptCommand) {
        let AcceptCommand { mut accept, waiter, places, answer } = command;
        let id = accept.id;
        if let Some(waiter) = waiter {
            // A hint of the end may overtake the answer to the accept.
            self.waiters.borrow_mut().add(accept.message.conversation.clone(), id, waiter);
        }
        if let Some(places) = places {
            self.waiters.borrow_mut().hold(accept.message.conversation.clone(), id, places);
        }
        let send_at_accept = self.request_send_at_accept(&mut accept);
        let partition = Partition::of(&accept.message.conversation);
        let pending = PendingAccept { id, partition, send_at_accept, answer };
        let store = self.setup.store.clone();
        let mut accepting = Box::pin(async move { store.accept(accept).await });
        // The memory store answers at once.
        if let Some(result) = accepting.as_mut().now_or_never() {
            self.on_accept_result(pending, result);
            return;
        }
        if let Some(mailbox) = &pending.send_at_accept {
            mailbox.post(Input::SendAtAcceptPending);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let result = accepting.await;
            shard.on_accept_result(pending, result);
        });
    }

    /// Adds the fence if this shard owns the partition. Returns the conversation if it would send the message at once: the
    /// accept then records the message as sent.
    fn request_send_at_accept(&self, accept: &mut AcceptRequest) -> Option<Rc<Mailbox>> {
        let conversation = &accept.message.conversation;
        let partition = Partition::of(conversation);
        if !self.may_act(partition) {
            return None;
        }
        let part = self.partition(partition)?;
        accept.owner = Some(part.active_fence()?);
        // A message for a new session has to wait for another link, and a connect sends no frame.
        if accept.message.session != SessionRequest::Continue || accept.message.is_connect() {
            return None;
        }
        let mailbox = part.mailbox(conversation).filter(|mailbox| mailbox.take_send_at_accept())?;
        accept.send_at_accept = true;
        part.unsent.borrow_mut().insert(accept.id);
        Some(mailbox)
    }

    /// Returns whether the conversation of this mailbox is still in memory.
    fn is_active(&self, message: &AcceptedMessage, mailbox: &Rc<Mailbox>) -> bool {
        let conversation = &message.new.conversation;
        let active = self.partition(Partition::of(conversation)).and_then(|part| part.mailbox(conversation));
        active.is_some_and(|active| Rc::ptr_eq(&active, mailbox))
    }

    fn on_accept_result(self: &Rc<Self>, pending: PendingAccept, result: Result<AcceptResult, AcceptError>) {
        let PendingAccept { id, partition, send_at_accept, answer } = pending;
        if let (Err(AcceptError::Store(error)), Some(part)) = (&result, self.partition(partition))
            && error.is_passing()
        {
            // The message may be stored all the same, and the owner gets no hint of its own accept.
            part.look_wanted.set(true);
        }
        let unknown = matches!(&result, Err(AcceptError::Store(error)) if error.is_passing());
        if send_at_accept.is_some()
            && !unknown
            && !matches!(result, Ok(AcceptResult::SentAtAccept(_)))
            && let Some(part) = self.partition(partition)
        {
            part.unsent.borrow_mut().remove(id);
        }
        match (&result, send_at_accept) {
            (Ok(AcceptResult::SentAtAccept(message)), Some(mailbox)) if self.is_active(message, &mailbox) => {
                self.waiters.borrow_mut().set_stored(id);
                mailbox.post(Input::SentAtAccept(Arc::clone(message)));
            }
            (result, send_at_accept) => {
                if let Some(mailbox) = send_at_accept {
                    mailbox.post(Input::NotSentAtAccept);
                }
                match result {
                    Ok(AcceptResult::New(message) | AcceptResult::SentAtAccept(message)) => {
                        self.on_accepted(Arc::clone(message));
                    }
                    Ok(AcceptResult::Replayed(_)) | Err(_) => self.waiters.borrow_mut().remove(id),
                }
            }
        }
        // A caller that has gone needs no answer.
        answer.send(result).ok();
    }
}
