//! The closed sets that labels come from.

/// What a word outside a closed set is counted under.
pub(super) const OTHER: &str = "other";

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label's value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

label! {
    /// A part of a turn's time, each counted from where the one before it ended.
    Part {
        /// Accepted until it became the head of its lane.
        Queue = "queue",
        /// Head until sent.
        Connect = "connect",
        /// Sent until acknowledged.
        Ack = "ack",
        /// Sent until the first reply.
        FirstReply = "first_reply",
        /// Sent until the turn ended.
        End = "end",
    }
}

label! {
    /// Where a link stands.
    SocketState {
        /// Getting a grant, a ticket and a socket.
        Connecting = "connecting",
        /// Open.
        Ready = "ready",
        /// Waiting before the next try.
        BackingOff = "backing_off",
        /// The platform closed with 1008.
        Blocked = "blocked",
        /// On its way out.
        Draining = "draining",
    }
}

label! {
    /// A step of a connect (protocol.md 3 to 5).
    Phase {
        /// The JWT is exchanged for a token.
        Grant = "grant",
        /// The one-time URL is asked for.
        Start = "start",
        /// The web socket is opened.
        Socket = "socket",
    }
}

label! {
    /// How a step of a connect went.
    Connect {
        /// It worked.
        Done = "ok",
        /// The platform refused it for good.
        Rejected = "rejected",
        /// The platform could not be reached, or failed.
        Unavailable = "unavailable",
        /// No answer in time.
        TimedOut = "timed_out",
    }
}

label! {
    /// How an attempt to deliver ended.
    AttemptEnd {
        /// The receiver took it.
        Delivered = "delivered",
        /// The receiver wants no more.
        Gone = "gone",
        /// The receiver answered, and did not take it.
        Refused = "refused",
        /// No answer came.
        Unreached = "unreached",
        /// It was not made: the address is none it may go to, or there is nothing to sign with.
        Forbidden = "forbidden",
        /// This replica let go of the conversation, or began too late.
        BrokenOff = "broken_off",
    }
}

/// Close codes that say something (RFC 6455, 7.4.1 and its registry).
pub(super) const CLOSES: [(u16, &str); 13] = [
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
/// Where a connection ended without a close frame.
pub(super) const NO_CODE: &str = "none";

/// The label of a close code.
pub(super) fn close_word(code: Option<u16>) -> &'static str {
    match code {
        None => NO_CODE,
        Some(code) => CLOSES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, word)| word),
    }
}
