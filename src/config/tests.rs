//! Whole configurations: valid ones, invalid ones, and the overlay of the environment.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::{
    BotConfig, Config, ConfigErrors, ConfigWarning, FileText, KoreApiVersion, PayloadFormat, QuietRule,
    StoreUrl, V1TextForm, read,
};
use crate::domain::{DeliveryKind, QuietSource};

const BOT: &str =
    concat!("\n", include_str!("../../tests/fixtures/bot.toml"), "client_secret = \"hush-hush\"\n");

const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn files(path: &Path) -> io::Result<FileText> {
    let open = path.starts_with("/open");
    let path = path.strip_prefix("/open").map_or(path.to_owned(), |path| Path::new("/").join(path));
    Ok(FileText { writable_by_others: open, ..text_of(&path)?.into() })
}

fn text_of(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/secrets/plain") => Ok("from-a-file\n".to_owned()),
        Some("/secrets/empty") => Ok("\n".to_owned()),
        Some("/secrets/pem") => Ok(include_str!("../../tests/fixtures/rsa.pem").to_owned()),
        Some("/public.pem") => Ok(include_str!("../../tests/fixtures/rsa.public.pem").to_owned()),
        Some("/secrets/cut.pem") => Ok(include_str!("../../tests/fixtures/rsa.pem")[..900].to_owned()),
        Some("/secrets/whsec") => Ok(format!("# new\n{0}\n\n{0}\n", webhook_secret())),
        Some("/secrets/headers") => Ok("X-Team: hush\n".to_owned()),
        Some("/secrets/url") => Ok("redis://bridge:hush@h:1/2\n".to_owned()),
        Some("/tls/ca.crt") => Ok(include_str!("../../tests/fixtures/tls/ca.crt").to_owned()),
        Some("/tls/a.crt") => Ok(include_str!("../../tests/fixtures/tls/client.crt").to_owned()),
        Some("/tls/a.key") => Ok(include_str!("../../tests/fixtures/tls/client.key").to_owned()),
        Some("/tls/b.key") => Ok(include_str!("../../tests/fixtures/tls/server.key").to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn webhook_secret() -> String {
    format!("whsec_{}", "QUFB".repeat(8))
}

fn with(text: &str, env: &[(&str, &str)]) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    read(text, "bridge.toml", env.iter().copied(), &files)
}

fn good(text: &str, env: &[(&str, &str)]) -> Config {
    with(text, env).unwrap_or_else(|mistakes| panic!("{mistakes}")).0
}

fn bad(text: &str, env: &[(&str, &str)]) -> ConfigErrors {
    with(text, env).map(|(config, _)| config).expect_err("there is a mistake in it")
}

fn caller(rest: &str) -> String {
    format!("{BOT}[[callers]]\nname = \"crm\"\nkey_sha256 = \"{HASH}\"\nscopes = [\"send\"]\n{rest}")
}

#[test]
fn door_has_the_bots_own_app_or_its_clients() {
    let own = good(&format!("{BOT}[bots.kore_webhook]\n"), &[]);
    let door = own.bots[0].kore_webhook.as_ref().unwrap();
    assert_eq!((door.hold, door.v1_text), (Duration::from_secs(10), V1TextForm::String));
    assert_eq!(own.callers[0].kore_client.as_ref().unwrap().id, own.bots[0].client_id);
    assert!(!own.has_callers() && own.callers[0].scopes.send);
    assert!(!format!("{own:?}").contains("hush"), "keys are not for Debug");

    let text = format!(
        "{BOT}[bots.kore_webhook]\nv1_text = \"array\"\nhold = \"3s\"\nclients = [{{ id = \"cs-1\", secret = \"s\", algorithm = \
         \"HS384\", user_prefix = \"a-\" }}, {{ id = \"cs-2\", public_key_file = \"/public.pem\", rate_per_minute = 7 }}]\n"
    );
    let config = good(&text, &[]);
    let door = config.bots[0].kore_webhook.as_ref().unwrap();
    assert_eq!((door.hold, door.v1_text), (Duration::from_secs(3), V1TextForm::Array));
    let clients: Vec<_> = config
        .callers
        .iter()
        .map(|caller| (&*caller.name, &*caller.user_prefix, caller.rate_per_minute))
        .collect();
    assert_eq!(clients, [("support/cs-1", "a-", 0), ("support/cs-2", "", 7)]);
    let by_variable = good(
        BOT,
        &[("RTM_BRIDGE__BOTS__SUPPORT__KORE_WEBHOOK__CLIENTS", r#"[{ id = "cs-3", secret = "s" }]"#)],
    );
    assert_eq!(by_variable.callers[0].name, "support/cs-3");
    assert!(good(&format!("{BOT}[bots.kore_webhook]\nenabled = false\n"), &[]).callers.is_empty());
}

#[test]
fn asynchronous_door_adds_an_endpoint() {
    let door = "[bots.kore_webhook]\ncallback_url = \"https://hooks.example.com/kore\"\n";
    let config = good(&format!("{BOT}{door}version = \"v1\"\n"), &[]);
    let endpoint = &config.bots[0].webhooks[0];
    assert_eq!(
        (&*endpoint.name, endpoint.form),
        ("kore-webhook", PayloadFormat::KoreChannel(KoreApiVersion::V1))
    );
    assert!(endpoint.secrets.is_empty() && config.bots[0].callback_signer().is_none());
    assert!(config.bots[0].kore_webhook.as_ref().unwrap().is_asynchronous);
    let secret = webhook_secret();
    let own = format!("{BOT}[[bots.webhooks]]\nname = \"main\"\nsecrets = [\"{secret}\"]\n{door}");
    let config = good(&own, &[]);
    assert_eq!(config.bots[0].webhooks[1].secrets[0].expose_secret(), secret);
    assert_eq!(config.bots[0].webhooks[1].form, PayloadFormat::KoreChannel(KoreApiVersion::V2));
    let twice = own.replace("\"main\"", "\"kore-webhook\"");
    assert!(bad(&twice, &[]).to_string().contains("rename that"));
}

#[test]
fn mistake_of_a_door_names_its_client() {
    let mistakes =
        |clients: &str| bad(&format!("{BOT}[bots.kore_webhook]\nclients = [{clients}]\n"), &[]).to_string();
    for (client, words) in [
        (r#"{ secret = "s" }"#, "clients[1].id"),
        (r#"{ id = "cs-1" }"#, "clients[1].secret"),
        (r#"{ id = "cs-1", secret = "s", public_key = "k" }"#, "keep one"),
        (r#"{ id = "cs-1", secret = "s", algorithm = "RS256" }"#, "other algorithms need `public_key`"),
        (r#"{ id = "cs-1", public_key_file = "/secrets/pem" }"#, "holds a private key"),
        (
            r#"{ id = "cs-1", public_key_file = "/public.pem", algorithm = "ES256" }"#,
            "does not fit `algorithm`",
        ),
        (r#"{ id = "cs-1", secret = "s", algorithm = "none" }"#, "is not one of"),
    ] {
        let mistakes = mistakes(client);
        assert!(mistakes.contains(words), "{client}: {mistakes}");
    }
}

#[test]
fn config_with_one_bot_is_valid() {
    let config = good(BOT, &[]);
    assert_eq!(config.store.url, StoreUrl::Memory);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    let bot = config.bots.first().unwrap();
    assert_eq!(bot.platform.as_str(), "https://bots.kore.ai/");
    assert_eq!(bot.client_secret.expose_secret(), "hush-hush");
    assert_eq!(bot.idle_ttl, Some(Duration::from_mins(15)));
    assert!(!format!("{config:?}").contains("hush"), "secrets are not for Debug");
}

#[test]
#[expect(clippy::too_many_lines, reason = "each key has a line")]
fn config_with_every_key_keeps_each_value() {
    let text = format!(
        r#"
default_bot = "support"
[server]
listen = "0.0.0.0:8080"
admin_listen = "0.0.0.0:9090"
grace = "3s"
drain_timeout = "30s"
max_sockets = 400
max_connections = 300
memory_limit = "48MiB"
max_requests = 10
max_streams = 11
threads = 3
[store]
url = "memory://"
key_prefix = "rtm"
message_ttl = "24h"
command_timeout = "2s"
wait_replicas = 0
ca_file = ""
client_cert_file = ""
client_key_file = ""
memory_limit = "64MiB"
[proxy]
url = "https://proxy.example:3129"
username = "bridge"
password_file = "/secrets/plain"
ca_file = "/tls/ca.crt"
no_proxy = ["10.0.0.0/8", ".corp.example"]
[cluster]
replica_id = "host-and-random"
lease_ttl = "10s"
[reply]
default_wait = "15s"
[[bots]]
name = "support"
platform = "https://bots.kore.ai"
api_path = "/api"
socket_base = ""
ca_file = "/tls/ca.crt"
proxy = "http://other.example:8888"
chat_bot = "CNN"
task_bot_id = "st-1"
client_id = "cs-1"
client_secret_file = "/secrets/pem"
algorithm = "RS512"
claims = {{ tenant = "bank-7" }}
secure_rtm = true
delivery_acks = true
connection_mode = "isReconnect"
anonymous = true
custom_data = {{ tier = "gold" }}
skip_welcome = true
history = false
quiet = "auto"
quiet_min = "150ms"
quiet_max = "6s"
early_cuts = "0.5 %"
deadline = "31s"
welcome = "0ms"
late_window = "61s"
history_settle = "4s"
stuck_after = "never"
session_timeout = "16m"
ping_interval = "26s"
idle_ttl = "never"
max_open_messages = 33
user_rate_per_minute = 51
connects_per_minute = 251
max_frame_bytes = "64KiB"
max_message_bytes = "1MiB"
max_attachment_bytes = "10MiB"
  [[bots.webhooks]]
  name = "archive"
  types = ["reply.late", "message.failed", "reply.late"]
  url = "https://hooks.example.com/in?x=1"
  payload = "thin"
  secrets_file = "/secrets/whsec"
  form = "cloudevents-structured"
  disable_after = "2d"
  bearer_token_file = "/secrets/plain"
  headers_file = "/secrets/headers"
  signature_header = "X-Old-Signature"
  signature_secret_file = "/secrets/plain"
[[callers]]
name = "crm"
key_sha256 = "{HASH}"
scopes = ["send", "read"]
bots = ["support"]
user_prefix = "eu-"
rate_per_minute = 60
max_open_requests = 7
max_open_messages = 9
webhook_secrets_file = "/secrets/whsec"
webhook_form = "cloudevents"
[webhooks]
allowed = ["https://*.example.com/", "http://127.0.0.1:9/in"]
allow_private = ["127.0.0.0/8", "fd00::/8"]
timeout = "14s"
ca_file = "/tls/ca.crt"
proxy = true
max_in_flight = 99
max_per_host = 98
[log]
format = "text"
filter = "rtm_bridge=debug,info"
"#
    );
    let (config, warnings) = with(&text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    // `Debug` shows every field. Each differs from its default, so that the test notices a dropped value.
    shows_every_value(&config);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn keys_are_those_that_the_reader_takes() {
    let keys = super::keys();
    for key in [
        "default_bot",
        "server.drain_timeout",
        "store.url_file",
        "bots.NAME.ca_file",
        "bots.NAME.webhooks.NAME.headers_file",
        "callers.NAME.webhook_form",
        "webhooks.max_per_host",
    ] {
        assert!(keys.contains(key), "{key} is missing: {keys:?}");
    }
    for table in ["server", "bots", "bots.NAME", "bots.NAME.webhooks", "bots.NAME.webhooks.NAME", "callers"] {
        assert!(!keys.contains(table), "{table} is a table");
    }
    // Each key is known, even if this value is invalid.
    for key in keys.iter().filter(|key| !key.contains("NAME")) {
        let known = with(&format!("{key} = \"x\"\n{BOT}"), &[]);
        let unknown =
            known.err().is_some_and(|mistakes| mistakes.to_string().contains("there is no such key"));
        assert!(!unknown, "{key}");
    }
}

fn shows_every_value(config: &Config) {
    let seen = format!("{config:?}");
    assert!(config.webhooks.ca.as_ref().is_some_and(|pem| pem.starts_with(b"-----BEGIN CERTIFICATE")));
    assert!(config.bots[0].ca.is_some());
    assert!(!seen.contains("hush") && !seen.contains("from-a-file"), "secrets are not for Debug");
    for part in [
        "0.0.0.0:8080",
        "0.0.0.0:9090",
        "max_sockets: 400",
        "max_connections: 300",
        "memory_limit: 50331648",
        "max_requests: 10",
        "max_streams: 11",
        "threads: 3",
        "memory_limit: 67108864",
        "host-and-random",
        "Some(3129)",
        "Some(8888)",
        "username: \"bridge\"",
        "10.0.0.0/8",
        "below_only: true",
        "origin: \"bots.support.proxy\"",
        "api_path: \"/api\"",
        "Rs512",
        "secure_rtm: true",
        "delivery_acks: true",
        "IsReconnect",
        "anonymous: true",
        "bank-7",
        "gold",
        "skip_welcome: true",
        "history: false",
        "quiet: Auto",
        "quiet_min: 150ms",
        "quiet_max: 6s",
        "early_cuts: 0.005",
        "deadline: 31s",
        "welcome: 0ns",
        "late_window: 61s",
        "history_settle: 4s",
        "stuck_after: None",
        "session_timeout: 960s",
        "ping_interval: 26s",
        "idle_ttl: None",
        "max_open_messages: 33",
        "user_rate_per_minute: 51",
        "connects_per_minute: 251",
        "max_frame_bytes: 65536",
        "max_message_bytes: 1048576",
        "max_attachment_bytes: 10485760",
        "query: Some(\"x=1\")",
        "name: \"archive\"",
        "types: [MessageFailed, ReplyLate]",
        "user_prefix: \"eu-\"",
        "rate_per_minute: 60",
        "max_open_requests: 7",
        "max_open_messages: 9",
        "https://*.example.com/",
        "fd00::/8",
        "timeout: 14s",
        "form: CloudEventsStructured",
        "payload: Thin",
        "disable_after: Some(172800s)",
        "bearer_token: Some(",
        "(\"x-team\", ",
        "LegacySignature { header: \"x-old-signature\"",
        "webhook_form: CloudEvents",
        "max_in_flight: 99",
        "max_per_host: 98",
        "Text",
        "target: Some(\"rtm_bridge\"), field_names: [], level: LevelFilter::DEBUG",
        "send: true, read: true, admin: false",
    ] {
        assert!(seen.contains(part), "{part} is not in {seen}");
    }
}

/// Lines that make a valid webhook of a bot invalid, with the key and a word of the error.
const BAD_WEBHOOK: &[(&str, &str, &str)] = &[
    ("form = \"xml\"", "form", "standard, cloudevents, cloudevents-structured, kore-v2"),
    ("bearer_token = \"Bearer hush\"", "bearer_token", "without `Bearer`"),
    ("bearer_token = \"hush\"\nbearer_token_file = \"/secrets/plain\"", "bearer_token", "keep one"),
    ("bearer_token = \"hush\"\nheaders = [\"Authorization: hush\"]", "bearer_token", "keep one"),
    ("headers = [\"hush\"]", "headers", "Name: value"),
    ("headers = [\"Host: hush\"]", "headers", "connection"),
    ("headers = [\"a: hush\", \"A: hush\"]", "headers", "twice"),
    ("headers = \"a: hush\"", "headers", "list"),
    ("headers = [\"Webhook-Id: hush\"]", "headers", "itself"),
    ("signature_header = \"X-Sig\"", "signature_header", "or neither"),
    ("signature_secret = \"hush\"", "signature_secret", "or neither"),
    ("signature_header = \"webhook-signature\"\nsignature_secret = \"hush\"", "signature_header", "itself"),
    ("signature_header = \"a b\"\nsignature_secret = \"hush\"", "signature_header", "name"),
    (
        "headers = [\"X-Sig: hush\"]\nsignature_header = \"x-sig\"\nsignature_secret = \"hush\"",
        "signature_header",
        "another value",
    ),
    ("url = \"https://u:hush@h/\"", "url", "credentials"),
    ("url = \"https://h/#hush\"", "url", "fragment"),
    ("bearer = \"hush\"", "bearer", "did you mean `bearer_token`"),
];

#[test]
fn error_in_a_webhook_names_its_key() {
    let secrets = webhook_secret();
    for &(lines, key, word) in BAD_WEBHOOK {
        let url = if lines.starts_with("url") { "" } else { "url = \"https://h/\"" };
        let text =
            format!("{BOT}[[bots.webhooks]]\nname = \"main\"\n{url}\nsecrets = [\"{secrets}\"]\n{lines}");
        let mistakes = bad(&text, &[]);
        let found: Vec<_> = mistakes.iter().collect();
        let [mistake] = found.as_slice() else { panic!("one mistake expected for {lines}: {mistakes}") };
        assert_eq!(mistake.key, format!("bots.support.webhooks.main.{key}"), "{mistakes}");
        assert!(mistake.message.contains(word), "{word}: {mistakes}");
        assert!(!mistakes.to_string().contains("hush"), "{mistakes}");
    }
}

#[test]
fn webhook_without_effect_is_warned_of() {
    let secrets = webhook_secret();
    let bot = |url: &str| {
        format!("{BOT}[[bots.webhooks]]\nname = \"main\"\nurl = \"{url}\"\nsecrets = [\"{secrets}\"]\n")
    };
    let signing = caller(&format!("webhook_secrets = [\"{secrets}\"]\n"));
    let warned = |text: &str| -> Vec<(String, String)> {
        let (_, warnings) = with(text, &[]).unwrap_or_else(|mistakes| panic!("{text}: {mistakes}"));
        let about = warnings.into_iter().filter(|warning| warning.key.contains("webhook"));
        about.map(|warning| (warning.key, warning.message)).collect()
    };
    let (url, allowed) = ("bots.support.webhooks.main.url", "webhooks.allowed");
    for (text, expected) in [
        (bot("https://h.example/"), &[][..]),
        (bot("http://h.example/"), &[(url, "not encrypted")]),
        (bot("https://10.1.2.3/"), &[(url, "allow_private")]),
        (bot("https://[fd00::1]/"), &[(url, "allow_private")]),
        (bot("https://[::ffff:192.168.0.1]/"), &[(url, "allow_private")]),
        (bot("http://localhost:9/"), &[(url, "allow_private")]),
        (bot("http://10.1.2.3/"), &[(url, "not encrypted"), (url, "allow_private")]),
        (bot("https://10.1.2.3/") + "[webhooks]\nallow_private = [\"10.0.0.0/8\"]", &[]),
        (bot("http://localhost:9/") + "[webhooks]\nallow_private = [\"127.0.0.0/8\"]", &[]),
        (
            bot("https://h.example/") + "[webhooks]\nallowed = [\"http://h.example/\"]",
            &[(allowed, "not encrypted")],
        ),
        (
            bot("https://h.example/") + "[webhooks]\nallowed = [\"https://10.0.0.1/\"]",
            &[(allowed, "allow_private")],
        ),
        (format!("{BOT}[[bots.webhooks]]\nname = \"main\"\nsecrets = [\"{secrets}\"]"), &[]),
        (
            format!("{BOT}[[bots.webhooks]]\nname = \"main\"\nsecrets = [\"{secrets}\"]\nform = \"kore-v2\""),
            &[(url, "not given")],
        ),
        (signing.clone() + "[webhooks]\nallowed = [\"https://h.example/\"]", &[]),
        (caller("") + "[webhooks]\nallowed = [\"https://h.example/\"]", &[(allowed, "to sign with")]),
        (signing + "webhook_form = \"kore-v2\"", &[]),
        (caller("webhook_form = \"kore-v2\""), &[("callers.crm.webhook_form", "no effect")]),
    ] {
        let warned = warned(&text);
        let same = warned.len() == expected.len()
            && warned.iter().zip(expected).all(|((key, what), (at, word))| key == at && what.contains(word));
        assert!(same, "{expected:?}: {warned:?}");
    }
}

#[test]
fn max_in_flight_below_the_host_limit_lowers_it() {
    let config = good(&format!("{BOT}[webhooks]\nmax_in_flight = 8"), &[]);
    assert_eq!((config.webhooks.max_in_flight, config.webhooks.max_per_host), (8, 8));
}

/// Configurations with one error: the text after a valid one, the key, a word of the error.
const BAD: &[(&str, &str, &str)] = &[
    ("[server]\nlisten = \"localhost:80\"", "server.listen", "IP address"),
    ("[server]\nlisten = 8080", "server.listen", "a number"),
    ("[server]\nlisten = \"0.0.0.0:80\"", "server.listen", "callers"),
    ("[server]\nadmin_listen = \"127.0.0.1:8080\"", "server.admin_listen", "another port"),
    ("[server]\ngrace = \"30s\"", "server.grace", "drain_timeout"),
    ("[server]\ngrace = 3", "server.grace", "no unit"),
    ("[server]\ngrace = \"soon\"", "server.grace", "duration"),
    ("[server]\nthreads = 0", "server.threads", "within 1"),
    ("[server]\nthreads = \"2\"", "server.threads", "without quotes"),
    ("[server]\nthreads = 99999999999999999999", "server.threads", "within"),
    ("[server]\nlisten_on = \"127.0.0.1:1\"", "server.listen_on", "did you mean `listen`"),
    ("[sever]\nlisten = \"127.0.0.1:1\"", "sever", "did you mean `server`"),
    ("server = 3", "server", "[server]"),
    ("[store]\nurl = \"redis://u:hush@\"", "store.url", "no host"),
    ("[store]\nurl = \"rediss+sentinel://h\"", "store.url", "name the master"),
    ("[store]\nurl = \"redis://u:hush@h\"\npassword = \"hush\"", "store.url", "keep one"),
    ("[store]\nurl = \"redis://h\"\nurl_file = \"/secrets/url\"", "store.url", "keep one"),
    ("[store]\nurl = \"redis://h\"\nusername = \"u\"", "store.username", "password_file"),
    (
        "[store]\nurl = \"redis+sentinel://h/m\"\nsentinel_username = \"u\"",
        "store.sentinel_username",
        "sentinel_password_file",
    ),
    ("[store]\nurl = \"rediss://h\"\nca_file = \"/secrets/none\"", "store.ca_file", "cannot read"),
    ("[store]\nurl = \"rediss://h\"\nca_file = \"/secrets/plain\"", "store.ca_file", "no certificate"),
    (
        "[store]\nurl = \"rediss://h\"\nclient_cert_file = \"/tls/a.crt\"\nclient_key_file = \"/secrets/plain\"",
        "store.client_key_file",
        "no private key",
    ),
    (
        "[store]\nurl = \"rediss://h\"\nclient_cert_file = \"/tls/a.crt\"\nclient_key_file = \"/tls/b.key\"",
        "store.client_key_file",
        "not the key",
    ),
    ("[store]\nurl = \"postgres://h\"", "store.url", "unknown scheme"),
    ("[store]\nmemory_limit = \"1MB\"", "store.memory_limit", "64KiB"),
    ("[store]\nclient_cert_file = \"x\"", "store.client_cert_file", "both or neither"),
    ("[store]\ncommand_timeout = \"10s\"", "store.command_timeout", "lease_ttl"),
    ("[store]\ncommand_timeout = \"3334ms\"", "store.command_timeout", "a third of cluster.lease_ttl"),
    (
        "[cluster]\nlease_ttl = \"6s\"",
        "cluster.lease_ttl",
        "6s should be more than three times store.command_timeout",
    ),
    ("[server]\ndrain_timeout = \"3s\"", "server.drain_timeout", "3s should be more than grace, 3s"),
    ("[server]\ngrace = \"1m\"", "server.grace", "1m should be less than drain_timeout, 30s"),
    ("[server]\nlisten = \"127.0.0.1:9090\"", "server.listen", "is `admin_listen` too"),
    ("[server]\nadmin_listen = \"127.0.0.1:8080\"", "server.admin_listen", "is `listen` too"),
    ("[cluster]\nlease_ttl = \"2s\"", "cluster.lease_ttl", "3s"),
    ("[reply]\ndefault_wait = \"56s\"", "reply.default_wait", "55s"),
    ("[webhooks]\nallowed = [\"https://a.*.example.com/\"]", "webhooks.allowed", "only begin"),
    ("[webhooks]\nallowed = [\"ftp://example.com/\"]", "webhooks.allowed", "scheme"),
    ("[webhooks]\nallowed = [\"https://u:hush@example.com/\"]", "webhooks.allowed", "credentials"),
    ("[webhooks]\nallowed = [\"https://*.10.0.0.1/\"]", "webhooks.allowed", "pattern"),
    ("[webhooks]\nallowed = [\"https://example.com/?a\"]", "webhooks.allowed", "query"),
    ("[webhooks]\nallow_private = [\"10.0.0.0\"]", "webhooks.allow_private", "10.0.0.0/8"),
    ("[webhooks]\nca_file = \"/secrets/plain\"", "webhooks.ca_file", "no certificate"),
    ("[webhooks]\nca_file = \"/secrets/none\"", "webhooks.ca_file", "cannot read"),
    ("[webhooks]\nmax_in_flight = 0", "webhooks.max_in_flight", "within 1"),
    ("[webhooks]\nmax_in_flight = 8\nmax_per_host = 9", "webhooks.max_per_host", "at most max_in_flight, 8"),
    ("[webhooks]\nmax_per_host = 257", "webhooks.max_per_host", "256"),
    ("[webhooks]\nallow_private = [\"10.0.0.0/33\"]", "webhooks.allow_private", "range"),
    ("[log]\nfilter = \"info=what=ever\"", "log.filter", "filter"),
    ("[log]\nfilter = \"rtm_bridge=loud\"", "log.filter", "filter"),
    ("[log]\nfilter = \"info,rtm_bridge[request]=debug\"", "log.filter", "spans and fields"),
    ("[log]\nfilter = \"info,\"", "log.filter", "neither a level"),
    ("[log]\nformat = \"xml\"", "log.format", "json, text"),
    ("[[callers]]\nkey_sha256 = \"x\"\nname = \"a\"\nscopes = [\"send\"]", "callers.a.key_sha256", "key new"),
    ("[[callers]]\nname = \"a\"\nscopes = [\"send\"]", "callers.a.key_sha256", "missing"),
    (
        "[[bots.webhooks]]\nname = \"main\"\nurl = \"https://h/\"",
        "bots.support.webhooks.main.secrets",
        "secrets_file",
    ),
    (
        "[[bots.webhooks]]\nname = \"main\"\nurl = \"https://h/\"\nsecrets = [\"whsec_hush\"]",
        "bots.support.webhooks.main.secrets",
        "24",
    ),
];

#[test]
fn error_in_a_config_names_its_key() {
    for &(text, key, word) in BAD {
        // Top-level keys come before tables.
        let text = if text.starts_with('[') { format!("{BOT}{text}") } else { format!("{text}\n{BOT}") };
        let mistakes = bad(&text, &[]);
        let found: Vec<_> = mistakes.iter().collect();
        let [mistake] = found.as_slice() else { panic!("one mistake expected in {text}: {mistakes}") };
        assert_eq!(mistake.key, key, "{mistakes}");
        assert!(mistake.message.contains(word), "{word}: {mistakes}");
        assert!(mistakes.to_string().contains("bridge.toml:") || mistake.origin.is_none(), "{mistakes}");
        assert!(!mistakes.to_string().contains("hush"), "{mistakes}");
    }
}

/// Lines that make a valid bot invalid, with the key and a word of the error.
const BAD_BOT: &[(&str, &str, &str)] = &[
    ("platform = \"bots.kore.ai\"", "platform", "URL"),
    ("platform = \"ftp://bots.kore.ai\"", "platform", "https://"),
    ("platform = \"https://u:hush@bots.kore.ai\"", "platform", "credentials"),
    ("platform = \"https://bots.kore.ai/api\"", "platform", "api_path"),
    ("platform = \"https://bots.kore.ai?x\"", "platform", "query"),
    ("platform = \"\"", "platform", "missing"),
    ("socket_base = \"ftp://x\"", "socket_base", "wss://"),
    ("ca_file = \"/secrets/plain\"", "ca_file", "no certificate"),
    ("api_path = \"api\"", "api_path", "/api/1.1"),
    ("client_secret = \"\"", "client_secret", "missing"),
    ("client_secret = 7", "client_secret", "text"),
    ("client_secret_file = \"/secrets/plain\"", "client_secret", "keep one"),
    ("claims = \"hush\"", "claims", "JSON object"),
    ("claims = [1]", "claims", "a table"),
    ("claims = { sub = \"hush\" }", "claims", "`sub`, which the bridge sets itself"),
    ("claims = { tenant = 1.5 }", "claims", "a fraction in `tenant`"),
    ("jti = \"yes\"", "jti", "without quotes"),
    ("custom_data = 7", "custom_data", "a table"),
    ("custom_data = '[\"hush\"]'", "custom_data", "JSON object"),
    ("custom_data = { at = 2026-11-30T15:00:00Z }", "custom_data", "JSON text"),
    ("skip_welcome = 1", "skip_welcome", "true or false"),
    ("assertion_url = \"ftp://sts.example.com\"", "assertion_url", "https://"),
    ("assertion_url = \"https://u:hush@sts.example.com/\"", "assertion_url", "credentials"),
    ("assertion_bearer_token = \"hush\"", "assertion_bearer_token", "without assertion_url"),
    ("client_id = \"st-1\"", "client_id", "swapped"),
    ("task_bot_id = \"cs-1\"", "task_bot_id", "swapped"),
    ("algorithm = \"RS256\"", "algorithm", "PEM"),
    ("algorithm = \"none\"", "algorithm", "HS256"),
    ("connection_mode = \"x\"", "connection_mode", "isReconnect"),
    ("history = \"yes\"", "history", "without quotes"),
    ("ping_interval = \"15m\"", "ping_interval", "10m"),
    ("idle_ttl = \"25s\"", "idle_ttl", "25s should be more than ping_interval, 25s"),
    ("idle_ttl = \"forever\"", "idle_ttl", "never"),
    ("quiet = \"30s\"", "quiet", "deadline"),
    ("max_message_bytes = \"64KiB\"", "max_message_bytes", "64KiB should be at least max_frame_bytes"),
    ("quiet = \"10ms\"", "quiet", "50ms"),
    ("quiet = \"soon\"", "quiet", "or \"auto\""),
    ("quiet_min = \"49ms\"", "quiet_min", "50ms"),
    ("quiet_max = \"2m\"", "quiet_max", "1m"),
    ("early_cuts = \"0.1\"", "early_cuts", "no share such as 0.1%"),
    ("early_cuts = \"1e-1%\"", "early_cuts", "no share such as 0.1%"),
    ("early_cuts = \"%\"", "early_cuts", "no share such as 0.1%"),
    ("early_cuts = \"0.009%\"", "early_cuts", "not within 0.01% to 5%"),
    ("early_cuts = \"5.1%\"", "early_cuts", "not within 0.01% to 5%"),
    ("early_cuts = 1", "early_cuts", "write \"1%\""),
    ("early_cuts = 0.1", "early_cuts", "such as \"0.1%\""),
    ("deadline = \"11m\"", "deadline", "10m"),
    ("welcome = \"4s\"", "welcome", "3s"),
    ("max_frame_bytes = \"8MiB\"", "max_frame_bytes", "max_message_bytes"),
    ("max_attachment_bytes = \"1GiB\"", "max_attachment_bytes", "256MiB"),
    ("max_open_messages = -1", "max_open_messages", "within"),
    ("ping_intervall = \"3s\"", "ping_intervall", "did you mean `ping_interval`"),
];

#[test]
fn error_in_a_bot_names_its_key() {
    for &(line, key, word) in BAD_BOT {
        let given = line.split_once(" =").unwrap().0;
        let others = BOT.lines().filter(|other| !other.starts_with(&format!("{given} ")));
        let text: Vec<&str> = others.chain([line]).collect();
        let text = text.join("\n");
        let mistakes = bad(&text, &[]);
        let found: Vec<_> = mistakes.iter().collect();
        let [mistake] = found.as_slice() else { panic!("one mistake expected for {line}: {mistakes}") };
        assert_eq!(mistake.key, format!("bots.support.{key}"), "{mistakes}");
        assert!(mistake.message.contains(word), "{word}: {mistakes}");
        assert!(!mistakes.to_string().contains("hush"), "{mistakes}");
    }
}

#[test]
fn quiet_time_is_fixed_or_automatic() {
    let read = |lines: &str| good(&format!("{BOT}{lines}\n"), &[]).bots[0].clone();
    let ms = Duration::from_millis;
    let wait = |bot: &BotConfig| (bot.unlearned_quiet().wait, bot.unlearned_quiet().by);
    let bot = read("");
    assert_eq!((bot.quiet, bot.quiet_min, bot.quiet_max), (QuietRule::Auto, ms(100), ms(5000)));
    assert_eq!(wait(&bot), (ms(1000), QuietSource::Default));
    assert!((bot.early_cuts - 0.001).abs() < 1e-12);
    assert_eq!(wait(&read("quiet = \"300ms\"")), (ms(300), QuietSource::Configured));
    for (limits, expected) in [("", 1000), ("quiet_max = \"700ms\"", 700), ("quiet_min = \"2s\"", 2000)] {
        let bot = read(&format!("quiet = \"auto\"\n{limits}"));
        assert_eq!(
            (bot.quiet, wait(&bot)),
            (QuietRule::Auto, (ms(expected), QuietSource::Default)),
            "{limits}"
        );
    }
    for (share, expected) in [("0.01%", 0.0001), ("0.1%", 0.001), ("0.1 %", 0.001), ("5%", 0.05)] {
        let bot = read(&format!("quiet = \"auto\"\nearly_cuts = \"{share}\""));
        assert!((bot.early_cuts - expected).abs() < 1e-12, "{share}: {}", bot.early_cuts);
    }
}

#[test]
fn limits_of_the_quiet_time_fit_each_other() {
    let told = |lines: &str| {
        let (valid, all) = match with(&format!("{BOT}{lines}\n"), &[]) {
            Ok((_, warnings)) => (true, warnings),
            Err(errors) => (false, errors.iter().cloned().collect()),
        };
        let of_bot = |told: ConfigWarning| {
            told.key.strip_prefix("bots.support.").map(|key| format!("{key}: {}", told.message))
        };
        (valid, all.into_iter().filter_map(of_bot).collect::<Vec<_>>())
    };
    let auto = |lines: &str| told(&format!("quiet = \"auto\"\n{lines}"));
    let error = |text: &str| (false, vec![text.to_owned()]);
    assert_eq!(auto("quiet_min = \"6s\""), error("quiet_min: 6s should be at most quiet_max, 5s"));
    assert_eq!(auto("quiet_max = \"50ms\""), error("quiet_max: 50ms should be at least quiet_min, 100ms"));
    assert_eq!(auto("quiet_max = \"30s\""), error("quiet_max: 30s should be less than deadline, 30s"));
    let short = "quiet_min = \"1s\"\ndeadline = \"1s\"";
    assert_eq!(auto(short), error("quiet_min: 1s should be less than deadline, 1s"));
    assert_eq!(auto("deadline = \"3s\""), (true, Vec::new()), "the deadline ends such a turn first");
    for key in ["quiet_min = \"200ms\"", "quiet_max = \"4s\"", "early_cuts = \"1%\""] {
        let name = key.split(' ').next().unwrap();
        let warned = (true, vec![format!("{name}: has no effect without quiet = \"auto\"")]);
        assert_eq!(told(&format!("quiet = \"1s\"\n{key}")), warned);
        assert_eq!(auto(key), (true, Vec::new()));
        assert_eq!(told(key), (true, Vec::new()), "it is the default");
    }
}

#[test]
fn bot_data_is_a_table_or_json_text() {
    let read = |line: &str, env: &[(&str, &str)]| {
        let bot = good(&format!("{BOT}{line}\n"), env).bots[0].clone();
        bot.custom_data.as_ref().map(|data| data.raw().get().to_owned())
    };
    let gold = Some(r#"{"tier":"gold"}"#.to_owned());
    assert_eq!(read("custom_data = { tier = \"gold\" }", &[]), gold);
    assert_eq!(read("custom_data = '{ \"tier\": \"gold\" }'", &[]), gold);
    assert_eq!(read("[bots.custom_data]\ntier = \"gold\"", &[]), gold);
    for value in ["{ tier = \"gold\" }", r#"{"tier": "gold"}"#] {
        assert_eq!(read("", &[("RTM_BRIDGE__BOTS__SUPPORT__CUSTOM_DATA", value)]), gold);
    }
    let deep = "custom_data = { a = [1, true, { b = \"x\" }] }";
    assert_eq!(read(deep, &[]).as_deref(), Some(r#"{"a":[1,true,{"b":"x"}]}"#));
    let fraction = r#"custom_data = '{"share": 1.5}'"#;
    assert_eq!(read(fraction, &[]).as_deref(), Some(r#"{"share":1.5}"#));
    let long = format!("custom_data = {{ a = \"{}\" }}", "x".repeat(65_536));
    assert!(bad(&format!("{BOT}{long}\n"), &[]).to_string().contains("65536 at most"));
}

#[test]
fn assertion_service_replaces_the_client_secret() {
    let rest: Vec<&str> = BOT.lines().filter(|line| !line.starts_with("client_secret")).collect();
    let base = format!("{}\nassertion_url = \"https://sts.example.com/users/sts?x=1\"\n", rest.join("\n"));
    let text = format!("{base}assertion_bearer_token_file = \"/secrets/plain\"\n");
    let (config, warnings) = with(&text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let service = config.bots[0].assertion_service.as_ref().unwrap();
    assert_eq!(service.url.as_str(), "https://sts.example.com/users/sts?x=1");
    assert_eq!(service.bearer_token.as_ref().unwrap().expose_secret(), "from-a-file");
    let about_bots = warnings.iter().filter(|warning| warning.key.starts_with("bots")).count();
    assert!(about_bots == 0 && !format!("{config:?}").contains("from-a-file"), "{warnings:?}");
    for (line, key) in [("claims = { a = 1 }", "claims"), ("jti = true", "jti")] {
        let mistakes = bad(&format!("{base}{line}\n"), &[]);
        let found: Vec<_> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(found, [format!("bots.support.{key}")], "{mistakes}");
    }
    let keys = |text: &str| {
        let (_, warnings) = with(text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let keys = warnings.into_iter().map(|warning| warning.key);
        keys.filter(|key| key.starts_with("bots")).collect::<Vec<_>>()
    };
    assert_eq!(keys(&format!("{base}client_secret = \"hush\"\n")), ["bots.support.client_secret"]);
    assert_eq!(keys(&format!("{base}algorithm = \"RS256\"\n")), ["bots.support.algorithm"]);
    assert_eq!(keys(&base.replace("https://sts", "http://sts")), ["bots.support.assertion_url"]);
    assert_eq!(keys(&format!("{BOT}jti = true\nsecure_rtm = true\n")), ["bots.support.jti"]);
    assert!(good(&format!("{BOT}jti = true\n"), &[]).bots[0].jti);
}

#[test]
fn key_that_cannot_sign_is_an_error_at_its_key() {
    let rest: Vec<&str> = BOT.lines().filter(|line| !line.starts_with("client_secret")).collect();
    let rest = rest.join("\n");
    let short = include_str!("../../tests/fixtures/rsa.1024.pem").replace('\n', "\\n");
    let public = include_str!("../../tests/fixtures/rsa.public.pem");
    for (lines, key, word) in [
        ("algorithm = \"RS256\"\nclient_secret_file = \"/secrets/cut.pem\"", "client_secret_file", "cut off"),
        ("algorithm = \"RS256\"\nclient_secret_file = \"/secrets/plain\"", "algorithm", "PEM"),
        ("client_secret_file = \"/secrets/pem\"", "client_secret_file", "is a key in PEM, but HS256"),
        (&format!("algorithm = \"RS256\"\nclient_secret = '{short}'"), "client_secret", "2048"),
        (&format!("algorithm = \"RS512\"\nclient_secret = '''{public}'''"), "client_secret", "public key"),
    ] {
        let mistakes = bad(&format!("{rest}\n{lines}"), &[]);
        let found: Vec<_> = mistakes.iter().collect();
        let [mistake] = found.as_slice() else { panic!("one mistake expected for {lines}: {mistakes}") };
        assert_eq!(mistake.key, format!("bots.support.{key}"), "{mistakes}");
        assert!(mistake.message.contains(word), "{word}: {mistakes}");
        assert!(!mistakes.to_string().contains("MII"), "{mistakes}");
    }
    // A variable often holds line ends as two characters.
    let pem = include_str!("../../tests/fixtures/rsa.pem").replace('\n', "\\n");
    let variable = [("RTM_BRIDGE__BOTS__SUPPORT__CLIENT_SECRET", &*pem)];
    good(&format!("{rest}\nalgorithm = \"RS256\""), &variable);
}

#[test]
fn errors_are_reported_together_with_their_origins() {
    let text = "default_bot = \"sales\"\n[server]\ngrace = 3\ntypo = 1\n[[bots]]\nname = \"support\"\nquiet = \"1h\"\n";
    let told = bad(text, &[("RTM_BRIDGE__REPLY__DEFAULT_WAIT", "2m")]).to_string();
    for line in [
        "has 10 errors",
        "default_bot (bridge.toml:1): there is no bot `sales`",
        "server.grace (bridge.toml:3): 3 has no unit",
        "server.typo (bridge.toml:4): there is no such key",
        "reply.default_wait (RTM_BRIDGE__REPLY__DEFAULT_WAIT): 2m is not within 0ms to 55s",
        "bots.support.platform (bridge.toml:5): is missing",
        "bots.support.chat_bot (bridge.toml:5): is missing",
        "bots.support.task_bot_id (bridge.toml:5): is missing",
        "bots.support.client_id (bridge.toml:5): is missing",
        "bots.support.client_secret (bridge.toml:5): is missing",
        "bots.support.quiet (bridge.toml:7): 1h is not within 50ms to 1m",
    ] {
        assert!(told.contains(line), "{line} is not in:\n{told}");
    }
}

#[test]
fn toml_error_names_its_line_and_quotes_no_text() {
    let told = bad("[[bots]]\nclient_secret = \"hush\nx = = 1\n", &[]).to_string();
    assert!(told.contains("bridge.toml:2: not valid TOML"), "{told}");
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn duplicate_names_bots_and_keys_are_refused() {
    let twice = bad(&format!("{BOT}{BOT}"), &[]).to_string();
    assert!(
        twice.contains("bots.support (bridge.toml:10): the name is used already, at bridge.toml:2"),
        "{twice}"
    );
    let other = BOT.replace("support", "sales");
    let same = bad(&format!("{BOT}{other}"), &[]).to_string();
    assert!(same.contains("bots.sales.task_bot_id (bridge.toml:14): is the same bot"), "{same}");
    let keys =
        format!("{}[[callers]]\nname = \"b\"\nkey_sha256 = \"{HASH}\"\nscopes = [\"read\"]", caller(""));
    assert!(
        bad(&keys, &[])
            .to_string()
            .contains("callers.b.key_sha256 (bridge.toml:15): is also the key of `crm`")
    );
}

#[test]
fn invalid_caller_is_refused() {
    for (rest, key, word) in [
        ("bots = [\"nobody\"]", "callers.crm.bots", "no bot `nobody`"),
        ("bots = []", "callers.crm.bots", "leave it out"),
        (
            "webhook_secrets_file = \"/secrets/none\"",
            "callers.crm.webhook_secrets_file",
            "cannot read /secrets/none",
        ),
        ("webhook_secrets_file = \"/secrets/plain\"", "callers.crm.webhook_secrets_file", "whsec_"),
    ] {
        let mistakes = bad(&caller(rest), &[]);
        let mistake = mistakes.iter().next().unwrap();
        assert!(mistake.key == key && mistake.message.contains(word), "{mistakes}");
    }
    let scopes = caller("").replace("[\"send\"]", "[\"write\"]");
    assert!(bad(&scopes, &[]).to_string().contains("`write` is not one of send, read, admin"));
    let hash = caller("").replace(HASH, "rtmb_hush");
    assert!(!bad(&hash, &[]).to_string().contains("hush"));
}

#[test]
fn secret_from_a_file_has_no_line_end() {
    let text = BOT.replace("client_secret = \"hush-hush\"", "client_secret_file = \"/secrets/plain\"");
    assert_eq!(good(&text, &[]).bots[0].client_secret.expose_secret(), "from-a-file");
    let text = text.replace("/secrets/plain", "/secrets/empty");
    assert!(
        bad(&text, &[]).to_string().contains("client_secret_file (bridge.toml:8): /secrets/empty: is empty")
    );
    let text = text.replace("/secrets/empty", "secret");
    assert!(bad(&text, &[]).to_string().contains("relative to the working directory"));
}

#[test]
fn redis_with_all_its_keys_is_read() {
    let text = format!(
        r#"{BOT}
[store]
url = "rediss+sentinel://a,b:1/main?db=3"
username = "bridge"
password_file = "/secrets/plain"
sentinel_username = "watcher"
sentinel_password = "hush-too"
ca_file = "/tls/ca.crt"
client_cert_file = "/tls/a.crt"
client_key_file = "/tls/a.key"
wait_replicas = 2
command_timeout = "1s"
"#
    );
    let (config, warnings) = with(&text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let store = &config.store;
    assert!(warnings.is_empty(), "{warnings:?}");
    let StoreUrl::Redis(servers) = &store.url else { panic!("it is Redis") };
    assert!(servers.tls && servers.database == 3);
    assert_eq!(store.username.as_deref(), Some("bridge"));
    assert_eq!(store.password.as_ref().unwrap().expose_secret(), "from-a-file");
    assert_eq!(store.sentinel_username.as_deref(), Some("watcher"));
    assert_eq!(store.sentinel_password.as_ref().unwrap().expose_secret(), "hush-too");
    assert_eq!(store.wait_replicas, 2);
    let (certificate, key) = store.tls.client.as_ref().unwrap();
    assert!(store.tls.ca.is_some() && certificate.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert!(key.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush") && !shown.contains("PRIVATE"), "secrets are not for Debug");
}

#[test]
fn store_url_from_a_file_is_read() {
    let config = good(&format!("{BOT}[store]\nurl_file = \"/secrets/url\""), &[]);
    assert_eq!(config.store.username.as_deref(), Some("bridge"));
    assert_eq!(config.store.password.unwrap().expose_secret(), "hush");
    assert!(matches!(config.store.url, StoreUrl::Redis(servers) if servers.database == 2));
}

#[test]
fn store_key_without_effect_is_warned_of() {
    for (text, keys) in [
        ("url = \"memory://\"\npassword = \"x\"\nca_file = \"x\"", vec!["store.password", "store.ca_file"]),
        ("url = \"memory://\"\nwait_replicas = 1", vec!["store.wait_replicas"]),
        ("url = \"redis://h\"\nca_file = \"x\"", vec!["store.ca_file"]),
        ("url = \"redis://h\"\nsentinel_password = \"x\"", vec!["store.sentinel_password"]),
        ("url = \"redis://h\"\nmemory_limit = \"1MiB\"", vec!["store.memory_limit"]),
        ("url = \"redis://h\"", vec![]),
    ] {
        let warnings = with(&format!("{BOT}[store]\n{text}"), &[]).unwrap().1;
        let seen: Vec<_> = warnings.iter().map(|warning| warning.key.as_str()).collect();
        assert_eq!(seen, keys, "{text}");
    }
}

#[test]
fn password_over_a_plain_network_is_warned_of() {
    for (text, warned) in [
        ("url = \"redis://u:hush@redis.example\"", true),
        ("url_file = \"/secrets/url\"", true),
        ("url = \"redis://10.0.0.1\"\npassword = \"hush\"", true),
        ("url = \"redis+cluster://localhost,10.0.0.1\"\npassword = \"hush\"", true),
        ("url = \"redis+sentinel://h/m\"\nsentinel_password = \"hush\"", true),
        ("url = \"redis://h\"\nsentinel_password = \"hush\"", false),
        ("url = \"redis://redis.example\"", false),
        ("url = \"rediss://u:hush@redis.example\"", false),
        ("url = \"redis://u:hush@LOCALHOST\"", false),
        ("url = \"redis://u:hush@127.0.0.9\"", false),
        ("url = \"redis://u:hush@[::1]\"", false),
    ] {
        let warnings = with(&format!("{BOT}[store]\n{text}"), &[]).unwrap().1;
        let key = if text.starts_with("url_file") { "store.url_file" } else { "store.url" };
        let found = warnings.iter().any(|w| w.key == key && w.message.contains("unencrypted"));
        assert_eq!(found, warned, "{text}: {warnings:?}");
        assert!(!format!("{warnings:?}").contains("hush"));
    }
}

#[test]
fn secret_file_that_others_can_write_is_warned_of() {
    let secret = |path: &str| {
        BOT.replace("client_secret = \"hush-hush\"", &format!("client_secret_file = \"{path}\""))
    };
    let keys = |text: &str| -> Vec<String> {
        let warnings = with(&format!("{text}[store]\nurl = \"memory://\""), &[]).unwrap().1;
        warnings.into_iter().filter(|w| w.message.contains("chmod o-w")).map(|w| w.key).collect()
    };
    assert_eq!(keys(&secret("/secrets/plain")), [""; 0]);
    assert_eq!(keys(&secret("/open/secrets/plain")), ["bots.support.client_secret_file"]);
    assert_eq!(
        keys(&caller("webhook_secrets_file = \"/open/secrets/whsec\"\n")),
        ["callers.crm.webhook_secrets_file"]
    );
    assert_eq!(keys(&format!("{BOT}ca_file = \"/open/tls/ca.crt\"\n")), ["bots.support.ca_file"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, format!("\u{feff}{BOT}")).unwrap();
    let warned = || {
        let (_, warnings) = super::load(Some(&path), BTreeMap::<String, String>::new()).unwrap();
        warnings.iter().any(|warning| warning.to_string().contains("bridge.toml: take their right"))
    };
    assert!(!warned());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o646);
    std::fs::set_permissions(&path, mode).unwrap();
    assert!(warned());
}

#[test]
fn large_configuration_is_read_with_its_places() {
    // A look back for each key, name or error would take a minute here.
    let caller = |number| format!("[[callers]]\nname = \"c{number}\"\nscopes = [\"send\"]\n");
    let many: Vec<String> = (0..20_000).map(caller).collect();
    let mistakes =
        bad(&format!("{BOT}{}", many.concat()), &[("RTM_BRIDGE__CALLERS__C19999__USER_PREFIX", "x")]);
    assert_eq!(mistakes.iter().count(), 20_000);
    let last = mistakes.iter().last().unwrap().to_string();
    assert!(last.starts_with("callers.c19999.key_sha256 (bridge.toml:60006): is missing"), "{last}");
}

#[test]
fn environment_overrides_the_file() {
    let env = [
        ("RTM_BRIDGE__SERVER__LISTEN", "127.0.0.1:1"),
        ("RTM_BRIDGE__BOTS__SUPPORT__CLIENT_SECRET_FILE", "/secrets/plain"),
        ("RTM_BRIDGE__BOTS__SUPPORT__HISTORY", "false"),
        ("RTM_BRIDGE__BOTS__SUPPORT__WEBHOOKS__MAIN__URL", "https://h/"),
        ("RTM_BRIDGE__BOTS__SUPPORT__WEBHOOKS__MAIN__SECRETS", &webhook_secret()),
        ("RTM_BRIDGE__WEBHOOKS__ALLOWED", "https://a/, https://b/"),
        ("RTM_BRIDGE__WEBHOOKS__ALLOW_PRIVATE", "[\"10.0.0.0/8\"]"),
        ("RTM_BRIDGE__REPLY__DEFAULT_WAIT", ""),
        ("RTM_BRIDGE_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
    ];
    let config = good(BOT, &env);
    let bot = &config.bots[0];
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(bot.client_secret.expose_secret(), "from-a-file");
    assert!(!bot.history && bot.webhooks.len() == 1);
    let allowed: Vec<_> = config.webhooks.allowed.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["https://a/", "https://b/"]);
    assert_eq!(config.webhooks.allow_private, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.reply.default_wait, Duration::from_secs(15));
}

#[test]
fn bot_webhook_without_url_signs_callbacks() {
    let text = format!("{BOT}[[bots.webhooks]]\nname = \"main\"\nsecrets_file = \"/secrets/whsec\"");
    let webhook = good(&text, &[]).bots[0].webhooks[0].clone();
    assert_eq!((webhook.url, webhook.secrets.len()), (None, 2));
}

#[test]
fn bot_has_several_endpoints_with_unique_names() {
    let secrets = webhook_secret();
    let endpoint = |lines: &str| format!("[[bots.webhooks]]\nsecrets = [\"{secrets}\"]\n{lines}\n");
    let two = endpoint("name = \"crm\"\nurl = \"https://a/\"") + &endpoint("name = \"audit\"");
    let env = [
        ("RTM_BRIDGE__BOTS__SUPPORT__WEBHOOKS__CRM__TYPES", "message.failed, reply.late"),
        ("RTM_BRIDGE__BOTS__SUPPORT__WEBHOOKS__AUDIT__NAME", "Audit.1"),
    ];
    let bot = Arc::clone(&good(&format!("{BOT}{two}"), &env).bots[0]);
    let names: Vec<_> = bot.webhooks.iter().map(|endpoint| &*endpoint.name).collect();
    assert_eq!(names, ["crm", "Audit.1"]);
    assert_eq!(bot.webhooks[0].types, [DeliveryKind::MessageFailed, DeliveryKind::ReplyLate]);
    assert_eq!(bot.webhooks[1].types, DeliveryKind::DEFAULT);
    assert_eq!(&*bot.callback_signer().unwrap().name, "Audit.1", "the one without a URL");
    let endpoints = bot.endpoints();
    let late = endpoints.iter().filter(|endpoint| endpoint.takes(DeliveryKind::ReplyLate));
    let names: Vec<_> = late.map(|endpoint| &*endpoint.name).collect();
    assert_eq!(names, ["crm"], "the other one has no URL");
    assert!(!bot.delivers(DeliveryKind::MessageAnswered));

    for (endpoints, key, word) in [
        (endpoint("name = \"a\"") + &endpoint("name = \"a\"\nurl = \"https://a/\""), "webhooks.a", "unique"),
        (endpoint("name = \"a\"") + &endpoint("name = \"b\""), "webhooks.b.url", "only one endpoint"),
        (endpoint(""), "webhooks[1].name", "is missing"),
        (endpoint("name = \"a/b\""), "webhooks.a/b.name", "1 to 64"),
        (endpoint("name = \"a\"\ntypes = []"), "webhooks.a.types", "is empty"),
        (
            endpoint("name = \"a\"\ntypes = [\"reply\"]"),
            "webhooks.a.types",
            "message.answered, message.failed",
        ),
        (
            endpoint("name = \"a\"\nform = \"kore-v2\"\ntypes = [\"gap\"]"),
            "webhooks.a.types",
            "kore-v2 cannot carry",
        ),
        (
            endpoint("name = \"a\"\nform = \"kore-v2\"\npayload = \"thin\""),
            "webhooks.a.payload",
            "always full",
        ),
        (endpoint("name = \"a\"\npayload = \"some\""), "webhooks.a.payload", "full, thin"),
        (endpoint("name = \"a\"\ntypes = [\"test\"]"), "webhooks.a.types", "is not one of"),
        ("webhooks = [7]\n".to_owned(), "webhooks[1]", "should be a table"),
        ("[bots.webhooks]\nurl = \"https://a/\"\n".to_owned(), "webhooks", "[[bots.webhooks]]"),
        ("[bots.webhook]\nurl = \"https://a/\"\n".to_owned(), "webhook", "write [[bots.webhooks]]"),
    ] {
        let mistakes = bad(&format!("{BOT}{endpoints}"), &[]);
        let found = mistakes
            .iter()
            .any(|mistake| mistake.key == format!("bots.support.{key}") && mistake.message.contains(word));
        assert!(found, "{key}, {word}: {mistakes}");
    }
    let former = [("RTM_BRIDGE__BOTS__SUPPORT__WEBHOOK__URL", "https://a/")];
    assert!(bad(BOT, &former).to_string().contains("WEBHOOKS__MAIN"));
}

#[test]
fn bot_from_the_environment_alone_is_valid() {
    let env: Vec<(String, &str)> = BOT
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .filter(|(key, _)| *key != "name")
        .map(|(key, value)| {
            (format!("RTM_BRIDGE__BOTS__MY_BOT__{}", key.to_ascii_uppercase()), value.trim_matches('"'))
        })
        .collect();
    let (config, _) = read("", "none", env.clone(), &files).unwrap();
    assert_eq!(config.bots[0].name.as_str(), "my_bot");
    let named = [("RTM_BRIDGE__BOTS__MY_BOT__NAME".to_owned(), "My.Bot")];
    let (config, _) = read("", "none", env.into_iter().chain(named), &files).unwrap();
    assert_eq!(config.bots[0].name.as_str(), "My.Bot");
}

#[test]
fn variable_without_a_matching_key_is_refused() {
    let two = format!("{BOT}{}", BOT.replace("\"support\"", "\"SUPPORT\"").replace("st-1", "st-2"));
    for (text, name, word) in [
        (BOT, "RTM_BRIDGE__SERVER__LISTEM", "did you mean `listen`"),
        (BOT, "RTM_BRIDGE__BOTS__SUPPORT", "lacks a key"),
        (BOT, "RTM_BRIDGE__SERVER____X", "empty part"),
        (BOT, "RTM_BRIDGE__server__LISTEN", "upper case"),
        (BOT, "RTM_BRIDGE__SERVER", "[server]"),
        (BOT, "RTM_BRIDGE__BOTS__SUPPORT__TYPO", "no such key"),
        (&two, "RTM_BRIDGE__BOTS__SUPPORT__HISTORY", "support, SUPPORT"),
    ] {
        let told = bad(text, &[(name, "true")]).to_string();
        assert!(told.contains(name) && told.contains(word), "{name}: {told}");
    }
    // A mistyped name creates a bot that lacks every key. Each error names the variable.
    let told = bad(BOT, &[("RTM_BRIDGE__BOTS__SUPORT__QUIET", "1s")]).to_string();
    assert!(told.contains("bots.suport.platform (RTM_BRIDGE__BOTS__SUPORT__QUIET): is missing"), "{told}");
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let mistakes = read(BOT, "x", [("RTM_BRIDGE__LOG__FILTER", value)], &files).unwrap_err();
    assert!(mistakes.to_string().contains("RTM_BRIDGE__LOG__FILTER: its value is not UTF-8"), "{mistakes}");
}

#[test]
fn plain_platform_and_default_store_are_warned_of() {
    let text = BOT.replace("https://", "http://");
    let keys: Vec<String> = with(&text, &[]).unwrap().1.into_iter().map(|w| w.key).collect();
    assert_eq!(keys, ["store.url", "bots.support.platform"]);
    let text = BOT.replace("https://bots.kore.ai", "http://127.0.0.1:1");
    assert_eq!(with(&text, &[]).unwrap().1.len(), 1);
}

#[test]
fn config_without_a_file_is_refused_with_a_hint() {
    let mistakes = super::load(None, BTreeMap::<String, String>::new()).unwrap_err();
    assert!(mistakes.to_string().contains("--config FILE or RTM_BRIDGE_CONFIG"), "{mistakes}");
    let missing =
        super::load(Some(Path::new("/nowhere/b.toml")), BTreeMap::<String, String>::new()).unwrap_err();
    assert!(missing.to_string().contains("cannot read the configuration file /nowhere/b.toml"), "{missing}");
}

proptest! {
    #[test]
    fn duration_and_size_as_shown_read_back(ms in 0u64..100_000_000, bytes in 0usize..1 << 40) {
        use super::{config_value::ConfigValue, parse};
        let span = Duration::from_millis(ms);
        let text = ConfigValue::Text(parse::show_duration(span));
        prop_assert_eq!(parse::duration(Duration::ZERO..=Duration::MAX)(&text), Ok(span));
        let text = ConfigValue::Text(parse::show_size(bytes));
        prop_assert_eq!(parse::size(0..=usize::MAX)(&text), Ok(bytes));
    }

    #[test]
    fn variable_and_key_of_the_file_parse_alike(
        key in prop::sample::select(vec!["quiet", "quiet_max", "deadline", "welcome", "idle_ttl", "ping_interval"]),
        ms in 0u64..2_000_000,
        quoted in any::<bool>(),
    ) {
        let span = if quoted { super::parse::show_duration(Duration::from_millis(ms)) } else { ms.to_string() };
        let base = format!("[cluster]\nreplica_id = \"a\"\n{BOT}");
        let in_file = with(&format!("{base}{key} = \"{span}\""), &[]);
        let variable = format!("RTM_BRIDGE__BOTS__SUPPORT__{}", key.to_ascii_uppercase());
        let in_env = with(&base, &[(&variable, &span)]);
        match (in_file, in_env) {
            (Ok((a, _)), Ok((b, _))) => prop_assert_eq!(format!("{a:?}"), format!("{b:?}")),
            (Err(a), Err(b)) => {
                let what = |m: &ConfigErrors| m.iter().map(|m| (m.key.clone(), m.message.clone())).collect::<Vec<_>>();
                prop_assert_eq!(what(&a), what(&b));
            }
            _ => prop_assert!(false, "they differ for {key} = {span}"),
        }
    }

    #[test]
    fn parser_with_any_text_does_not_panic(text in "(\\PC|\n|\\[bots\\]|\\[\\[bots\\]\\]|name = |\"|= ){0,60}", name in "[A-Z_]{0,20}", value in "\\PC{0,20}") {
        let variable = format!("RTM_BRIDGE__{name}");
        // Text of this length is no whole configuration.
        prop_assert!(read(&text, "x", [(variable, value)], &files).is_err());
    }
}
