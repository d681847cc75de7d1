//! The concepts of the bridge as plain data: conversations, messages, turns, replies, deliveries, problems.
//!
//! Invalid values cannot exist: constructors check, and fields with an invariant are private. The layer has no I/O, no
//! async code, no clock and no randomness. Times and random numbers are arguments. The layer does not know Kore.ai's
//! wire format, HTTP or the store.

mod backoff;
mod callback_url;
mod connection_status;
mod conversation_id;
mod conversation_record;
mod delivery;
mod endpoint;
mod event_kind;
mod fair_share;
#[cfg(any(test, feature = "test-support"))]
pub mod fixtures;
#[cfg(feature = "test-support")]
pub mod fuzzing;
mod http_date;
mod journal_entry;
mod journal_page;
mod json_object;
pub(crate) mod lenient_json;
mod message;
mod message_progress;
mod problem;
mod rate_window;
mod reply;
mod sha256;
mod timestamp;
mod uploaded_file;
mod user_details;
mod user_signal;

pub use backoff::Backoff;
pub use callback_url::{CALLBACK_MAX_BYTES, CallbackUrl, InvalidCallback, InvalidPattern, UrlPattern};
pub use connection_status::{ConnectionStatus, ConversationState, LinkState};
pub use conversation_id::{BotName, ConversationId, InvalidName, Partition, UserId};
pub use conversation_record::{
    ConversationRecord, Fingerprint, FirstGap, LastTurn, LateReplies, RecentReplies,
};
pub use delivery::{
    Delivery, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, DeliveryState, NewDelivery,
};
pub use endpoint::{EndpointId, EndpointOutage, EndpointReport, EndpointState};
pub use event_kind::EventKind;
pub use fair_share::{CALLER_PLACES, FairShare, SharePermit};
pub use http_date::{parse_http_date, parse_retry_after};
pub use journal_entry::{EntryBody, GapReason, JournalEntry};
pub use journal_page::{
    Cursor, EntryWithMessage, InvalidCursor, JournalPage, JournalPosition, LiveSignal, ReadStart, ReplyChunk,
};
pub use json_object::{CONTEXT_MAX_BYTES, JsonObject};
pub use message::{
    AcceptedMessage, Attachment, Callback, InvalidMessage, Message, MessageContent, MessageEvent, MessageId,
    NewMessage, ResendPolicy, SessionRequest, TEXT_MAX_BYTES, TraceId, TurnRules,
};
pub use message_progress::{EndedBy, MessageProgress, MessageStatus, QuietSource, QuietWait, TurnOutcome};
pub use problem::{Problem, ProblemKind};
pub use rate_window::RateWindow;
pub use reply::{Correlation, MediaKind, Reply, ReplyChoice, ReplyMedia};
pub use sha256::Sha256;
pub use timestamp::Timestamp;
pub use uploaded_file::{FileDescription, FileKind, FileName, InvalidFileName, UploadedFile};
pub use user_details::{NAME_MAX_BYTES, UserDetails, UserProfile};
pub use user_signal::{SignalKind, UserSignal};

/// Serializes types as the text that their `as_str` returns.
macro_rules! serialize_as_str {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+};
}

serialize_as_str!(
    BotName,
    Correlation,
    DeliveryKind,
    DeliveryState,
    EndedBy,
    LinkState,
    MediaKind,
    MessageStatus,
    QuietSource,
    UserId
);
