//! What is logged, and how: JSON for machines, lines for people.
//!
//! Both go to standard output's sibling, standard error, so that what a command prints (a key, a hint) can be
//! piped. It knows the configuration's `[log]` and nothing else.

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// It was set up before.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// JSON is one object a line with an RFC 3339 time in UTC and the event's fields beside `level`, `target` and
/// `message`. Text has colours on a terminal only.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    // The HTTP server narrates its start at info; whoever wants that says so in the filter, which counts more.
    let filter = Targets::new()
        .with_target("actix_server", Level::WARN)
        .with_targets(&log.filter)
        .with_default(log.filter.default_level().unwrap_or(LevelFilter::OFF));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match log.format {
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init()?,
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init()?,
    }
    Ok(())
}
