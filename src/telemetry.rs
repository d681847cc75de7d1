//! Logging: JSON for machines, text for people.
//!
//! Logs go to standard error, so that the result of a command on standard output can be piped. This module knows the
//! `[log]` section of the configuration and nothing else of the bridge.

mod terminal_text;

use std::io;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

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
    // The HTTP server logs its start at info. A filter of the configuration can show that, because it comes later.
    let filter = Targets::new()
        .with_target("actix_server", Level::WARN)
        .with_targets(&log.filter)
        .with_default(log.filter.default_level().unwrap_or(LevelFilter::OFF));
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
    Ok(())
}

/// Whether text on this stream is coloured.
///
/// `NO_COLOR` disables colour and `CLICOLOR_FORCE` enables it; otherwise a terminal that supports colour has it. clap
/// asks the same function for help and errors, so that the whole program agrees.
pub fn shows_colour(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}
