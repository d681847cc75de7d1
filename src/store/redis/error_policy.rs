//! The policy for each error of Redis, as one table.
//!
//! Every script is safe to run twice, so a temporary error is retried until the operation's deadline. A lasting error is
//! returned at once, because waiting does not help the caller. It also spares Redis a wrong password a thousand times
//! a second.

use std::error::Error;
use std::io;
use std::sync::Arc;

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreRefusal;

/// The reaction to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorPolicy {
    /// Fail, because a retry would not help. The command was not carried out, unless it [`is_halfway`].
    Refuse(StoreRefusal),
    /// Retry after a delay over the same connection. The command was not carried out.
    Wait(StoreRefusal),
    /// Retry over a new connection.
    Reconnect {
        /// The reason if no time is left.
        refusal: StoreRefusal,
        /// Whether the command may have been carried out.
        sent: bool,
    },
    /// Send the script's text, because the server does not know the hash. The command was not carried out.
    Text,
}

/// Returns the policy for an error.
pub(super) fn policy(error: &RedisError) -> ErrorPolicy {
    match error.kind() {
        ErrorKind::Server(kind) => by_kind(kind, error.detail().unwrap_or_default()),
        ErrorKind::Extension => by_code(error.code().unwrap_or_default()),
        ErrorKind::AuthenticationFailed => ErrorPolicy::Refuse(StoreRefusal::NotAllowed),
        // No server was found, so the command was not sent.
        ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel => {
            ErrorPolicy::Reconnect { refusal: StoreRefusal::Unreachable, sent: false }
        }
        ErrorKind::Io if is_tls(error) => ErrorPolicy::Refuse(StoreRefusal::NotAllowed),
        ErrorKind::Io => ErrorPolicy::Reconnect {
            refusal: StoreRefusal::Unreachable,
            sent: !error.is_connection_refusal(),
        },
        // After half an answer the rest of the stream has no meaning.
        ErrorKind::Parse => ErrorPolicy::Reconnect { refusal: StoreRefusal::Unexpected, sent: true },
        _ => ErrorPolicy::Refuse(StoreRefusal::Unexpected),
    }
}

/// Returns whether TLS failed: an unknown authority, a missing certificate, a server without TLS.
fn is_tls(error: &RedisError) -> bool {
    // The library wraps the error in a pointer and names that as the source.
    type Wrapped = Arc<dyn Error + Send + Sync>;
    let wrapped = error.source().and_then(|source| source.downcast_ref::<Wrapped>());
    let io = wrapped.and_then(|wrapped| wrapped.downcast_ref::<io::Error>());
    matches!(io.and_then(io::Error::get_ref), Some(inner) if inner.is::<rustls::Error>())
}

fn by_kind(kind: ServerErrorKind, detail: &str) -> ErrorPolicy {
    match kind {
        ServerErrorKind::NoScript => ErrorPolicy::Text,
        ServerErrorKind::BusyLoading => ErrorPolicy::Wait(StoreRefusal::Loading),
        ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain => {
            ErrorPolicy::Wait(StoreRefusal::ClusterDown)
        }
        // The cluster client follows these itself. The remaining ones were redirected too often.
        ServerErrorKind::Moved | ServerErrorKind::Ask => {
            ErrorPolicy::Reconnect { refusal: StoreRefusal::ClusterDown, sent: false }
        }
        // The master became a replica. Another master is behind the name or the sentinels.
        ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => {
            ErrorPolicy::Reconnect { refusal: StoreRefusal::ReadOnly, sent: false }
        }
        ServerErrorKind::NoPerm => ErrorPolicy::Refuse(missing_right(detail)),
        // These errors have no code of their own.
        ServerErrorKind::ResponseError if detail.starts_with("max number of clients") => {
            ErrorPolicy::Reconnect { refusal: StoreRefusal::Unreachable, sent: false }
        }
        ServerErrorKind::ResponseError if detail.contains("invalid password") => {
            ErrorPolicy::Refuse(StoreRefusal::NotAllowed)
        }
        // A script lacks the right to a command, a key or a channel.
        ServerErrorKind::ResponseError if detail.starts_with("The user executing the script can't") => {
            ErrorPolicy::Refuse(missing_right(detail))
        }
        _ => ErrorPolicy::Refuse(StoreRefusal::Unexpected),
    }
}

/// Returns the refusal for a right that the user lacks.
fn missing_right(detail: &str) -> StoreRefusal {
    if detail.contains("channel") { StoreRefusal::NoChannels } else { StoreRefusal::NotAllowed }
}

/// Returns whether a command inside a script failed. Redis keeps what the script wrote before.
pub(super) fn is_halfway(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
        && error.detail().is_some_and(|detail| detail.contains("@user_script"))
}

/// Returns the policy for a code that the client library has no name for.
fn by_code(code: &str) -> ErrorPolicy {
    match code {
        "OOM" => ErrorPolicy::Refuse(StoreRefusal::OutOfMemory),
        "MISCONF" => ErrorPolicy::Refuse(StoreRefusal::CannotSave),
        "NOREPLICAS" => ErrorPolicy::Refuse(StoreRefusal::TooFewReplicas),
        "NOAUTH" | "WRONGPASS" | "DENIED" => ErrorPolicy::Refuse(StoreRefusal::NotAllowed),
        // A script or module of another client runs for seconds.
        "BUSY" => ErrorPolicy::Wait(StoreRefusal::Busy),
        // `CLIENT KILL`, `DEBUG` or a failover unblocks waiting clients.
        "UNBLOCKED" => ErrorPolicy::Reconnect { refusal: StoreRefusal::ReadOnly, sent: true },
        _ => ErrorPolicy::Refuse(StoreRefusal::Unexpected),
    }
}

/// Formats an error for the log. Redis repeats the arguments of an unknown command, which are users' words.
pub(super) fn for_log(error: &RedisError) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(", with args") {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use deadpool_redis::redis::{Value, parse_redis_value};

    use super::*;

    /// Parses an error line as Redis sends it.
    fn told(line: &str) -> RedisError {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Value::extract_error(value).unwrap_err()
    }

    fn again(refusal: StoreRefusal, sent: bool) -> ErrorPolicy {
        ErrorPolicy::Reconnect { refusal, sent }
    }

    #[test]
    fn each_error_has_its_policy() {
        use ErrorPolicy::{Refuse, Text, Wait};
        for (line, expected) in [
            ("NOSCRIPT No matching script. Please use EVAL.", Text),
            ("LOADING Redis is loading the dataset in memory", Wait(StoreRefusal::Loading)),
            ("CLUSTERDOWN The cluster is down", Wait(StoreRefusal::ClusterDown)),
            ("CLUSTERDOWN Hash slot not served", Wait(StoreRefusal::ClusterDown)),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Wait(StoreRefusal::ClusterDown)),
            ("BUSY Redis is busy running a script.", Wait(StoreRefusal::Busy)),
            ("MOVED 3999 127.0.0.1:6381", again(StoreRefusal::ClusterDown, false)),
            ("ASK 3999 127.0.0.1:6381", again(StoreRefusal::ClusterDown, false)),
            ("READONLY You can't write against a read only replica.", again(StoreRefusal::ReadOnly, false)),
            ("MASTERDOWN Link with MASTER is down", again(StoreRefusal::ReadOnly, false)),
            ("UNBLOCKED force unblock from blocking operation", again(StoreRefusal::ReadOnly, true)),
            ("ERR max number of clients reached", again(StoreRefusal::Unreachable, false)),
            ("OOM command not allowed when used memory > 'maxmemory'.", Refuse(StoreRefusal::OutOfMemory)),
            ("MISCONF Redis is configured to save RDB snapshots", Refuse(StoreRefusal::CannotSave)),
            ("NOREPLICAS Not enough good replicas to write.", Refuse(StoreRefusal::TooFewReplicas)),
            ("NOAUTH Authentication required.", Refuse(StoreRefusal::NotAllowed)),
            ("WRONGPASS invalid username-password pair", Refuse(StoreRefusal::NotAllowed)),
            ("ERR invalid password", Refuse(StoreRefusal::NotAllowed)),
            ("NOPERM this user has no permissions to run 'evalsha'", Refuse(StoreRefusal::NotAllowed)),
            (
                "ERR The user executing the script can't publish to the channel mentioned in the command script: \
                 2461, on @user_script:37.",
                Refuse(StoreRefusal::NoChannels),
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 2461, on \
                 @user_script:7.",
                Refuse(StoreRefusal::NotAllowed),
            ),
            ("NOPERM No permissions to access a channel", Refuse(StoreRefusal::NoChannels)),
            ("DENIED Redis is running in protected mode", Refuse(StoreRefusal::NotAllowed)),
            ("CROSSSLOT Keys in request don't hash to the same slot", Refuse(StoreRefusal::Unexpected)),
            ("WRONGTYPE Operation against a key", Refuse(StoreRefusal::Unexpected)),
            ("ERR Error running script", Refuse(StoreRefusal::Unexpected)),
            ("NEWCODE what a later version may say", Refuse(StoreRefusal::Unexpected)),
        ] {
            assert_eq!(policy(&told(line)), expected, "{line}");
        }
    }

    #[test]
    fn error_from_inside_a_script_may_follow_its_writes() {
        for (line, halfway) in [
            (
                "ERR The user executing the script can't publish to the channel script: 2461, on @user_script:37.",
                true,
            ),
            ("WRONGTYPE Operation against a key script: 2461, on @user_script:3.", true),
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 2461, on @user_script:3.",
                true,
            ),
            ("NOPERM this user has no permissions to run 'evalsha'", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
            ("NOSCRIPT No matching script. Please use EVAL.", false),
        ] {
            assert_eq!(is_halfway(&told(line)), halfway, "{line}");
        }
    }

    #[test]
    fn broken_connection_may_have_sent_and_refused_one_not() {
        let broken = |kind: io::ErrorKind| policy(&RedisError::from(io::Error::from(kind)));
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            assert_eq!(broken(kind), again(StoreRefusal::Unreachable, true), "{kind:?}");
        }
        assert_eq!(broken(io::ErrorKind::ConnectionRefused), again(StoreRefusal::Unreachable, false));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let tls = RedisError::from(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(policy(&tls), ErrorPolicy::Refuse(StoreRefusal::NotAllowed));
        let nobody = RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no master"));
        assert_eq!(policy(&nobody), again(StoreRefusal::Unreachable, false));
        let login = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert_eq!(policy(&login), ErrorPolicy::Refuse(StoreRefusal::NotAllowed));
    }

    #[test]
    fn logged_error_has_no_arguments() {
        let unknown = told("ERR unknown command 'EVALSHA', with args beginning with: 'abc' '1' 'hush'");
        assert!(for_log(&unknown).contains("EVALSHA") && !for_log(&unknown).contains("hush"));
    }
}
