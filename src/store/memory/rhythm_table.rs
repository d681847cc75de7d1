//! The rhythms of bots. Bots are few, and a rhythm is small, so the limit of the store does not count them.

use std::collections::HashMap;

use bytes::Bytes;

use crate::domain::{BotName, Timestamp};
use crate::store::StoredRhythm;
use crate::store::rhythm::RHYTHM_TTL;

/// The rhythm of each bot, with its end.
#[derive(Debug, Default)]
pub(super) struct RhythmTable(HashMap<BotName, (StoredRhythm, Timestamp)>);

impl RhythmTable {
    pub(super) fn get(&mut self, bot: &BotName, now: Timestamp) -> Option<StoredRhythm> {
        self.0.retain(|_, (_, until)| now < *until);
        self.0.get(bot).map(|(stored, _)| stored.clone())
    }

    /// Writes a rhythm if the stored one has this version. Returns whether it did.
    pub(super) fn put(&mut self, bot: &BotName, expected: Option<u64>, state: &[u8], now: Timestamp) -> bool {
        let stored = self.get(bot, now);
        let version = match stored {
            Some(stored) if stored.state == state => stored.version,
            stored if stored.as_ref().map(|stored| stored.version) == expected => {
                // The time is a version that no forgotten rhythm had.
                now.as_millis().max(expected.map_or(0, |version| version + 1))
            }
            _ => return false,
        };
        let stored = StoredRhythm { version, state: Bytes::copy_from_slice(state) };
        self.0.insert(bot.clone(), (stored, now + RHYTHM_TTL));
        true
    }

    pub(super) fn forget(&mut self, bot: &BotName) {
        self.0.remove(bot);
    }
}
