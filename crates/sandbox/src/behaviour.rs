//! Switches for the behaviour that no source describes, or that differs between versions.
//!
//! All of them can change while the sandbox runs ([`SandboxScript::behave`](super::SandboxScript::behave)). The
//! default is the documented platform. A [`Step`](super::Step) is a single action, and a [`Fault`](super::Fault)
//! spoils a request.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use url::Url;

use super::script_values::{optional_http_url, signed_seconds, span};
use super::uploads::FileBehaviour;

/// Switches of protocol.md 11 and 16.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and any mix of them is a platform"
)]
pub struct Behaviour {
    /// Order of ack and answer for the default bot.
    pub ack: AckOrder,
    /// Position of `waiting_for_user_input` among the default bot's answers.
    pub waiting: WaitingOrder,
    /// Time of the welcome in a new session.
    pub welcome: WelcomeTime,
    /// Delay between the connect and the welcome.
    #[serde(deserialize_with = "span")]
    #[cfg_attr(test, schemars(with = "crate::script_values::SpanText"))]
    pub welcome_delay: Duration,
    /// Whether `bot_active` is sent on connect.
    pub bot_active: bool,
    /// Whether `bot_active` carries `recentSessionInfo`.
    pub recent_session_info: bool,
    /// Whether `bot_active` comes after `session_start` and the welcome instead of before.
    pub active_last: bool,
    /// Whether `session_start` and `session_end` are sent.
    pub session_events: bool,
    /// Whether the first frame of a socket is a `hello`. No known version sends it.
    pub hello: bool,
    /// Spelling of frame types.
    pub spelling: SpellingStyle,
    /// Encoding of frames.
    pub framing: FramingStyle,
    /// Whether the other sockets of a user get each message as `user_message`.
    pub fan_out: bool,
    /// Whether a new socket of a user replaces the earlier ones, which close without a code.
    pub replace: bool,
    /// Whether application pings are answered.
    pub pong: bool,
    /// Whether web socket pings are answered.
    pub ws_pong: bool,
    /// Refusal of an expired or unknown token.
    pub expired_token: ExpiredTokenStyle,
    /// Life of a `sid`.
    #[serde(deserialize_with = "span")]
    #[cfg_attr(test, schemars(with = "crate::script_values::SpanText"))]
    pub sid_ttl: Duration,
    /// Whether a `sid` opens one socket only.
    pub sid_single_use: bool,
    /// Result of an upgrade with a stale, used or wrong `sid`.
    pub stale_sid: StaleSid,
    /// Replacement for `ws://host:port` in the URL of `rtm/start`, such as `ws://dummy.com:80`.
    pub url_base: Option<String>,
    /// Subprotocol that the secure handshake selects.
    pub secure_handshake: SecureHandshake,
    /// Largest `limit` of the history. A larger one is cut to it.
    pub history_limit: usize,
    /// Text that the history shows of a message whose two texts differ.
    pub history_text: HistoryTextStyle,
    /// Delay between a message and its appearance in the history.
    #[serde(deserialize_with = "span")]
    #[cfg_attr(test, schemars(with = "crate::script_values::SpanText"))]
    pub history_delay: Duration,
    /// Message before the end of an inactive session, if there is one.
    pub closing_message: Option<String>,
    /// Delay before each answer of the default bot.
    #[serde(deserialize_with = "span")]
    #[cfg_attr(test, schemars(with = "crate::script_values::SpanText"))]
    pub thinking: Duration,
    /// Events and lines of a human agent.
    pub agent_desk: AgentDesk,
    /// Time for which an agent types before each line.
    #[serde(deserialize_with = "span")]
    #[cfg_attr(test, schemars(with = "crate::script_values::SpanText"))]
    pub agent_typing: Duration,
    /// Whether an agent's desk reports delivered and read messages.
    pub agent_receipts: bool,
    /// Whether signals such as `typing` are acknowledged.
    pub signal_acks: bool,
    /// Whether signals, delivery acks and pings count towards the rate limit.
    pub signals_count: bool,
    /// Whether the secure handshake refuses an expired assertion. The Web SDK shows its old one on each reconnect.
    pub handshake_checks_expiry: bool,
    /// Whether responses say if a task ended (`endOfTask` and its companions).
    pub end_of_task: bool,
    /// Whether `&`, `<`, `>`, `"` and `'` in texts are escaped.
    pub escape_html: bool,
    /// `userMsgId` of the user's records in the history.
    pub user_ids: UserIdStyle,
    /// Lead of the platform's clock in `createdOn`, in a script in seconds; negative if it is slow.
    #[serde(deserialize_with = "signed_seconds")]
    #[cfg_attr(test, schemars(with = "i32"))]
    pub clock_lead: SignedDuration,
    /// Whether the webhook channel (V2) answers with the first responses and a `pollId` for the others.
    pub webhook_polling: bool,
    /// URL of the webhook channel's receiver (`http://…`). With it a call is acknowledged at once, and each response is
    /// posted there.
    #[serde(deserialize_with = "optional_http_url")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub webhook_post_url: Option<Url>,
    /// Number of the newest responses that a new socket gets again. It counts responses from the time of the switch.
    pub repeats: usize,
    /// Uploads of files, and the bot's way with them.
    pub files: FileBehaviour,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ack: AckOrder::Before,
            waiting: WaitingOrder::AfterLast,
            welcome: WelcomeTime::OnConnect,
            welcome_delay: Duration::ZERO,
            bot_active: true,
            recent_session_info: true,
            active_last: false,
            session_events: true,
            hello: false,
            spelling: SpellingStyle::Documented,
            framing: FramingStyle::Text,
            fan_out: true,
            replace: false,
            pong: true,
            ws_pong: true,
            expired_token: ExpiredTokenStyle::Status,
            sid_ttl: Duration::from_secs(30),
            sid_single_use: true,
            stale_sid: StaleSid::Refuse(401),
            url_base: None,
            secure_handshake: SecureHandshake::Version,
            history_limit: 100,
            history_text: HistoryTextStyle::Payload,
            history_delay: Duration::ZERO,
            closing_message: None,
            thinking: Duration::ZERO,
            agent_desk: AgentDesk::Kore,
            agent_typing: Duration::from_millis(500),
            agent_receipts: true,
            signal_acks: true,
            signals_count: false,
            handshake_checks_expiry: false,
            end_of_task: false,
            escape_html: false,
            user_ids: UserIdStyle::AsSent,
            clock_lead: SignedDuration::ZERO,
            webhook_polling: false,
            webhook_post_url: None,
            repeats: 0,
            files: FileBehaviour::default(),
        }
    }
}

/// Desk of the human agents (protocol.md 7.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum AgentDesk {
    /// `agent_session_start` and `agent_connected`. Lines are marked by `fromAgent` and `author`.
    Kore,
    /// `agent_session_active` only. Lines are marked by their template `live_agent`.
    Vendor,
}

/// Text of a message in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum HistoryTextStyle {
    /// `component.payload.text`, which most clients show.
    Payload,
    /// `cInfo.body`
    Body,
}

/// Form of `userMsgId` in the history (protocol.md 7.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum UserIdStyle {
    /// The client's own id.
    AsSent,
    /// No `userMsgId`.
    Missing,
    /// An id that the platform chose.
    Foreign,
}

/// Order of ack and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum AckOrder {
    /// Ack before the answer.
    Before,
    /// Ack after the answer.
    After,
    /// No ack.
    Never,
    /// Two acks before the answer.
    Twice,
    /// Ack before the answer, without the id of the message.
    WithoutReplyTo,
}

/// Position of `waiting_for_user_input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum WaitingOrder {
    /// Never, as on older platforms.
    Off,
    /// After the last response.
    AfterLast,
    /// Before the last response.
    BeforeLast,
}

/// Time of the welcome in a new session (`OnConnect`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum WelcomeTime {
    /// Never: the bot has no `OnConnect` event.
    Off,
    /// When the socket opens.
    OnConnect,
    /// After the first user message, before its answer.
    AfterFirstMessage,
}

/// Spelling of frame types (protocol.md 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum SpellingStyle {
    /// `bot_active`
    Documented,
    /// `Bot_Active`
    Capitals,
    /// `BOT_ACTIVE`
    Upper,
    /// `/bot_active`
    Slash,
}

/// Encoding of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum FramingStyle {
    /// One text frame.
    Text,
    /// One binary frame.
    Binary,
    /// Text in fragments of this many bytes; 0 counts as 1.
    Fragments(usize),
}

/// Refusal of an expired token (protocol.md 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ExpiredTokenStyle {
    /// Status 401, code 401.
    Status,
    /// Status 400, code `"TOKEN_EXPIRED"`.
    Code,
    /// Status 400, message `token expired`.
    Message,
}

/// Result of an upgrade with a bad `sid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum StaleSid {
    /// Refusal with this status.
    Refuse(u16),
    /// A socket that opens and closes with this code at once.
    OpenAndClose(u16),
}

/// Answer to the secure handshake (protocol.md 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum SecureHandshake {
    /// The platform is too old: it gives no nonce.
    Unsupported,
    /// Selects `x-rtm-v|1`.
    Version,
    /// Selects `jwt|…`.
    Jwt,
    /// Selects `nonce|…`.
    Nonce,
    /// Selects no subprotocol.
    Silent,
    /// Refuses the upgrade with 403.
    Refuse,
}

impl SpellingStyle {
    /// Spells a frame type.
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
    fn types_are_spelled_in_each_style() {
        assert_eq!(SpellingStyle::Documented.spell("bot_active"), "bot_active");
        assert_eq!(SpellingStyle::Capitals.spell("waiting_for_user_input"), "Waiting_For_User_Input");
        assert_eq!(SpellingStyle::Upper.spell("ack"), "ACK");
        assert_eq!(SpellingStyle::Slash.spell("bot_active"), "/bot_active");
    }
}
