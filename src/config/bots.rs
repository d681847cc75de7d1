//! `[[bots]]`, and the rules between the tables of `[[bots]]` and `[[callers]]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::config_value::ConfigValue;
use super::diagnostics::Diagnostics;
use super::jwt_key::jwt_key;
use super::parse::{self, InvalidValue, ParseResult, boolean, duration, number, one_of, show_duration, size};
use super::proxy::SharedProxies;
use super::quiet_rule;
use super::section::Section;
use super::webhooks;
use super::{BotConfig, CallerConfig, ConnectionStyle, JwtAlgorithm};
use super::{address, assertion, certificates, json_object, kore_webhook, secret};
use crate::domain::BotName;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Parses the name of a bot.
pub(super) fn bot_name(value: &ConfigValue) -> ParseResult<BotName> {
    BotName::new(&parse::text(value)?).map_err(|e| InvalidValue(e.to_string()))
}

/// Reads one of `[[bots]]`. Returns `None` if a required key is missing or invalid.
pub(super) fn bot(section: &mut Section<'_>, proxies: &SharedProxies) -> Option<Arc<BotConfig>> {
    let name = section.required("name", "the bot's name in requests", bot_name);
    let platform = section.required(
        "platform",
        "the API host of the platform, such as \"https://bots.kore.ai\"",
        address::base_url(&["https", "http"]),
    );
    let chat_bot = section.required("chat_bot", "the bot's name on the platform", parse::text);
    let task_bot_id =
        section.required("task_bot_id", "the bot's id on the platform, `st-…`", platform_id("st-", "cs-"));
    let client_id =
        section.required("client_id", "the id of the bot's SDK app, `cs-…`", platform_id("cs-", "st-"));
    let assertion_service = assertion::service(section);
    let secret = client_secret(section);

    // The defaults are the same for every bot, so stand-ins replace a missing name and platform.
    let stand_in =
        address::base_url(&["https"])(&ConfigValue::Text("https://bots.kore.ai".to_owned())).ok()?;
    let d =
        BotConfig::new(name.clone().unwrap_or_else(BotName::sandbox), platform.clone().unwrap_or(stand_in));
    let ms = Duration::from_millis;
    let mut read = BotConfig {
        api_path: section.or("api_path", d.api_path, address::api_path),
        socket_base: section.optional("socket_base", address::base_url(&["wss", "ws", "https", "http"])),
        ca: certificates::authorities(section),
        proxy: proxies.of_bot(section, d.platform.scheme()),
        chat_bot: chat_bot.clone().unwrap_or_default(),
        task_bot_id: task_bot_id.clone().unwrap_or_default(),
        client_id: client_id.clone().unwrap_or_default(),
        client_secret: secret.clone().unwrap_or_default(),
        algorithm: section.or("algorithm", d.algorithm, one_of(&ALGORITHMS)),
        claims: section.or("claims", d.claims, assertion::claims),
        jti: section.or("jti", d.jti, boolean),
        assertion_service,
        secure_rtm: section.or("secure_rtm", d.secure_rtm, boolean),
        delivery_acks: section.or("delivery_acks", d.delivery_acks, boolean),
        connection_mode: section.or("connection_mode", d.connection_mode, one_of(&STYLES)),
        anonymous: section.or("anonymous", d.anonymous, boolean),
        custom_data: section.optional("custom_data", json_object::forwarded),
        skip_welcome: section.or("skip_welcome", d.skip_welcome, boolean),
        history: section.or("history", d.history, boolean),
        quiet: section.or("quiet", d.quiet, quiet_rule::quiet_rule),
        quiet_min: section.or("quiet_min", d.quiet_min, quiet_rule::quiet_limit),
        quiet_max: section.or("quiet_max", d.quiet_max, quiet_rule::quiet_limit),
        early_cuts: section.or("early_cuts", d.early_cuts, quiet_rule::early_cuts),
        deadline: section.or("deadline", d.deadline, duration(ms(500)..=10 * MINUTE)),
        welcome: section.or("welcome", d.welcome, duration(ms(0)..=3 * SECOND)),
        late_window: section.or("late_window", d.late_window, duration(ms(0)..=HOUR)),
        history_settle: section.or("history_settle", d.history_settle, duration(ms(0)..=MINUTE)),
        stuck_after: section.or("stuck_after", d.stuck_after, parse::duration_or_never(SECOND..=10 * MINUTE)),
        session_timeout: section.or("session_timeout", d.session_timeout, duration(MINUTE..=7 * DAY)),
        ping_interval: section.or("ping_interval", d.ping_interval, duration(SECOND..=10 * MINUTE)),
        idle_ttl: section.or("idle_ttl", d.idle_ttl, parse::duration_or_never(SECOND..=7 * DAY)),
        max_open_messages: section.or("max_open_messages", d.max_open_messages, number(1..=1000)),
        user_rate_per_minute: section.or("user_rate_per_minute", d.user_rate_per_minute, number(0..=10_000)),
        connects_per_minute: section.or("connects_per_minute", d.connects_per_minute, number(0..=100_000)),
        max_frame_bytes: section.or("max_frame_bytes", d.max_frame_bytes, size(4 << 10..=64 << 20)),
        max_message_bytes: section.or("max_message_bytes", d.max_message_bytes, size(4 << 10..=256 << 20)),
        max_attachment_bytes: section.or(
            "max_attachment_bytes",
            d.max_attachment_bytes,
            size(1 << 10..=256 << 20),
        ),
        webhooks: webhooks::endpoints(section),
        kore_webhook: None,
        name: d.name,
        platform: d.platform,
    };
    let door = section
        .optional_section("kore_webhook", |section| kore_webhook::door(section, &mut read, secret.is_some()));
    read.kore_webhook = door;
    let has_key = secret.is_some() || read.assertion_service.is_some();
    check_relations(section, &read, platform.is_some(), secret.is_some());
    (name.is_some()
        && platform.is_some()
        && chat_bot.is_some()
        && task_bot_id.is_some()
        && client_id.is_some()
        && has_key)
        .then(|| Arc::new(read))
}

const ALGORITHMS: [(&str, JwtAlgorithm); 4] = [
    (JwtAlgorithm::Hs256.as_str(), JwtAlgorithm::Hs256),
    (JwtAlgorithm::Hs512.as_str(), JwtAlgorithm::Hs512),
    (JwtAlgorithm::Rs256.as_str(), JwtAlgorithm::Rs256),
    (JwtAlgorithm::Rs512.as_str(), JwtAlgorithm::Rs512),
];

const STYLES: [(&str, ConnectionStyle); 2] =
    [("connectionMode", ConnectionStyle::ConnectionMode), ("isReconnect", ConnectionStyle::IsReconnect)];

/// Parses an id of the platform. The two kinds are easily swapped, and the platform's error would not reveal it.
fn platform_id(
    wanted: &'static str,
    other: &'static str,
) -> impl FnOnce(&ConfigValue) -> ParseResult<String> {
    move |value| {
        let id = parse::text(value)?;
        if id.starts_with(other) {
            return Err(InvalidValue(format!(
                "begins with `{other}`, but should begin with `{wanted}`: are client_id and task_bot_id swapped?"
            )));
        }
        if id.contains(char::is_whitespace) {
            return Err(InvalidValue("has white space in it".to_owned()));
        }
        Ok(id)
    }
}

fn client_secret(section: &mut Section<'_>) -> Option<SecretString> {
    let secret = section.secret("client_secret", "client_secret_file", secret::secret, secret::secret_text);
    let (direct, by_file) = (section.key("client_secret"), section.key("client_secret_file"));
    let given = [&direct, &by_file].iter().any(|key| section.diagnostics.was_given(key));
    if secret.is_none() && !given && !assertion::is_given(section, "assertion_url") {
        section.diagnostics.error(
            &direct,
            "is missing: the secret of the bot's SDK app, `client_secret_file` with the path of a file that holds it, or \
             `assertion_url`",
        );
    }
    secret
}

fn check_relations(section: &mut Section<'_>, bot: &BotConfig, has_platform: bool, has_secret: bool) {
    quiet_rule::check(section, bot);
    if let Some(idle) = bot.idle_ttl.filter(|idle| bot.ping_interval >= *idle) {
        let (ping, idle) = (show_duration(bot.ping_interval), show_duration(idle));
        let why = "no idle socket would be pinged";
        let low = format!("{ping} should be less than idle_ttl, {idle}: {why}");
        let high = format!("{idle} should be more than ping_interval, {ping}: {why}");
        section.relation_error(("ping_interval", low), ("idle_ttl", high));
    }
    if bot.max_frame_bytes > bot.max_message_bytes {
        let (frame, message) =
            (parse::show_size(bot.max_frame_bytes), parse::show_size(bot.max_message_bytes));
        let why = "a frame is part of a message";
        let low = format!("{frame} should be at most max_message_bytes, {message}: {why}");
        let high = format!("{message} should be at least max_frame_bytes, {frame}: {why}");
        section.relation_error(("max_frame_bytes", low), ("max_message_bytes", high));
    }
    if has_secret && bot.assertion_service.is_none() {
        check_secret(section, bot);
    }
    assertion::check(section, bot);
    let encrypted = |url: &Url| matches!(url.scheme(), "https" | "wss");
    if bot.ca.is_some()
        && has_platform
        && !encrypted(&bot.platform)
        && !bot.socket_base.as_ref().is_some_and(encrypted)
    {
        let path = section.key("ca_file");
        section.diagnostics.warn(&path, "has no effect without https");
    }
    for (key, url) in
        [("platform", has_platform.then_some(&bot.platform)), ("socket_base", bot.socket_base.as_ref())]
    {
        let Some(url) = url else { continue };
        if matches!(url.scheme(), "http" | "ws") && !address::is_loopback(url) {
            let path = section.key(key);
            let what = "is not encrypted: tokens and messages can be read on the way; use https";
            section.diagnostics.warn(&path, what);
        }
    }
}

/// Checks that the secret can sign by the algorithm, with the code that signs.
fn check_secret(section: &mut Section<'_>, bot: &BotConfig) {
    let rsa = matches!(bot.algorithm, JwtAlgorithm::Rs256 | JwtAlgorithm::Rs512);
    let pem = bot.client_secret.expose_secret().trim_start().starts_with("-----BEGIN ");
    let secret = ["client_secret", "client_secret_file"].map(|key| section.key(key));
    let given = secret.iter().find(|key| section.diagnostics.was_given(key)).unwrap_or(&secret[0]).clone();
    let sides = match (rsa, pem) {
        (true, false) => (
            "RS256 and RS512 sign with a private key, but client_secret is not PEM (`-----BEGIN …`)",
            "is not PEM (`-----BEGIN …`), but RS256 and RS512 sign with a private key",
        ),
        (false, true) => (
            "HS256 and HS512 sign with a shared secret, but client_secret is a key in PEM; use RS256 or RS512",
            "is a key in PEM, but HS256, the default of `algorithm`, signs with a shared secret; use RS256 or RS512",
        ),
        _ => {
            if let Err(error) = jwt_key(bot.algorithm, &bot.client_secret) {
                section.diagnostics.error(&given, error.to_string());
            }
            return;
        }
    };
    let sides = [(section.key("algorithm"), sides.0.to_owned()), (given, sides.1.to_owned())];
    section.diagnostics.sided_relation_error(&sides);
}

/// Checks the rules between the tables of the two lists: no bot and no key occurs twice.
pub(super) fn check(diagnostics: &mut Diagnostics, bots: &[Arc<BotConfig>], callers: &[CallerConfig]) {
    let mut known: BTreeMap<(&Url, &str), &BotName> = BTreeMap::new();
    for bot in bots {
        let twin = *known.entry((&bot.platform, &bot.task_bot_id)).or_insert(&bot.name);
        if *twin != bot.name {
            diagnostics.error(
                &format!("bots.{}.task_bot_id", bot.name),
                format!("is the same bot as `{twin}` on the same platform; configure each bot once"),
            );
        }
    }
    let mut known: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for caller in callers {
        let Some(key) = caller.key_sha256 else { continue };
        if let Some(twin) = known.insert(key, &caller.name) {
            diagnostics.error(
                &format!("callers.{}.key_sha256", caller.name),
                format!("is also the key of `{twin}`; give each caller its own key"),
            );
        }
    }
}
