//! All that knows Kore.ai: its JWT, its two REST calls, its web socket and its frames.
//!
//! Source of every fact is protocol.md. Frames are read leniently and written strictly. What this layer does
//! not know: turns, lanes and the store; it reports what the platform said and leaves the deciding to `link`.

mod entity;
pub mod frame;
mod incoming;
mod json;
mod records;
mod text;
mod translate;

pub use incoming::{Incoming, Response, Stream};
pub use records::{BadPage, HistoryRecord, Page, history_page};
pub use translate::translate;
