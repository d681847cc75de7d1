//! The simulated store, which checks every write strictly.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rtm_bridge::domain::{
    AcceptedMessage, ConversationRecord, Correlation, EntryBody, Fingerprint, GapReason, JournalEntry,
    Message, MessageId, MessageProgress, NewMessage, ProblemKind, Reply, SessionRequest, Timestamp,
    TurnOutcome,
};
use rtm_bridge::store::{ConversationChange, ConversationSnapshot, ConversationWrite, OpenMessage};

use super::receivers::{ReceiverModel, tells};
use super::support::accepted;

/// The result of a write.
pub(super) enum WriteOutcome {
    /// It is stored, by this attempt or an earlier one.
    Done {
        /// The messages that it ended, with the times when each became head and ended.
        ended: Vec<(MessageId, Timestamp, Timestamp)>,
        /// It marks or ends a message that is not in the lane.
        lost: bool,
    },
    /// It does not follow the last write.
    OutOfStep,
}

/// The stored state of one conversation.
#[derive(Default, Clone)]
pub(super) struct StoreModel {
    record: ConversationRecord,
    pub(super) lane: Vec<OpenMessage>,
    head_at: Option<Timestamp>,
    next_position: u64,
    pub(super) ended: HashMap<MessageId, Message>,
    /// The replies of the journal by the platform's ids: their texts, and whether they are partial.
    pub(super) replies: HashMap<Box<str>, (Box<str>, bool)>,
    /// The times at which the journal got them.
    pub(super) told_at: HashMap<Box<str>, Timestamp>,
    /// The messages whose bytes were sent at least once.
    pub(super) sent: HashSet<MessageId>,
    /// The connects whose socket was open. The store may have lost them before it learnt of that.
    pub(super) opened: HashSet<MessageId>,
    /// The entry that readers may have read at each place of each journal.
    read: HashMap<(u64, u64), String>,
    last_write: Option<Arc<ConversationWrite>>,
    last_lost: bool,
    last_client_message_id: u64,
    /// The gaps of the journal.
    pub(super) gaps: Vec<(Timestamp, GapReason)>,
    /// The model of the receivers.
    receivers: ReceiverModel,
    /// Whether a failover ever took data back.
    pub(super) lossy: bool,
}

impl StoreModel {
    /// Creates a store with this model of receivers.
    pub(super) fn of(receivers: ReceiverModel) -> Self {
        Self { receivers, ..Self::default() }
    }

    /// Accepts a message. With `send_at_accept` it counts as sent if the lane is empty.
    pub(super) fn accept(
        &mut self,
        at: Timestamp,
        new: NewMessage,
        send_at_accept: bool,
    ) -> Arc<AcceptedMessage> {
        let mut message = accepted(self.next_position, at, new);
        self.last_client_message_id = at.as_millis().max(self.last_client_message_id + 1);
        Arc::get_mut(&mut message).unwrap().client_message_id = self.last_client_message_id;
        self.next_position += 1;
        let sent_at = (send_at_accept && self.lane.is_empty()).then_some(at);
        if self.lane.is_empty() {
            self.head_at = Some(at);
        }
        self.receivers.on_accepted(&message);
        let progress = MessageProgress { sent_at, ..MessageProgress::default() };
        self.lane.push(OpenMessage { accepted: Arc::clone(&message), progress });
        message
    }

    pub(super) fn open(&self) -> ConversationSnapshot {
        ConversationSnapshot {
            record: self.record.clone(),
            lane: self.lane.clone(),
            journaled: self.replies.keys().map(|id| Fingerprint::of(id)).collect(),
            head_at: self.head_at,
            next_position: self.next_position,
            observers: Vec::new(),
        }
    }

    /// Returns the platform's message behind which a new owner would read history.
    pub(super) fn reads_from(&self) -> Option<&str> {
        self.record.last_platform_message.as_deref().filter(|_| self.record.first_gap.is_none())
    }

    /// Returns whether a session of the platform is known.
    pub(super) const fn knows_session(&self) -> bool {
        self.record.connected_at.is_some()
    }

    /// Returns the message of the last turn.
    pub(super) fn last_turn(&self) -> Option<MessageId> {
        self.record.last_turn.as_ref().map(|turn| turn.message)
    }

    pub(super) fn head(&self) -> Option<&OpenMessage> {
        self.lane.first()
    }

    /// Goes back to an earlier state. Sent messages stay sent.
    pub(super) fn go_back(&mut self, past: Self) {
        let (sent, read) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.read));
        let (opened, receivers) = (std::mem::take(&mut self.opened), std::mem::take(&mut self.receivers));
        *self = Self { sent, opened, read, receivers, lossy: true, ..past };
    }

    /// Performs a write.
    pub(super) fn apply(&mut self, write: &Arc<ConversationWrite>) -> Result<WriteOutcome, String> {
        let last = self.record.write;
        if write.record.write == last {
            let same = self.last_write.as_ref().is_some_and(|last| Arc::ptr_eq(last, write));
            if !same {
                return Err(format!("write {last} came with another content"));
            }
            return Ok(WriteOutcome::Done { ended: Vec::new(), lost: self.last_lost });
        }
        if write.follows != last {
            return Ok(WriteOutcome::OutOfStep);
        }
        if write.record.write <= last {
            return Err(format!("write {} follows {last}", write.record.write));
        }
        self.receivers.check(write, !self.lossy)?;
        let mut seq = self.record.seq;
        let mut ended = Vec::new();
        let mut missed = false;
        for change in &write.changes {
            match change {
                ConversationChange::Sent { message, at } => match self.open_message(*message, "sent")? {
                    Some(open) => {
                        open.progress.sent_at.get_or_insert(*at);
                        // The open socket is all that such a message needs.
                        if open.accepted.new.is_connect() {
                            self.sent.insert(*message);
                        }
                    }
                    None => missed = true,
                },
                ConversationChange::Acked { message, at } => {
                    let Some(open) = self.sent_message(*message, "acked")? else { continue };
                    if open.progress.acked_at.replace(*at).is_some() {
                        return Err(format!("{message} is acked twice"));
                    }
                }
                ConversationChange::Answering { message, at } => {
                    let Some(open) = self.sent_message(*message, "answering")? else { continue };
                    if open.progress.first_reply_at.replace(*at).is_some() {
                        return Err(format!("{message} answers for the first time twice"));
                    }
                }
                ConversationChange::HeadSince { at } => {
                    if let Some(head) = self.lane.first_mut() {
                        if !self.lossy && self.sent.contains(&head.accepted.id) {
                            return Err("the deadline of a sent head is restarted".into());
                        }
                        head.progress.sent_at = None;
                    }
                    self.head_at = self.head_at.map(|_| *at);
                }
                ConversationChange::Deliver(delivery) => {
                    let ended = delivery.message.and_then(|message| self.ended.get(&message));
                    let differs = |ended: &&Message| delivery.kind.is_end() && !tells(delivery, ended);
                    if !self.lossy
                        && let Some(ended) = ended.filter(differs)
                    {
                        return Err(format!("{ended:?} is delivered as {}", delivery.data));
                    }
                }
                ConversationChange::Append(entry) => {
                    // A lost message leaves a gap in the positions.
                    let follows = if self.lossy { entry.seq > seq } else { entry.seq == seq + 1 };
                    if !follows {
                        return Err(format!("entry {} follows {seq}", entry.seq));
                    }
                    seq = entry.seq;
                    if self.append(entry, &mut ended)? {
                        self.be_read(write.record.epoch, entry)?;
                    } else {
                        missed = true;
                    }
                }
            }
        }
        if write.record.seq < seq || write.record.seq > seq && !self.lossy {
            return Err(format!("the record says seq {}, the entries {seq}", write.record.seq));
        }
        if missed && !self.lossy {
            return Err("a write names a message that is not open".into());
        }
        self.record = write.record.clone();
        self.last_write = Some(Arc::clone(write));
        self.last_lost = missed;
        Ok(WriteOutcome::Done { ended, lost: missed })
    }

    /// Notes a new owner. A loss that the previous owner missed stays unnoticed. Its places are used again,
    /// and only the end of the journal tells readers (docs/adr/0020).
    pub(super) fn forget_unnoticed(&mut self) {
        let kept = self.record.seq;
        self.read.retain(|(_, seq), _| *seq <= kept);
    }

    /// Checks that a place names one entry, even after a failover.
    fn be_read(&mut self, epoch: u64, entry: &JournalEntry) -> Result<(), String> {
        let text = format!("{:?}", entry.body);
        let first = self.read.entry((epoch, entry.seq)).or_insert_with(|| text.clone());
        if *first == text { Ok(()) } else { Err(format!("{epoch}/{}: {first}, then {text}", entry.seq)) }
    }

    /// Appends an entry. Returns false if it ends a message that is not open.
    fn append(
        &mut self,
        entry: &JournalEntry,
        ended: &mut Vec<(MessageId, Timestamp, Timestamp)>,
    ) -> Result<bool, String> {
        match &entry.body {
            EntryBody::Reply(reply) => {
                if let Some(id) = &reply.message_id
                    && self.replies.insert(id.clone(), (reply.text.clone(), reply.partial)).is_some()
                {
                    return Err(format!("{id} is in the journal twice"));
                }
                self.told_at.extend(reply.message_id.clone().map(|id| (id, entry.at)));
                if reply.seq != entry.seq {
                    return Err("a reply has another seq than its entry".into());
                }
                self.join(entry, reply)?;
            }
            EntryBody::Ended { message, outcome } | EntryBody::Closed { message, outcome } => {
                let given_up = matches!(outcome, TurnOutcome::Failed(problem) if problem.kind == ProblemKind::MessageLost);
                if given_up && !self.lossy {
                    return Err(format!("{message} ends as lost, and nothing was lost"));
                }
                if self.open_message(*message, "ended")?.is_none() {
                    return Ok(false);
                }
                let place = self.lane.iter().position(|open| open.accepted.id == *message).unwrap_or(0);
                let mut open = self.lane.remove(place);
                let since = self.head_at.unwrap_or_default();
                if place == 0 {
                    self.head_at = (!self.lane.is_empty()).then_some(entry.at);
                }
                // Without a session there is no end of it to send.
                let may_be_idle = open.accepted.new.session == SessionRequest::Close;
                if matches!(outcome, TurnOutcome::Answered(_)) && !self.sent.contains(message) && !may_be_idle
                {
                    return Err(format!("{message} is answered and was not sent"));
                }
                open.progress.ended_at = Some(entry.at);
                open.progress.outcome = Some(outcome.clone());
                self.ended.insert(*message, Message { accepted: open.accepted, progress: open.progress });
                if !given_up {
                    ended.push((*message, since, entry.at));
                }
            }
            EntryBody::Gap(gap) => self.gaps.push((entry.at, *gap)),
            EntryBody::UserMessage(_) | EntryBody::Platform(_) | EntryBody::Stuck { .. } => {}
        }
        Ok(true)
    }

    fn join(&mut self, entry: &JournalEntry, reply: &Arc<Reply>) -> Result<(), String> {
        let Some(message) = reply.in_reply_to else {
            if reply.late || !matches!(reply.correlation, Correlation::Unsolicited | Correlation::History) {
                return Err("an unsolicited reply says that it belongs to something".into());
            }
            return Ok(());
        };
        if !self.sent.contains(&message) && !self.opened.contains(&message) {
            return Err(format!("a reply is joined to {message}, which was not sent"));
        }
        if reply.late {
            match self.ended.get_mut(&message) {
                Some(ended) => ended.progress.replies.push(Arc::clone(reply)),
                None if self.lossy => {}
                None => return Err(format!("a late reply of {message}, which has not ended")),
            }
        } else if let Some(open) = self.sent_message(message, "replied to")? {
            open.progress.first_reply_at.get_or_insert(entry.at);
            open.progress.replies.push(Arc::clone(reply));
        }
        Ok(())
    }

    /// Returns the open message. It is the head of the lane, unless the store lost data.
    fn open_message(&mut self, message: MessageId, what: &str) -> Result<Option<&mut OpenMessage>, String> {
        let place = self.lane.iter().position(|open| open.accepted.id == message);
        if place != Some(0) && !self.lossy {
            return Err(format!("{message} is {what}, but it is not the lane's head"));
        }
        Ok(place.and_then(|place| self.lane.get_mut(place)))
    }

    fn sent_message(&mut self, message: MessageId, what: &str) -> Result<Option<&mut OpenMessage>, String> {
        let open = self.open_message(message, what)?;
        if open.as_ref().is_some_and(|open| open.progress.sent_at.is_none()) {
            return Err(format!("{message} is {what} before it is sent"));
        }
        Ok(open)
    }
}
