//! Parsers of addresses: listeners, servers, receivers, address ranges, and patterns of callbacks.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

use super::config_value::ConfigValue;
use super::parse::{InvalidValue, ParseResult, as_text, invalid, quoted, text};
use crate::domain::UrlPattern;

/// Parses an address to listen on.
pub(super) fn address(value: &ConfigValue) -> ParseResult<SocketAddr> {
    let text = as_text(value, "\"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        InvalidValue(format!(
            "{} is no IP address with a port such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            quoted(text)
        ))
    })
}

/// Parses the origin of a server: one of `schemes`, a host, an optional port.
pub(super) fn base_url(schemes: &'static [&'static str]) -> impl FnOnce(&ConfigValue) -> ParseResult<Url> {
    move |value| {
        let url = web_url(value, schemes)?;
        if url.path() != "/" {
            return invalid("has a path; give scheme, host and port only (a path goes into api_path)");
        }
        Ok(url)
    }
}

/// Parses a URL with one of `schemes` and a host, without credentials, query and fragment.
pub(super) fn web_url(value: &ConfigValue, schemes: &[&str]) -> ParseResult<Url> {
    let example = format!("{}://host", schemes.first().unwrap_or(&"https"));
    let text = as_text(value, &format!("\"{example}\""))?;
    // The text may hold a password, so the error does not quote it.
    let url = Url::parse(text).map_err(|e| InvalidValue(format!("is no URL such as {example}: {e}")))?;
    if !schemes.contains(&url.scheme()) {
        return invalid(format!(
            "has the scheme {}, but should begin with {}",
            url.scheme(),
            schemes.join("://, ") + "://"
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return invalid("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("holds credentials; a URL must not");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("has a query or a fragment; give scheme, host and port only");
    }
    Ok(url)
}

/// Parses the URL of a receiver of webhooks: `https`, or `http` for local receivers. A query is part of it.
pub(super) fn receiver(value: &ConfigValue) -> ParseResult<Url> {
    let text = as_text(value, "\"https://hooks.example.com/in\"")?;
    let mut url =
        Url::parse(text).map_err(|e| InvalidValue(format!("is no URL such as https://host/path: {e}")))?;
    let query = url.query().map(str::to_owned);
    url.set_query(None);
    let mut url = web_url(&ConfigValue::Text(url.into()), &["https", "http"])?;
    url.set_query(query.as_deref());
    Ok(url)
}

/// Returns whether the URL's host is this machine, by its name or address.
pub(super) fn is_loopback(url: &Url) -> bool {
    is_local(url.host().as_ref())
}

/// Returns whether the host is this machine, by its name or address.
pub(super) fn is_local(host: Option<&Host<&str>>) -> bool {
    match host {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => *name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Parses the path before `/oAuth` and `/rtm`. A lone `/` is the empty path.
pub(super) fn api_path(value: &ConfigValue) -> ParseResult<String> {
    let path = text(value)?;
    let path = path.trim_end_matches('/');
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    if path.is_empty() || (path.starts_with('/') && plain && !path.contains("//")) {
        Ok(path.to_owned())
    } else {
        invalid(format!("{} is no path such as /api/1.1", quoted(path)))
    }
}

/// Parses a pattern of callbacks: `scheme://host[:port]/prefix`, with an exact host or `*.` before it.
pub(super) fn url_pattern(value: &ConfigValue) -> ParseResult<UrlPattern> {
    const WANTED: &str = "is no pattern such as https://hooks.example.com/in or https://*.example.com/";
    let text = as_text(value, "\"https://*.example.com/\"")?;
    // The text before an `@` may hold a password.
    let shown = if text.contains('@') { "one of them".to_owned() } else { quoted(text) };
    text.parse().map_err(|why| InvalidValue(format!("{shown} {WANTED}: {why}")))
}

/// Parses a range of addresses, such as `10.0.0.0/8`.
pub(super) fn cidr(value: &ConfigValue) -> ParseResult<IpNet> {
    let text = as_text(value, "\"10.0.0.0/8\"")?;
    text.parse().map_err(|_| {
        InvalidValue(format!("{} is no range of addresses such as 10.0.0.0/8 or fd00::/8", quoted(text)))
    })
}

/// Returns whether webhooks never reach this host, by its name or address.
///
/// That holds for an address of this machine or of a private network outside the `allowed` ranges. The resolver of
/// deliveries checks the addresses behind a name later.
pub(super) fn is_out_of_reach(host: Option<&Host<&str>>, allowed: &[IpNet]) -> bool {
    let address = match host {
        Some(Host::Ipv4(address)) => IpAddr::from(*address),
        Some(Host::Ipv6(address)) => address.to_canonical(),
        _ => return is_local(host) && !allowed.iter().any(|range| range.network().is_loopback()),
    };
    let private = match address {
        IpAddr::V4(address) => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    };
    private && !allowed.iter().any(|range| range.contains(&address))
}
