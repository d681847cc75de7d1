//! Callers: they post through any replica, repeat what they got no answer to, and wait on any replica.

use fastrand::Rng;
use rtm_bridge::domain::{Message, MessageId, ResendPolicy, SessionRequest, Timestamp, TurnRules};
use rtm_bridge::link::Input;
use rtm_bridge::store::{AcceptError, AcceptRequest, AcceptResult, Fence, IdempotencyRequest};

use super::network::{Reply, To};
use super::store::{Answer, Ask};
use super::world::{Event, Outcome, World};
use super::{START, temper::SLOTS};
use crate::simulation::support::plain;

/// So long a caller waits before it asks again.
const WAIT: u64 = 8000;

/// A post and what its caller knows of it.
pub(super) struct Post {
    user: usize,
    /// Those with the same key are the same message.
    pub(super) key: Option<usize>,
    waits: bool,
    deadline: u64,
    resend: ResendPolicy,
    session: SessionRequest,
    pub(super) state: State,
    pub(super) id: Option<MessageId>,
    asked_of: Option<usize>,
    /// The number of the conversation that waits to send it at its accept.
    send_at_accept: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not answered yet.
    Posting,
    /// Answered with 2xx; waits for the end.
    Waiting,
    /// It knows the end, or does not want to.
    Told,
    /// It was told that the message is lost.
    Lost,
    /// It got no answer, and cannot repeat the post without a key.
    GaveUp,
}

impl Post {
    pub(super) fn draw(index: usize, user: usize, rng: &mut Rng) -> Self {
        Self {
            user,
            key: rng.bool().then_some(index),
            waits: rng.u8(0..3) != 0,
            deadline: rng.u64(2000..12_000),
            resend: if rng.bool() { ResendPolicy::Auto } else { ResendPolicy::Never },
            session: if rng.u8(0..10) == 0 { SessionRequest::New } else { SessionRequest::Continue },
            state: State::Posting,
            id: None,
            asked_of: None,
            send_at_accept: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Told | State::Lost | State::GaveUp)
    }
}

impl World {
    /// A replica that answers a caller now.
    fn answering(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..SLOTS)
            .filter(|&slot| self.slots[slot].paused.is_none())
            .filter(|&slot| {
                self.slots[slot].replica.as_ref().is_some_and(|replica| replica.leaving.is_none())
            })
            .collect();
        self.rng.choice(up)
    }

    pub(super) fn post(&mut self, index: usize) -> Outcome {
        let Some(slot) = self.answering() else {
            self.schedule(1000, Event::Post(index));
            return Ok(());
        };
        let Some(by) = self.slots[slot].incarnation() else { return Ok(()) };
        let random = u128::from(self.rng.u64(..)) << 16;
        let post = &mut self.posts[index];
        post.asked_of = Some(slot);
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
                caller: "shop".into(),
                key: key.to_string().into(),
                body: [0; 32],
            }),
            max_open: 32,
            by,
            watched: post.waits,
            send_at_accept: sender.map(|(_, fence)| fence),
        };
        self.ask(slot, To::Post(index), Ask::Accept(Box::new(accept)));
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

    /// Tells the conversation that waits to send the message at its accept how the accept ended.
    fn answer_send_at_accept(&mut self, slot: usize, index: usize, input: Input) -> Outcome {
        let user = self.posts[index].user;
        match self.posts[index].send_at_accept.take() {
            Some(number) => self.input(slot, user, number, input),
            None => Ok(()),
        }
    }

    pub(super) fn on_accepted(&mut self, slot: usize, index: usize, reply: Reply, ask: Ask) -> Outcome {
        let answer = match reply {
            Ok(Answer::Accepted(Ok(accepted))) => accepted,
            Ok(Answer::Accepted(Err(AcceptError::Store(_)))) | Err(_) => {
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
                self.answer_send_at_accept(slot, index, Input::SentAtAccept(message))?
            }
            AcceptResult::New(message) => {
                self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)?;
                self.deliver(slot, user, Input::Accepted(message))?;
            }
            AcceptResult::Replayed(_) => self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)?,
        }
        match ended {
            Some(message) => self.tell_callers(vec![index], Some(&message))?,
            None if self.posts[index].waits => self.wait_at(slot, index, id),
            None => self.posts[index].state = State::Told,
        }
        Ok(())
    }

    /// The store did not answer in time, or refused.
    fn refused(&mut self, slot: usize, index: usize, ask: Ask) -> Outcome {
        if self.rng.u8(0..4) == 0 {
            // The replica itself tries once more, under the same id.
            self.ask(slot, To::Post(index), ask);
            return Ok(());
        }
        if self.posts[index].key.is_some() {
            let wait = self.rng.u64(100..3000);
            self.schedule(wait, Event::Post(index));
        } else {
            self.posts[index].state = State::GaveUp;
        }
        self.answer_send_at_accept(slot, index, Input::NotSentAtAccept)
    }

    fn wait_at(&mut self, slot: usize, index: usize, id: MessageId) {
        self.posts[index].state = State::Waiting;
        self.posts[index].asked_of = Some(slot);
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.waiters.entry(id).or_default().push(index);
        }
        self.schedule(WAIT, Event::Look(index));
    }

    /// Its wait is over: it asks again.
    pub(super) fn look(&mut self, index: usize) {
        let post = &self.posts[index];
        let (Some(id), State::Waiting) = (post.id, post.state) else { return };
        let conversation = self.users[post.user].name.clone();
        let same = post.asked_of.filter(|&slot| {
            !self.temper.roaming && self.slots[slot].replica.is_some() && self.slots[slot].paused.is_none()
        });
        for slot in &mut self.slots {
            if let Some(waiters) = slot.replica.as_mut().and_then(|replica| replica.waiters.get_mut(&id)) {
                waiters.retain(|&waiter| waiter != index);
            }
        }
        let Some(slot) = same.or_else(|| self.answering()) else {
            self.schedule(1000, Event::Look(index));
            return;
        };
        let watcher = self.slots[slot].incarnation();
        self.posts[index].asked_of = Some(slot);
        // Who waits is noted before the message is read.
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.waiters.entry(id).or_default().push(index);
        }
        self.ask(slot, To::Look(index), Ask::Look(conversation, id, watcher));
    }

    pub(super) fn on_look(&mut self, index: usize, reply: Reply) -> Outcome {
        if self.posts[index].state != State::Waiting {
            return Ok(());
        }
        match reply {
            Ok(Answer::Message(Some(message))) if message.progress.has_ended() => {
                self.tell_callers(vec![index], Some(&message))
            }
            Ok(Answer::Message(Some(_))) => {
                self.schedule(WAIT, Event::Look(index));
                Ok(())
            }
            Ok(Answer::Message(None)) => self.tell_callers(vec![index], None),
            _ => {
                self.schedule(1000, Event::Look(index));
                Ok(())
            }
        }
    }

    /// What was read for those who wait at a replica.
    pub(super) fn on_waiters(&mut self, slot: usize, id: MessageId, reply: Reply) -> Outcome {
        match reply {
            Ok(Answer::Message(Some(message))) if message.progress.has_ended() => self.told(slot, &message),
            Ok(Answer::Message(None)) => self.lost(slot, id),
            _ => Ok(()),
        }
    }

    /// A replica knows that a message is lost: who waits there reads that.
    pub(super) fn lost(&mut self, slot: usize, id: MessageId) -> Outcome {
        let waiters = self.slots[slot].replica.as_mut().and_then(|it| it.waiters.remove(&id));
        self.tell_callers(waiters.unwrap_or_default(), None)
    }

    /// A replica knows that a message has ended: who waits there is told.
    pub(super) fn told(&mut self, slot: usize, message: &Message) -> Outcome {
        let id = message.accepted.id;
        let waiters = self.slots[slot].replica.as_mut().and_then(|it| it.waiters.remove(&id));
        self.tell_callers(waiters.unwrap_or_default(), Some(message))
    }

    fn tell_callers(&mut self, posts: Vec<usize>, message: Option<&Message>) -> Outcome {
        for index in posts {
            let post = &mut self.posts[index];
            let Some(id) = post.id else { continue };
            if post.is_over() {
                continue;
            }
            if let Some(message) = message {
                post.state = State::Told;
                self.ledger.told(message)?;
            } else {
                post.state = State::Lost;
                self.told_lost(id)?;
            }
        }
        Ok(())
    }

    /// A replica died: whoever had asked it something hears that.
    pub(super) fn forsake_callers(&mut self, slot: usize) {
        for index in 0..self.posts.len() {
            let post = &mut self.posts[index];
            if post.asked_of != Some(slot) {
                continue;
            }
            post.asked_of = None;
            match post.state {
                State::Posting if post.key.is_some() => {
                    let wait = self.rng.u64(100..1000);
                    self.schedule(wait, Event::Post(index));
                }
                State::Posting => post.state = State::GaveUp,
                State::Waiting => self.schedule(300, Event::Look(index)),
                _ => {}
            }
        }
    }
}
