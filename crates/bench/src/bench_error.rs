//! The errors of a measurement.

use std::path::PathBuf;
use std::time::Duration;

/// The reason why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("cannot start {binary}: {source}")]
    Start {
        binary: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name} exited with {status} before it was ready; its output is above")]
    Exited { name: &'static str, status: std::process::ExitStatus },
    #[error("{name} was not ready after {after:?}")]
    NotReady { name: &'static str, after: Duration },
    #[error(
        "a process may open {have} files here and {need} are needed: raise the hard limit, or use --quick"
    )]
    Files { have: u64, need: u64 },
    #[error("{what} answered {status}: {body}")]
    Status { what: &'static str, status: u16, body: String },
    #[error("{what} sent an unreadable answer: {detail}")]
    Unreadable { what: &'static str, detail: &'static str },
    #[error("{what} closed the connection")]
    Closed { what: &'static str },
    #[error("no end of a turn after {0:?}")]
    Silent(Duration),
    #[error("{failed} of {turns} turns failed, the last one with: {last}")]
    Turns { failed: u64, turns: u64, last: Box<BenchError> },
    #[error("timeout after {after:?} without {what}")]
    Missed { what: &'static str, after: Duration },
    #[error("--before compares speed, round-trips, growth and webhooks, and no other part")]
    Incomparable,
    #[error(transparent)]
    Name(#[from] rtm_bridge::domain::InvalidName),
    #[error("Redis: {0}")]
    Redis(#[from] deadpool_redis::redis::RedisError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Jwt(#[from] jsonwebtoken::errors::Error),
    #[error("{0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("/proc has unreadable data: {0}")]
    Proc(&'static str),
    #[error("the web socket client: {0}")]
    Awc(String),
}
