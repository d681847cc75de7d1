//! The hosts that are reached without a proxy: `proxy.no_proxy`, or the variable `NO_PROXY`. Pure.
//!
//! An entry is one of these, as Go reads them:
//!
//! * `*`: every host.
//! * `example.com`: this name and all names below it. `.example.com` and `*.example.com` are the names below it only.
//! * `10.0.0.1`, `fd00::1`: an address. `10.0.0.0/8`: a range of addresses. Both are compared with addresses in URLs.
//!   Names are not resolved for that.
//! * A name or an address with `:PORT`: this port only. An IPv6 address has brackets then.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::Host;

/// The hosts that are reached without a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxyList(Vec<NoProxyEntry>);

impl NoProxyList {
    /// Returns whether a host is reached without a proxy. An IPv6 address may have brackets.
    pub fn exempts(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let address = literal.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().any(|entry| entry.covers(host, address, port))
    }
}

impl FromIterator<NoProxyEntry> for NoProxyList {
    fn from_iter<I: IntoIterator<Item = NoProxyEntry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// One entry of a [`NoProxyList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoProxyEntry {
    /// Every host.
    Every,
    /// The addresses of a range.
    Range(IpNet),
    /// One address.
    Address {
        /// The address. One that embeds an IPv4 address counts as that one.
        address: IpAddr,
        /// The only port that the entry covers, if there is one.
        port: Option<u16>,
    },
    /// A name and the names below it.
    Name {
        /// The name, in lower case and in ASCII.
        name: Box<str>,
        /// Whether only the names below it count.
        below_only: bool,
        /// The only port that the entry covers, if there is one.
        port: Option<u16>,
    },
}

impl NoProxyEntry {
    /// Returns whether the entry covers a host. `address` is the host as an address, if it is one.
    fn covers(&self, host: &str, address: Option<IpAddr>, wanted: u16) -> bool {
        let fits = |port: &Option<u16>| port.is_none_or(|port| port == wanted);
        match self {
            Self::Every => true,
            Self::Range(range) => address.is_some_and(|address| range.contains(&address)),
            Self::Address { address: exempt, port } => address == Some(*exempt) && fits(port),
            Self::Name { name, below_only, port } => {
                let before = host.len().checked_sub(name.len());
                let ends =
                    before.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(name));
                let is_below =
                    ends && before.is_some_and(|at| host.get(..at).is_some_and(|rest| rest.ends_with('.')));
                let is_same = ends && before == Some(0);
                address.is_none() && (is_below || (is_same && !below_only)) && fits(port)
            }
        }
    }
}

/// The reason why a text is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNoProxyEntry;

impl fmt::Display for InvalidNoProxyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is neither a host such as example.com, .example.com or 10.0.0.1:8080, nor a range such as 10.0.0.0/8, nor *")
    }
}

impl FromStr for NoProxyEntry {
    type Err = InvalidNoProxyEntry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Every);
        }
        if text.contains('/') {
            return text.parse().map(Self::Range).map_err(|_| InvalidNoProxyEntry);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address { address: address.to_canonical(), port: None });
        }
        // The colons of an IPv6 address stand in brackets here.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| InvalidNoProxyEntry)?))
            }
            _ => (text, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        match Host::parse(below.unwrap_or(host)) {
            Ok(Host::Domain(name)) if !name.contains('*') => {
                Ok(Self::Name { name: name.into(), below_only: below.is_some(), port })
            }
            Ok(Host::Ipv4(address)) if below.is_none() => Ok(Self::Address { address: address.into(), port }),
            Ok(Host::Ipv6(address)) if below.is_none() => {
                Ok(Self::Address { address: IpAddr::from(address).to_canonical(), port })
            }
            _ => Err(InvalidNoProxyEntry),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &str) -> NoProxyList {
        entries.split(',').map(|entry| entry.parse().unwrap_or_else(|_| panic!("{entry}"))).collect()
    }

    #[test]
    fn entry_covers_the_hosts_that_it_names() {
        for (entries, host, port, exempt) in [
            ("*", "bots.kore.ai", 443, true),
            ("example.com", "example.com", 443, true),
            ("example.com", "api.example.com", 443, true),
            ("example.com", "API.Example.COM.", 443, true),
            ("Example.Com.", "example.com", 443, true),
            ("example.com", "notexample.com", 443, false),
            ("example.com", "example.com.evil.example", 443, false),
            ("com", "example.com", 443, true),
            (".example.com", "api.example.com", 443, true),
            (".example.com", "example.com", 443, false),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("example.com:8443", "example.com", 443, false),
            (".example.com:8443", "api.example.com", 8443, true),
            ("bücher.example", "xn--bcher-kva.example", 443, true),
            ("10.0.0.1", "10.0.0.1", 80, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("10.0.0.0/8", "10.200.3.4", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.0/8", "[::ffff:10.0.0.1]", 443, true),
            ("10.0.0.0/8", "10.example.com", 443, false),
            ("0.0.0.1", "10.0.0.1", 443, false),
            ("fd00::/8", "[fd00::1]", 443, true),
            ("::1", "[::1]", 443, true),
            ("[::1]", "::1", 443, true),
            ("[::1]:443", "[::1]", 443, true),
            ("[::1]:443", "[::1]", 80, false),
            ("localhost", "localhost", 80, true),
            ("a.example, b.example", "b.example", 443, true),
        ] {
            assert_eq!(list(entries).exempts(host, port), exempt, "{entries}: {host}:{port}");
        }
        assert!(!NoProxyList::default().exempts("example.com", 443));
    }

    #[test]
    fn text_without_a_host_is_no_entry() {
        for text in [
            "",
            ".",
            "10.0.0.0/33",
            "https://example.com",
            "example.com:http",
            "a b",
            "a.*.example",
            ".10.0.0.1",
            "[::1",
            "**",
        ] {
            assert_eq!(text.parse::<NoProxyEntry>(), Err(InvalidNoProxyEntry), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn name_exempts_itself_and_names_below_only(
            name in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,2}",
            label in "[a-z][a-z0-9-]{0,5}[a-z]",
            port in any::<u16>(),
            other in any::<u16>(),
        ) {
            let exempt = list(&name);
            prop_assert!(exempt.exempts(&name, port) && exempt.exempts(&name.to_ascii_uppercase(), port));
            let below = format!("{label}.{name}");
            prop_assert!(exempt.exempts(&below, port));
            let glued = format!("{label}{name}");
            prop_assert!(!exempt.exempts(&glued, port));
            let dotted = list(&format!(".{name}"));
            prop_assert!(dotted.exempts(&below, port) && !dotted.exempts(&name, port));
            let ported = list(&format!("{name}:{port}"));
            prop_assert_eq!(ported.exempts(&name, other), port == other);
        }

        #[test]
        fn range_exempts_exactly_its_addresses(address in any::<u32>(), network in any::<u32>(), bits in 0u8..=32) {
            let (address, network) = (std::net::Ipv4Addr::from(address), std::net::Ipv4Addr::from(network));
            let mask = u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0);
            let inside = u32::from(address) & mask == u32::from(network) & mask;
            let exempt = list(&format!("{network}/{bits}"));
            prop_assert_eq!(exempt.exempts(&address.to_string(), 443), inside);
            prop_assert_eq!(exempt.exempts(&format!("[::ffff:{address}]"), 443), inside);
        }

        #[test]
        fn any_entry_and_host_are_judged_without_a_panic(entry in "\\PC{0,20}", host in "\\PC{0,20}", port in any::<u16>()) {
            if let Ok(entry) = entry.parse::<NoProxyEntry>() {
                NoProxyList::from_iter([entry]).exempts(&host, port);
            }
        }
    }
}
