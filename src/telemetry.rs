//! Logging: JSON for machines, text for people.
//!
//! Logs go to standard error, so that the result of a command on standard output can be piped. This module knows the
//! `[log]` section of the configuration and nothing else of the bridge.

mod log_limiter;
mod terminal_text;

use std::io;
use std::sync::OnceLock;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Registry, reload};

pub use self::log_limiter::LogLimiter;
use self::terminal_text::MaskedWriter;
pub(crate) use self::terminal_text::{escaped_json, masked, masked_line};
use crate::config::{LogConfig, LogFormat};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Logging runs already.
    #[error("logging has been started before")]
    AlreadyStarted(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// JSON is one object a line: an RFC 3339 time in UTC and the event's fields beside `level`, `target` and `message`.
/// Text is coloured if standard error shows colour. Strangers write parts of its lines, and cannot steer a terminal by them.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(log));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer();
    match log.format {
        LogFormat::Json => registry
            .with(
                layer
                    .with_writer(io::stderr)
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false),
            )
            .try_init()?,
        LogFormat::Text => {
            let layer = layer.with_writer(|| MaskedWriter(io::stderr()));
            registry.with(layer.with_ansi(shows_colour(&io::stderr()))).try_init()?;
        }
    }
    FILTER.set(handle).ok();
    Ok(())
}

/// The filter of the running log.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Changes the levels of the running log.
pub fn change_filter(log: &LogConfig) {
    if let Some(handle) = FILTER.get() {
        // It fails only without the log.
        handle.reload(filter(log)).ok();
    }
}

/// Returns the levels by module. The configuration precedes the exceptions here.
fn filter(log: &LogConfig) -> Targets {
    Targets::new()
        // The HTTP server logs its start at info.
        .with_target("actix_server", Level::WARN)
        // It logs each malformed request of a stranger as an error. The bridge logs those at debug and counts them.
        .with_target("actix_http::h1::dispatcher", LevelFilter::OFF)
        .with_targets(&log.filter)
        .with_default(log.filter.default_level().unwrap_or(LevelFilter::OFF))
}

/// Whether text on this stream is coloured.
///
/// `NO_COLOR` disables colour and `CLICOLOR_FORCE` enables it; otherwise a terminal that supports colour has it. clap
/// asks the same function for help and errors, so that the whole program agrees.
pub fn shows_colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_requests_are_silent_unless_wanted() {
        const DISPATCHER: &str = "actix_http::h1::dispatcher";
        let shows = |text: &str, target| {
            let log = LogConfig { filter: text.parse().unwrap(), ..LogConfig::default() };
            filter(&log).would_enable(target, &Level::ERROR)
        };
        assert!(!shows("info", DISPATCHER) && !shows("debug", DISPATCHER));
        assert!(shows("info", "rtm_bridge") && shows("info", "actix_http::h1::decoder"));
        assert!(shows("info,actix_http::h1::dispatcher=error", DISPATCHER));
    }
}
