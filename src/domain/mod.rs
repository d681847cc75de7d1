//! What the bridge talks about: conversations, messages, turns, replies, problems.
//!
//! Everything here is plain data that cannot exist invalid: constructors check, fields that carry an
//! invariant are private. There is no I/O, no async, no clock and no randomness in this layer; times and
//! random numbers are arguments. Nothing here knows Kore.ai's wire, HTTP or the store.

mod backoff;
mod callback;
mod conversation;
mod delivery;
mod entry;
mod event;
mod journal;
mod link;
mod message;
mod problem;
mod rate;
mod record;
mod reply;
mod sha256;
mod time;
mod turn;

pub use backoff::Backoff;
pub use callback::{CALLBACK_MAX_BYTES, CallbackUrl, InvalidCallback, InvalidPattern, UrlPattern};
pub use conversation::{BotName, ConversationId, InvalidName, Partition, UserId};
pub use delivery::{
    Delivery, DeliveryAttempt, DeliveryId, DeliveryKind, DeliveryOrigin, DeliveryState, NewDelivery,
};
pub use entry::{EntryBody, GapReason, JournalEntry};
pub use event::EventKind;
pub use journal::{
    Cursor, EntryWithMessage, InvalidCursor, JournalPage, JournalPosition, LiveSignal, ReadStart, ReplyChunk,
};
pub use link::{ConnectionStatus, ConversationState, LinkState};
pub use message::{
    AcceptedMessage, Attachment, Callback, InvalidMessage, JsonObject, Message, MessageContent, MessageId,
    NewMessage, ResendPolicy, SessionRequest, TEXT_MAX_BYTES, TraceId, TurnRules,
};
pub use problem::{Problem, ProblemKind};
pub use rate::RateWindow;
pub use record::{ConversationRecord, Fingerprint, LastTurn, RecentReplies};
pub use reply::{Correlation, Reply};
pub use sha256::Sha256;
pub use time::Timestamp;
pub use turn::{EndedBy, MessageProgress, MessageStatus, TurnOutcome};
