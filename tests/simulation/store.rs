//! The store as the simulation sees it: the truth, and a strict reader of every write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rtm_bridge::domain::{
    AcceptedMessage, Correlation, EntryBody, Message, MessageId, NewMessage, Outcome, Progress, Record,
    Timestamp,
};
use rtm_bridge::store::{Change, Open, OpenMessage, Write};

use super::support::accepted;

/// One conversation's truth.
#[derive(Default)]
pub(super) struct Truth {
    record: Record,
    pub(super) lane: Vec<OpenMessage>,
    head_at: Option<Timestamp>,
    next_position: u64,
    pub(super) ended: HashMap<MessageId, Message>,
    /// Replies of the journal, by the platform's id.
    pub(super) replies: HashSet<Box<str>>,
    /// Messages whose bytes went out at least once.
    pub(super) sent: HashSet<MessageId>,
    last_write: Option<Arc<Write>>,
}

impl Truth {
    pub(super) fn accept(&mut self, at: Timestamp, new: NewMessage) -> Arc<AcceptedMessage> {
        let message = accepted(self.next_position, at, new);
        self.next_position += 1;
        if self.lane.is_empty() {
            self.head_at = Some(at);
        }
        self.lane.push(OpenMessage { accepted: Arc::clone(&message), progress: Progress::default() });
        message
    }

    pub(super) fn open(&self) -> Open {
        Open {
            record: self.record.clone(),
            lane: self.lane.clone(),
            head_at: self.head_at,
            next_position: self.next_position,
        }
    }

    pub(super) fn head(&self) -> Option<&OpenMessage> {
        self.lane.first()
    }

    /// Carries out a write. The answer is how long the head took that the write ended, if it ended one.
    pub(super) fn apply(
        &mut self,
        write: &Arc<Write>,
    ) -> Result<Option<(MessageId, Timestamp, Timestamp)>, String> {
        if write.record.write <= self.record.write {
            if write.record.write == self.record.write {
                let same = self.last_write.as_ref().is_some_and(|last| Arc::ptr_eq(last, write));
                if !same {
                    return Err(format!("write {} came with another content", write.record.write));
                }
            }
            return Ok(None);
        }
        if write.record.write != self.record.write + 1 {
            return Err(format!("write {} follows write {}", write.record.write, self.record.write));
        }
        let mut seq = self.record.seq;
        let mut ended = None;
        for change in &write.changes {
            match change {
                Change::Sent { message, at } => {
                    let head = self.head_of(*message, "sent")?;
                    if head.progress.sent_at.is_none() {
                        head.progress.sent_at = Some(*at);
                    }
                }
                Change::Acked { message, at } => {
                    let head = self.sent_head_of(*message, "acked")?;
                    if head.progress.acked_at.replace(*at).is_some() {
                        return Err(format!("{message} is acked twice"));
                    }
                }
                Change::Answering { message, at } => {
                    let head = self.sent_head_of(*message, "answering")?;
                    if head.progress.first_reply_at.replace(*at).is_some() {
                        return Err(format!("{message} answers for the first time twice"));
                    }
                }
                Change::HeadSince { .. } => {}
                Change::Append(entry) => {
                    seq += 1;
                    if entry.seq != seq {
                        return Err(format!("entry {} follows {}", entry.seq, seq - 1));
                    }
                    ended = self.append(entry)?.or(ended);
                }
            }
        }
        if write.record.seq != seq {
            return Err(format!("the record says seq {}, the entries {seq}", write.record.seq));
        }
        self.record = write.record.clone();
        self.last_write = Some(Arc::clone(write));
        Ok(ended)
    }

    fn append(
        &mut self,
        entry: &rtm_bridge::domain::Entry,
    ) -> Result<Option<(MessageId, Timestamp, Timestamp)>, String> {
        match &entry.body {
            EntryBody::Reply(reply) => {
                if let Some(id) = &reply.message_id
                    && !self.replies.insert(id.clone())
                {
                    return Err(format!("{id} is in the journal twice"));
                }
                if reply.seq != entry.seq {
                    return Err("a reply has another seq than its entry".into());
                }
                match (reply.in_reply_to, reply.late) {
                    (None, late) => {
                        if late || reply.correlation != Correlation::Unsolicited {
                            return Err("an unsolicited reply says that it belongs to something".into());
                        }
                    }
                    (Some(message), late) => {
                        if !self.sent.contains(&message) {
                            return Err(format!("a reply is joined to {message}, which was not sent"));
                        }
                        if late {
                            let Some(ended) = self.ended.get_mut(&message) else {
                                return Err(format!("a late reply of {message}, which has not ended"));
                            };
                            ended.progress.replies.push(Arc::clone(reply));
                        } else {
                            let head = self.sent_head_of(message, "replied to")?;
                            head.progress.first_reply_at.get_or_insert(entry.at);
                            head.progress.replies.push(Arc::clone(reply));
                        }
                    }
                }
                Ok(None)
            }
            EntryBody::Ended { message, outcome } => {
                self.head_of(*message, "ended")?;
                let mut open = self.lane.remove(0);
                let since = self.head_at.unwrap_or_default();
                self.head_at = (!self.lane.is_empty()).then_some(entry.at);
                if matches!(outcome, Outcome::Answered(_)) && !self.sent.contains(message) {
                    return Err(format!("{message} is answered and was not sent"));
                }
                open.progress.ended_at = Some(entry.at);
                open.progress.outcome = Some(outcome.clone());
                self.ended.insert(*message, Message { accepted: open.accepted, progress: open.progress });
                Ok(Some((*message, since, entry.at)))
            }
            EntryBody::UserMessage(_) | EntryBody::Platform(_) => Ok(None),
        }
    }

    fn head_of(&mut self, message: MessageId, what: &str) -> Result<&mut OpenMessage, String> {
        match self.lane.first_mut() {
            Some(head) if head.accepted.id == message => Ok(head),
            _ => Err(format!("{message} is {what}, but it is not the lane's head")),
        }
    }

    fn sent_head_of(&mut self, message: MessageId, what: &str) -> Result<&mut OpenMessage, String> {
        let head = self.head_of(message, what)?;
        if head.progress.sent_at.is_none() {
            return Err(format!("{message} is {what} before it is sent"));
        }
        Ok(head)
    }
}
