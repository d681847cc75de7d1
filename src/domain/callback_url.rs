//! Callback URLs and the patterns of `webhooks.allowed` that they must match (api.md 4).
//!
//! Two parsers may read one URL differently, and the decision must not depend on the parser. So a URL is checked twice.
//! The raw text may hold nothing that some parser turns into another place: credentials, backslashes, dot segments,
//! and slashes under any escape. The comparison with a pattern then uses the URL as the URL Standard parses it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode;
use url::{Host, Url};

/// The longest URL of a callback, in bytes.
pub const CALLBACK_MAX_BYTES: usize = 2048;

/// The reason why a pattern was refused. The texts follow "is no pattern:".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// A `*` elsewhere than at the beginning of the host.
    #[error("`*.` may only begin the host")]
    Wildcard,
    /// Names below an IP address.
    #[error("an address has no names below it")]
    BelowAddress,
    /// An escape, which no accepted callback would match.
    #[error("it has an escape (`%`); write the path as it is read")]
    Escape,
    /// No URL, or a URL that a callback may not have.
    #[error("it {0}")]
    Url(#[from] InvalidCallback),
    /// A query.
    #[error("it has a query; any query is fine behind the path")]
    Query,
}

/// The reason why a URL can be no callback, with any patterns. The texts follow "it" or the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallback {
    /// Longer than [`CALLBACK_MAX_BYTES`].
    #[error("has more than 2048 bytes")]
    Long,
    /// Another scheme, no scheme, or no `//` and host behind it.
    #[error("does not begin with https://host or http://host (its scheme is another, or it has no host)")]
    Scheme,
    /// Text that the URL Standard does not accept.
    #[error("is no URL: {0}")]
    Parse(url::ParseError),
    /// Spaces, line ends and other characters that some parsers skip.
    #[error("has white space or control characters")]
    Space,
    /// `user:password@`.
    #[error("holds credentials")]
    Credentials,
    /// `#…`, which a client never sends.
    #[error("has a fragment")]
    Fragment,
    /// A backslash, which some parsers read as a slash.
    #[error("has a backslash")]
    Backslash,
    /// A slash or backslash under an escape.
    #[error("has an escaped slash or backslash in its path")]
    EscapedSlash,
    /// `.` or `..` as a segment of the path, also under escapes or before a `;`.
    #[error("has a dot segment in its path")]
    DotSegment,
}

/// A callback's URL that every parser reads alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackUrl(Url);

impl FromStr for CallbackUrl {
    type Err = InvalidCallback;

    fn from_str(text: &str) -> Result<Self, InvalidCallback> {
        use InvalidCallback as E;
        if text.len() > CALLBACK_MAX_BYTES {
            return Err(E::Long);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(E::Space);
        }
        if text.contains('\\') {
            return Err(E::Backslash);
        }
        if text.contains('#') {
            return Err(E::Fragment);
        }
        // Browsers also accept one slash, or three, for these two schemes.
        let (scheme, rest) = text.split_once("://").ok_or(E::Scheme)?;
        let web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
        let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(E::Credentials);
        }
        if !web || authority.is_empty() || authority.starts_with(':') {
            return Err(E::Scheme);
        }
        let path = behind.split('?').next().unwrap_or_default();
        path.split('/').try_for_each(check_segment)?;
        let url = Url::parse(text).map_err(E::Parse)?;
        // The checks of the raw text exclude these already. The parsed URL confirms it.
        let plain = url.username().is_empty() && url.password().is_none() && url.has_host();
        if plain { Ok(Self(url)) } else { Err(E::Credentials) }
    }
}

/// Refuses a path segment that is a dot segment or holds a slash at any depth of escapes.
fn check_segment(segment: &str) -> Result<(), InvalidCallback> {
    let mut bytes = segment.as_bytes().to_vec();
    loop {
        // Some servers read the text behind a semicolon as parameters, and then see a bare `..`.
        let name = bytes.split(|&byte| byte == b';').next().unwrap_or_default();
        if matches!(name, b"." | b"..") {
            return Err(InvalidCallback::DotSegment);
        }
        if bytes.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
            return Err(InvalidCallback::EscapedSlash);
        }
        let decoded: Vec<u8> = percent_decode(&bytes).collect();
        if decoded.len() == bytes.len() {
            return Ok(());
        }
        bytes = decoded;
    }
}

/// One entry of `webhooks.allowed`: `scheme://host[:port]/prefix`.
///
/// The host is exact, or `*.` stands for one or more labels. The port is exact or the scheme's own. The path matches
/// by whole segments from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern {
    /// The text as the operator wrote it.
    text: Box<str>,
    /// The URL without the `*.`.
    url: Url,
    /// Whether the pattern covers the names below the host instead of the host.
    below: bool,
}

impl UrlPattern {
    /// Returns whether a callback may have this URL.
    pub fn covers(&self, CallbackUrl(url): &CallbackUrl) -> bool {
        self.covers_origin(url) && self.covers_path(url.path())
    }

    /// Returns whether a URL with some path may have this scheme, host and port.
    pub fn covers_origin(&self, url: &Url) -> bool {
        url.scheme() == self.url.scheme()
            && url.port_or_known_default() == self.url.port_or_known_default()
            && self.covers_host(url)
    }

    /// Returns whether the pattern covers the names below a host.
    pub const fn is_wildcard(&self) -> bool {
        self.below
    }

    fn covers_host(&self, url: &Url) -> bool {
        if !self.below {
            return url.host() == self.url.host();
        }
        let (Some(Host::Domain(name)), Some(Host::Domain(parent))) = (url.host(), self.url.host()) else {
            return false;
        };
        let labels = name.strip_suffix(parent).and_then(|labels| labels.strip_suffix('.'));
        labels.is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
    }

    fn covers_path(&self, path: &str) -> bool {
        let prefix = self.url.path().trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the host without `*.`.
    pub fn host(&self) -> Option<Host<&str>> {
        self.url.host()
    }

    /// Returns whether the connection is not encrypted.
    pub fn is_plain_http(&self) -> bool {
        self.url.scheme() == "http"
    }
}

impl FromStr for UrlPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let wildcard =
            text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("*.")?)));
        let below = wildcard.is_some();
        let exact = wildcard.map_or_else(|| text.to_owned(), |(scheme, rest)| format!("{scheme}://{rest}"));
        if exact.contains('*') {
            return Err(InvalidPattern::Wildcard);
        }
        let CallbackUrl(url) = exact.parse()?;
        if url.query().is_some() {
            return Err(InvalidPattern::Query);
        }
        if exact.contains('%') {
            return Err(InvalidPattern::Escape);
        }
        match url.host() {
            Some(Host::Domain(name)) if name.split('.').any(str::is_empty) => {
                Err(InvalidCallback::Scheme.into())
            }
            Some(Host::Ipv4(_) | Host::Ipv6(_)) if below => Err(InvalidPattern::BelowAddress),
            _ => Ok(Self { text: text.into(), url, below }),
        }
    }
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
