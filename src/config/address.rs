//! Addresses: to listen on, of servers and receivers, ranges of them, and where callbacks may go.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::{Host, Url};

use super::parse::{InvalidValue, Parsed, as_text, quoted, text, wrong};
use super::value::Value;
use crate::domain::UrlPattern;

/// An address to listen on.
pub(super) fn address(value: &Value) -> Parsed<SocketAddr> {
    let text = as_text(value, "\"127.0.0.1:8080\"")?;
    text.parse().map_err(|_| {
        InvalidValue(format!(
            "{} is no IP address with a port such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            quoted(text)
        ))
    })
}

/// The origin of a server: a scheme of `schemes`, a host, nothing after the port.
pub(super) fn base_url(schemes: &'static [&'static str]) -> impl FnOnce(&Value) -> Parsed<Url> {
    move |value| {
        let url = web_url(value, schemes)?;
        if url.path() != "/" {
            return wrong("has a path; give scheme, host and port only (a path goes into api_path)");
        }
        Ok(url)
    }
}

/// A URL with a scheme of `schemes` and a host, without credentials, query and fragment.
pub(super) fn web_url(value: &Value, schemes: &[&str]) -> Parsed<Url> {
    let example = format!("{}://host", schemes.first().unwrap_or(&"https"));
    let text = as_text(value, &format!("\"{example}\""))?;
    // Not quoted: someone may have put a password into it.
    let url = Url::parse(text).map_err(|e| InvalidValue(format!("is no URL such as {example}: {e}")))?;
    if !schemes.contains(&url.scheme()) {
        return wrong(format!(
            "has the scheme {}, but should begin with {}",
            url.scheme(),
            schemes.join("://, ") + "://"
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return wrong("has no host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds credentials; a URL must not");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a query or a fragment; give scheme, host and port only");
    }
    Ok(url)
}

/// A receiver of webhooks: an `https` URL, or `http` for receivers nearby; a query is part of it.
pub(super) fn receiver(value: &Value) -> Parsed<Url> {
    let text = as_text(value, "\"https://hooks.example.com/in\"")?;
    let mut url =
        Url::parse(text).map_err(|e| InvalidValue(format!("is no URL such as https://host/path: {e}")))?;
    let query = url.query().map(str::to_owned);
    url.set_query(None);
    let mut url = web_url(&Value::Text(url.into()), &["https", "http"])?;
    url.set_query(query.as_deref());
    Ok(url)
}

/// Whether the host is this machine, as far as its name tells.
pub(super) fn is_loopback(url: &Url) -> bool {
    is_local(url.host().as_ref())
}

/// As [`is_loopback`], of a host.
pub(super) fn is_local(host: Option<&Host<&str>>) -> bool {
    match host {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => *name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// What stands before `/oAuth` and `/rtm`; `/` alone is nothing.
pub(super) fn api_path(value: &Value) -> Parsed<String> {
    let path = text(value)?;
    let path = path.trim_end_matches('/');
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    if path.is_empty() || (path.starts_with('/') && plain && !path.contains("//")) {
        Ok(path.to_owned())
    } else {
        wrong(format!("{} is no path such as /api/1.1", quoted(path)))
    }
}

/// What a callback may be: `scheme://host[:port]/prefix`, the host exact or with `*.` before it.
pub(super) fn url_pattern(value: &Value) -> Parsed<UrlPattern> {
    const WANTED: &str = "is no pattern such as https://hooks.example.com/in or https://*.example.com/";
    let text = as_text(value, "\"https://*.example.com/\"")?;
    // What stands before an `@` may be a password.
    let shown = if text.contains('@') { "one of them".to_owned() } else { quoted(text) };
    text.parse().map_err(|why| InvalidValue(format!("{shown} {WANTED}: {why}")))
}

/// A range of addresses, `10.0.0.0/8`.
pub(super) fn cidr(value: &Value) -> Parsed<IpNet> {
    let text = as_text(value, "\"10.0.0.0/8\"")?;
    text.parse().map_err(|_| {
        InvalidValue(format!("{} is no range of addresses such as 10.0.0.0/8 or fd00::/8", quoted(text)))
    })
}

/// Whether webhooks never get to this host, as far as its name tells: an address of this machine or of a network of
/// one's own that is in none of these ranges. What a name leads to is found out when it is resolved.
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
