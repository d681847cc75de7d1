//! The Kore.ai client: JWT, the REST calls for grant, ticket and history, the web socket and its frames.
//!
//! protocol.md is the source of every fact. Frames are read leniently and written strictly. This layer does not know
//! turns, lanes or the store. It reports what the platform sent, and `link` decides.

mod assertion_service;
mod chunk_spool;
mod connect_context;
mod connector;
mod correlation_id;
mod decode;
mod error;
mod form_body;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod grant;
mod history_page;
mod history_request;
mod incoming;
mod jwt;
pub mod outgoing;
mod platform_clients;
mod redaction;
mod refusal;
pub mod signal_frames;
mod socket;
mod ticket;
mod upload;

#[cfg(test)]
mod tests;

pub use connect_context::ConnectContext;
pub use connector::{ConnectorSetupError, PlatformConnector};
pub use decode::decode_frame;
pub use error::{CallError, ConnectError, ConnectPhase, RetryAdvice};
pub use grant::Grant;
pub use history_page::{HistoryPage, HistoryRecord, InvalidHistoryPage, decode_history_page};
pub use history_request::{HistoryExcerpt, HistoryStart};
pub use incoming::{BotResponse, IncomingFrame, StreamInfo};
pub use jwt::JwtSigner;
pub use signal_frames::{DeliveryMarks, OutgoingSignal};
pub use socket::{PlatformSocket, SocketClose, SocketError, SocketEvent};
pub use ticket::ConnectMode;
pub use upload::{FileUpload, UPLOAD_CHUNK_BYTES, UploadError, UploadStep};
