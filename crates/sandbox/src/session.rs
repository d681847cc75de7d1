//! The platform's conversation session, and the effect of a connect on it (protocol.md 4.3, 7.9).

use std::time::Duration;

use tokio::time::Instant;

use super::default_bot::OrderDialog;

/// A conversation session. It outlives sockets.
#[derive(Debug)]
pub(super) struct ConversationSession {
    pub(super) id: String,
    pub(super) last_activity: Instant,
    pub(super) dialog: OrderDialog,
    /// Name of the script's running dialog.
    pub(super) script_dialog: Option<Box<str>>,
    /// Id of the running dialog (`dcx-…`).
    pub(super) context: Option<String>,
    pub(super) welcomed: bool,
}

impl ConversationSession {
    pub(super) fn new(id: String, now: Instant) -> Self {
        Self {
            id,
            last_activity: now,
            dialog: OrderDialog::default(),
            script_dialog: None,
            context: None,
            welcomed: false,
        }
    }

    /// Returns the end of the session without further activity.
    pub(super) fn ends_at(&self, timeout: Option<Duration>) -> Option<Instant> {
        timeout.map(|timeout| self.last_activity + timeout)
    }
}

/// Connection mode that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestedMode {
    /// No parameter.
    Plain,
    IsReconnect,
    Default,
    StartNew,
    StartNewResumeAgent,
    Reconnect,
}

/// Effect of a connect on the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEffect {
    /// No effect.
    Keep,
    /// A running session ends; a new one begins and the bot's `OnConnect` fires.
    Renew { keep_agent: bool },
}

impl RequestedMode {
    /// Parses the parameters. `ConnectionMode` wins over `isReconnect`; an unknown mode counts as none.
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

    pub(super) fn arrive(self, session_runs: bool) -> SessionEffect {
        match self {
            Self::Reconnect | Self::IsReconnect => SessionEffect::Keep,
            Self::Default if session_runs => SessionEffect::Keep,
            Self::StartNewResumeAgent => SessionEffect::Renew { keep_agent: true },
            Self::Default | Self::Plain | Self::StartNew => SessionEffect::Renew { keep_agent: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_mode_decides_the_session_effect() {
        let renew = SessionEffect::Renew { keep_agent: false };
        for (mode, is_reconnect, runs, arrival) in [
            (None, false, true, renew),
            (None, true, false, SessionEffect::Keep),
            (Some("Default"), true, true, SessionEffect::Keep),
            (Some("Default"), true, false, renew),
            (Some("Start_New"), true, true, renew),
            (Some("Start_New_Resume_Agent"), false, true, SessionEffect::Renew { keep_agent: true }),
            (Some("Reconnect"), false, false, SessionEffect::Keep),
            (Some("reconnect"), false, true, renew),
        ] {
            assert_eq!(
                RequestedMode::of(mode, is_reconnect).arrive(runs),
                arrival,
                "{mode:?} {is_reconnect} {runs}"
            );
        }
    }
}
