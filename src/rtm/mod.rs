//! All that knows Kore.ai: its JWT, its two REST calls, its web socket and its frames.
//!
//! Source of every fact is protocol.md. Frames are read leniently and written strictly. What this layer does
//! not know: turns, lanes and the store; it reports what the platform said and leaves the deciding to `link`.

mod connector;
mod echo;
mod entity;
mod error;
pub mod frame;
mod grant;
mod history;
mod incoming;
mod json;
mod jwt;
mod records;
mod refusal;
mod socket;
mod text;
mod ticket;
mod translate;

#[cfg(test)]
mod tests;

pub use connector::{ConnectorSetupError, PlatformConnector};
pub use error::{CallError, ConnectError, ConnectPhase, RetryAdvice};
pub use grant::Grant;
pub use history::HistoryFrom;
pub use incoming::{BotResponse, IncomingFrame, StreamInfo};
pub use jwt::{JwtSigner, SignerError};
pub use records::{HistoryPage, HistoryRecord, InvalidHistoryPage, history_page};
pub use socket::{PlatformSocket, SocketClose, SocketError, SocketEvent};
pub use ticket::ConnectMode;
pub use translate::translate;
