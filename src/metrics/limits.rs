//! Limits beside what they bound, so that alerts and dashboards see how near a replica and its store are to them.

use prometheus::{Error, IntGauge};

use super::MetricFactory;

/// The configured limits of this replica. Clones show the same.
#[derive(Clone, Debug)]
pub struct LimitMetrics {
    conversations: IntGauge,
    connections: IntGauge,
    request_memory: IntGauge,
}

impl LimitMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            conversations: factory
                .gauge("conversations_limit", "Conversations that may be in memory: server.max_sockets.")?,
            connections: factory
                .gauge("connections_limit", "Connections that callers may open: server.max_connections.")?,
            request_memory: factory.gauge(
                "request_memory_limit_bytes",
                "Memory that requests, answers and event streams may take: server.memory_limit.",
            )?,
        })
    }

    /// Sets the limits of conversations, of callers' connections, and of the memory of requests in bytes.
    pub fn set(&self, conversations: usize, connections: usize, request_memory: usize) {
        for (gauge, limit) in [(&self.conversations, conversations), (&self.connections, connections)] {
            gauge.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        self.set_request_memory(request_memory);
    }

    /// Sets the limit of the memory of requests in bytes.
    pub fn set_request_memory(&self, limit: usize) {
        self.request_memory.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

/// The memory of the store's fullest server. Clones show the same.
#[derive(Clone, Debug)]
pub struct StoreMemoryMetrics {
    used: IntGauge,
    limit: IntGauge,
}

impl StoreMemoryMetrics {
    pub(super) fn declare(factory: &MetricFactory) -> Result<Self, Error> {
        Ok(Self {
            used: factory.gauge("store_memory_bytes", "Memory in use of the fullest Redis master.")?,
            limit: factory.gauge(
                "store_memory_limit_bytes",
                "Its maxmemory; 0 without a limit, or if it is not known.",
            )?,
        })
    }

    /// Sets the used bytes and the limit of the fullest server.
    pub fn set(&self, used: u64, limit: Option<u64>) {
        self.used.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.limit.set(i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX));
    }
}
