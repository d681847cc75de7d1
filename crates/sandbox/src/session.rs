//! The platform's conversation session, and what a connect does to it (protocol.md 4.3, 7.9).

use std::time::Duration;

use tokio::time::Instant;

use super::default_bot::Dialog;

/// A conversation session: not a socket, it outlives them.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) last_activity: Instant,
    pub(super) dialog: Dialog,
    /// The instance of the dialog that runs (`dcx-…`).
    pub(super) context: Option<String>,
    pub(super) welcomed: bool,
}

impl Session {
    pub(super) fn new(id: String, now: Instant) -> Self {
        Self { id, last_activity: now, dialog: Dialog::default(), context: None, welcomed: false }
    }

    /// When it ends if nothing happens.
    pub(super) fn ends_at(&self, timeout: Option<Duration>) -> Option<Instant> {
        timeout.map(|timeout| self.last_activity + timeout)
    }
}

/// What a connect asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing was said.
    Plain,
    IsReconnect,
    Default,
    StartNew,
    StartNewResumeAgent,
    Reconnect,
}

/// What becomes of the session on a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing.
    Keep,
    /// It ends, where one runs; a new one begins and the bot's `OnConnect` fires.
    Renew { keep_agent: bool },
}

impl Mode {
    /// `ConnectionMode` wins over `isReconnect`; a mode that nobody knows counts as none.
    pub(super) fn of(mode: Option<&str>, is_reconnect: bool) -> Self {
        match mode {
            Some("Default") => Self::Default,
            Some("Start_New") => Self::StartNew,
            Some("Start_New_Resume_Agent") => Self::StartNewResumeAgent,
            Some("Reconnect") => Self::Reconnect,
            _ if is_reconnect => Self::IsReconnect,
            _ => Self::Plain,
        }
    }

    pub(super) fn arrive(self, session_runs: bool) -> Arrival {
        match self {
            Self::Reconnect | Self::IsReconnect => Arrival::Keep,
            Self::Default if session_runs => Arrival::Keep,
            Self::StartNewResumeAgent => Arrival::Renew { keep_agent: true },
            Self::Default | Self::Plain | Self::StartNew => Arrival::Renew { keep_agent: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_does_what_its_mode_says() {
        let renew = Arrival::Renew { keep_agent: false };
        for (mode, is_reconnect, runs, arrival) in [
            (None, false, true, renew),
            (None, true, false, Arrival::Keep),
            (Some("Default"), true, true, Arrival::Keep),
            (Some("Default"), true, false, renew),
            (Some("Start_New"), true, true, renew),
            (Some("Start_New_Resume_Agent"), false, true, Arrival::Renew { keep_agent: true }),
            (Some("Reconnect"), false, false, Arrival::Keep),
            (Some("reconnect"), false, true, renew),
        ] {
            assert_eq!(Mode::of(mode, is_reconnect).arrive(runs), arrival, "{mode:?} {is_reconnect} {runs}");
        }
    }
}
