//! Why a measurement could not be made.

use std::path::PathBuf;
use std::time::Duration;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("cannot start {binary}: {source}")]
    Start {
        binary: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{name} exited with {status} instead of getting ready; its own words are above")]
    Exited { name: &'static str, status: std::process::ExitStatus },
    #[error("{name} was not ready after {after:?}")]
    NotReady { name: &'static str, after: Duration },
    #[error(
        "a process may open {have} files here and {need} are needed: raise the hard limit, or use --quick"
    )]
    Files { have: u64, need: u64 },
    #[error("{what} answered {status}: {body}")]
    Status { what: &'static str, status: u16, body: String },
    #[error("{what} answered what cannot be read: {detail}")]
    Unreadable { what: &'static str, detail: &'static str },
    #[error("{what} closed the connection")]
    Closed { what: &'static str },
    #[error("no end of a turn after {0:?}")]
    Silent(Duration),
    #[error("{failed} of {turns} turns failed, the last one so: {last}")]
    Turns { failed: u64, turns: u64, last: Box<Failure> },
    #[error("waited {after:?} in vain for {what}")]
    Missed { what: &'static str, after: Duration },
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
    #[error("/proc says what cannot be read: {0}")]
    Proc(&'static str),
    #[error("the web socket client: {0}")]
    Awc(String),
}
