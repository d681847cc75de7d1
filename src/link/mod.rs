//! One conversation's live link to the platform, over any number of sockets.
//!
//! ```text
//!              Input                      Effect
//!   store  ──► Stored, Lane          ┌──► Write, ReadLane      ──► store
//!   hub    ──► Accepted, Lease,      │    Complete, Rest       ──► hub
//!              Drain, Stop           │
//!   socket ──► Frame, Lost         machine   Send, Ping, Close  ──► socket
//!   rtm    ──► Connected, History    └──► Connect, ReadHistory ──► rtm
//! ```
//!
//! The [`Machine`] makes every decision. It says when a message is sent, which turn a reply belongs to and when a turn
//! ends, and it mends a broken link. It performs no I/O. The `driver` performs its effects and feeds back the results. Tests
//! therefore need neither a socket nor a sleep.
//!
//! `docs/architecture.md` draws the phases of the link and of a turn. This layer knows neither HTTP nor other
//! conversations, nor the owners of partitions.

mod backfill_schedule;
mod calls;
mod conversation_host;
mod dedup;
mod driver;
mod input;
mod keepalive;
mod machine;
mod mailbox;
mod new_deliveries;
mod open_streams;
mod platform_clock;
mod platform_history;
mod stats;
mod store_retry;
mod turn;
mod turn_rhythm;
mod upload;
mod write_buffer;

pub use crate::domain::LinkState;
pub use crate::rtm::{
    ConnectorSetupError, FileUpload, Grant, HistoryExcerpt, PlatformConnector, UPLOAD_CHUNK_BYTES, UploadStep,
};
pub use crate::store::StoreClock;
pub use calls::fail_open;
pub use conversation_host::ConversationHost;
pub use driver::{ExitReason, run};
pub use input::{
    AbandonReason, ConnectFailure, Effect, HistoryFailure, Input, OutOfTurnReply, SocketLoss, SocketRequest,
};
pub use machine::Machine;
pub use mailbox::Mailbox;
pub use platform_history::read_history;
pub use stats::{FRAMES_IN, FRAMES_OUT};
pub use store_retry::retry_while_unavailable;
pub use upload::{StepFailure, UploadFailure, upload, upload_step};
