//! Values that tests of several layers share.

use super::{AcceptRequest, IdempotencyKey, IdempotencyRequest, Incarnation};
use crate::domain::fixtures::START;
use crate::domain::{MessageId, NewMessage};

/// Returns a replica's request to accept a message under the id of this number, with every default.
pub fn accept_request(by: Incarnation, number: u128, message: NewMessage) -> AcceptRequest {
    AcceptRequest {
        id: MessageId::new(START, number),
        message,
        idempotency: None,
        max_open: 32,
        by,
        watched: false,
        owner: None,
        send_at_accept: false,
    }
}

/// Returns the request with a caller's idempotency key, for a body that this byte stands for.
pub fn with_key(mut accept: AcceptRequest, caller: &str, key: &str, body: u8) -> AcceptRequest {
    accept.idempotency = Some(IdempotencyRequest {
        key: IdempotencyKey::Chosen { caller: caller.into(), key: key.into() },
        body: [body; 32],
    });
    accept
}
