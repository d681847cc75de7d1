//! Where a callback may go: the patterns of `webhooks.allowed`, and the URLs that are held against them (api.md 4).
//!
//! A URL is what two readers may read differently, and what is allowed must not depend on the reader. So it is judged
//! twice: as it is written, where everything is refused that some reader turns into another place (credentials,
//! backslashes, dot segments and slashes under any escape), and as the URL Standard parses it, which is what is compared.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode;
use url::{Host, Url};

/// The longest URL of a callback, in bytes.
pub const CALLBACK_MAX_BYTES: usize = 2048;

/// Why a pattern was refused. The texts go on after "is no pattern:".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// A `*` elsewhere than at the beginning of the host.
    #[error("`*.` may only begin the host")]
    Wildcard,
    /// Names below an IP address.
    #[error("an address has no names below it")]
    BelowAddress,
    /// An escape in it: no callback with one would ever be taken for it.
    #[error("it has an escape (`%`); write the path as it is read")]
    Escape,
    /// Not a URL, or one that no callback may be either.
    #[error("it {0}")]
    Url(#[from] InvalidCallback),
    /// A query.
    #[error("it has a query; any query is fine behind the path")]
    Query,
}

/// Why a callback's URL was refused, whatever is allowed. The texts go on after "it" or the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallback {
    /// Longer than [`CALLBACK_MAX_BYTES`].
    #[error("has more than 2048 bytes")]
    Long,
    /// Another scheme, or none, or not followed by `//` and a host.
    #[error("does not begin with https://host or http://host (its scheme is another, or it has no host)")]
    Scheme,
    /// Something that the URL Standard does not take.
    #[error("is no URL: {0}")]
    Parse(url::ParseError),
    /// Spaces, line ends and other characters that readers leave out.
    #[error("has white space or control characters")]
    Space,
    /// `user:password@`.
    #[error("holds credentials")]
    Credentials,
    /// `#…`, which is never sent.
    #[error("has a fragment")]
    Fragment,
    /// A backslash, which some read as a slash.
    #[error("has a backslash")]
    Backslash,
    /// A slash or backslash under an escape.
    #[error("has an escaped slash or backslash in its path")]
    EscapedSlash,
    /// `.` or `..` as a segment of the path, also under escapes or before a `;`.
    #[error("has a dot segment in its path")]
    DotSegment,
}

/// A callback's URL that means the same to every reader.
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
        // Readers of the Web also take one slash, or three, for these two.
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
        // What follows the raw text cannot differ; the parsed URL is asked all the same.
        let plain = url.username().is_empty() && url.password().is_none() && url.has_host();
        if plain { Ok(Self(url)) } else { Err(E::Credentials) }
    }
}

/// Refuses a segment of a path that is, or has, something else for whoever takes escapes off, however often.
fn check_segment(segment: &str) -> Result<(), InvalidCallback> {
    let mut bytes = segment.as_bytes().to_vec();
    loop {
        // What follows a semicolon are parameters to some servers, which then see a bare `..`.
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

/// One of `webhooks.allowed`: `scheme://host[:port]/prefix`, the host exact or `*.` and what stands behind one or more
/// labels, the port exact or the scheme's own, the path by whole segments from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern {
    /// As it was written.
    text: Box<str>,
    /// Without the `*.`.
    url: Url,
    /// Whether names below the host are meant, and not itself.
    below: bool,
}

impl UrlPattern {
    /// Whether a callback may go there.
    pub fn covers(&self, CallbackUrl(url): &CallbackUrl) -> bool {
        url.scheme() == self.url.scheme()
            && url.port_or_known_default() == self.url.port_or_known_default()
            && self.covers_host(url)
            && self.covers_path(url.path())
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

    /// The host, without `*.`; of a pattern for names below it the parent of all of them.
    pub fn host(&self) -> Option<Host<&str>> {
        self.url.host()
    }

    /// Whether what is sent there can be read on the way.
    pub fn is_plain_http(&self) -> bool {
        self.url.scheme() == "http"
    }
}

impl FromStr for UrlPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let exact = text.replacen("://*.", "://", 1);
        let below = exact.len() < text.len();
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
