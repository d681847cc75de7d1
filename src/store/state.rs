//! How a conversation stands, as far as the store can tell: one reading of the record for every side of it.

use crate::domain::{ConnectionStatus, ConversationRecord, ConversationState, LinkState, Timestamp};

/// The state that follows from the record, from the `clientMessageId` that was given last, and from how many messages
/// are open.
///
/// Both a write's number and a `clientMessageId` are at least the time in milliseconds that they were given at, and
/// above it only where several were given in one; so they are taken for it.
pub(super) fn state(
    record: Option<&ConversationRecord>,
    last_client_message_id: Option<u64>,
    open_messages: u64,
    now: Timestamp,
) -> ConversationState {
    let written = record.map(|record| record.write);
    let last_activity = written.max(last_client_message_id).map(Timestamp::from_millis);
    let blocked = record.and_then(|record| record.blocked_until).filter(|&until| now < until);
    ConversationState {
        connection: blocked.map(connection).unwrap_or_default(),
        session_id: record.and_then(|record| record.session_id.clone()),
        last_seq: record.map_or(0, |record| record.seq),
        open_messages,
        last_activity_at: last_activity.map(|at| at.min(now)),
    }
}

/// The connection of a user that the platform does not let through until then.
fn connection(until: Timestamp) -> ConnectionStatus {
    ConnectionStatus {
        state: LinkState::Blocked,
        since: None,
        reason: Some(
            "the platform closed the connection with 1008 and must be left alone for a while".into(),
        ),
        retry_at: Some(until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn nobody_knows_an_unknown_conversation() {
        assert_eq!(state(None, None, 0, at(50)), ConversationState::default());
    }

    #[test]
    fn the_last_activity_is_what_came_last_and_never_in_the_future() {
        let record = ConversationRecord { write: 20, ..ConversationRecord::default() };
        for (record, accepted, now, last) in [
            (Some(&record), None, 50, 20),
            (Some(&record), Some(10), 50, 20),
            (Some(&record), Some(30), 50, 30),
            (None, Some(10), 50, 10),
            (Some(&record), Some(30), 25, 25),
        ] {
            assert_eq!(state(record, accepted, 0, at(now)).last_activity_at, Some(at(last)));
        }
    }

    #[test]
    fn a_block_is_told_until_its_time() {
        let record = ConversationRecord { blocked_until: Some(at(50)), ..ConversationRecord::default() };
        let connection = state(Some(&record), None, 0, at(49)).connection;
        assert_eq!((connection.state, connection.retry_at), (LinkState::Blocked, Some(at(50))));
        assert_eq!(state(Some(&record), None, 0, at(50)).connection, ConnectionStatus::default());
    }
}
