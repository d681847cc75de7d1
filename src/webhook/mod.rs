//! Webhooks: what ended or was said is told to receivers that only take HTTP POSTs (api.md 4).
//!
//! The store's outbox holds what is to be told; here it is decided when, composed, signed, sent, and decided what
//! follows. It does not know conversations, sockets or callers' requests.

mod attempt;
mod circuit_breaker;
mod dispatcher;
mod payload;
mod retry_schedule;
mod scheduler;
mod sender;
pub mod signature;
mod ssrf_guard;
mod target_table;
#[cfg(test)]
mod tests;

pub use dispatcher::{Dispatcher, DispatcherStartError};
pub use sender::SenderSetupError;
