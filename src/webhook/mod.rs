//! Webhooks: what ended or was said is told to receivers that only take HTTP POSTs (api.md 4).
//!
//! The store's outbox holds what is to be told; here it is decided when, composed, signed, sent, and decided what
//! follows. It does not know conversations, sockets or callers' requests.

mod agenda;
mod attempt;
mod breaker;
mod dispatcher;
mod guard;
mod payload;
mod schedule;
mod sender;
pub mod signature;
mod targets;
#[cfg(test)]
mod tests;

pub use dispatcher::{Dispatcher, DispatcherStartError};
pub use sender::SenderSetupError;
