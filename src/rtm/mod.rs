//! All that knows Kore.ai: its JWT, its two REST calls, its web socket and its frames.
//!
//! Source of every fact is protocol.md. Frames are read leniently and written strictly. What this layer does
//! not know: turns, lanes and the store; it reports what the platform said and leaves the deciding to `link`.

mod connector;
mod correlation_id;
mod decode;
mod error;
mod grant;
mod history_page;
mod history_request;
mod html_entities;
mod incoming;
mod jwt;
mod lenient_json;
pub mod outgoing;
mod refusal;
mod socket;
mod text_extraction;
mod ticket;

#[cfg(test)]
mod tests;

pub use connector::{ConnectorSetupError, PlatformConnector};
pub use decode::translate;
pub use error::{CallError, ConnectError, ConnectPhase, RetryAdvice};
pub use grant::Grant;
pub use history_page::{HistoryPage, HistoryRecord, InvalidHistoryPage, history_page};
pub use history_request::HistoryFrom;
pub use incoming::{BotResponse, IncomingFrame, StreamInfo};
pub use jwt::{JwtSigner, SignerError};
pub use socket::{PlatformSocket, SocketClose, SocketError, SocketEvent};
pub use ticket::ConnectMode;
