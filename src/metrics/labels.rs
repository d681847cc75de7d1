//! The closed sets of label values.

/// The label of a word outside a closed set.
pub(super) const OTHER: &str = "other";

/// Declares an enum of label values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All values, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the label's value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

label! {
    /// Stage of a turn.
    TurnStage {
        /// From the accept until the message is the head of its lane.
        Queue = "queue",
        /// From the head of the lane until sent.
        Connect = "connect",
        /// From sent until acknowledged.
        Ack = "ack",
        /// From sent until the first reply.
        FirstReply = "first_reply",
        /// From sent until the end of the turn.
        End = "end",
    }
}

label! {
    /// State of a link.
    SocketState {
        /// The link gets a grant, a ticket and a socket.
        Connecting = "connecting",
        /// The socket is open.
        Ready = "ready",
        /// The link waits for its next attempt.
        BackingOff = "backing_off",
        /// The platform closed with 1008.
        Blocked = "blocked",
        /// The link finishes its turn and closes.
        Draining = "draining",
    }
}

impl SocketState {
    /// Returns whether the link is wanted and has no socket.
    pub(super) const fn is_down(self) -> bool {
        matches!(self, Self::Connecting | Self::BackingOff | Self::Blocked)
    }
}

label! {
    /// Step of a connect (protocol.md 3 to 5).
    ConnectStep {
        /// The bot's assertion service is asked for the JWT.
        Assertion = "assertion",
        /// The proxy opens no connection, for any of the other steps.
        Proxy = "proxy",
        /// The JWT is exchanged for a token.
        Grant = "grant",
        /// The platform is asked for the one-time URL.
        Start = "start",
        /// The web socket is opened.
        Socket = "socket",
    }
}

label! {
    /// Call of an upload (protocol.md 13.1).
    UploadCall {
        /// The JWT is exchanged for a token. Only failures have this label.
        Grant = "grant",
        /// The platform is asked for the token of a file in chunks.
        Token = "token",
        /// A file goes as a whole.
        File = "file",
        /// A chunk of a file goes.
        Chunk = "chunk",
        /// The platform is asked to put the chunks together.
        Complete = "complete",
        /// The platform is asked for the file's URL.
        Url = "url",
    }
}

label! {
    /// Result of a connect, or of a call.
    ConnectResult {
        /// The socket is open, or the call has its answer.
        Ok = "ok",
        /// The platform refused for good.
        Rejected = "rejected",
        /// The platform was unreachable, or failed.
        Unavailable = "unavailable",
        /// The platform did not answer in time.
        TimedOut = "timed_out",
    }
}

label! {
    /// Result of an attempt to deliver.
    AttemptEnd {
        /// The receiver accepted the delivery.
        Delivered = "delivered",
        /// The receiver wants no further deliveries.
        Gone = "gone",
        /// The receiver answered with an error.
        Refused = "refused",
        /// The receiver did not answer.
        Unreachable = "unreachable",
        /// The attempt was not allowed to begin: its address is forbidden, or its signing secret is missing.
        Forbidden = "forbidden",
        /// This replica lost the conversation, or the attempt began too late.
        Aborted = "aborted",
    }
}

label! {
    /// Reason for the end of an event stream.
    StreamEndReason {
        /// The caller left, or stopped to read.
        Gone = "gone",
        /// The caller read too slowly: its buffer was full.
        Slow = "slow",
        /// This replica shuts down.
        Drained = "drained",
        /// The caller lost the right to read, or its token expired.
        Revoked = "revoked",
        /// The store refused to be read.
        Failed = "failed",
    }
}

label! {
    /// Reason for which the bridge refuses or cuts a caller's connection.
    ConnectionEndReason {
        /// There were too many connections, and none that waited for a request.
        Refused = "refused",
        /// There were too many connections, and this one waited longest for a request.
        Evicted = "evicted",
        /// The head of a request did not arrive in time.
        SlowHead = "slow_head",
        /// The caller went on sending the body of an answered request.
        UnreadBody = "unread_body",
        /// The caller took no bytes of its answer.
        Stalled = "stalled",
    }
}

/// Close codes with a label of their own (RFC 6455, 7.4.1 and its registry).
pub(super) const CLOSE_CODES: [(u16, &str); 13] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1005, "1005"),
    (1006, "1006"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1010, "1010"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
];
/// The label of a connection that ended without a close frame.
pub(super) const NO_CODE: &str = "none";

/// Returns the label of a close code.
pub(super) fn close_code_label(code: Option<u16>) -> &'static str {
    match code {
        None => NO_CODE,
        Some(code) => CLOSE_CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, word)| word),
    }
}
