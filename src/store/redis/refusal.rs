//! What each of Redis' errors means for the operation that met it: one table.
//!
//! Every script is safe to run twice, so whatever may pass is tried again until the operation's deadline. What
//! will not pass by itself within seconds is told at once: whoever waits can do nothing better, and a wrong
//! password must not be tried a thousand times a second.

use std::error::Error;
use std::io;
use std::sync::Arc;

use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreRefusal;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Give up: it was not carried out, and repeating it would not help.
    Refuse(StoreRefusal),
    /// Ask again in a moment, over the same connection. It was not carried out.
    Wait(StoreRefusal),
    /// Ask again over a new connection.
    Reconnect {
        /// Why, if there is no time left to.
        refusal: StoreRefusal,
        /// Whether it may have been carried out all the same.
        sent: bool,
    },
    /// Send the script's text: the server knows the hash no more. It was not carried out.
    Text,
}

/// The policy for an error.
pub(super) fn policy(error: &RedisError) -> Policy {
    match error.kind() {
        ErrorKind::Server(kind) => by_kind(kind, error.detail().unwrap_or_default()),
        ErrorKind::Extension => by_code(error.code().unwrap_or_default()),
        ErrorKind::AuthenticationFailed => Policy::Refuse(StoreRefusal::NotAllowed),
        // Nothing was sent: there was nobody to send it to.
        ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel => {
            Policy::Reconnect { refusal: StoreRefusal::Unreachable, sent: false }
        }
        ErrorKind::Io if is_tls(error) => Policy::Refuse(StoreRefusal::NotAllowed),
        ErrorKind::Io => {
            Policy::Reconnect { refusal: StoreRefusal::Unreachable, sent: !error.is_connection_refusal() }
        }
        // Half an answer: the rest of the stream means nothing any more.
        ErrorKind::Parse => Policy::Reconnect { refusal: StoreRefusal::Unexpected, sent: true },
        _ => Policy::Refuse(StoreRefusal::Unexpected),
    }
}

/// Whether TLS could not be agreed on: an unknown authority, a certificate that is missing, a server without TLS.
fn is_tls(error: &RedisError) -> bool {
    // The library keeps what it wraps behind a pointer, which is what it names as the source.
    type Wrapped = Arc<dyn Error + Send + Sync>;
    let wrapped = error.source().and_then(|source| source.downcast_ref::<Wrapped>());
    let io = wrapped.and_then(|wrapped| wrapped.downcast_ref::<io::Error>());
    matches!(io.and_then(io::Error::get_ref), Some(inner) if inner.is::<rustls::Error>())
}

fn by_kind(kind: ServerErrorKind, detail: &str) -> Policy {
    match kind {
        ServerErrorKind::NoScript => Policy::Text,
        ServerErrorKind::BusyLoading => Policy::Wait(StoreRefusal::Loading),
        ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain => Policy::Wait(StoreRefusal::ClusterDown),
        // The cluster client follows these by itself; what is left has gone round too often.
        ServerErrorKind::Moved | ServerErrorKind::Ask => {
            Policy::Reconnect { refusal: StoreRefusal::ClusterDown, sent: false }
        }
        // The master became a replica: behind a name or the sentinels there is another one.
        ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => {
            Policy::Reconnect { refusal: StoreRefusal::ReadOnly, sent: false }
        }
        ServerErrorKind::NoPerm => Policy::Refuse(StoreRefusal::NotAllowed),
        // These have no code of their own.
        ServerErrorKind::ResponseError if detail.starts_with("max number of clients") => {
            Policy::Reconnect { refusal: StoreRefusal::Unreachable, sent: false }
        }
        ServerErrorKind::ResponseError if detail.contains("invalid password") => {
            Policy::Refuse(StoreRefusal::NotAllowed)
        }
        // What a script may not do: a command, a key, or a channel to publish to.
        ServerErrorKind::ResponseError if detail.starts_with("The user executing the script can't") => {
            Policy::Refuse(StoreRefusal::NotAllowed)
        }
        _ => Policy::Refuse(StoreRefusal::Unexpected),
    }
}

/// Codes that the client library has no name for.
fn by_code(code: &str) -> Policy {
    match code {
        "OOM" => Policy::Refuse(StoreRefusal::OutOfMemory),
        "MISCONF" => Policy::Refuse(StoreRefusal::CannotSave),
        "NOREPLICAS" => Policy::Refuse(StoreRefusal::TooFewReplicas),
        "NOAUTH" | "WRONGPASS" | "DENIED" => Policy::Refuse(StoreRefusal::NotAllowed),
        // Somebody's script or module runs for seconds.
        "BUSY" => Policy::Wait(StoreRefusal::Busy),
        // `CLIENT KILL`, `DEBUG`, a failover that unblocks whoever waits.
        "UNBLOCKED" => Policy::Reconnect { refusal: StoreRefusal::ReadOnly, sent: true },
        _ => Policy::Refuse(StoreRefusal::Unexpected),
    }
}

/// An error as it may be logged: Redis repeats the arguments of a command that it does not know, and those are
/// users' words.
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

    /// As it comes over the wire.
    fn told(line: &str) -> RedisError {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        Value::extract_error(value).unwrap_err()
    }

    fn again(refusal: StoreRefusal, sent: bool) -> Policy {
        Policy::Reconnect { refusal, sent }
    }

    #[test]
    fn each_error_has_its_policy() {
        use Policy::{Refuse, Text, Wait};
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
                Refuse(StoreRefusal::NotAllowed),
            ),
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
    fn a_broken_connection_may_have_carried_it_out_and_a_refused_one_not() {
        let broken = |kind: io::ErrorKind| policy(&RedisError::from(io::Error::from(kind)));
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            assert_eq!(broken(kind), again(StoreRefusal::Unreachable, true), "{kind:?}");
        }
        assert_eq!(broken(io::ErrorKind::ConnectionRefused), again(StoreRefusal::Unreachable, false));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let tls = RedisError::from(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(policy(&tls), Policy::Refuse(StoreRefusal::NotAllowed));
        let nobody = RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "no master"));
        assert_eq!(policy(&nobody), again(StoreRefusal::Unreachable, false));
        let login = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert_eq!(policy(&login), Policy::Refuse(StoreRefusal::NotAllowed));
    }

    #[test]
    fn arguments_are_not_for_the_log() {
        let unknown = told("ERR unknown command 'EVALSHA', with args beginning with: 'abc' '1' 'hush'");
        assert!(for_log(&unknown).contains("EVALSHA") && !for_log(&unknown).contains("hush"));
    }
}
