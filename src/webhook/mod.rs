//! Webhooks: delivers ended messages and replies to receivers that take HTTP POSTs (api.md 4).
//!
//! The store's outbox holds the deliveries. This layer decides when each is attempted, composes, signs and sends it,
//! and decides between retry and dead letter. It does not know conversations, sockets or requests of callers.

mod attempt;
mod circuit_breaker;
mod dispatcher;
mod endpoint_board;
mod payload;
mod probe;
mod retry_schedule;
mod scheduler;
mod sender;
pub mod signature;
mod ssrf_guard;
mod target_table;
#[cfg(test)]
mod tests;

pub use dispatcher::{Dispatcher, DispatcherStartError, ReceiverReload};
pub use probe::{may_deliver_to, post_test_event, test_endpoint};
pub use sender::SenderSetupError;
