//! Pages of conversations, over the indexes of partitions.

use futures_util::future::try_join_all;

use super::RedisStore;
use super::codec::{self, CorruptData};
use super::partition_merge::{PartitionList, PartitionMerge};
use super::script_answer::AnswerValues;
use super::scripts::SCRIPTS;
use crate::domain::{BotName, Partition, Timestamp};
use crate::store::conversation_index::{OrderedPlace, PAGE};
use crate::store::conversation_state::last_activity;
use crate::store::{
    ConversationOrder, ConversationPage, ConversationPlace, ConversationQuery, ConversationSummary,
    Incarnation, StoreError,
};

/// The limit of conversations of one call. With 10 000 conversations in the partition, it takes 1 ms of Redis by activity
/// and 3 ms by name.
const TOGETHER: usize = 128;
/// The number of rounds for one page. If few conversations match, the page may end before it is full.
const ROUNDS: usize = 8;

type IndexList = PartitionList<OrderedPlace, ConversationSummary>;

impl RedisStore {
    pub(in crate::store) async fn conversations(
        &self,
        query: &ConversationQuery,
    ) -> Result<ConversationPage, StoreError> {
        if query.bots.as_ref().is_some_and(Vec::is_empty) {
            return Ok(ConversationPage::default());
        }
        let limit = query.limit.clamp(1, PAGE);
        let partitions = query.partitions();
        let most = limit.min(TOGETHER);
        // This is about twice a partition's share of the page.
        let mut each = (limit * 2 / partitions.len().max(1) + 8).min(most);
        let after = query.after.clone().map(|place| query.ordered(place));
        let mut merge = PartitionMerge::new(partitions, after.as_ref());
        for _ in 0..ROUNDS {
            let lists = merge
                .sources_to_ask()
                .map(|source| self.list_conversations(query, source.partition, source.after.as_ref(), each));
            let lists = try_join_all(lists).await?;
            merge.add_lists(lists);
            if merge.merge(limit + 1) {
                break;
            }
            each = most;
        }
        let (merged, next) = merge.page(|matches| matches.len().min(limit));
        let conversations = merged.into_iter().map(|(_, summary)| summary).collect();
        Ok(ConversationPage { conversations, next: next.map(|next| next.place) })
    }

    /// Returns the next matches of a partition, in the order of the query.
    async fn list_conversations(
        &self,
        query: &ConversationQuery,
        partition: Partition,
        after: Option<&OrderedPlace>,
        limit: usize,
    ) -> Result<IndexList, StoreError> {
        let keys = self.0.keys.partition(partition);
        let script = match query.order {
            ConversationOrder::NewestFirst => &SCRIPTS.index_by_activity,
            ConversationOrder::ByName => &SCRIPTS.index_by_name,
        };
        let (score, name) = after.map_or_else(Default::default, |after| {
            let score =
                after.place.rested_at.map_or_else(|| ACTIVE.to_owned(), |at| at.as_millis().to_string());
            (score, after.place.conversation.to_string())
        });
        let call = script
            .call(&[&keys.lease, &keys.activity, &keys.names])
            .arg(bot_filter(query.bots.as_deref()))
            .arg(&*query.user_prefix)
            .arg(limit)
            .arg(query.since.unwrap_or_default().as_millis())
            .arg(score)
            .arg(name)
            .background();
        let (now, mut rest) = self.run(call).await?.expect("OK")?;
        let owner = rest.text()?;
        let owner = (!owner.is_empty()).then(|| codec::incarnation(&owner)).transpose()?;
        let (score, name) = (rest.text()?, rest.text()?);
        let reached = (!name.is_empty()).then(|| place(&score, &name)).transpose()?;
        let matches = rest
            .lists()
            .map(|one| {
                let (place, summary) = summary(one?, owner, now)?;
                Ok((query.ordered(place), summary))
            })
            .collect::<Result<_, CorruptData>>()?;
        Ok(PartitionList { matches, reached: reached.map(|place| query.ordered(place)) })
    }
}

/// The score of an active conversation, as Redis formats it.
const ACTIVE: &str = "inf";

fn place(score: &str, name: &str) -> Result<ConversationPlace, CorruptData> {
    let rested_at = match score {
        "" | ACTIVE => None,
        time => Some(Timestamp::from_millis(codec::number(time.as_bytes())?)),
    };
    Ok(ConversationPlace { rested_at, conversation: codec::conversation(name)? })
}

/// Parses `{name score write last open}`.
fn summary(
    mut told: AnswerValues,
    owner: Option<Incarnation>,
    now: Timestamp,
) -> Result<(ConversationPlace, ConversationSummary), CorruptData> {
    let (name, score) = (told.text()?, told.text()?);
    let place = place(&score, &name)?;
    let (written, accepted) = (told.number_or_none()?, told.number_or_none()?);
    let summary = ConversationSummary {
        conversation: place.conversation.clone(),
        last_activity_at: last_activity(written, accepted, now).unwrap_or_default(),
        open_messages: told.number()?,
        owner,
    };
    Ok((place, summary))
}

/// Returns bots as `conversation_filter.lua` takes them.
pub(super) fn bot_filter(bots: Option<&[BotName]>) -> String {
    bots.map_or_else(String::new, |bots| {
        let names: Vec<_> = bots.iter().map(BotName::as_str).collect();
        format!(" {} ", names.join(" "))
    })
}
