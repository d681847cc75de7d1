//! `[proxy]`, `bots.proxy` and `webhooks.proxy`: the proxies of outgoing connections.
//!
//! `proxy.url` goes before the variables `HTTPS_PROXY` and `HTTP_PROXY`. The other keys of `[proxy]` hold for these too. A
//! variable in lower case goes before the same one in upper case, as with curl.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::config_value::ConfigValue;
use super::diagnostics::Diagnostics;
use super::environment::VariableMap;
use super::no_proxy::{NoProxyEntry, NoProxyList};
use super::parse::{self, InvalidValue, ParseResult, as_text, invalid, list, quoted};
use super::section::Section;
use super::{address, certificates, secret};

/// A proxy that opens connections by CONNECT, and the hosts that are reached without it.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The scheme, host and port of the proxy. With `https` the connection to the proxy is encrypted too.
    pub url: Url,
    /// The user and password for the proxy (Basic).
    pub credentials: Option<ProxyCredentials>,
    /// Certificate authorities for an `https` proxy beside the public ones, in PEM.
    pub ca: Option<Vec<u8>>,
    /// The hosts that are reached without the proxy.
    pub no_proxy: NoProxyList,
    /// Whether this machine is reached without the proxy, as with each proxy of the environment.
    pub loopback_direct: bool,
    /// The key or the variable that names the proxy.
    pub origin: Box<str>,
}

/// A user of a proxy, with the password.
#[derive(Debug, Clone)]
pub struct ProxyCredentials {
    /// The name, without a colon.
    pub username: Box<str>,
    /// The password.
    pub password: SecretString,
}

impl ProxyCredentials {
    /// Returns the value of the header `Proxy-Authorization` (Basic).
    pub fn authorization(&self) -> SecretString {
        let pair = format!("{}:{}", self.username, self.password.expose_secret());
        format!("Basic {}", STANDARD.encode(pair)).into()
    }
}

impl ProxyConfig {
    /// Returns whether connections to a host go through the proxy.
    pub fn serves(&self, host: &str, port: u16) -> bool {
        let is_local = || match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => address::is_local(Some(&Host::Domain(host.trim_end_matches('.')))),
        };
        !(self.no_proxy.exempts(host, port) || (self.loopback_direct && is_local()))
    }

    /// Returns the host of the proxy. An IPv6 address has brackets.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Returns the port of the proxy.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }
}

/// Writes host and port.
impl fmt::Display for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host(), self.port())
    }
}

/// An address of a proxy with the credentials of its URL.
struct ProxyAddress {
    url: Url,
    credentials: Option<ProxyCredentials>,
}

/// A choice of `bots.proxy` or `webhooks.proxy`.
enum ProxyChoice {
    /// No proxy.
    Direct,
    /// The proxy of `[proxy]` or of the environment.
    Shared,
    /// Another proxy.
    Own(ProxyAddress),
}

/// The proxies that bots and webhooks share.
#[derive(Default)]
pub(super) struct SharedProxies {
    https: Option<Arc<ProxyConfig>>,
    http: Option<Arc<ProxyConfig>>,
    ca: Option<Vec<u8>>,
    no_proxy: NoProxyList,
}

impl SharedProxies {
    /// Returns the proxy for addresses of this scheme.
    pub(super) fn of_scheme(&self, scheme: &str) -> Option<&Arc<ProxyConfig>> {
        if scheme == "http" { self.http.as_ref() } else { self.https.as_ref() }
    }

    /// Reads `bots.proxy`: the proxy for a platform of this scheme.
    pub(super) fn of_bot(&self, section: &mut Section<'_>, scheme: &str) -> Option<Arc<ProxyConfig>> {
        let choice = choice(section);
        let is_given =
            ["proxy", "proxy_file"].iter().any(|key| section.diagnostics.was_given(&section.key(key)));
        match choice {
            Some(choice) => self.chosen(section, choice, self.of_scheme(scheme)),
            // An invalid choice has its error already.
            None => self.of_scheme(scheme).filter(|_| !is_given).cloned(),
        }
    }

    /// Reads `webhooks.proxy`. Without it deliveries go direct.
    pub(super) fn of_webhooks(&self, section: &mut Section<'_>) -> Option<Arc<ProxyConfig>> {
        let choice = choice(section)?;
        self.chosen(section, choice, self.https.as_ref().or(self.http.as_ref()))
    }

    fn chosen(
        &self,
        section: &mut Section<'_>,
        choice: ProxyChoice,
        shared: Option<&Arc<ProxyConfig>>,
    ) -> Option<Arc<ProxyConfig>> {
        let key = section.key("proxy");
        match choice {
            ProxyChoice::Direct => None,
            ProxyChoice::Shared => {
                if shared.is_none() {
                    section
                        .diagnostics
                        .error(&key, "is true, but there is no proxy: give its URL here or as proxy.url");
                }
                shared.cloned()
            }
            ProxyChoice::Own(ProxyAddress { url, credentials }) => {
                if credentials.is_some() {
                    warn_of_password(section, &key, "files (proxy_file)");
                }
                let twin = [&self.https, &self.http].into_iter().flatten().find(|twin| twin.url == url);
                Some(Arc::new(ProxyConfig {
                    credentials: credentials.or_else(|| twin?.credentials.clone()),
                    url,
                    ca: self.ca.clone(),
                    no_proxy: self.no_proxy.clone(),
                    loopback_direct: false,
                    origin: key.into(),
                }))
            }
        }
    }
}

fn choice(section: &mut Section<'_>) -> Option<ProxyChoice> {
    let parse = |value: &ConfigValue| match value {
        ConfigValue::Bool(_) => parse::boolean(value).map(ProxyChoice::of),
        ConfigValue::Untyped(text) | ConfigValue::Text(text) if matches!(text.trim(), "true" | "false") => {
            parse::boolean(value).map(ProxyChoice::of)
        }
        ConfigValue::Untyped(text) | ConfigValue::Text(text) if matches!(text.trim(), "none" | "direct") => {
            invalid("is no URL of a proxy; write false (without quotes) for direct connections")
        }
        _ => proxy_address(as_text(value, "\"http://proxy.example:3128\", or true or false")?)
            .map(ProxyChoice::Own),
    };
    section.secret("proxy", "proxy_file", parse, |text| proxy_address(text).map(ProxyChoice::Own))
}

impl ProxyChoice {
    const fn of(uses_proxy: bool) -> Self {
        if uses_proxy { Self::Shared } else { Self::Direct }
    }
}

/// Reads `[proxy]` and the variables of the environment.
pub(super) fn proxies(section: &mut Section<'_>, environment: &VariableMap) -> SharedProxies {
    let url =
        section.optional("url", |value| proxy_address(as_text(value, "\"http://proxy.example:3128\"")?));
    let named = credentials(section, url.as_ref().is_some_and(|address| address.credentials.is_some()));
    let ca = certificates::authorities(section);
    let no_proxy = section.optional("no_proxy", no_proxy);
    let has_list = no_proxy.is_some() || section.diagnostics.was_given(&section.key("no_proxy"));
    let no_proxy = no_proxy.unwrap_or_else(|| {
        if has_list { NoProxyList::default() } else { no_proxy_variable(section.diagnostics, environment) }
    });
    let proxy = |address: ProxyAddress, origin: &str, loopback_direct| {
        Arc::new(ProxyConfig {
            url: address.url,
            credentials: named.clone().or(address.credentials),
            ca: ca.clone(),
            no_proxy: no_proxy.clone(),
            loopback_direct,
            origin: origin.into(),
        })
    };
    let (https, http) = if let Some(address) = url {
        let proxy = proxy(address, "proxy.url", false);
        (Some(Arc::clone(&proxy)), Some(proxy))
    } else if section.diagnostics.was_given(&section.key("url")) {
        (None, None)
    } else {
        let mut of = |names| {
            let (name, text) = variable(environment, names)?;
            match text.ok_or_else(|| InvalidValue("is not UTF-8".to_owned())).and_then(proxy_address) {
                Ok(address) => Some(proxy(address, name, true)),
                Err(InvalidValue(what)) => {
                    section.diagnostics.error("", format!("{name} {what}; unset it, or give proxy.url"));
                    None
                }
            }
        };
        (of(["https_proxy", "HTTPS_PROXY"]), of(["http_proxy", "HTTP_PROXY"]))
    };
    if https.is_none() && http.is_none() {
        for key in ["username", "password", "password_file", "ca_file", "no_proxy"] {
            let path = section.key(key);
            if section.diagnostics.was_given(&path) {
                section
                    .diagnostics
                    .warn(&path, "has no effect on [proxy] without proxy.url or the variable HTTPS_PROXY");
            }
        }
    }
    SharedProxies { https, http, ca, no_proxy }
}

/// Reads the user and the password of the proxy. `in_url` tells whether its URL holds them.
fn credentials(section: &mut Section<'_>, in_url: bool) -> Option<ProxyCredentials> {
    let username = section.optional("username", |value| {
        let name = parse::text(value)?;
        if name.contains(':') {
            invalid("has a colon, which Basic authentication cannot carry")
        } else {
            Ok(name)
        }
    });
    let password = section.secret("password", "password_file", secret::secret, secret::secret_text);
    let keys = ["username", "password", "password_file"].map(|key| section.key(key));
    let [has_name, direct, by_file] = keys.each_ref().map(|key| section.diagnostics.was_given(key));
    if in_url {
        let url = section.key("url");
        if has_name || direct || by_file {
            let keys: Vec<String> = [url].into_iter().chain(keys).collect();
            section.diagnostics.relation_error(
                &keys,
                "holds a user or password, and username or password is given too; keep one of them",
            );
        } else {
            warn_of_password(section, &url, "username and password_file");
        }
        return None;
    }
    if has_name != (direct || by_file) {
        section.diagnostics.relation_error(
            &keys,
            "belongs together with the other: give username and password_file, or neither",
        );
    }
    Some(ProxyCredentials { username: username?.into(), password: password? })
}

/// Warns of a URL with a password in the configuration file.
fn warn_of_password(section: &mut Section<'_>, key: &str, instead: &str) {
    if section.diagnostics.is_in_file(key) {
        let what =
            format!("holds a user and password, which readers of this file see; {instead} keep them apart");
        section.diagnostics.warn(key, what);
    }
}

/// Parses the address of a proxy, with or without credentials. A text without a scheme means `http`. Errors do not quote
/// the text, which may hold a password.
fn proxy_address(text: &str) -> ParseResult<ProxyAddress> {
    let text = text.trim();
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut url = Url::parse(&text)
        .map_err(|error| InvalidValue(format!("is no URL such as http://proxy.example:3128: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return invalid(format!(
            "has the scheme {}, but a proxy begins with http:// or https://",
            url.scheme()
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return invalid("has no host");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return invalid("has more than scheme, host and port");
    }
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned);
    let (username, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    let (Ok(username), Ok(password)) = (username, password) else {
        return invalid("holds a user or password that is not UTF-8");
    };
    if username.contains(':') || format!("{username}{password}").chars().any(char::is_control) {
        return invalid("holds a user or password with a colon or a control character");
    }
    let has_user = !username.is_empty() || !password.is_empty();
    let credentials = has_user
        .then(|| ProxyCredentials { username: username.into(), password: SecretString::from(password) });
    // Both fail only for URLs without a host.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    Ok(ProxyAddress { url, credentials })
}

/// Parses a list of hosts. A text is a list with commas, as in the variable.
fn no_proxy(value: &ConfigValue) -> ParseResult<NoProxyList> {
    let entry = |value: &ConfigValue| {
        let text = as_text(value, "\"example.com\"")?;
        text.parse::<NoProxyEntry>().map_err(|error| InvalidValue(format!("{} {error}", quoted(text))))
    };
    let entries = match value {
        ConfigValue::Text(text) => list(entry)(&ConfigValue::Untyped(text.clone())),
        other => list(entry)(other),
    };
    entries.map(NoProxyList::from_iter)
}

/// Reads `NO_PROXY`. Other programs share the variable, so an unreadable entry is only warned of.
fn no_proxy_variable(diagnostics: &mut Diagnostics, environment: &VariableMap) -> NoProxyList {
    let Some((name, text)) = variable(environment, ["no_proxy", "NO_PROXY"]) else {
        return NoProxyList::default();
    };
    let entries = text.unwrap_or_default().split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .filter_map(|entry| {
            let parsed = entry.parse::<NoProxyEntry>();
            if let Err(error) = parsed {
                diagnostics.warn("", format!("{name}: {} {error}; it is ignored", quoted(entry)));
            }
            parsed.ok()
        })
        .collect()
}

/// Returns the first of these variables that is set, with its text if it is UTF-8.
fn variable<'a>(
    environment: &'a VariableMap,
    names: [&'static str; 2],
) -> Option<(&'static str, Option<&'a str>)> {
    names.into_iter().find_map(|name| Some((name, environment.get(name)?.to_str())))
}

#[cfg(test)]
mod tests;
