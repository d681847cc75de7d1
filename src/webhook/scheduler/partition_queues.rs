//! One partition on the agenda.

use std::collections::HashMap;
use std::rc::Rc;

use crate::domain::{Backoff, Partition, Timestamp};
use crate::store::{Fence, QueueId};

/// The room that a table without anything in it may keep: most are filled again in a moment.
const SPARE: usize = 64;

#[derive(Debug)]
pub(super) struct PartitionQueues {
    pub(super) fence: Fence,
    /// Nothing begins any more.
    pub(super) releasing: bool,
    pub(super) queues: HashMap<QueueId, QueueEntry>,
    pub(super) flights: usize,
    /// None while it is read.
    pub(super) read_at: Option<Timestamp>,
    /// It is to be read once more.
    pub(super) read_again: bool,
    /// For a store that does not answer. Nothing begins until it does.
    pub(super) backoff: Backoff,
    /// Attempts that may have begun: a repeat is known by its token.
    pub(super) unanswered: HashMap<QueueId, u64>,
}

#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) host: Rc<str>,
    pub(super) state: QueueState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueState {
    /// Until then, and for its host's turn.
    Waiting(Timestamp),
    /// The same, and for the store to answer.
    Held(Timestamp),
    InFlight {
        /// A delivery was written meanwhile.
        rung: bool,
    },
}

impl PartitionQueues {
    pub(super) fn new(fence: Fence, now: Timestamp) -> Self {
        Self {
            fence,
            releasing: false,
            queues: HashMap::new(),
            flights: 0,
            read_at: Some(now),
            read_again: false,
            backoff: Backoff::for_store(),
            unanswered: HashMap::new(),
        }
    }

    /// Whether the store did not answer the last time.
    pub(super) const fn is_silent(&self) -> bool {
        self.backoff.failures() > 0
    }

    pub(super) fn forget(&mut self, queue: QueueId) -> Option<QueueEntry> {
        let gone = self.queues.remove(&queue);
        if self.queues.is_empty() && self.queues.capacity() > SPARE {
            self.queues.shrink_to_fit();
        }
        gone
    }

    /// Forgets all queues but those in flight, and returns them.
    pub(super) fn leave_in_flight(&mut self) -> Vec<(QueueId, QueueEntry)> {
        let waits = |queue: &QueueEntry| !matches!(queue.state, QueueState::InFlight { .. });
        self.unanswered.clear();
        self.queues.extract_if(|_, queue| waits(queue)).collect()
    }
}

/// The partition, if it is owned under this fence.
pub(super) fn part(
    parts: &mut HashMap<Partition, PartitionQueues>,
    partition: Partition,
    fence: Fence,
) -> Option<&mut PartitionQueues> {
    parts.get_mut(&partition).filter(|part| part.fence == fence)
}
