//! `[store]`.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;
use url::Host;

use super::address;
use super::certificates::{self, is_key_pair};
use super::config_value::ConfigValue;
use super::parse::{self, InvalidValue, ParseResult, duration, number, size};
use super::secret;
use super::section::Section;
use super::store_url::{self, StoreTarget, StoreUser};
use super::{RedisTopology, StoreConfig, StoreTls, StoreUrl};

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

pub(super) fn store(section: &mut Section<'_>) -> StoreConfig {
    let d = StoreConfig::default();
    let target = section.secret("url", "url_file", store_url::store_url, store_url::from_text);
    let (url, from_url) = target.map_or((d.url, None), |StoreTarget { url, user }| (url, user));
    let (username, password) = user(section, USER, from_url);
    let (sentinel_username, sentinel_password) = user(section, SENTINEL, None);
    let tls = match &url {
        StoreUrl::Redis(servers) => Some(servers.tls),
        StoreUrl::Memory => None,
    };
    let store = StoreConfig {
        username,
        password,
        sentinel_username,
        sentinel_password,
        tls: files(section, tls == Some(true)),
        key_prefix: section.or("key_prefix", d.key_prefix, key_prefix),
        message_ttl: section.or("message_ttl", d.message_ttl, duration(MINUTE..=30 * DAY)),
        command_timeout: section.or(
            "command_timeout",
            d.command_timeout,
            duration(Duration::from_millis(50)..=MINUTE),
        ),
        wait_replicas: section.or("wait_replicas", d.wait_replicas, number(0..=16)),
        memory_limit: section.or("memory_limit", d.memory_limit, size(1 << 20..=usize::MAX)),
        url,
    };
    warnings(section, &store);
    store
}

/// Reads a user with its password, from the URL or from separate keys.
fn user(
    section: &mut Section<'_>,
    [name_key, key, file_key]: [&'static str; 3],
    from_url: Option<StoreUser>,
) -> (Option<String>, Option<SecretString>) {
    let name = section.optional(name_key, parse::text);
    let password = section.secret(key, file_key, secret::secret, secret::secret_text);
    let keys = [name_key, key, file_key].map(|key| section.key(key));
    let given = |section: &Section<'_>, key: &String| section.diagnostics.was_given(key);
    let named = given(section, &keys[0]);
    let with_password = given(section, &keys[1]) || given(section, &keys[2]);
    if let Some(user) = from_url {
        if named || with_password {
            let url = [section.key("url"), section.key("url_file")];
            let all: Vec<String> = url.into_iter().chain(keys).collect();
            section.diagnostics.relation_error(
                &all,
                format!("holds a user or password, and {name_key} or {key} is given too; keep one of them"),
            );
        }
        return (user.name, Some(user.password));
    }
    if named && !with_password {
        section.diagnostics.relation_error(&keys, format!("needs the user's password: {key} or {file_key}"));
    }
    (name, password)
}

/// Reads the files for TLS. `used` tells whether the store's URL asks for TLS.
fn files(section: &mut Section<'_>, used: bool) -> StoreTls {
    let [ca, certificate, key] = TLS.map(|key| section.optional(key, parse::text));
    if certificate.is_some() != key.is_some() {
        let keys = [section.key("client_cert_file"), section.key("client_key_file")];
        section.diagnostics.relation_error(
            &keys,
            "client_cert_file and client_key_file belong together: give both or neither",
        );
    }
    if !used {
        return StoreTls::default();
    }
    let ca = ca.and_then(|path| section.file("ca_file", &path, certificates::roots));
    let client = certificate.zip(key).and_then(|(certificate, key)| {
        let certificate = section.file("client_cert_file", &certificate, certificates::chain);
        let key = section.file("client_key_file", &key, certificates::key);
        let (certificate, key) = certificate.zip(key)?;
        if !is_key_pair(&certificate, &key) {
            let keys = [section.key("client_key_file"), section.key("client_cert_file")];
            section
                .diagnostics
                .relation_error(&keys, "is not the key of the certificate in client_cert_file");
        }
        Some((certificate, key))
    });
    StoreTls { ca, client }
}

/// Keys that have an effect with some stores only.
const USER: [&str; 3] = ["username", "password", "password_file"];
const SENTINEL: [&str; 3] = ["sentinel_username", "sentinel_password", "sentinel_password_file"];
const TLS: [&str; 3] = ["ca_file", "client_cert_file", "client_key_file"];

fn warnings(section: &mut Section<'_>, store: &StoreConfig) {
    let [url, url_file] = ["url", "url_file"].map(|key| section.key(key));
    if !section.diagnostics.was_given(&url) && !section.diagnostics.was_given(&url_file) {
        section.diagnostics.warn(
            &url,
            "is not given: this process holds all messages and loses them at its end; confirm with url = \"memory://\"",
        );
    }
    let mut idle = |keys: &[&str], without: &str| {
        for key in keys {
            let path = section.key(key);
            let used = *key != "wait_replicas" || store.wait_replicas > 0;
            if used && section.diagnostics.was_given(&path) {
                section.diagnostics.warn(&path, format!("has no effect {without}"));
            }
        }
    };
    match &store.url {
        StoreUrl::Memory => {
            for keys in [["wait_replicas"].as_slice(), &USER, &SENTINEL, &TLS] {
                idle(keys, "with memory://");
            }
        }
        StoreUrl::Redis(servers) => {
            if !matches!(servers.topology, RedisTopology::Sentinel { .. }) {
                idle(&SENTINEL, "without sentinels");
            }
            if !servers.tls {
                idle(&TLS, "without TLS: begin the URL with rediss");
            }
            idle(&["memory_limit"], "with Redis, which has its own `maxmemory`");
            let sentinels = matches!(servers.topology, RedisTopology::Sentinel { .. });
            let secret = store.password.is_some() || (sentinels && store.sentinel_password.is_some());
            if secret && !servers.tls && !servers.hosts().all(|host| is_own_machine(&host.host)) {
                let given = if section.diagnostics.was_given(&url) { url } else { url_file };
                section.diagnostics.warn(
                    &given,
                    "sends the password unencrypted to another host, where it can be read on the way: begin the URL with \
                     rediss, or use a network that only the bridge and Redis share",
                );
            }
        }
    }
}

/// Returns whether a host is this machine, by its name or address.
fn is_own_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => address::is_local(Some(&Host::Domain(host.to_ascii_lowercase().as_str()))),
    }
}

fn key_prefix(value: &ConfigValue) -> ParseResult<String> {
    let prefix = parse::text(value)?;
    let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    if plain && prefix.len() <= 64 {
        Ok(prefix)
    } else {
        Err(InvalidValue("should be 1 to 64 characters of a-z, A-Z, 0-9, '-', '_', '.' and ':'".to_owned()))
    }
}
