//! rtm-bridge: a REST front door to Kore.ai bots.
//!
//! The bridge holds the web sockets (RTM) that many backends cannot hold: it takes a message over HTTP, says it
//! over the user's socket, and answers with what the bot said in return.
//!
//! ```text
//!            HTTP workers                      shard threads
//!  caller ──► http ──► store (accept) ──► hub ──► link (one task per conversation) ──► rtm ──► platform
//!     ▲                                    │       │ machine: pure │ driver: I/O
//!     └──────────── Message ◄── watch ◄────┴───────┴──► store (write, fenced)
//! ```
//!
//! Begin with [`app::Bridge`], which wires everything together, or with [`link::Machine`], which decides
//! everything. [`rtm_sandbox`] plays the platform, for tests and for `rtm-bridge dev`.
//!
//! The library is there for the program and its tests; what users may rely on is the HTTP API, the command line and
//! the configuration (`docs/api.md`). A message's way through the code, the layers and the arrows between them,
//! which a test keeps, are in `docs/architecture.md`.

pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod hub;
pub mod link;
pub mod metrics;
pub mod rtm;
pub mod runtime;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod webhook;
