//! The state of a conversation as the record shows it: one reading for both variants of the store.

use crate::domain::{ConnectionStatus, ConversationRecord, ConversationState, LinkState, Timestamp};

/// Derives the state from the record, the last `clientMessageId` and the number of open messages.
pub(super) fn conversation_state(
    record: Option<&ConversationRecord>,
    last_client_message_id: Option<u64>,
    open_messages: u64,
    now: Timestamp,
) -> ConversationState {
    let blocked = record.and_then(|record| record.blocked_until).filter(|&until| now < until);
    ConversationState {
        connection: blocked.map(connection).unwrap_or_default(),
        session_id: record.and_then(|record| record.session_id.clone()),
        last_seq: record.map_or(0, |record| record.seq),
        open_messages,
        last_activity_at: last_activity(record.map(|record| record.write), last_client_message_id, now),
    }
}

/// Returns the time of the last activity, or `None` if the conversation does not exist.
///
/// A write's number and a `clientMessageId` are at least their time in milliseconds. They are larger only if several
/// fall into one millisecond. Both therefore serve as the time of the last activity.
pub(super) fn last_activity(
    written: Option<u64>,
    last_client_message_id: Option<u64>,
    now: Timestamp,
) -> Option<Timestamp> {
    written.max(last_client_message_id).map(|at| Timestamp::from_millis(at).min(now))
}

/// Returns the connection of a user whom the platform blocks until then.
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
    fn unknown_conversation_has_the_default_state() {
        assert_eq!(conversation_state(None, None, 0, at(50)), ConversationState::default());
    }

    #[test]
    fn last_activity_is_the_latest_and_never_in_the_future() {
        let record = ConversationRecord { write: 20, ..ConversationRecord::default() };
        for (record, accepted, now, last) in [
            (Some(&record), None, 50, 20),
            (Some(&record), Some(10), 50, 20),
            (Some(&record), Some(30), 50, 30),
            (None, Some(10), 50, 10),
            (Some(&record), Some(30), 25, 25),
        ] {
            assert_eq!(conversation_state(record, accepted, 0, at(now)).last_activity_at, Some(at(last)));
        }
    }

    #[test]
    fn block_is_shown_until_its_time() {
        let record = ConversationRecord { blocked_until: Some(at(50)), ..ConversationRecord::default() };
        let connection = conversation_state(Some(&record), None, 0, at(49)).connection;
        assert_eq!((connection.state, connection.retry_at), (LinkState::Blocked, Some(at(50))));
        assert_eq!(
            conversation_state(Some(&record), None, 0, at(50)).connection,
            ConnectionStatus::default()
        );
    }
}
