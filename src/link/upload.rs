//! An upload of a file, with its log and its problem for the caller.

use bytes::Bytes;
use futures_util::Stream;
use tracing::info;

use crate::domain::{Problem, ProblemKind, UploadedFile};
use crate::rtm::{ConnectError, FileUpload, RetryAdvice, UploadError, UploadStep};

/// Reason why a file was not uploaded. `E` is the failure of its source.
#[derive(Debug)]
pub enum UploadFailure<E> {
    /// The file did not arrive.
    Body(E),
    /// The platform did not take the file.
    Platform(Problem),
}

/// Uploads a file, whose bytes come in pieces.
///
/// # Errors
/// [`UploadFailure`].
pub async fn upload<E>(
    upload: FileUpload<'_>,
    pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<UploadedFile, UploadFailure<E>> {
    let bot = upload.bot;
    upload.run(pieces).await.map_err(|error| match error {
        UploadError::Source(error) => UploadFailure::Body(error),
        UploadError::Call(error) => {
            info!(bot = %bot.name, %error, "a file could not be uploaded");
            UploadFailure::Platform(problem(&error))
        }
    })
}

/// Reason why a step of an upload failed.
#[derive(Debug)]
pub enum StepFailure {
    /// The platform lacks chunks of these numbers.
    ChunksLost(Vec<usize>),
    /// The platform did not take it.
    Platform(Problem),
}

/// Makes one step of an upload in chunks.
///
/// # Errors
/// [`StepFailure`].
pub async fn upload_step(upload: FileUpload<'_>, step: UploadStep<'_>) -> Result<Box<str>, StepFailure> {
    let bot = upload.bot;
    upload.step(step).await.map_err(|error| match error {
        ConnectError::ChunksLost { numbers } => StepFailure::ChunksLost(numbers),
        error => {
            info!(bot = %bot.name, %error, "a step of an upload failed");
            StepFailure::Platform(problem(&error))
        }
    })
}

/// Returns the problem of a file that the platform did not take.
fn problem(error: &ConnectError) -> Problem {
    let kind = match error {
        ConnectError::TooLarge { .. } => ProblemKind::PayloadTooLarge,
        ConnectError::ChunksLost { .. } => ProblemKind::PlatformUnavailable,
        // A new token was refused too.
        ConnectError::TokenExpired { .. } => ProblemKind::PlatformRejected,
        error if error.retry() == RetryAdvice::Never => ProblemKind::PlatformRejected,
        _ => ProblemKind::PlatformUnavailable,
    };
    let problem = Problem::new(kind, format!("The file was not uploaded: {}.", error.public_message()));
    match error.retry() {
        RetryAdvice::Backoff(Some(wait)) => problem.retry_after(wait),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rtm::{CallError, ConnectPhase};

    #[test]
    fn failed_call_becomes_its_problem() {
        use ProblemKind as K;
        let (phase, text) = (ConnectPhase::File, || Box::from("why"));
        let wait = Some(Duration::from_secs(7));
        for (error, kind, retry_after) in [
            (ConnectError::Rejected { phase, public_message: text() }, K::PlatformRejected, None),
            (ConnectError::TokenExpired { phase, public_message: text() }, K::PlatformRejected, None),
            (ConnectError::TooLarge { phase, public_message: text() }, K::PayloadTooLarge, None),
            (ConnectError::Unavailable { phase, public_message: text() }, K::PlatformUnavailable, None),
            (
                ConnectError::RateLimited { phase, public_message: text(), retry_after: wait },
                K::PlatformUnavailable,
                wait,
            ),
            (ConnectError::Unreachable { phase, error: CallError::Timeout }, K::PlatformUnavailable, None),
            (ConnectError::ChunksLost { numbers: vec![1] }, K::PlatformUnavailable, None),
        ] {
            let problem = problem(&error);
            assert_eq!((problem.kind, problem.retry_after), (kind, retry_after), "{error}");
            assert!(problem.detail.contains(error.public_message()), "{problem}");
        }
    }
}
