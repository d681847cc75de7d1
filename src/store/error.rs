//! Why the store could not carry out an operation, and what that means.

use std::time::Duration;

/// Why the store could not carry out an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner claimed the partition; nothing was written. What was held for it must be dropped.
    #[error("the partition belongs to another owner")]
    Fenced,
    /// The store does not know our lease, or an older one than ours: it lost data. Nothing was written. What was
    /// held for the partition must be dropped, as with [`StoreError::Fenced`].
    #[error("the store lost the partition's lease")]
    Lost,
    /// The write is not the last one and does not follow it: the store lost writes of this conversation, its
    /// record has expired, or it is the owner that lost some. Nothing was written. The conversation must be opened
    /// again.
    #[error("the store's record of the conversation is not the one that the write continues")]
    OutOfStep,
    /// The store refused or could not be reached; nothing was carried out. Repeat it.
    #[error("the store is not available: {0}")]
    Unavailable(StoreRefusal),
    /// No answer in time: it may or may not have been carried out. Repeat it.
    #[error("the store did not answer within {0:?}")]
    Unknown(Duration),
}

impl StoreError {
    /// Whether the partition is no longer ours.
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced | Self::Lost)
    }

    /// Whether the same operation may succeed when it is repeated.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }
}

/// Why the store refuses; the text is for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// No connection.
    #[error("it cannot be reached")]
    Unreachable,
    /// It is loading its data.
    #[error("it is loading its data")]
    Loading,
    /// It carries out somebody's long script, and nothing else.
    #[error("it is busy with somebody's long script")]
    Busy,
    /// It is a replica: a failover is under way.
    #[error("it takes no writes: a failover is under way, or the address is a replica's")]
    ReadOnly,
    /// A part of the cluster is down.
    #[error("the part of the cluster that holds the partition is down")]
    ClusterDown,
    /// Too few replicas of the store are there, or confirmed the write.
    #[error("too few of its replicas confirm")]
    TooFewReplicas,
    /// It cannot save and therefore takes no writes.
    #[error("it cannot save its data and takes no writes; see its log")]
    CannotSave,
    /// It is out of memory.
    #[error("it is out of memory")]
    OutOfMemory,
    /// It does not let us in, or shows a certificate that we do not trust.
    #[error("it refuses our user, password or rights, or a certificate is refused; see the log")]
    NotAllowed,
    /// It answered something that it should not.
    #[error("it answered something unexpected; see the log")]
    Unexpected,
}
