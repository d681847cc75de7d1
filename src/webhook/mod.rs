//! Webhooks: what ended or was said is told to receivers that only take HTTP POSTs (api.md 4).
//!
//! The store's outbox holds what is to be told; here it is decided when, composed, signed, sent, and decided what
//! follows. It does not know conversations, sockets or callers' requests.

#[expect(dead_code, reason = "attempts are made by the dispatcher")]
mod attempt;
#[expect(dead_code, reason = "attempts are made by the dispatcher")]
mod schedule;
#[expect(dead_code, reason = "attempts are made by the dispatcher")]
mod sender;
pub mod signature;
#[expect(dead_code, reason = "attempts are made by the dispatcher")]
mod targets;

pub use sender::SetupError;
