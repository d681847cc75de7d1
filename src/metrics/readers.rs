//! What a replica counts of those who read conversations live.

use prometheus::{Error, IntCounter, IntGauge};

use super::Declare;

/// The live readers of this replica: streams and long polls. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct ReaderMetrics {
    /// Readers that are told of news.
    pub observers: IntGauge,
    /// Conversations that they read.
    pub conversations: IntGauge,
    /// Times that a reader was told to look for new entries.
    pub looks: IntCounter,
    /// Pieces of streamed replies that a reader was told.
    pub chunks: IntCounter,
    /// Readers that were let go of, because they did not read.
    pub slow: IntCounter,
}

impl ReaderMetrics {
    pub(super) fn declare(declare: &Declare) -> Result<Self, Error> {
        Ok(Self {
            observers: declare.gauge("observers", "Readers of conversations that wait for news.")?,
            conversations: declare
                .gauge("observed_conversations", "Conversations that are read live here.")?,
            looks: declare.counter("looks_total", "Times that a reader was told to look for new entries.")?,
            chunks: declare.counter(
                "chunks_total",
                "Pieces of streamed replies that readers were told, once for each reader.",
            )?,
            slow: declare.counter(
                "slow_readers_total",
                "Readers that were let go of with their cursor, because they read too slowly.",
            )?,
        })
    }
}
