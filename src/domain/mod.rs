//! What the bridge talks about: conversations, messages, turns, replies, problems.
//!
//! Everything here is plain data that cannot exist invalid: constructors check, fields that carry an
//! invariant are private. There is no I/O, no async, no clock and no randomness in this layer; times and
//! random numbers are arguments. Nothing here knows Kore.ai's wire, HTTP or the store.

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
mod time;
mod turn;

pub use callback::{CALLBACK_MAX_BYTES, CallbackUrl, InvalidCallback, InvalidPattern, UrlPattern};
pub use conversation::{BotName, ConversationId, InvalidName, Partition, UserId};
pub use delivery::{Attempt, Delivery, DeliveryId, DeliveryKind, DeliveryState, NewDelivery, Origin};
pub use entry::{Entry, EntryBody, Gap};
pub use event::EventKind;
pub use journal::{After, Chunk, Cursor, InvalidCursor, Live, Page, Place, Told};
pub use link::{Connection, ConversationState, LinkState};
pub use message::{
    AcceptedMessage, Attachment, Callback, Content, InvalidMessage, JsonObject, Message, MessageId,
    NewMessage, Resend, SessionRequest, TEXT_MAX_BYTES, TraceId, TurnRules,
};
pub use problem::{Problem, ProblemKind};
pub use rate::Window;
pub use record::{Fingerprint, LastTurn, Recent, Record};
pub use reply::{Correlation, Reply};
pub use time::Timestamp;
pub use turn::{EndedBy, Outcome, Progress, Status};
