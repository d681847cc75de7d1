//! rtm-bridge: a REST interface to Kore.ai bots.
//!
//! The bridge holds the web sockets (RTM) that many backends cannot hold. It takes a message over HTTP, sends it over the
//! user's socket, and answers with the bot's replies.
//!
//! ```text
//!            worker threads: each has connections of callers and a shard
//!  caller ──► http ──► store (accept) ──► hub ──► link (one task per conversation) ──► rtm ──► platform
//!     ▲                                    │       │ machine: pure │ driver: I/O
//!     └──────────── Message ◄── waiters ◄──┴───────┴──► store (write, fenced)
//! ```
//!
//! Start with [`app::Bridge`], which wires all parts, or with [`link::Machine`], which makes all decisions.
//! [`rtm_sandbox`] simulates the platform for tests and for `rtm-bridge dev`.
//!
//! The library serves the program and its tests. Users rely on the HTTP API, the command line and the configuration
//! (`docs/api.md`). `docs/architecture.md` follows a message through the code and describes the layers.

pub mod app;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod http;
pub mod hub;
pub mod identity;
pub mod link;
pub mod metrics;
mod reply_content;
pub mod rhythm;
pub mod rtm;
pub mod runtime;
pub mod store;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod wall_clock;
pub mod webhook;
