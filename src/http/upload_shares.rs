//! The shares of callers and bots in the uploads of a replica.
//!
//! Each upload takes memory, a connection to the platform and some of the network. Without this limit one caller, or one
//! slow platform, would take all of it.

use std::sync::Arc;

use crate::config::Config;
use crate::domain::{BotName, CALLER_PLACES, FairShare, SharePermit};
use crate::hub::HubError;

/// Most uploads at the same time.
const MAX_UPLOADS: usize = 64;

/// The shares of a replica.
#[derive(Debug)]
pub(super) struct UploadShares {
    bots: Vec<BotName>,
    by_caller: Arc<FairShare>,
    by_bot: Arc<FairShare>,
}

/// The places of an upload.
#[derive(Debug)]
pub(super) struct UploadPlaces {
    _by_caller: SharePermit,
    _by_bot: SharePermit,
}

impl UploadShares {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            bots: config.bots.iter().map(|bot| bot.name.clone()).collect(),
            by_caller: FairShare::new(MAX_UPLOADS, CALLER_PLACES),
            by_bot: FairShare::new(MAX_UPLOADS, config.bots.len()),
        }
    }

    /// Takes the places of an upload of this caller, by its index, to this bot.
    ///
    /// # Errors
    /// [`HubError::Overloaded`].
    pub(super) fn acquire(&self, caller: Option<usize>, bot: &BotName) -> Result<UploadPlaces, HubError> {
        let bot = self.bots.iter().position(|known| known == bot);
        let by_caller = self.by_caller.acquire(caller, 1);
        let by_caller = by_caller.ok_or(HubError::Overloaded("this caller's share of uploads"))?;
        let by_bot = self.by_bot.acquire(bot, 1);
        let by_bot = by_bot.ok_or(HubError::Overloaded("this bot's share of uploads"))?;
        Ok(UploadPlaces { _by_caller: by_caller, _by_bot: by_bot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CallerScopes, fixtures};

    fn shares(bots: &[&str], callers: &[&str]) -> UploadShares {
        let mut config = Config::dev("http://127.0.0.1:1".parse().unwrap());
        config.bots = bots.iter().map(|bot| Arc::new(fixtures::bot(bot))).collect();
        config.callers = callers.iter().map(|name| fixtures::caller(name, CallerScopes::default())).collect();
        UploadShares::new(&config)
    }

    /// Returns the places that one caller gets for one bot.
    fn taken(shares: &UploadShares, caller: Option<usize>, bot: &str) -> (Vec<UploadPlaces>, HubError) {
        let mut places = Vec::new();
        loop {
            match shares.acquire(caller, &BotName::new(bot).unwrap()) {
                Ok(place) => places.push(place),
                Err(error) => return (places, error),
            }
        }
    }

    #[test]
    fn greedy_caller_leaves_uploads_for_another() {
        let shares = shares(&["support"], &["greedy", "modest"]);
        let (places, refused) = taken(&shares, Some(0), "support");
        assert_eq!(places.len(), 32);
        assert!(matches!(refused, HubError::Overloaded(what) if what.contains("caller")), "{refused}");
        assert_eq!(taken(&shares, Some(1), "support").0.len(), 16);
        drop(places);
        assert_eq!(taken(&shares, Some(1), "support").0.len(), 32);
    }

    #[test]
    fn greedy_bot_leaves_uploads_for_another() {
        let shares = shares(&["slow", "quick"], &[]);
        let (places, refused) = taken(&shares, None, "slow");
        assert_eq!(places.len(), 32);
        assert!(matches!(refused, HubError::Overloaded(what) if what.contains("bot")), "{refused}");
        assert_eq!(taken(&shares, None, "quick").0.len(), 16);
    }

    #[test]
    fn single_caller_and_bot_have_all_uploads() {
        assert_eq!(taken(&shares(&["support"], &["crm"]), None, "support").0.len(), MAX_UPLOADS);
    }
}
