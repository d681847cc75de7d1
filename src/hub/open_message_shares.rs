//! The shares of callers and bots in what open messages take: busy sockets, and room in the store.
//!
//! A replica counts the messages that it accepted and that have not ended. A silent bot, or one caller with many users, so
//! leaves sockets and room for the others ([`FairShare`]). A replica with one caller and one bot counts no message.

use std::sync::{Arc, PoisonError, RwLock};

use super::HubError;
use crate::config::{CallerConfig, Config, StoreUrl};
use crate::domain::{BotName, CALLER_PLACES, FairShare, NewMessage, SharePermit};

/// The shares of a replica.
#[derive(Debug)]
pub(super) struct OpenMessageShares {
    /// The callers, which a reload of the configuration replaces.
    callers: RwLock<Vec<CallerLimit>>,
    bots: Vec<BotName>,
    by_caller: Arc<FairShare>,
    by_bot: Arc<FairShare>,
    /// Bytes of open messages in the memory store. Redis has no such limit for a replica.
    bytes: Option<Arc<FairShare>>,
}

#[derive(Debug)]
struct CallerLimit {
    name: Arc<str>,
    /// Its place in the shares, which stays over reloads.
    place: usize,
    /// Most open messages; 0 for no limit.
    max_open_messages: usize,
}

/// The places of an open message.
#[derive(Debug)]
pub(crate) struct OpenMessagePlaces {
    _by_caller: SharePermit,
    _by_bot: SharePermit,
    _bytes: Option<SharePermit>,
}

/// Returns the names of the callers if several share the bridge, or if one has a limit of open messages.
pub fn sharing_callers(callers: &[CallerConfig]) -> Vec<Arc<str>> {
    let shared = callers.len() > 1 || callers.iter().any(|caller| caller.max_open_messages > 0);
    if shared { callers.iter().map(|caller| caller.name.as_str().into()).collect() } else { Vec::new() }
}

impl OpenMessageShares {
    pub(super) fn new(config: &Config) -> Self {
        let bots: Vec<_> = config.bots.iter().map(|bot| bot.name.clone()).collect();
        let bots = if bots.len() > 1 { bots } else { Vec::new() };
        let room = match config.store.url {
            StoreUrl::Memory => Some(config.store.memory_limit - config.store.memory_limit / 10),
            StoreUrl::Redis(_) => None,
        };
        let shares = Self {
            by_caller: FairShare::new(config.server.max_sockets, CALLER_PLACES),
            by_bot: FairShare::new(config.server.max_sockets, bots.len()),
            bytes: room.map(|room| FairShare::new(room, CALLER_PLACES)),
            callers: RwLock::default(),
            bots,
        };
        shares.reload(&config.callers);
        shares
    }

    /// Takes over the callers of a changed configuration. Open messages keep their places.
    pub(super) fn reload(&self, callers: &[CallerConfig]) {
        let mut current = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        *current = limits(&current, callers);
        for share in [Some(&self.by_caller), self.bytes.as_ref()].into_iter().flatten() {
            share.set_shared(callers.len() > 1);
        }
    }

    /// Returns the place of a caller in the shares, and its limit of open messages.
    fn caller(&self, name: Option<&str>) -> Option<(usize, usize)> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        let caller = callers.iter().find(|caller| Some(&*caller.name) == name)?;
        Some((caller.place, caller.max_open_messages))
    }

    /// Takes the places of a new message. Returns `None` for a single caller and bot, which share with no other.
    ///
    /// # Errors
    /// [`HubError::Overloaded`], [`HubError::CallerLimit`].
    pub(super) fn acquire(&self, message: &NewMessage) -> Result<Option<OpenMessagePlaces>, HubError> {
        let (caller, most) = self.caller(message.caller.as_deref()).unzip();
        let bot = self.bots.iter().position(|bot| bot == message.conversation.bot());
        if caller.is_none() && bot.is_none() {
            return Ok(None);
        }
        let most = most.unwrap_or(0);
        let by_caller = take(&self.by_caller, caller, 1, "this caller's share of open messages")?;
        if most > 0 && self.by_caller.held(caller) > most {
            return Err(HubError::CallerLimit(most));
        }
        let by_bot = take(&self.by_bot, bot, 1, "this bot's share of open messages")?;
        let weight = message.text_weight();
        let bytes = self.bytes.as_ref();
        let bytes = bytes.map(|bytes| take(bytes, caller, weight, "this caller's share of the store"));
        Ok(Some(OpenMessagePlaces { _by_caller: by_caller, _by_bot: by_bot, _bytes: bytes.transpose()? }))
    }
}

/// Returns the limits of callers. Those that stay keep their places.
fn limits(before: &[CallerLimit], callers: &[CallerConfig]) -> Vec<CallerLimit> {
    let place_of = |name: &str| before.iter().find(|caller| &*caller.name == name).map(|caller| caller.place);
    let mut free = (0..CALLER_PLACES).filter(|place| before.iter().all(|caller| caller.place != *place));
    let names = sharing_callers(callers).into_iter().zip(callers).enumerate();
    names
        .map(|(index, (name, caller))| CallerLimit {
            // Beyond the last place two callers share one.
            place: place_of(&name).or_else(|| free.next()).unwrap_or(index % CALLER_PLACES),
            max_open_messages: usize::try_from(caller.max_open_messages).unwrap_or(usize::MAX),
            name,
        })
        .collect()
}

/// Takes a part of a share. Without a holder it only counts.
fn take(
    share: &Arc<FairShare>,
    holder: Option<usize>,
    amount: usize,
    what: &'static str,
) -> Result<SharePermit, HubError> {
    if holder.is_some() {
        return share.acquire(holder, amount).ok_or(HubError::Overloaded(what));
    }
    let mut permit = Arc::clone(share).empty_permit(None);
    permit.charge(amount);
    Ok(permit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, CallerScopes};
    use crate::domain::fixtures::{new_message, sandbox_conversation};

    fn message(caller: &str) -> NewMessage {
        NewMessage { caller: Some(caller.into()), ..new_message(sandbox_conversation("alice"), "hi") }
    }

    fn shares(callers: &[(&str, u32)], max_sockets: usize) -> OpenMessageShares {
        let mut config = Config::dev("http://127.0.0.1:1".parse().unwrap());
        config.server.max_sockets = max_sockets;
        config.callers = callers
            .iter()
            .map(|&(name, max_open_messages)| CallerConfig {
                max_open_messages,
                ..config::fixtures::caller(name, CallerScopes::default())
            })
            .collect();
        OpenMessageShares::new(&config)
    }

    /// Returns how many messages a caller may have open.
    fn opened(shares: &OpenMessageShares, caller: &str) -> (Vec<OpenMessagePlaces>, HubError) {
        let mut places = Vec::new();
        loop {
            match shares.acquire(&message(caller)) {
                Ok(place) => places.extend(place),
                Err(error) => return (places, error),
            }
        }
    }

    #[test]
    fn greedy_caller_leaves_sockets_for_another() {
        let shares = shares(&[("greedy", 0), ("modest", 0)], 20);
        let (greedy, refused) = opened(&shares, "greedy");
        assert_eq!((greedy.len(), matches!(refused, HubError::Overloaded(_))), (10, true), "{refused}");
        assert_eq!(opened(&shares, "modest").0.len(), 5);
        drop(greedy);
        assert_eq!(opened(&shares, "modest").0.len(), 10);
    }

    #[test]
    fn limit_of_a_caller_holds_without_a_second_one() {
        let shares = shares(&[("crm", 3)], 20);
        let (places, refused) = opened(&shares, "crm");
        assert_eq!((places.len(), matches!(refused, HubError::CallerLimit(3))), (3, true), "{refused}");
        drop(places);
        assert_eq!(opened(&shares, "crm").0.len(), 3);
    }

    #[test]
    fn single_caller_and_bot_share_nothing() {
        assert!(shares(&[("crm", 0)], 1).acquire(&message("crm")).unwrap().is_none());
    }

    #[test]
    fn large_messages_leave_room_in_the_store() {
        let mut config = Config::dev("http://127.0.0.1:1".parse().unwrap());
        config.store.memory_limit = 1 << 20;
        let caller = |name| config::fixtures::caller(name, CallerScopes::default());
        config.callers = vec![caller("greedy"), caller("modest")];
        let shares = OpenMessageShares::new(&config);
        let large = NewMessage {
            caller: Some("greedy".into()),
            ..new_message(sandbox_conversation("alice"), &"x".repeat(60_000))
        };
        let taken: Vec<_> = (0..20).filter_map(|_| shares.acquire(&large).ok()).collect();
        assert_eq!(taken.len(), 7, "half of nine tenths");
        assert!(shares.acquire(&message("modest")).is_ok());
    }
}
