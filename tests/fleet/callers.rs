//! Callers: they post at any replica, retry without an answer, and wait at any replica.

use fastrand::Rng;
use rtm_bridge::domain::{Message, MessageId, ResendPolicy, SessionRequest, Timestamp, TurnRules};
use rtm_bridge::link::Input;
use rtm_bridge::store::{
    AcceptError, AcceptRequest, AcceptResult, Fence, IdempotencyKey, IdempotencyRequest,
};

use super::network::{CallPurpose, StoreReply, TIMEOUT};
use super::store::{StoreAnswer, StoreRequest};
use super::world::{CheckResult, FleetWorld, WorldEvent};
use super::{START, fault_plan::SLOTS};
use crate::simulation::support::plain;

/// The time that a caller waits before it polls again.
const WAIT: u64 = 8000;

/// A post, and the state of its caller.
pub(super) struct CallerPost {
    user: usize,
    /// The idempotency key.
    pub(super) key: Option<usize>,
    waits: bool,
    deadline: u64,
    resend: ResendPolicy,
    session: SessionRequest,
    pub(super) state: PostState,
    pub(super) id: Option<MessageId>,
    asked_of: Option<usize>,
    /// The time of the last accept, without its repeats.
    asked_at: u64,
    /// The number of the conversation that waits to send it at its accept.
    send_at_accept: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostState {
    /// The post has no answer.
    Posting,
    /// The post has a 2xx answer, and the caller waits for the end.
    Waiting,
    /// The caller knows the end, or does not want it.
    Done,
    /// The caller knows that the message is lost.
    Lost,
    /// The caller got no answer, and cannot retry without a key.
    GaveUp,
}

impl CallerPost {
    pub(super) fn draw(index: usize, user: usize, rng: &mut Rng) -> Self {
        Self {
            user,
            key: rng.bool().then_some(index),
            waits: rng.u8(0..3) != 0,
            deadline: rng.u64(2000..12_000),
            resend: if rng.bool() { ResendPolicy::Auto } else { ResendPolicy::Never },
            session: if rng.u8(0..10) == 0 { SessionRequest::New } else { SessionRequest::Continue },
            state: PostState::Posting,
            id: None,
            asked_of: None,
            asked_at: 0,
            send_at_accept: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, PostState::Done | PostState::Lost | PostState::GaveUp)
    }
}

impl FleetWorld {
    /// Returns a replica that answers callers.
    fn answering(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..SLOTS)
            .filter(|&slot| self.slots[slot].paused.is_none())
            .filter(|&slot| {
                self.slots[slot].replica.as_ref().is_some_and(|replica| replica.leaving.is_none())
            })
            .collect();
        self.rng.choice(up)
    }

    pub(super) fn post(&mut self, index: usize) -> CheckResult {
        let Some(slot) = self.answering() else {
            self.schedule(1000, WorldEvent::Post(index));
            return Ok(());
        };
        let Some(by) = self.slots[slot].incarnation() else { return Ok(()) };
        let random = u128::from(self.rng.u64(..)) << 16;
        let now = self.now;
        let post = &mut self.posts[index];
        post.asked_of = Some(slot);
        post.asked_at = now;
        let mut new = plain();
        new.conversation = self.users[post.user].name.clone();
        new.resend = post.resend;
        new.session = post.session;
        if let Ok(rules) = TurnRules::new(None, Some(500), Some(post.deadline)) {
            new.rules = rules;
        }
        let (user, session) = (post.user, post.session);
        let sender =
            if session == SessionRequest::Continue { self.sender_at_accept(slot, user) } else { None };
        let post = &mut self.posts[index];
        post.send_at_accept = sender.map(|(number, _)| number);
        let accept = AcceptRequest {
            id: MessageId::new(Timestamp::from_millis(START + self.now), random),
            message: new,
            idempotency: post.key.map(|key| IdempotencyRequest {
                key: IdempotencyKey::Chosen { caller: "shop".into(), key: key.to_string().into() },
                body: [0; 32],
            }),
            max_open: 32,
            by,
            watched: post.waits,
            owner: sender.map(|(_, fence)| fence),
            send_at_accept: sender.is_some(),
        };
        self.ask(slot, CallPurpose::Post(index), StoreRequest::Accept(Box::new(accept)));
        match sender {
            Some((number, _)) => self.input(slot, user, number, Input::SendAtAcceptPending),
            None => Ok(()),
        }
    }

    /// Returns the user's conversation there, if it may send a message at its accept, and its fence.
    fn sender_at_accept(&mut self, slot: usize, user: usize) -> Option<(u64, Fence)> {
        let now = self.slots[slot].store_time(self.now);
        if !self.may_act(slot, user) {
            return None;
        }
        let conversation = self.slots[slot].replica.as_ref()?.conversations.get(&user)?;
        let may_send = conversation.machine.as_ref()?.may_send_at_accept(now);
        may_send.then_some((conversation.number, conversation.fence))
    }

    /// Passes the result of the accept to the conversation that would send the message at once.
    fn answer_send_at_accept(&mut self, slot: usize, index: usize, input: Input) -> CheckResult {
        let user = self.posts[index].user;
        match self.posts[index].send_at_accept.take() {
            Some(number) => self.input(slot, user, number, input),
            None => Ok(()),
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        slot: usize,
        index: usize,
        reply: StoreReply,
        ask: StoreRequest,
    ) -> CheckResult {
        let answer = match reply {
            Ok(StoreAnswer::Accepted(Ok(accepted))) => accepted,
            Ok(StoreAnswer::Accepted(Err(AcceptError::Store(_)))) | Err(_) => {
                return self.refused(slot, index, ask);
            }
            other => return Err(format!("post {index} was answered {other:?}")),
        };
        let (id, ended) = match &answer {
            AcceptResult::New(message) | AcceptResult::SentAtAccept(message) => (message.id, None),
            AcceptResult::Replayed(message) => {
                (message.accepted.id, message.progress.has_ended().then(|| message.clone()))
            }
        };
        self.note(|| format!("post {index} is accepted as {id} by {slot}"));
        self.ledger.promise(id);
        let post = &mut self.posts[index];
        post.id = Some(id);
        let user = post.user;
        match answer {
            AcceptResult::SentAtAccept(message) => {
                self.answer_send_at_accept(slot, index, Input::SentAtAccept(message))?;
            }
            AcceptResult::New(message) => {
                self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)?;
                self.deliver(slot, user, Input::Accepted(message))?;
            }
            AcceptResult::Replayed(_) => self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)?,
        }
        match ended {
            Some(message) => self.answer_callers(vec![index], id, Some(&message))?,
            None if self.posts[index].waits => self.wait_at(slot, index, id),
            None => self.posts[index].state = PostState::Done,
        }
        Ok(())
    }

    /// Handles a timeout or refusal of the store.
    fn refused(&mut self, slot: usize, index: usize, ask: StoreRequest) -> CheckResult {
        let in_time = self.now < self.posts[index].asked_at + TIMEOUT;
        if in_time && self.rng.u8(0..4) == 0 {
            // The replica retries with the same id, within the timeout of the operation.
            self.ask(slot, CallPurpose::Post(index), ask);
            return Ok(());
        }
        if self.posts[index].key.is_some() {
            let wait = self.rng.u64(100..3000);
            self.schedule(wait, WorldEvent::Post(index));
        } else {
            self.posts[index].state = PostState::GaveUp;
        }
        self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)
    }

    fn wait_at(&mut self, slot: usize, index: usize, id: MessageId) {
        self.posts[index].state = PostState::Waiting;
        self.posts[index].asked_of = Some(slot);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.waiters.entry(id).or_default().push(index);
        }
        self.schedule(WAIT, WorldEvent::Poll(index));
    }

    /// Polls the end after a wait.
    pub(super) fn poll(&mut self, index: usize) {
        let post = &self.posts[index];
        let (Some(id), PostState::Waiting) = (post.id, post.state) else { return };
        let conversation = self.users[post.user].name.clone();
        let same = post.asked_of.filter(|&slot| {
            !self.plan.roaming && self.slots[slot].replica.is_some() && self.slots[slot].paused.is_none()
        });
        for slot in &mut self.slots {
            if let Some(waiters) = slot.replica.as_mut().and_then(|replica| replica.waiters.get_mut(&id)) {
                waiters.retain(|&waiter| waiter != index);
            }
        }
        let Some(slot) = same.or_else(|| self.answering()) else {
            self.schedule(1000, WorldEvent::Poll(index));
            return;
        };
        let watcher = self.slots[slot].incarnation();
        self.posts[index].asked_of = Some(slot);
        // The waiter is registered before the read.
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.waiters.entry(id).or_default().push(index);
        }
        self.ask(slot, CallPurpose::Poll(index, id), StoreRequest::ReadMessage(conversation, id, watcher));
    }

    pub(super) fn on_poll(&mut self, index: usize, id: MessageId, reply: StoreReply) -> CheckResult {
        let post = &self.posts[index];
        // Another attempt of the post may have been accepted since.
        if post.state != PostState::Waiting || post.id != Some(id) {
            return Ok(());
        }
        match reply {
            Ok(StoreAnswer::Message(Some(message))) if message.progress.has_ended() => {
                self.answer_callers(vec![index], id, Some(&message))
            }
            Ok(StoreAnswer::Message(Some(_))) => {
                self.schedule(WAIT, WorldEvent::Poll(index));
                Ok(())
            }
            Ok(StoreAnswer::Message(None)) => self.answer_callers(vec![index], id, None),
            _ => {
                self.schedule(1000, WorldEvent::Poll(index));
                Ok(())
            }
        }
    }

    /// Handles a message that a replica read for its waiters.
    pub(super) fn on_waiters(&mut self, slot: usize, id: MessageId, reply: StoreReply) -> CheckResult {
        match reply {
            Ok(StoreAnswer::Message(Some(message))) if message.progress.has_ended() => {
                self.complete(slot, &message)
            }
            Ok(StoreAnswer::Message(None)) => self.complete_as_lost(slot, id),
            _ => Ok(()),
        }
    }

    /// Reports a lost message to the waiters of a replica.
    pub(super) fn complete_as_lost(&mut self, slot: usize, id: MessageId) -> CheckResult {
        let waiters = self.slots[slot].replica.as_mut().and_then(|it| it.waiters.remove(&id));
        self.answer_callers(waiters.unwrap_or_default(), id, None)
    }

    /// Reports an end to the waiters of a replica.
    pub(super) fn complete(&mut self, slot: usize, message: &Message) -> CheckResult {
        let id = message.accepted.id;
        let waiters = self.slots[slot].replica.as_mut().and_then(|it| it.waiters.remove(&id));
        self.answer_callers(waiters.unwrap_or_default(), id, Some(message))
    }

    /// Reports the end or the loss of a message to the posts that wait for it.
    fn answer_callers(&mut self, posts: Vec<usize>, id: MessageId, message: Option<&Message>) -> CheckResult {
        for index in posts {
            let post = &mut self.posts[index];
            if post.is_over() || post.id != Some(id) {
                continue;
            }
            if let Some(message) = message {
                post.state = PostState::Done;
                self.ledger.ended(message)?;
            } else {
                post.state = PostState::Lost;
                self.complete_lost(id)?;
            }
        }
        Ok(())
    }

    /// Fails the requests of callers at a crashed replica.
    pub(super) fn fail_callers(&mut self, slot: usize) {
        for index in 0..self.posts.len() {
            let post = &mut self.posts[index];
            if post.asked_of != Some(slot) {
                continue;
            }
            post.asked_of = None;
            match post.state {
                PostState::Posting if post.key.is_some() => {
                    let wait = self.rng.u64(100..1000);
                    self.schedule(wait, WorldEvent::Post(index));
                }
                PostState::Posting => post.state = PostState::GaveUp,
                PostState::Waiting => self.schedule(300, WorldEvent::Poll(index)),
                _ => {}
            }
        }
    }
}
