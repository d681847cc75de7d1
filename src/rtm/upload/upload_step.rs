//! Single steps of an upload in chunks, whose client has the file and its token.

use bytes::Bytes;

use super::FileUpload;
use crate::rtm::error::ConnectError;

/// A step of an upload in chunks.
#[derive(Debug, Clone, Copy)]
pub enum UploadStep<'a> {
    /// Get the token of a new file.
    Token,
    /// Send a chunk.
    Chunk {
        /// The token of the file.
        token: &'a str,
        /// The number of the chunk, from 0.
        number: usize,
        /// Its bytes.
        bytes: &'a Bytes,
    },
    /// Put the chunks together.
    Complete {
        /// The token of the file.
        token: &'a str,
        /// The number of chunks.
        count: usize,
    },
}

impl FileUpload<'_> {
    /// Makes one step of an upload in chunks. Returns the token after the first
    /// step, and the id of the file after the last one.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn step(mut self, step: UploadStep<'_>) -> Result<Box<str>, ConnectError> {
        match step {
            UploadStep::Token => self.file_token().await,
            UploadStep::Chunk { token, number, bytes } => {
                self.send_chunk(token, number, bytes).await?;
                self.metrics.file_uploaded(bytes.len() as u64);
                Ok(Box::default())
            }
            UploadStep::Complete { token, count } => self.put_together(token, count).await,
        }
    }
}
