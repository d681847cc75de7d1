//! The handshake of a tunnel: `CONNECT`, and what a proxy may answer (RFC 9110, 9.3.6).
//!
//! The answer's head has a limit, and no byte behind it is taken: the peer behind a tunnel speaks second. A surplus byte
//! would belong to the proxy, so it fails the tunnel.

use std::io;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The most bytes of an answer's head.
const HEAD_MAX: usize = 16 * 1024;

/// The reason why a proxy gave no connection. The texts are for callers too, so they name no host.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy's name has no address.
    #[error("the proxy's host name cannot be resolved")]
    UnknownHost,
    /// No connection to the proxy opened, or it broke.
    #[error("the connection to the proxy cannot be opened or broke ({})", .0.kind())]
    Unreachable(io::Error),
    /// The TLS handshake with the proxy failed.
    #[error("TLS with the proxy failed; check its certificate, proxy.ca_file and the scheme of its URL")]
    Tls(io::Error),
    /// The proxy did not answer within our timeout for connecting.
    #[error("the proxy did not open the connection in time")]
    Timeout,
    /// The proxy closed the connection instead of answering.
    #[error("the proxy hung up before it answered")]
    HungUp,
    /// The answer is not HTTP, or its head is too large.
    #[error("the proxy's answer is not valid HTTP; check that the URL names an HTTP proxy, and its scheme")]
    NotHttp,
    /// The proxy wants credentials, and there are none.
    #[error("the proxy asks for a user and a password ({0}); give proxy.username and proxy.password_file")]
    CredentialsMissing(u16),
    /// The proxy refused the credentials. Tinyproxy does so with a 401.
    #[error("the proxy refused the user and password ({0}); check proxy.username and proxy.password_file")]
    CredentialsRefused(u16),
    /// The proxy wants credentials in another scheme than Basic.
    #[error(
        "the proxy asks for credentials in a scheme other than Basic (407), which the bridge does not offer"
    )]
    OtherScheme,
    /// The proxy's rules forbid the target.
    #[error("the proxy refuses connections to this host ({0}); its rules must allow CONNECT to it")]
    Refused(u16),
    /// The proxy cannot reach the target.
    #[error("the proxy cannot reach this host ({0})")]
    TargetUnreachable(u16),
}

/// Asks the proxy at the other end of `stream` for a connection to `target`, a host with a port.
///
/// # Errors
/// [`ProxyError`] if the proxy does not agree.
pub(super) async fn open_tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    authorization: Option<&SecretString>,
) -> Result<(), ProxyError> {
    const USER_AGENT: &str = concat!("rtm-bridge/", env!("CARGO_PKG_VERSION"));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {USER_AGENT}\r\n");
    if let Some(authorization) = authorization {
        request.extend(["Proxy-Authorization: ", authorization.expose_secret(), "\r\n"]);
    }
    request.push_str("\r\n");
    let written = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    written.await.map_err(ProxyError::Unreachable)?;
    judge(&read_head(stream).await?, authorization.is_some())
}

/// Reads the head of the answer, and fails for a byte behind it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::with_capacity(256);
    loop {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            // The body of a refusal does not matter.
            let is_refusal = !head.get(8..).is_some_and(|rest| rest.starts_with(b" 2"));
            return if end == head.len() || is_refusal { Ok(head) } else { Err(ProxyError::NotHttp) };
        }
        if head.len() >= HEAD_MAX || !head.iter().zip(b"HTTP/1.").all(|(byte, wanted)| byte == wanted) {
            return Err(ProxyError::NotHttp);
        }
        match stream.read_buf(&mut head).await {
            Ok(0) if head.is_empty() => return Err(ProxyError::HungUp),
            Ok(0) => return Err(ProxyError::NotHttp),
            Ok(_) => {}
            Err(error) => return Err(ProxyError::Unreachable(error)),
        }
    }
}

/// Judges the head of an answer. `authorized` tells whether the request had credentials.
fn judge(head: &[u8], authorized: bool) -> Result<(), ProxyError> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    match lines.next().and_then(status).ok_or(ProxyError::NotHttp)? {
        200..=299 => Ok(()),
        status @ (401 | 407) if authorized => Err(ProxyError::CredentialsRefused(status)),
        status @ (401 | 407) => {
            let mut schemes = lines.filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("proxy-authenticate").then_some(value.trim_start())
            });
            let is_basic =
                |scheme: &str| scheme.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("basic"));
            match schemes.next() {
                Some(first) if !is_basic(first) && !schemes.any(is_basic) => Err(ProxyError::OtherScheme),
                _ => Err(ProxyError::CredentialsMissing(status)),
            }
        }
        status @ 500..=599 => Err(ProxyError::TargetUnreachable(status)),
        status => Err(ProxyError::Refused(status)),
    }
}

/// Returns the status of a status line.
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let is_status =
        version.len() == 8 && version.starts_with("HTTP/1.") && (rest.is_empty() || rest.starts_with(' '));
    digits.parse().ok().filter(|status| is_status && (100..=599).contains(status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Opens a tunnel to a proxy that answers with these pieces and closes. Returns the request too.
    async fn ask(answer: &[&[u8]], authorization: Option<&str>) -> (Result<(), ProxyError>, String) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let proxy = async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                theirs.read_buf(&mut head).await.unwrap();
            }
            for piece in answer {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8(head).unwrap()
        };
        let authorization = authorization.map(SecretString::from);
        tokio::join!(open_tunnel(&mut ours, "bots.kore.ai:443", authorization.as_ref()), proxy)
    }

    #[tokio::test]
    async fn request_names_the_target_and_the_credentials() {
        let ok: &[&[u8]] = &[b"HTTP/1.1 200 Connection established\r\n\r\n"];
        let (opened, request) = ask(ok, None).await;
        opened.unwrap();
        assert!(request.starts_with(
            "CONNECT bots.kore.ai:443 HTTP/1.1\r\nHost: bots.kore.ai:443\r\nUser-Agent: rtm-bridge/"
        ));
        assert!(!request.contains("Proxy-Authorization"));
        let (opened, request) = ask(ok, Some("Basic dTpw")).await;
        opened.unwrap();
        assert!(request.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{request}");
    }

    #[tokio::test]
    async fn each_agreement_opens_the_tunnel() {
        for answer in [
            &[&b"HTTP/1.0 200 OK\r\nProxy-agent: x\r\n\r\n"[..]][..],
            &[b"HTTP/1.1 200\r\n\r\n"],
            &[b"HTTP/1.1 204 none\r\nContent-Length: 0\r\n\r\n"],
            &[b"HT", b"TP/1.1 20", b"0 OK\r\n", b"\r", b"\n"],
        ] {
            ask(answer, None).await.0.unwrap();
        }
    }

    #[tokio::test]
    async fn each_failure_of_the_proxy_has_its_words() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000));
        for (answer, authorization, words) in [
            (
                &[&b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"[..]][..],
                None,
                "asks for a user",
            ),
            (&[b"HTTP/1.1 407 x\r\n\r\n"], None, "asks for a user"),
            (&[b"HTTP/1.1 407 x\r\n\r\n"], Some("Basic dTpw"), "refused the user and password (407)"),
            (&[b"HTTP/1.1 401 x\r\n\r\n"], Some("Basic dTpw"), "refused the user and password (401)"),
            (&[b"HTTP/1.1 407 x\r\nproxy-authenticate: NTLM\r\n\r\n"], None, "other than Basic"),
            (
                &[b"HTTP/1.1 407 x\r\nproxy-authenticate: NTLM\r\nproxy-authenticate: basic\r\n\r\n"],
                None,
                "asks for a user",
            ),
            (&[b"HTTP/1.1 403 Forbidden\r\n\r\n<html>why"], None, "refuses connections to this host (403)"),
            (&[b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n"], None, "(302)"),
            (&[b"HTTP/1.1 503 x\r\n\r\n"], None, "cannot reach this host (503)"),
            (&[], None, "hung up"),
            (&[b"HTTP/1.1 200 OK\r\n"], None, "not valid HTTP"),
            (&[b"\x15\x03\x01\x00\x02\x02\x16"], None, "not valid HTTP"),
            (&[b"SSH-2.0-OpenSSH\r\n"], None, "not valid HTTP"),
            (&[b"HTTP/1.1 999 x\r\n\r\n"], None, "not valid HTTP"),
            (&[b"HTTP/1.1 2000 x\r\n\r\n"], None, "not valid HTTP"),
            (&[b"HTTP/1.1 200 OK\r\n\r\nsurplus"], None, "not valid HTTP"),
            (&[long.as_bytes()], None, "not valid HTTP"),
        ] {
            let error = ask(answer, authorization).await.0.unwrap_err();
            assert!(error.to_string().contains(words), "{words}: {error}");
            assert!(!format!("{error:?}").contains("dTpw"));
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_without_a_panic(head in prop::collection::vec(any::<u8>(), 0..80), authorized in any::<bool>()) {
            let opened = judge(&head, authorized).is_ok();
            prop_assert!(!opened || head.starts_with(b"HTTP/1."));
        }
    }
}
