//! The `Host` of requests to a bridge without callers.
//!
//! Such a bridge asks for no key, so only this machine may reach it. A web page elsewhere could still do so through the
//! person's browser: it lets its own name resolve to loopback (DNS rebinding). Its requests then name that host.

use actix_http::RequestHead;
use actix_web::http::header::{self, HeaderValue};

use super::api_error::ApiError;
use crate::domain::ProblemKind;

/// The names of this machine, in lower case. Any port may follow.
const LOCAL_HOSTS: [&[u8]; 3] = [b"localhost", b"127.0.0.1", b"[::1]"];

/// Refuses a request for another host. Only a bridge without callers asks this.
///
/// # Errors
/// `misdirected-request`.
pub(super) fn check(head: &RequestHead) -> Result<(), ApiError> {
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    // Browsers always send the header, so its absence is harmless.
    let mut hosts = target.into_iter().chain(head.headers.get_all(header::HOST).map(HeaderValue::as_bytes));
    if hosts.all(is_local) {
        return Ok(());
    }
    Err(ApiError::new(
        ProblemKind::Misdirected,
        "Without `[[callers]]` this bridge serves its own machine only: `Host` must be `localhost`, `127.0.0.1` or \
         `[::1]`, with any port. A proxy in front must send one of them, or the bridge needs callers.",
    ))
}

fn is_local(host: &[u8]) -> bool {
    LOCAL_HOSTS.iter().any(|name| {
        let Some((start, port)) = host.split_at_checked(name.len()) else { return false };
        let digits = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
        start.eq_ignore_ascii_case(name) && (port.is_empty() || port.strip_prefix(b":").is_some_and(digits))
    })
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in
            ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]:8080", "[::1]", "localhost:"]
        {
            assert!(is_local(local.as_bytes()), "{local}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:80.evil.example",
            "localhost.",
            "evil@localhost",
            "localhost@evil.example",
            "127.0.0.2",
            "127.1",
            "::1",
            "0.0.0.0:8080",
        ] {
            assert!(!is_local(other.as_bytes()), "{other}");
        }
    }
}
