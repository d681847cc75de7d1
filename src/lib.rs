//! rtm-bridge: a stateless REST front door to Kore.ai bots.
//!
//! The bridge holds the web sockets (RTM) that many backends cannot hold: it takes a message over HTTP, says it
//! over a pooled socket, and answers with what the bot said in return.
//!
//! ```text
//!            HTTP workers                      shard threads
//!  caller ──► http ──► store (accept) ──► hub ──► link (one task per conversation) ──► rtm ──► platform
//!     ▲                                    │       │ machine: pure │ driver: I/O
//!     └──────────── Message ◄── watch ◄────┴───────┴──► store (write, fenced)
//! ```
//!
//! Layers and arrows are in `docs/architecture.md` and kept by a test.

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
pub mod sandbox;
pub mod store;
pub mod telemetry;
