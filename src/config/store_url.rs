//! The parser of `store.url`.
//!
//! Redis' URLs may name several hosts, which the URL Standard does not allow, so this parser is our own. No error quotes
//! the URL: after an unescaped character, the apparent host may be the rest of the password.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::config_value::ConfigValue;
use super::parse::{self, InvalidValue, ParseResult, invalid};
use super::{HostPort, RedisServers, RedisTopology, StoreUrl};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The store and its credentials from the URL.
pub(super) struct StoreTarget {
    pub(super) url: StoreUrl,
    /// The user info, if the URL has one.
    pub(super) user: Option<StoreUser>,
}

/// `user:password@`
pub(super) struct StoreUser {
    /// The user's name. Empty for Redis' default user.
    pub(super) name: Option<String>,
    pub(super) password: SecretString,
}

#[derive(Clone, Copy)]
enum ServerKind {
    Alone,
    Sentinel,
    Cluster,
}

const SCHEMES: [(&str, ServerKind, bool); 6] = [
    ("redis", ServerKind::Alone, false),
    ("rediss", ServerKind::Alone, true),
    ("redis+sentinel", ServerKind::Sentinel, false),
    ("rediss+sentinel", ServerKind::Sentinel, true),
    ("redis+cluster", ServerKind::Cluster, false),
    ("rediss+cluster", ServerKind::Cluster, true),
];

const FORMS: &str =
    "use memory://, redis://, redis+sentinel://, redis+cluster://, or rediss://, rediss+… for TLS";

/// Parses the value of the key.
pub(super) fn store_url(value: &ConfigValue) -> ParseResult<StoreTarget> {
    from_text(&parse::text(value)?)
}

/// Parses the URL without the white space around it.
pub(super) fn from_text(text: &str) -> ParseResult<StoreTarget> {
    let Some((scheme, rest)) = text.trim().split_once("://") else {
        return invalid(format!("is no store's URL; {FORMS}"));
    };
    if scheme == "memory" {
        return if rest.is_empty() {
            Ok(StoreTarget { url: StoreUrl::Memory, user: None })
        } else {
            invalid("nothing may follow memory://")
        };
    }
    let Some((_, kind, tls)) = SCHEMES.iter().find(|(known, ..)| *known == scheme) else {
        return invalid(format!("has an unknown scheme; {FORMS}"));
    };
    redis(rest, *kind, *tls)
}

fn redis(rest: &str, kind: ServerKind, tls: bool) -> ParseResult<StoreTarget> {
    if rest.contains('#') {
        return invalid("has a fragment (#…); write a # of a password as %23");
    }
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = before_query.split_once('/').unwrap_or((before_query, ""));
    if path.contains('@') || query.is_some_and(|query| query.contains('@')) {
        return invalid(
            "has an @ after a / or ?: write those of a user or password as %2F, %3F and %40, \
             or give store.username and store.password",
        );
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user_info(user)?), hosts),
        None => (None, authority),
    };
    let addresses = |port| addresses(hosts, port);
    let (topology, database) = match kind {
        ServerKind::Alone => {
            let mut one = addresses(REDIS_PORT)?.into_iter();
            let (Some(address), None) = (one.next(), one.next()) else {
                return invalid(
                    "names several servers; redis:// is for one: use redis+sentinel:// or redis+cluster://",
                );
            };
            if query.is_some() {
                return invalid(
                    "has a query (?…), which means nothing here; a database goes after the host: /1",
                );
            }
            (RedisTopology::Alone(address), database(path)?)
        }
        ServerKind::Sentinel => {
            let sentinels = addresses(SENTINEL_PORT)?;
            let master = decoded(path)?;
            if master.is_empty() || master.contains('/') {
                return invalid(
                    "should name the master after the sentinels: redis+sentinel://host,host/mymaster",
                );
            }
            let database = match query.map(|query| query.strip_prefix("db=")) {
                None => 0,
                Some(Some(number)) if !number.is_empty() => database(number)?,
                Some(_) => return invalid("has a query other than ?db=1, which names the database"),
            };
            (RedisTopology::Sentinel { sentinels, master }, database)
        }
        ServerKind::Cluster => {
            if database(path)? != 0 || query.is_some() {
                return invalid("has something after its hosts; a cluster has one database, so leave it out");
            }
            (RedisTopology::Cluster(addresses(REDIS_PORT)?), 0)
        }
    };
    Ok(StoreTarget { url: StoreUrl::Redis(RedisServers { topology, tls, database }), user })
}

fn user_info(text: &str) -> ParseResult<StoreUser> {
    let Some((name, password)) = text.split_once(':').filter(|(_, password)| !password.is_empty()) else {
        return invalid(
            "has user info without a password; write user:password@, or :password@ for Redis' default user",
        );
    };
    let name = decoded(name)?;
    Ok(StoreUser { name: (!name.is_empty()).then_some(name), password: decoded(password)?.into() })
}

fn decoded(text: &str) -> ParseResult<String> {
    let whole = text.split('%').skip(1).all(|escape| {
        let digits = escape.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) if whole => Ok(decoded.into_owned()),
        Ok(_) => invalid("has a % that is not followed by two hexadecimal digits; write a plain % as %25"),
        Err(_) => invalid("has %-escapes that are not UTF-8"),
    }
}

fn database(text: &str) -> ParseResult<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<u16>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(i64::from(number)),
        _ => invalid("has a database that is no number from 0 to 65535"),
    }
}

fn addresses(hosts: &str, port: u16) -> ParseResult<Vec<HostPort>> {
    let mut addresses: Vec<HostPort> = Vec::new();
    let mut known = BTreeSet::new();
    for (number, text) in (1..).zip(hosts.split(',')) {
        let address = address(text, port).map_err(|InvalidValue(what)| {
            if hosts.contains(',') {
                InvalidValue(format!("address {number} of its list {what}"))
            } else {
                InvalidValue(what)
            }
        })?;
        if !known.insert((address.host.clone(), address.port)) {
            return invalid(format!("address {number} of its list is there twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn address(text: &str, default_port: u16) -> ParseResult<HostPort> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let Some((host, port)) = bracketed.split_once(']') else {
            return invalid("has a [ without its ]");
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return invalid("has no IPv6 address in its brackets");
        }
        match (port, port.strip_prefix(':')) {
            ("", _) => (host, None),
            (_, Some(port)) => (host, Some(port)),
            (_, None) => return invalid("has something other than :port after its brackets"),
        }
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => {
                return invalid("has more than one colon; an IPv6 address goes into brackets: [::1]:6379");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return invalid("has no host");
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
        return invalid("has a host with characters that no name of a host has");
    }
    let port = match port.map(|port| (port.bytes().all(|b| b.is_ascii_digit()), port.parse::<u16>())) {
        None => default_port,
        Some((true, Ok(port))) if port > 0 => port,
        Some(_) => return invalid("has a port that is no number from 1 to 65535"),
    };
    Ok(HostPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn read(text: &str) -> StoreTarget {
        from_text(text).unwrap_or_else(|InvalidValue(what)| panic!("{text}: {what}"))
    }

    fn servers(text: &str) -> RedisServers {
        match read(text).url {
            StoreUrl::Redis(servers) => servers,
            StoreUrl::Memory => panic!("{text} is not memory"),
        }
    }

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    #[test]
    fn single_server_url_is_read() {
        let plain = |host, port, database| RedisServers {
            topology: RedisTopology::Alone(at(host, port)),
            tls: false,
            database,
        };
        assert_eq!(servers("redis://localhost"), plain("localhost", 6379, 0));
        assert_eq!(servers("redis://127.0.0.1:1/"), plain("127.0.0.1", 1, 0));
        assert_eq!(servers(" redis://h:6380/15\n"), plain("h", 6380, 15));
        assert_eq!(servers("redis://[::1]/2"), plain("::1", 6379, 2));
        assert_eq!(servers("redis://[fd00::7]:7000"), plain("fd00::7", 7000, 0));
        assert_eq!(servers("rediss://h"), RedisServers { tls: true, ..plain("h", 6379, 0) });
    }

    #[test]
    fn sentinel_and_cluster_urls_are_read() {
        let sentinel = servers("rediss+sentinel://a,b:1,[::1]/my%20master?db=3");
        let sentinels = vec![at("a", 26379), at("b", 1), at("::1", 26379)];
        let topology = RedisTopology::Sentinel { sentinels, master: "my master".to_owned() };
        assert_eq!(sentinel, RedisServers { topology, tls: true, database: 3 });
        let cluster = servers("redis+cluster://a:7000,b,[::1]:7002/");
        let topology = RedisTopology::Cluster(vec![at("a", 7000), at("b", 6379), at("::1", 7002)]);
        assert_eq!(cluster, RedisServers { topology, tls: false, database: 0 });
    }

    #[test]
    fn user_info_in_the_url_is_unescaped() {
        let user = |text| {
            let user = read(text).user.unwrap();
            (user.name, user.password.expose_secret().to_owned())
        };
        assert_eq!(user("redis://bridge:p%40ss%2F%25@h"), (Some("bridge".to_owned()), "p@ss/%".to_owned()));
        assert_eq!(user("redis+cluster://:a:b@h,i"), (None, "a:b".to_owned()));
        assert_eq!(user("redis://u:p@ss@h"), (Some("u".to_owned()), "p@ss".to_owned()));
        assert!(read("redis://h").user.is_none());
    }

    #[test]
    fn invalid_url_is_refused_and_not_quoted() {
        for (text, word) in [
            ("hush", "no store's URL"),
            ("postgres://hush", "unknown scheme"),
            ("memory://hush", "nothing may follow"),
            ("redis://", "no host"),
            ("redis://u:hush@", "no host"),
            ("redis://hush@h", "without a password"),
            ("redis://u:@h", "without a password"),
            ("redis://u:hu/sh@h", "%2F"),
            ("redis://u:hu?sh@h", "%3F"),
            ("redis://u:hu#sh@h", "%23"),
            ("redis://u:hush%zz@h", "%25"),
            ("redis://u:hush%ff@h", "UTF-8"),
            ("redis://h:hush", "port"),
            ("redis://h:0", "port"),
            ("redis://h:+1", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:", "port"),
            ("redis://::1", "brackets"),
            ("redis://[::1", "without its ]"),
            ("redis://[hush]", "IPv6"),
            ("redis://[::1]hush", "after its brackets"),
            ("redis://hush hush", "characters"),
            ("redis://a,b", "several"),
            ("redis://h/hush", "database"),
            ("redis://h/-1", "database"),
            ("redis://h/1/2", "database"),
            ("redis://h?db=1", "query"),
            ("redis+sentinel://a,b", "name the master"),
            ("redis+sentinel://a/m/hush", "name the master"),
            ("redis+sentinel://a/m?hush=1", "?db=1"),
            ("redis+sentinel://a/m?db=", "?db=1"),
            ("redis+sentinel://a/m?db=hush", "database"),
            ("redis+sentinel://a,,b/m", "address 2 of its list has no host"),
            ("redis+cluster://a,b,a", "address 3 of its list is there twice"),
            ("redis+cluster://a,b/1", "one database"),
            ("redis+cluster://a,b?x", "leave it out"),
        ] {
            let Err(InvalidValue(what)) = from_text(text) else { panic!("{text} is taken") };
            assert!(what.contains(word), "{text}: {what}");
            assert!(!what.contains("hush"), "{what}");
        }
    }

    proptest! {
        #[test]
        fn parser_with_any_text_does_not_panic(
            scheme in prop::sample::select(vec!["redis", "rediss+sentinel", "redis+cluster", "x"]),
            rest in "(\\PC|[\\]\\[:@/?,%#]|a|1|db=){0,24}",
        ) {
            let _ = from_text(&format!("{scheme}://{rest}"));
            let _ = from_text(&rest);
        }

        #[test]
        fn escaped_credentials_read_back(name in "[^:]{0,12}", password in ".{1,16}", port in 1u16..) {
            use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
            let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let target = read(&format!("redis://{}:{}@h:{port}", escaped(&name), escaped(&password)));
            let user = target.user.unwrap();
            prop_assert_eq!(user.name.unwrap_or_default(), name);
            prop_assert_eq!(user.password.expose_secret(), password.as_str());
            let topology = RedisTopology::Alone(at("h", port));
            prop_assert_eq!(target.url, StoreUrl::Redis(RedisServers { topology, tls: false, database: 0 }));
        }
    }
}
