//! The effects of the machine, performed against the models, and the effects that must never come.

use std::sync::Arc;
use std::time::Duration;

use rtm_bridge::domain::{AcceptedMessage, EntryBody, JournalEntry, Message, ResendPolicy, SessionRequest};
use rtm_bridge::link::{ConnectFailure, Effect, Input, Machine, SocketLoss};
use rtm_bridge::rtm::ConnectMode;
use rtm_bridge::store::{ConversationChange, ConversationWrite};

use super::super::platform::chance;
use super::{CheckResult, SentMessage, SimulationEvent, World};

impl World {
    pub(super) fn perform(&mut self, effect: Effect) -> CheckResult {
        let life = self.life;
        match effect {
            Effect::Write(write) => self.write(write)?,
            Effect::ReadLane => {
                if std::mem::replace(&mut self.awaited.lane, true) {
                    return Err("the lane is read twice at once".into());
                }
                let wait = self.lag();
                self.schedule(wait, SimulationEvent::ReadLane(life));
            }
            Effect::Connect(request) => {
                let begins = self.machine.as_ref().is_some_and(|machine| !machine.in_turn());
                let opener = request.opener.filter(|opener| begins && opener.new.is_connect());
                self.connecting_for = opener.map(|opener| opener.id);
                self.connect(request.mode)?;
            }
            Effect::Send(message) => self.send(message)?,
            Effect::Ping => {
                if !self.lease.known {
                    return Err("a ping under a suspect lease".into());
                }
                let Some((socket, dead)) = self.socket else { return Err("a ping without a socket".into()) };
                if !dead {
                    let wait = self.rng.u64(5..400);
                    self.schedule(wait, SimulationEvent::Pinged(socket));
                }
            }
            Effect::Abandon(_) if std::mem::take(&mut self.awaited.connect) => self.attempts += 1,
            Effect::Close(_) | Effect::Abandon(_) => {
                if self.socket.take().is_none() {
                    return Err("a close without a socket".into());
                }
            }
            Effect::ReadHistory(after) => {
                self.awaited.history += 1;
                let wait = self.rng.u64(1..200) * self.rng.u64(1..20);
                self.schedule(wait, SimulationEvent::ReadHistory(life, after));
            }
            Effect::Complete { message, .. } => self.on_completed(&message)?,
            Effect::Learn(turn) => {
                if let Some(rhythm) = &self.rhythm {
                    rhythm.learn(*turn);
                }
            }
            Effect::Reconciled
            | Effect::OutOfTurn(_)
            | Effect::FarOffTime
            | Effect::Chunk(_)
            | Effect::Platform(_)
            | Effect::Signal(..)
            | Effect::Acknowledge(_) => {}
            Effect::Erase => return Err("no user asks for an erasure".to_owned()),
            Effect::ReportLoss(id) => {
                if !self.truth.lossy {
                    return Err(format!("{id} is forgotten, and nothing was lost"));
                }
                self.forgotten.insert(id);
            }
            Effect::Rest => {
                let open = self.machine.as_ref().map_or(0, Machine::open_messages);
                if open > 0 && !self.draining {
                    return Err(format!("rests with {open} open messages"));
                }
                if self.socket.is_some() || self.awaited.write || self.awaited.connect || self.awaited.lane {
                    return Err("rests although something is not finished".into());
                }
                self.rested = true;
                if self.draining {
                    self.kill("drained");
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, write: Arc<ConversationWrite>) -> CheckResult {
        if std::mem::replace(&mut self.awaited.write, true) {
            return Err("two writes at once".into());
        }
        Self::check_size(&write)?;
        for change in &write.changes {
            let opened = match change {
                ConversationChange::Sent { message, .. } => Some(*message),
                // The store lost the connect before it learnt of the socket. Its replies still belong to it.
                ConversationChange::Append(JournalEntry { body: EntryBody::Reply(reply), .. })
                    if self.truth.lossy =>
                {
                    reply.in_reply_to
                }
                _ => None,
            };
            self.truth.opened.extend(opened.filter(|message| self.posted_connects.contains(message)));
        }
        let (life, era) = (self.life, self.era);
        let lag = self.lag();
        if chance(&mut self.rng, self.faults.store_fails) {
            match self.rng.u8(0..3) {
                // Stored without an answer, stored later without an answer, or not stored.
                0 => self.schedule(lag, SimulationEvent::Apply(life, era, write, false)),
                1 => {
                    let later = self.rng.u64(0..4000);
                    self.schedule(lag + later, SimulationEvent::Apply(life, era, write, false));
                }
                _ => {}
            }
            self.schedule(lag + 1, SimulationEvent::Input(life, Input::WriteUnknown));
        } else {
            self.schedule(lag, SimulationEvent::Apply(life, era, write, true));
        }
        Ok(())
    }

    fn connect(&mut self, mode: ConnectMode) -> CheckResult {
        if self.socket.is_some() || std::mem::replace(&mut self.awaited.connect, true) {
            return Err("a connect beside another socket".into());
        }
        if !self.lease.known {
            return Err("a connect under a suspect lease".into());
        }
        self.attempts += 1;
        if self.becomes_suspect() {
            self.schedule(0, SimulationEvent::ConnectFailed(self.attempts, ConnectFailure::Withheld));
            return Ok(());
        }
        let wait = self.rng.u64(20..1500);
        let event = if chance(&mut self.rng, self.faults.connect_fails) {
            let failure = if self.rng.u8(0..10) == 0 {
                ConnectFailure::Rejected("unknown bot".into())
            } else {
                let retry_after = (self.rng.u8(0..8) == 0).then(|| Duration::from_secs(3));
                ConnectFailure::Unavailable { words: "refused".into(), retry_after }
            };
            SimulationEvent::ConnectFailed(self.attempts, failure)
        } else {
            SimulationEvent::Connected(self.attempts, mode)
        };
        self.schedule(wait, event);
        Ok(())
    }

    fn send(&mut self, message: Arc<AcceptedMessage>) -> CheckResult {
        let id = message.id;
        let Some((socket, dead)) = self.socket else { return Err(format!("{id} is sent without a socket")) };
        if !self.lease.known {
            return Err(format!("{id} is sent under a suspect lease"));
        }
        // The bot may speak, and the socket may break, before the first byte is written.
        if !dead && chance(&mut self.rng, self.faults.unasked / 4) {
            self.speak_now(socket)?;
        }
        if self.is_open(socket) && chance(&mut self.rng, self.faults.drop / 16) {
            self.socket = None;
            self.step(Input::Lost(SocketLoss::GONE))?;
        }
        if self.socket.is_none() || !self.machine.as_ref().is_some_and(|machine| machine.is_sending(id)) {
            return Ok(());
        }
        if self.becomes_suspect() {
            return self.step(Input::Withheld);
        }
        let head = self.truth.head().filter(|head| head.accepted.id == id);
        if head.is_none() && !self.truth.lossy {
            return Err(format!("{id} is sent and is not the head of the lane"));
        }
        if head.is_none_or(|head| head.progress.sent_at.is_none()) && !self.may_go.contains(&id) {
            return Err(format!("{id} is sent before the store knows"));
        }
        // The end of a session may be sent twice.
        let closes = message.new.session == SessionRequest::Close;
        if !closes
            && head.is_some_and(|head| {
                head.progress.acked_at.is_some() || head.progress.first_reply_at.is_some()
            })
        {
            return Err(format!("{id} is sent again although it is proved"));
        }
        // After a loss of its sent mark, history may show a queued message, which is new to this owner.
        let anew = self.truth.lossy && self.sends.get(&id).is_none_or(|sending| sending.life != self.life);
        if !closes && self.proved.contains(&message.client_message_id) && !anew {
            return Err(format!("{id} is sent again although the machine heard of its receipt"));
        }
        if self.completed.contains(&id) || self.forgotten.contains(&id) {
            return Err(format!("{id} is sent after its end"));
        }
        if message.client_message_id < self.last_sent {
            return Err(format!("{id} is sent after a later message"));
        }
        let sending = self.sends.get(&id);
        // A store that lost data cannot tell the sendings of an earlier owner.
        let known = sending.is_some_and(|sending| sending.life == self.life) || !self.truth.lossy;
        if known && !closes && message.new.resend == ResendPolicy::Never && self.truth.sent.contains(&id) {
            return Err(format!("{id} may have been sent before and must not be sent again"));
        }
        if sending.is_some_and(|sending| sending.socket == socket) {
            return Err(format!("{id} is sent twice over one socket"));
        }
        self.last_sent = message.client_message_id;
        self.sends.insert(id, SentMessage { step: self.steps, socket, life: self.life });
        self.written_to.entry(id).or_default().insert(socket);
        self.truth.sent.insert(id);
        self.step(Input::Writing)?;
        if !dead {
            let wait = self.rng.u64(1..60);
            self.schedule(wait, SimulationEvent::Received(socket, message));
        }
        Ok(())
    }

    /// Draws whether the lease becomes suspect between a step and its effect.
    fn becomes_suspect(&mut self) -> bool {
        let suspect = self.faults.suspect / 8;
        if self.lease.valid && chance(&mut self.rng, suspect) {
            self.lease.valid = false;
            let wait = self.rng.u64(1..3000);
            self.hindered += wait;
            self.schedule(wait, SimulationEvent::Lease(true));
        }
        !self.lease.valid
    }

    fn on_completed(&mut self, message: &Message) -> CheckResult {
        let id = message.accepted.id;
        if !self.completed.insert(id) {
            return Err(format!("{id} is completed twice"));
        }
        let Some(stored) = self.ends.get(&id) else {
            return Err(format!("{id} is completed before its end is stored"));
        };
        let (completed, stored) = (&message.progress, &stored.progress);
        let on_time = stored.replies.iter().filter(|reply| !reply.late).count();
        if completed.outcome != stored.outcome
            || completed.replies.len() != on_time
            || completed.status() != stored.status()
        {
            return Err(format!("{id} is completed otherwise than it is stored"));
        }
        if completed.acked_at != stored.acked_at || completed.sent_at != stored.sent_at {
            return Err(format!("{id} is completed with other times than are stored"));
        }
        Ok(())
    }
}
