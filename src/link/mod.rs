//! One conversation's live link to the platform, over any number of sockets.
//!
//! ```text
//!              Input                      Effect
//!   store  ──► Stored, Lane          ┌──► Write, ReadLane      ──► store
//!   hub    ──► Accepted, Lease,      │    Tell, Forget, Rest   ──► hub
//!              Drain, Stop           │
//!   socket ──► Frame, Heard, Lost  machine  Send, Ping, Close  ──► socket
//!   rtm    ──► Connected, History    └──► Connect, ReadHistory ──► rtm
//! ```
//!
//! The [`Machine`] owns every hard question (what may be sent, what a reply belongs to, when a turn ends, what
//! a broken link means) and does nothing itself; the `driver` does what it says and feeds back what happened.
//! That is why all of it is tested without a socket and without a sleep.
//!
//! ```text
//!            connect                       open                      hold over
//!   Cold ──────────────► Connecting ───────────────► Open (held) ───────────────► Open (ready)
//!    ▲  ▲                    │ failed                     │                           │
//!    │  └── nothing to do ── Waiting ◄────────────────────┴────────── lost ───────────┘
//!    └──────────────────────────── idle for idle_ttl, drained ────────────────────────┘
//! ```
//!
//! What this layer does not know: HTTP, other conversations, which replica owns what.

mod backfill;
mod calls;
mod driver;
mod host;
mod input;
mod keepalive;
mod ledger;
mod machine;
mod mailbox;
mod outage;
mod outbox;
mod seen;
mod stream;
mod tally;
mod turn;

pub use crate::domain::LinkState;
pub use crate::rtm::{ConnectorSetupError, PlatformConnector};
pub use crate::store::StoreClock;
pub use calls::fail_open;
pub use driver::{ExitReason, run};
pub use host::ConversationHost;
pub use input::{AbandonReason, ConnectFailure, Effect, HistoryFailure, Input, OutOfTurnReply, SocketLoss};
pub use machine::Machine;
pub use mailbox::Mailbox;
pub use outage::outlast;
pub use tally::{FRAMES_IN, FRAMES_OUT};
