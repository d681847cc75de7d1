//! All that knows Kore.ai: its JWT, its two REST calls, its web socket and its frames.
//!
//! Source of every fact is protocol.md. Frames are read leniently and written strictly. What this layer does
//! not know: turns, lanes and the store; it reports what the platform said and leaves the deciding to `link`.

mod connector;
mod error;
mod grant;
mod history;
mod incoming;
mod jwt;
mod refusal;
mod socket;
mod ticket;

#[cfg(test)]
mod tests;

pub use connector::{Connector, SetupError};
pub use error::{ConnectError, Fault, Phase, Retry};
pub use grant::Grant;
pub use history::HistoryFrom;
pub use incoming::{Incoming, Response, Stream};
pub use jwt::{Signer, SignerError};
pub use socket::{Closed, Received, Socket, SocketError};
pub use ticket::ConnectMode;
