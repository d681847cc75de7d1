//! How the platform behaves where no source says how it does, or where versions differ.
//!
//! Everything here can be changed while the sandbox runs ([`Script::behave`](super::Script::behave)); the
//! default is the platform that the documents describe. What a single answer does is a
//! [`Step`](super::Step), what goes wrong with a request is a [`Fault`](super::Fault).

use std::time::Duration;

/// The switches of protocol.md section 11.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and any mix of them is a platform"
)]
pub struct Behaviour {
    /// When the default bot acknowledges a message.
    pub ack: AckOrder,
    /// When the default bot says that it waits for input.
    pub waiting: Waiting,
    /// When a new session is welcomed.
    pub welcome: Welcome,
    /// How long after the connect the welcome comes.
    pub welcome_delay: Duration,
    /// Whether `bot_active` is sent on connect.
    pub bot_active: bool,
    /// Whether `bot_active` carries `recentSessionInfo`.
    pub recent_session_info: bool,
    /// Whether `bot_active` comes after `session_start` and the welcome instead of before.
    pub active_last: bool,
    /// Whether `session_start` and `session_end` are sent.
    pub session_events: bool,
    /// Whether the first frame of a socket is a `hello`, as no known version does.
    pub hello: bool,
    /// How frame types are spelled.
    pub spelling: Spelling,
    /// How frames travel.
    pub framing: Framing,
    /// Whether the other sockets of a user see what one of them said (`user_message`).
    pub fan_out: bool,
    /// Whether a new socket of a user replaces the ones before, which are closed without a code.
    pub replace: bool,
    /// Whether application pings are answered.
    pub pong: bool,
    /// Whether web socket pings are answered.
    pub ws_pong: bool,
    /// How an expired or unknown token is refused.
    pub expiry: Expiry,
    /// How long a `sid` is good for.
    pub sid_ttl: Duration,
    /// Whether a `sid` opens one socket only.
    pub sid_single_use: bool,
    /// What becomes of an upgrade with a stale, used or wrong `sid`.
    pub stale_sid: StaleSid,
    /// Replaces `ws://host:port` in the URL that `rtm/start` returns, such as `ws://dummy.com:80`.
    pub url_base: Option<String>,
    /// Which of the three subprotocols the secure handshake selects.
    pub secure: Secure,
    /// The largest `limit` of the history; larger ones are cut to it.
    pub history_limit: usize,
    /// How long after it was said a message appears in the history.
    pub history_delay: Duration,
    /// Whether the end of a session by inactivity says so in a message before.
    pub closing_message: Option<String>,
    /// How long the default bot thinks before each answer.
    pub thinking: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ack: AckOrder::Before,
            waiting: Waiting::AfterLast,
            welcome: Welcome::OnConnect,
            welcome_delay: Duration::ZERO,
            bot_active: true,
            recent_session_info: true,
            active_last: false,
            session_events: true,
            hello: false,
            spelling: Spelling::Documented,
            framing: Framing::Text,
            fan_out: true,
            replace: false,
            pong: true,
            ws_pong: true,
            expiry: Expiry::Status,
            sid_ttl: Duration::from_secs(30),
            sid_single_use: true,
            stale_sid: StaleSid::Refuse(401),
            url_base: None,
            secure: Secure::Version,
            history_limit: 10,
            history_delay: Duration::ZERO,
            closing_message: None,
            thinking: Duration::ZERO,
        }
    }
}

/// When the default bot acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckOrder {
    /// Before it answers.
    Before,
    /// After it answered.
    After,
    /// Not at all.
    Never,
    /// Before it answers, twice.
    Twice,
    /// Before it answers, without saying which message is meant.
    WithoutReplyTo,
}

/// When the default bot sends `waiting_for_user_input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Never, as older platforms.
    Off,
    /// After its last response.
    AfterLast,
    /// Before its last response.
    BeforeLast,
}

/// When a new session is welcomed (`OnConnect`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// Never: the bot has no `OnConnect` event.
    Off,
    /// When the socket opens.
    OnConnect,
    /// Only when the first user message has come, before that is answered.
    AfterFirstMessage,
}

/// How frame types are spelled (protocol.md 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `bot_active`
    Documented,
    /// `Bot_Active`
    Capitals,
    /// `BOT_ACTIVE`
    Upper,
    /// `/bot_active`
    Slash,
}

/// How a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One text frame.
    Text,
    /// One binary frame.
    Binary,
    /// Text, in fragments of this many bytes; 0 counts as 1.
    Fragments(usize),
}

/// How an expired token is refused (protocol.md 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Status 401, code 401.
    Status,
    /// Status 400, code `"TOKEN_EXPIRED"`.
    Code,
    /// Status 400, message `token expired`.
    Message,
}

/// What becomes of an upgrade whose `sid` is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleSid {
    /// It is refused with this status.
    Refuse(u16),
    /// The socket opens and closes with this code at once.
    OpenAndClose(u16),
}

/// What the secure handshake does (protocol.md 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// The platform is too old for it: no nonce.
    Unsupported,
    /// `x-rtm-v|1` is selected.
    Version,
    /// `jwt|…` is selected.
    Jwt,
    /// `nonce|…` is selected.
    Nonce,
    /// Nothing is selected.
    Silent,
    /// The upgrade is refused with 403.
    Refuse,
}

impl Spelling {
    /// The type as it goes out.
    pub(super) fn spell(self, kind: &str) -> String {
        match self {
            Self::Documented => kind.to_owned(),
            Self::Upper => kind.to_uppercase(),
            Self::Slash => format!("/{kind}"),
            Self::Capitals => {
                let mut first = true;
                kind.chars()
                    .map(|c| {
                        let spelled = if first { c.to_ascii_uppercase() } else { c };
                        first = c == '_';
                        spelled
                    })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_in_every_known_way() {
        assert_eq!(Spelling::Documented.spell("bot_active"), "bot_active");
        assert_eq!(Spelling::Capitals.spell("waiting_for_user_input"), "Waiting_For_User_Input");
        assert_eq!(Spelling::Upper.spell("ack"), "ACK");
        assert_eq!(Spelling::Slash.spell("bot_active"), "/bot_active");
    }
}
