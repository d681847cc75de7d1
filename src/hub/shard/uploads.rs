//! Uploads of callers on this thread.
//!
//! An upload runs where its request is, at any replica. So it does not use the grant of the conversation, which its owner
//! has. The shard keeps the users' grants of the last uploads.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytes::Bytes;
use futures_util::Stream;

use super::Shard;
use crate::config::BotConfig;
use crate::domain::{ConversationId, FileDescription, Problem, UploadedFile};
use crate::hub::{Hub, HubError};
use crate::link::{self, FileUpload, Grant, HistoryExcerpt, StepFailure, UploadFailure, UploadStep};
use crate::metrics::BotUploadMetrics;

/// Most kept grants.
const KEPT_MAX: usize = 256;

/// The users' grants of the last uploads.
#[derive(Debug)]
pub(super) struct UploadGrants<G> {
    grants: RefCell<HashMap<ConversationId, KeptGrant<G>>>,
    /// The number of uploads, which orders them.
    uploads: Cell<u64>,
    /// The number of erasures. An upload that runs meanwhile must not keep its grant.
    erasures: Cell<u64>,
}

#[derive(Debug)]
struct KeptGrant<G> {
    grant: G,
    /// The number of the upload that used it last.
    used: u64,
}

impl<G> Default for UploadGrants<G> {
    fn default() -> Self {
        Self { grants: RefCell::default(), uploads: Cell::default(), erasures: Cell::default() }
    }
}

impl<G: Clone> UploadGrants<G> {
    /// Returns the grant of a user.
    fn get(&self, conversation: &ConversationId) -> Option<G> {
        self.grants.borrow().get(conversation).map(|kept| kept.grant.clone())
    }

    /// Keeps the grant after an upload, or forgets a grant of no use. The one that was unused for longest makes room.
    fn put(&self, conversation: &ConversationId, grant: Option<G>) {
        let used = self.uploads.get() + 1;
        self.uploads.set(used);
        let mut grants = self.grants.borrow_mut();
        let Some(grant) = grant else {
            grants.remove(conversation);
            return;
        };
        if grants.len() >= KEPT_MAX && !grants.contains_key(conversation) {
            let oldest = grants.iter().min_by_key(|(_, kept)| kept.used).map(|(oldest, _)| oldest.clone());
            oldest.and_then(|oldest| grants.remove(&oldest));
        }
        grants.insert(conversation.clone(), KeptGrant { grant, used });
    }

    /// Forgets the grant of an erased user.
    pub(super) fn erase(&self, conversation: &ConversationId) {
        self.erasures.set(self.erasures.get() + 1);
        self.grants.borrow_mut().remove(conversation);
    }
}

impl Hub {
    /// Uploads a file of a user to the platform, while its pieces come. Any replica does it, on the thread of the request.
    ///
    /// # Errors
    /// [`HubError::Draining`].
    pub async fn upload<E>(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        file: &FileDescription,
        pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Result<UploadedFile, UploadFailure<E>>, HubError> {
        self.with_upload(bot, conversation, file, async |upload| link::upload(upload, pieces).await).await
    }

    /// Makes one step of an upload in chunks, as [`Hub::upload`] does with a whole file.
    ///
    /// # Errors
    /// [`HubError::Draining`].
    pub async fn upload_step(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        file: &FileDescription,
        step: UploadStep<'_>,
    ) -> Result<Result<Box<str>, StepFailure>, HubError> {
        self.with_upload(bot, conversation, file, async |upload| link::upload_step(upload, step).await).await
    }

    /// Reads a part of the platform's history of a user, as the platform sends it.
    ///
    /// # Errors
    /// [`HubError::Draining`].
    pub async fn platform_history(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        selection: &HistoryExcerpt<'_>,
    ) -> Result<Result<Bytes, Problem>, HubError> {
        self.with_grant(bot, conversation, async |shard, _metrics, grant| {
            link::read_history(&shard.connector, bot, conversation.user(), grant, selection).await
        })
        .await
    }

    /// Makes calls of an upload with the kept grant of a user.
    async fn with_upload<T>(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        file: &FileDescription,
        calls: impl AsyncFnOnce(FileUpload<'_>) -> T,
    ) -> Result<T, HubError> {
        self.with_grant(bot, conversation, async |shard, metrics, grant| {
            let (connector, user) = (&shard.connector, conversation.user());
            calls(FileUpload { connector, bot, user, grant, metrics, file }).await
        })
        .await
    }

    /// Makes calls with the kept grant of a user, on the thread of the request. The grant stays for the next ones.
    async fn with_grant<T>(
        &self,
        bot: &BotConfig,
        conversation: &ConversationId,
        calls: impl AsyncFnOnce(&Shard, &BotUploadMetrics, &mut Option<Grant>) -> T,
    ) -> Result<T, HubError> {
        let shard = Shard::of_this_thread(&self.leases).filter(|_| !self.is_draining());
        let shard = shard.ok_or(HubError::Draining)?;
        // Every bot of the configuration has metrics.
        let metrics = shard.setup.bot_metrics.get(&bot.name).ok_or(HubError::Draining)?;
        let mut grant = shard.upload_grants.get(conversation);
        let erasures = shard.upload_grants.erasures.get();
        let result = calls(&shard, &metrics.uploads, &mut grant).await;
        let grant = grant.filter(|_| shard.upload_grants.erasures.get() == erasures);
        shard.upload_grants.put(conversation, grant);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::conversation;

    #[test]
    fn grant_is_kept_until_it_is_of_no_use() {
        let grants = UploadGrants::default();
        let (alice, bob) = (conversation("support", "alice"), conversation("support", "bob"));
        grants.put(&alice, Some("a"));
        assert_eq!((grants.get(&alice), grants.get(&bob)), (Some("a"), None));
        grants.put(&alice, Some("b"));
        assert_eq!(grants.get(&alice), Some("b"));
        grants.put(&alice, None);
        assert_eq!(grants.get(&alice), None);
        grants.put(&bob, Some("b"));
        grants.erase(&bob);
        assert_eq!((grants.get(&bob), grants.erasures.get()), (None, 1));
    }

    #[test]
    fn grant_that_was_unused_for_longest_makes_room() {
        let grants = UploadGrants::default();
        let user = |number: usize| conversation("support", &number.to_string());
        for number in 0..KEPT_MAX {
            grants.put(&user(number), Some(number));
        }
        grants.put(&user(0), grants.get(&user(0)));
        grants.put(&user(KEPT_MAX), Some(KEPT_MAX));
        assert_eq!(grants.grants.borrow().len(), KEPT_MAX);
        assert_eq!((grants.get(&user(0)), grants.get(&user(1))), (Some(0), None));
    }
}
