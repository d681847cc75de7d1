//! The reasons why an operation of the store failed, and their meaning.

use std::time::Duration;

/// The reason why the store did not carry out an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner claimed the partition; the write was skipped. The replica drops its state of the partition.
    #[error("the partition belongs to another owner")]
    Fenced,
    /// The store does not know our lease, or knows an older one: it lost data. The write was skipped. The replica drops its state of the partition, as with [`StoreError::Fenced`].
    #[error("the store lost the partition's lease")]
    Lost,
    /// The write does not continue the last write: the store lost writes, the record has expired, or the owner lost
    /// some. The write was skipped. The owner opens the conversation again.
    #[error("the write does not continue the store's record of the conversation")]
    OutOfStep,
    /// The store refused or could not be reached. The operation was not carried out, and a retry is safe.
    #[error("the store is not available: {0}")]
    Unavailable(StoreRefusal),
    /// The answer did not arrive before the timeout. The operation may have been carried out, and a retry is safe.
    #[error("the store did not answer within {0:?}")]
    Unknown(Duration),
    /// The store refused a part of the operation after it had begun. The operation may have been carried out, and a retry
    /// is safe.
    #[error("the store failed in the middle of an operation: {0}")]
    Halfway(StoreRefusal),
}

impl StoreError {
    /// Returns whether the partition is no longer ours.
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced | Self::Lost)
    }

    /// Returns whether a retry of the operation may succeed.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_) | Self::Halfway(_))
    }
}

/// The reason of a refusal. Its text is for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// The store cannot be reached.
    #[error("it cannot be reached")]
    Unreachable,
    /// The store loads its data.
    #[error("it is loading its data")]
    Loading,
    /// A long script of another client keeps the store busy.
    #[error("a long script of another client keeps it busy")]
    Busy,
    /// The server is a replica: a failover is under way.
    #[error("it refuses writes: a failover is under way, or the address is a replica's")]
    ReadOnly,
    /// A part of the cluster is down.
    #[error("the part of the cluster that holds the partition is down")]
    ClusterDown,
    /// Too few replicas of the store exist, or too few confirmed the write.
    #[error("too few of its replicas confirm")]
    TooFewReplicas,
    /// The store cannot save its data and therefore refuses writes.
    #[error("it cannot save its data and refuses writes; see its log")]
    CannotSave,
    /// The store is out of memory.
    #[error("it is out of memory")]
    OutOfMemory,
    /// The value is too large.
    #[error("the value is larger than it takes")]
    TooLarge,
    /// The store refuses our login or rights, or we do not trust its certificate.
    #[error("it refuses our login or rights, or a certificate is refused; see the log")]
    NotAllowed,
    /// The store refuses the channels of hints.
    #[error("it refuses the channels between replicas: allow the user +publish, +subscribe and &PREFIX:*")]
    NoChannels,
    /// The store gave an unexpected answer.
    #[error("its answer was unexpected; see the log")]
    Unexpected,
}
