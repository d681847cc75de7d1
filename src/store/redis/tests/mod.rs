//! On servers of their own.

mod server;
mod wire;
