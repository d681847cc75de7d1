//! The meaning of the platform's close codes (protocol.md 5.5, RFC 6455 7.4.1). `link_phase` acts on it.

use super::super::input::SocketLoss;

/// The reason for the end of a socket, as the conversation needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// 1000: the platform closed the socket regularly.
    Regular,
    /// 1005: a close without a code. Another connection of the user may have taken over.
    WithoutCode,
    /// 1007: the platform could not read the message.
    Unreadable,
    /// 1008: the platform blocks the user or the bot for a while.
    Blocked,
    /// 1009: the message is larger than the platform takes.
    TooLarge,
    /// Any other code: the connection broke, and the message may have arrived.
    Broken,
}

impl CloseReason {
    /// Returns the reason for a loss.
    pub(super) const fn of(loss: SocketLoss) -> Self {
        match loss.code {
            1000 => Self::Regular,
            1005 => Self::WithoutCode,
            1007 => Self::Unreadable,
            1008 => Self::Blocked,
            1009 => Self::TooLarge,
            _ => Self::Broken,
        }
    }

    /// Returns whether the platform refuses the message or the user by this close.
    pub(super) const fn is_refusal(self) -> bool {
        matches!(self, Self::Unreadable | Self::Blocked | Self::TooLarge)
    }
}
