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

pub use connector::{Connector, SetupError};
pub use error::{ConnectError, Fault, Phase, Retry};
pub use grant::Grant;
pub use history::HistoryFrom;
pub use incoming::{Incoming, Response, Stream};
pub use jwt::{Signer, SignerError};
pub use records::{BadPage, HistoryPage, HistoryRecord, history_page};
pub use socket::{Closed, Received, Socket, SocketError};
pub use ticket::ConnectMode;
pub use translate::translate;
