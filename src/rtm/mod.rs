//! All that knows Kore.ai: its JWT, its two REST calls, its web socket and its frames.
//!
//! Source of every fact is protocol.md. Frames are read leniently and written strictly. What this layer does
//! not know: turns, lanes and the store; it reports what the platform said and leaves the deciding to `link`.

mod incoming;

pub use incoming::{Incoming, Response, Stream};
