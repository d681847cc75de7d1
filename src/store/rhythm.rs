//! The rhythm of a bot, as far as all replicas learned it: a small state that they share.
//!
//! The store does not read the state. A replica reads it, adds what it learned, and writes it back if no other replica wrote
//! meanwhile.

use std::time::Duration;

use bytes::Bytes;

use super::{Store, StoreError, StoreRefusal, dispatch};
use crate::domain::BotName;

/// The largest state, in bytes.
pub const RHYTHM_MAX_BYTES: usize = 128 * 1024;

/// The lifetime of a state after its last write.
pub const RHYTHM_TTL: Duration = Duration::from_hours(90 * 24);

/// The stored rhythm of a bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRhythm {
    /// The version. Every write has a higher one, also after the rhythm was forgotten.
    pub version: u64,
    /// The state in the form of its writer, at most [`RHYTHM_MAX_BYTES`].
    pub state: Bytes,
}

#[expect(clippy::missing_errors_doc, reason = "the errors that all operations share are named at `Store`")]
impl Store {
    /// Returns the rhythm of a bot, if one is stored. It expires [`RHYTHM_TTL`] after its last write.
    pub async fn rhythm(&self, bot: &BotName) -> Result<Option<StoredRhythm>, StoreError> {
        dispatch!(self.rhythm(bot), Ok)
    }

    /// Writes the rhythm of a bot if the stored one has the `expected` version; `None` means that none is stored. Returns
    /// false if another replica wrote since, and changes nothing then.
    ///
    /// A state that is stored already counts as written, so a repeat is safe.
    ///
    /// # Errors
    /// [`StoreRefusal::TooLarge`] for a state over [`RHYTHM_MAX_BYTES`]. [`StoreRefusal::OutOfMemory`] if the store is full,
    /// because messages need the room.
    pub async fn put_rhythm(
        &self,
        bot: &BotName,
        expected: Option<u64>,
        state: &[u8],
    ) -> Result<bool, StoreError> {
        if state.len() > RHYTHM_MAX_BYTES {
            return Err(StoreError::Unavailable(StoreRefusal::TooLarge));
        }
        dispatch!(self.put_rhythm(bot, expected, state), Ok)
    }

    /// Deletes the rhythm of a bot. It is learned anew.
    pub async fn forget_rhythm(&self, bot: &BotName) -> Result<(), StoreError> {
        dispatch!(self.forget_rhythm(bot), Ok)
    }
}
